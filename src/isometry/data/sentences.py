"""Sentence boundaries by rule, for any language that ends sentences with . ! ? … or their CJK forms."""

from __future__ import annotations

import re

_SHORT = """mr mrs ms dr prof sr jr st mt vs etc cf al eq eqs fig figs no nos nr vol vols pp ed eds sec secs ch chap
    ref refs approx dept est inc ltd co corp gen col capt lt sgt rev hon gov sen rep jan feb mar apr jun jul aug sep
    sept oct nov dec e.g i.e u.s u.k u.n a.m p.m ph.d z.b d.h u.a bzw usw ca art abs ggf p.ej sra"""
_ABBREVIATIONS = frozenset(_SHORT.split())
# Possessive repetition and the look-behind keep a run of full stops linear: it is entered once, at its start.
_BOUNDARY = re.compile(
    r"""
    (?P<stop> (?<![.!?…]) [.!?…]++ ["'”’»)\]]*+ ) (?=\s)       # . ! ? … with closing quotes, before white space
    | (?P<cjk> [。！？｡]++ ["'”’」』）】]*+ )                       # CJK needs no white space after it
    | (?P<break> \n [^\S\n]*+ \n                               # a new paragraph
               | \n (?= [^\S\n]*+ (?: [-*•·] | \d{1,3}[.)] | \#{1,6} ) [^\S\n] ) )   # a list item or heading
    """,
    re.VERBOSE,
)
_LAST_WORD = re.compile(r"[\w.]*\Z")


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Return the character spans of the sentences of a text, without the white space around them.

    Every character that is not white space lies in exactly one span. A full stop ends a sentence unless it belongs to
    an abbreviation or initial, or a small letter follows it.

    >>> text = "Dr. A. Smith paid 3.50 in cash. Then he left! 好的。再见。"
    >>> [text[start:end] for start, end in split_sentences(text)]
    ['Dr. A. Smith paid 3.50 in cash.', 'Then he left!', '好的。', '再见。']
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _BOUNDARY.finditer(text):
        if match["stop"] and not _ends(text, match.start(), match.end(), match["stop"]):
            continue
        start = _add(spans, text, start, match.end())
    _add(spans, text, start, len(text))
    return spans


def _add(spans: list[tuple[int, int]], text: str, start: int, end: int) -> int:
    """Append the span of ``text[start:end]`` without its white space, if anything is left; return ``end``."""
    piece = text[start:end]
    if stripped := piece.strip():
        start += len(piece) - len(piece.lstrip())
        spans.append((start, start + len(stripped)))
    return end


def _ends(text: str, dot: int, after: int, stop: str) -> bool:
    """Whether the full stop at ``dot`` ends a sentence; ! and ? always do."""
    if not stop.startswith(".") or "!" in stop or "?" in stop:
        return True
    follower = text[after : after + 64].lstrip()[:1]
    match = _LAST_WORD.search(text[max(0, dot - 24) : dot])
    word = match[0] if match else ""
    if not word:  # tokenised text puts a space before the full stop, whatever the case of what follows
        return True
    if follower.islower():
        return False
    return not (word.lower() in _ABBREVIATIONS or (len(word) == 1 and word.isupper()))
