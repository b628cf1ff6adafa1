"""Units: what merges join. A base id, or a character that the base spells in byte tokens."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lightning_vocab.vocabulary.characters import NUM_CODE_POINTS

Units = npt.NDArray[np.uint32]
Flags = npt.NDArray[np.bool_]

CHARACTER = np.uint32(0x8000_0000)
"""Set in a unit that is a character; its code point stands in the lower bits."""

CODE = np.uint32(0x7FFF_FFFF)
"""The bits of a character's code point."""

END = np.uint32(0xFFFF_FFFF)
"""Stands behind every word of an array of words."""

FIRST_PRIVATE = 0x10000
"""Code point that stands for unit 0 in the trainer's strings: planes 1 to 16."""

MAX_UNITS = NUM_CODE_POINTS - FIRST_PRIVATE
"""Number of units that these planes hold: 1,048,576."""

SEPARATOR = "\n"
"""Stands between words in the trainer's strings."""
