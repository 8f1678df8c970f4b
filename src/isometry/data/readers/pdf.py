"""PDF files: one unit a page, with its number."""

from __future__ import annotations

import io
import logging
import zlib
from collections.abc import Iterator
from typing import Any

from isometry.data.readers.content import read_bytes
from isometry.data.readers.units import Source, Unit
from isometry.errors import InputError, MissingExtra

EXTENSIONS = (".pdf",)
# pypdf follows whatever a broken file points to, so that besides its own errors many built-in ones come out of it.
_BROKEN = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, RecursionError)


def read_pdf(source: Source) -> Iterator[Unit]:
    """Read the pages that hold text.

    Raises
    ------
    InputError
        If the file is no PDF, is encrypted, or holds no extractable text.
    """
    reader = _open(source)
    title = _title(reader)
    empty = found = 0
    for number in range(1, len(reader.pages) + 1):
        text = _page_text(source, reader, number)
        if not text:
            empty += 1
            continue
        found += 1
        name = f"{source.rel}#page={number}"
        yield Unit(path=source.rel, text=text, title=title, locator="page", page=number, id=name)
    if not found:
        raise InputError(f"{source.path} holds no extractable text; if it is a scan, run text recognition (OCR) first.")
    if empty:
        source.warn(f"{empty} of {empty + found} pages hold no extractable text and were left out")


def _open(source: Source) -> Any:
    try:
        import pypdf
        from pypdf.errors import DependencyError, PyPdfError
    except ImportError as error:
        raise MissingExtra("pypdf", "files", "read PDF files") from error
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it logs every oddity of a file it can read all the same
    data = read_bytes(source.path, source.limits)
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise InputError(f"{source.path} is encrypted; remove its password first.")
        len(reader.pages)
    except DependencyError as error:
        problem = f"{source.path} is encrypted in a way that needs the package cryptography; remove its password first."
        raise InputError(problem) from error
    except InputError:
        raise
    except (PyPdfError, zlib.error, *_BROKEN) as error:
        raise InputError(f"{source.path} is not a readable PDF ({_brief(error)}).") from error
    return reader


def _page_text(source: Source, reader: Any, number: int) -> str:
    from pypdf.errors import PyPdfError

    try:
        text = reader.pages[number - 1].extract_text()
    except (PyPdfError, zlib.error, *_BROKEN) as error:
        source.warn(f"page {number} cannot be read ({_brief(error)})")
        return ""
    return str(text).replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").strip()


def _title(reader: Any) -> str:
    from pypdf.errors import PyPdfError

    try:
        return str((reader.metadata or {}).get("/Title") or "").strip()
    except (PyPdfError, *_BROKEN):
        return ""


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else 'no detail'}"
