"""The script of a token: which writing system most of its letters belong to."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import regex

COMMON = "Common"
OTHER = "Other"
# Scripts of living languages (Unicode Standard Annex 31, tables 5 and 7), the frequent ones first.
SCRIPTS = (
    *("Latin", "Cyrillic", "Han", "Arabic", "Devanagari", "Hiragana", "Katakana", "Hangul"),
    *("Greek", "Hebrew", "Thai", "Bengali", "Tamil", "Telugu", "Kannada", "Malayalam", "Gujarati"),
    *("Gurmukhi", "Oriya", "Sinhala", "Lao", "Myanmar", "Khmer", "Tibetan", "Georgian"),
    *("Armenian", "Ethiopic", "Mongolian", "Thaana", "Bopomofo", "Adlam", "Balinese", "Bamum"),
    *("Batak", "Canadian_Aboriginal", "Chakma", "Cham", "Cherokee", "Javanese", "Kayah_Li"),
    *("Lepcha", "Limbu", "Lisu", "Mandaic", "Meetei_Mayek", "Miao", "New_Tai_Lue", "Newa", "Nko"),
    *("Nyiakeng_Puachue_Hmong", "Ol_Chiki", "Osage", "Hanifi_Rohingya", "Saurashtra"),
    *("Sundanese", "Syloti_Nagri", "Syriac", "Tai_Le", "Tai_Tham", "Tai_Viet", "Tifinagh"),
    *("Vai", "Wancho", "Yi"),
)
_LETTER = regex.compile(r"[\p{L}\p{M}--[\p{Script=Common}\p{Script=Inherited}]]", regex.V1)
_SCRIPT = regex.compile("|".join(rf"(?P<{name}>\p{{Script={name}}})" for name in SCRIPTS))


def script_of(text: str) -> str:
    """Unicode name of the script that most letters of ``text`` belong to.

    Letters and combining marks count; digits, signs, spaces, U+FFFD and marks that every script
    shares (accents) do not. A text without letters is ``Common``; a script that is not in `SCRIPTS`
    is ``Other``; of two equally frequent scripts the one that comes first in the text is taken.

    Args:
        text: The decoded text of a token.

    Example:
        >>> script_of(" the"), script_of("ไทย!"), script_of("42")
        ('Latin', 'Thai', 'Common')
    """
    counts = Counter(_script_of_letter(letter) for letter in _LETTER.findall(text))
    return counts.most_common(1)[0][0] if counts else COMMON


@lru_cache(maxsize=65536)
def _script_of_letter(letter: str) -> str:
    match = _SCRIPT.match(letter)
    return OTHER if match is None else str(match.lastgroup)
