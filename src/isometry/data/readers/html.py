"""HTML pages: the text a reader sees, one line a block."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

from isometry.data.readers.content import read_text
from isometry.data.readers.units import Source, Unit
from isometry.errors import EmptyInput

EXTENSIONS = (".html", ".htm", ".xhtml")
_CHARSET = re.compile(rb"<meta[^>]+charset=[\"']?([A-Za-z0-9_.:-]+)", re.IGNORECASE)
_DROPPED = ("script", "style", "nav", "noscript", "template", "svg", "iframe", "object", "select", "textarea")
_BLOCK_NAMES = """address article aside blockquote br caption dd details div dl dt fieldset figcaption figure footer
    form h1 h2 h3 h4 h5 h6 header hr li main ol p pre section summary table tbody td tfoot th thead tr ul"""
_BLOCKS = frozenset(_BLOCK_NAMES.split())


def read_html(source: Source) -> Iterator[Unit]:
    """Read a page without its scripts, styles and navigation; its title is the ``<title>`` or the first ``<h1>``."""
    markup, note = read_text(source.path, source.limits, declared=_CHARSET)
    if note:
        source.warn(note)
    title, text = html_text(markup)
    if not text:
        raise EmptyInput(f"{source.path} holds no visible text.")
    yield Unit(path=source.rel, text=text, title=title, id=source.rel)


def html_text(markup: str) -> tuple[str, str]:
    r"""Return the title and the visible text of a page; uses selectolax where it is installed.

    >>> html_text("<title>T</title><p>One <b>bold</b> word.<script>x()</script><p>Two.")
    ('T', 'One bold word.\nTwo.')
    """
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError:
        return _with_stdlib(markup)
    tree = LexborHTMLParser(markup)
    head = tree.css_first("title") or tree.css_first("h1")
    title = _squeeze(head.text()) if head is not None else ""
    for node in tree.css(",".join(_DROPPED)):
        node.decompose()
    for node in tree.css(",".join(_BLOCKS)):
        node.insert_before("\n")
        node.insert_after("\n")
    body = tree.body
    return title.replace("\n", " "), _squeeze(body.text(separator="") if body is not None else "")


def _with_stdlib(markup: str) -> tuple[str, str]:
    parser = _Text()
    parser.feed(markup)
    parser.close()
    title = _squeeze("".join(parser.title)) or _squeeze("".join(parser.heading))
    return title.replace("\n", " "), _squeeze("".join(parser.parts))


class _Text(HTMLParser):
    """Collects text outside dropped elements, with a line end around blocks."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.title: list[str] = []
        self.heading: list[str] = []
        self.dropped = 0
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _DROPPED:
            self.dropped += 1
        elif tag in _BLOCKS:
            self.parts.append("\n")
        if tag == "title" or (tag == "h1" and not self.heading):
            self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        if tag in _DROPPED:
            self.dropped = max(0, self.dropped - 1)
        elif tag in _BLOCKS:
            self.parts.append("\n")
        if tag == self.inside:
            self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.dropped:
            return
        if self.inside == "title":
            self.title.append(data)
            return
        if self.inside == "h1":
            self.heading.append(data)
        self.parts.append(data)


def _squeeze(text: str) -> str:
    """Collapse white space inside lines and drop empty lines."""
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)
