"""Word files (DOCX): one unit a file, one line a paragraph or table row."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

from isometry.data.readers.content import read_bytes
from isometry.data.readers.units import Source, Unit
from isometry.errors import EmptyInput, InputError, MissingExtra

EXTENSIONS = (".docx",)
# What the zip and XML layers raise on damage; RuntimeError for an unsupported or encrypted zip member.
_BROKEN = (LookupError, ValueError, SyntaxError, TypeError, AttributeError, RuntimeError, zlib.error)
_OLE = b"\xd0\xcf\x11\xe0"  # the older container, which also wraps password-protected DOCX files


def read_docx(source: Source) -> Iterator[Unit]:
    """Read paragraphs and tables in their order.

    Raises
    ------
    InputError
        If the file is no DOCX, is encrypted, or unpacks to more than the limit.
    """
    try:
        import docx
        from docx.opc.exceptions import OpcError
    except ImportError as error:
        raise MissingExtra("python-docx", "files", "read DOCX files") from error
    data = read_bytes(source.path, source.limits)
    if data.startswith(_OLE):
        raise InputError(f"{source.path} is encrypted or in the older .doc format; save it as a plain .docx first.")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            source.limits.check_unpacked(source.path, sum(member.file_size for member in archive.infolist()))
        document = docx.Document(io.BytesIO(data))
    except InputError:
        raise
    except (zipfile.BadZipFile, OpcError, *_BROKEN) as error:
        raise InputError(f"{source.path} is not a readable DOCX file ({type(error).__name__}).") from error
    text = "\n".join(line for line in _lines(document) if line)
    if not text:
        raise EmptyInput(f"{source.path} holds no text.")
    title = (document.core_properties.title or "").strip()
    yield Unit(path=source.rel, text=text, title=title, id=source.rel)


def _lines(document: Any) -> Iterator[str]:
    from docx.table import Table

    for block in document.iter_inner_content():
        if isinstance(block, Table):
            for row in block.rows:
                # A merged cell comes once for every column it spans: its element tells it from an equal neighbour.
                cells = {cell._tc: " ".join(cell.text.split()) for cell in row.cells}
                yield " | ".join(filter(None, cells.values()))
        else:
            yield block.text.strip()
