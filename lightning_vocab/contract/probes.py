"""Text that every check of a tokenizer is tried on."""

from __future__ import annotations

OLD_TEXT: tuple[str, ...] = (
    "The quick brown fox jumps over the lazy dog, and then it sleeps until 10:45.",
    "In 1984 the price rose from $1,299.50 to $2,048: more than 57% in a single year.",
    "def add(left, right):\n    if left:\n        return left + right\n    return None\n",
    'for (int i = 0; i < n; ++i) {\n\tsum += a[i] * b[i];  // dot\n}\n{"key": [1, 2, null]}',
    "    four blanks,  two blanks\n\n\nthree lines\tand a tab ",
    "Größe, façade, señor, naïveté, Łódź, þetta, İstanbul",
    "Быстрая коричневая лиса прыгает через ленивую собаку.",
    "Η γρήγορη καφέ αλεπού πηδάει πάνω από το σκυλί.",
    "السلام عليكم ورحمة الله",
    "שלום עולם, מה שלומך היום",
    "नमस्ते दुनिया, आप कैसे हैं",
    "সবাই কেমন আছেন আজকে",
    "สวัสดีชาวโลก วันนี้อากาศดีมาก",
    "Xin chào thế giới, hôm nay trời đẹp quá.",
    "你好,世界。今天天气很好。",
    "こんにちは世界。今日はいい天気ですね。",
    "안녕하세요 세계, 오늘 날씨가 좋네요.",
    "გამარჯობა მსოფლიო, բարեւ աշխարհ, ሰላም ልዑል",
    "https://example.org/path?query=1&other=two#part name@example.org",
    "SELECT name, count(*) FROM items WHERE id >= 10 GROUP BY name;",
    "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ ACGTTGCAAGGT",
    "😀 🚀 👍",
)
"""Old text, for counting tokens: normalized (NFKC), so that it does not tell normalizers apart."""

NASTY_TEXT: dict[str, str] = {
    "a leading blank": " blank in front",
    "a trailing blank": "blank behind ",
    "runs of blanks": "a  b   c    d",
    "newlines": "a\nb\n\nc\r\nd\n",
    "tabs": "\ta\t\tb\t",
    "indentation": "if x:\n    y\n        z\n\tw\n",
    "capitals": "The QUICK brown Fox",
    "accents": "Größe façade señor ế",
    "scripts": "Ж ώ ש ع न ส 世 가 ქ",
    "emoji": "😀👍🏽👩‍👩‍👧🇩🇪",
    "combining marks": "e\u0301 a\u0308 \u0e01\u0e33 \u0915\u094d\u0937",
    "compatibility characters": "ﬁ ² ½ Å ａ ㎏ …",
    "unusual blanks": "a\u00a0b\u2003c\u200bd\u3000e",
    "punctuation": "a . b , c ! d ? don't I 'm we 've (n't)",
    "rare characters": "\u0007 𝔘 𓀀 \ufffd",
}
"""Text that must come back from encoding and decoding, by what is hard about it."""
