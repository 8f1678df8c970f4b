"""File to bytes to text: size limits, gzip, binary files, encodings."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from isometry.data.readers.units import Limits
from isometry.errors import DataFormatError, EmptyInput, InputError

_BLOCK = 1 << 20
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"))
_BOMS_16 = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
# Bytes no text of any encoding here uses; tab, line ends, form feed, backspace and escape (ANSI colours) may occur.
_CONTROL = bytes(b for b in range(32) if b not in b"\t\n\r\f\b\x1b") + b"\x7f"
_MAX_CONTROL_SHARE = 0.05
# The encodings in wide use before UTF-8; a detector that may also pick the rare ones picks them for short texts.
_LEGACY = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r"]
_LEGACY += ["shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"]
_CHARSET = re.compile("iso|windows|cp|latin|koi|mac|x-mac|tis|shift|euc|gb|big5|utf-(?:8|16|32)", re.IGNORECASE)
_DETECT_BYTES = 1 << 18
_NON_ASCII = re.compile("[^\x00-\x7f\ufffd]")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what the system and the decompressors raise into one clear `InputError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}.") from error
    except PermissionError as error:
        raise InputError(f"{path} cannot be read: permission denied.") from error
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataFormatError(path, None, f"this is not a whole gzip file ({error}).") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error


@contextmanager
def opened(path: Path, limits: Limits) -> Iterator[BinaryIO]:
    """Open a regular file of allowed size, through gzip when its name ends in ``.gz``."""
    with readable(path):
        status = path.stat()
        if not S_ISREG(status.st_mode):
            raise InputError(f"{path} is not a regular file.")
        if not status.st_size:
            raise EmptyInput(f"{path} is empty.")
        limits.check(path, status.st_size)
        with path.open("rb") as raw:
            if path.suffix.lower() == ".gz":
                with gzip.open(raw) as unpacked:
                    yield unpacked  # type: ignore[misc]  # GzipFile reads like a BinaryIO
            else:
                yield raw


def read_bytes(path: Path, limits: Limits) -> bytes:
    """Return the content, unpacked block by block so that a bomb is noticed before it has grown."""
    with opened(path, limits) as stream:
        blocks, size = [], 0
        while block := stream.read(_BLOCK):
            size += len(block)
            limits.check_unpacked(path, size)
            blocks.append(block)
    return b"".join(blocks)


def read_lines(path: Path, limits: Limits) -> Iterator[bytes]:
    """Yield the lines, one at a time."""
    size = 0
    with opened(path, limits) as stream:
        while line := stream.readline(limits.max_unpacked_bytes + 1):
            size += len(line)
            limits.check_unpacked(path, size)
            yield line


def is_binary(data: bytes) -> bool:
    r"""Whether bytes are no text: NUL bytes, or more than 5% control characters.

    >>> is_binary(b"plain"), is_binary(b"a\0b"), is_binary("caf\u00e9".encode("utf-16"))
    (False, True, False)
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        return False
    sample = data[: 1 << 16]
    return b"\0" in data or len(sample) - len(sample.translate(None, _CONTROL)) > _MAX_CONTROL_SHARE * len(sample)


def read_text(path: Path, limits: Limits, *, declared: re.Pattern[bytes] | None = None) -> tuple[str, str]:
    r"""Return a file's text with ``\n`` line ends, and a note when it is not clean UTF-8 (else empty).

    Parameters
    ----------
    path, limits
        The file.
    declared
        Pattern whose first group is the encoding a file declares in its first bytes, as HTML does.

    Raises
    ------
    InputError
        If the file is binary; `EmptyInput` if it holds no text.
    """
    data = read_bytes(path, limits)
    if is_binary(data):
        raise InputError(f"{path} is binary, not text; remove it or convert it to text first.")
    match = declared.search(data[:4096]) if declared else None
    text, note = decode(data, match[1].decode("ascii") if match else None)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise EmptyInput(f"{path} holds no text.")
    return text, note


def decode(data: bytes, declared: str | None = None) -> tuple[str, str]:
    r"""Decode bytes as UTF-8, by byte order mark, as declared, or by detection; the note names what was done.

    >>> decode("na\u00efve caf\u00e9".encode("cp1252"))[1]
    'read as cp1252'
    """
    for mark, encoding in (*_BOMS, *_BOMS_16):
        if data.startswith(mark):
            try:
                return data.decode(encoding), ""
            except UnicodeDecodeError:
                return data.decode(encoding, "replace"), f"broken {encoding}, unreadable characters replaced"
    try:
        return data.decode("utf-8"), ""
    except UnicodeDecodeError:
        pass
    if declared and _CHARSET.match(declared):
        try:
            return data.decode(declared), f"read as {declared.lower()}"
        except (UnicodeError, LookupError):
            pass
    repaired = data.decode("utf-8", "replace")
    broken = repaired.count("\ufffd")
    if len(_NON_ASCII.findall(repaired)) > broken:  # more characters came out whole than broken: it is UTF-8
        return repaired, f"broken UTF-8, {broken} unreadable characters replaced"
    encoding = _detect(data)
    try:
        return data.decode(encoding), f"read as {encoding}"
    except UnicodeDecodeError:
        return data.decode(encoding, "replace"), f"read as {encoding}, unreadable characters replaced"


def _detect(data: bytes) -> str:
    """Name the encoding charset-normalizer finds likeliest, the Western one where it cannot tell."""
    from charset_normalizer import from_bytes

    matches = list(from_bytes(data[:_DETECT_BYTES], cp_isolation=_LEGACY))
    if not matches:
        return "cp1252"
    best = matches[0]
    ties = {m.encoding for m in matches if (m.chaos, m.coherence) == (best.chaos, best.coherence)}
    same = data[:_DETECT_BYTES].decode("cp1252", "replace") == str(best)
    return "cp1252" if same or "cp1252" in ties else best.encoding
