"""Plain text, Markdown and source code: the whole file is one unit."""

from __future__ import annotations

import re
from collections.abc import Iterator

from isometry.data.readers.content import read_text
from isometry.data.readers.units import Source, Unit

_NAMES = """
    .txt .text .md .markdown .rst .adoc .org .tex .bib .log .py .pyi .ipynb .js .mjs .jsx .ts .tsx .css .c .h
    .cc .cpp .hpp .cs .java .kt .scala .go .rs .swift .rb .php .pl .lua .r .jl .sh .bash .zsh .ps1 .sql .toml .yaml .yml
    .json .ini .cfg .conf .xml .proto .tf .cmake .dart .hs .ml .ex .erl .clj .vue .srt .vtt
"""
EXTENSIONS = tuple(_NAMES.split())
_HEADING = re.compile(r"\A\s*#[ \t]+(\S.*?)[ \t#]*$", re.MULTILINE)


def read_plain(source: Source) -> Iterator[Unit]:
    """Read a text file; a Markdown file that opens with a heading has it as its title."""
    text, note = read_text(source.path, source.limits)
    if note:
        source.warn(note)
    names = [s.lower() for s in source.path.suffixes]
    heading = _HEADING.match(text) if {".md", ".markdown"} & set(names) else None
    yield Unit(path=source.rel, text=text, title=heading[1] if heading else "", id=source.rel)
