"""A note in an expansion folder of the text that the vocabulary was learnt from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.utilities import rank_zero_warn

from lightning_vocab.data.sources import TextSource, identify
from lightning_vocab.vocabulary.whole_files import write_whole

NOTE_NAME = "grown_on.json"
"""Name of the note inside an expansion folder. A folder without it fits every text."""

# What changes when text is moved, touched or read by another Python, though it says the same.
_CIRCUMSTANCES = ("path", "versions", "changed_ns")

Identity = dict[str, Any]


def note_text(folder: str, sources: Sequence[TextSource]) -> None:
    """Write into an expansion folder which text it was grown on, unless the note stands there.

    Args:
        folder: The expansion folder.
        sources: The text.
    """
    note = json.dumps([identify(source) for source in sources], indent=2, ensure_ascii=False)

    def write(place: Path) -> None:
        place.write_text(note, encoding="utf-8")

    write_whole(_place(folder), write)


def other_text(folder: str, sources: Sequence[TextSource]) -> str | None:
    """What text an expansion folder was grown on other than ``sources``, or None.

    Text counts as the same by the names and sizes of its files, the name of a demo text or a data
    set, and the options of the source. Where only the folder, the time of change or a version
    differs, or the files are not here to be compared, there is a warning instead.

    Args:
        folder: The expansion folder; without a note it fits every text.
        sources: The text to grow on; without any, nothing is compared.

    Raises:
        ValueError: If the note is damaged.
    """
    if not sources or not _place(folder).is_file():
        return None
    noted = _read(_place(folder))
    try:
        given = [identify(source) for source in sources]
    except FileNotFoundError as error:
        rank_zero_warn(
            f"The text that {folder!r} was grown on cannot be compared, and its vocabulary is used "
            f"as it is: {error}"
        )
        return None
    before, now = (sorted(map(_essence, each)) for each in (noted, given))
    if before != now:
        gone = [each for each in before if each not in now]
        come = [each for each in now if each not in before]
        return f"it was grown on {_brief(gone or before)}, the text is {_brief(come or now)}"
    if noted != given:
        rank_zero_warn(
            f"The text that {folder!r} was grown on was moved or touched since; names and sizes "
            "are the same, so its vocabulary is used as it is. Remove the folder if the text says "
            "something else now."
        )
    return None


def _place(folder: str) -> Path:
    return Path(folder).expanduser() / NOTE_NAME


def _read(place: Path) -> list[Identity]:
    try:
        noted = json.loads(place.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{place} is damaged: {error}. Remove it.") from error
    if not isinstance(noted, list) or not all(isinstance(each, dict) for each in noted):
        raise ValueError(f"{place} is damaged: expected a list of sources. Remove it.")
    return noted


def _essence(identity: Identity) -> str:
    """The parts of an identity that tell one text from another, as JSON that can be sorted."""
    kept = {key: value for key, value in identity.items() if key not in _CIRCUMSTANCES}
    if "files" in identity:
        kept["files"] = [[Path(file["path"]).name, file["num_bytes"]] for file in identity["files"]]
    else:
        kept["path"] = identity.get("path")
    return json.dumps({key: value for key, value in kept.items() if value is not None})


def _brief(essences: list[str]) -> str:
    return f"{', '.join(essences):.300}"
