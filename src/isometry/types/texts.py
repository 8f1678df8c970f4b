"""When two texts are the same text."""

from __future__ import annotations

import re
import unicodedata

_PARTS = re.compile(r"\w+|[+*/=<>^~|#%&@$€£]")  # signs that tell C from C# and 5 + 5 from 5 * 5 are parts, too


def normal_text(text: str) -> str:
    """Return what texts share that differ only in case, white space, punctuation or the form of a character.

    >>> normal_text("  What's NEW?") == normal_text("what s new")
    True
    >>> normal_text("Sorting in C") == normal_text("Sorting in C++")
    False
    """
    found = _PARTS.findall(unicodedata.normalize("NFKC", text).casefold())
    return " ".join(found) if found else text.strip()
