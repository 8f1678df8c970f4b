"""Files and folders to units of text, one reader a family of formats.

units      Unit, Skipped, Reading, Limits
reading    the main door `read`, and which reader serves which extension
walk       folders: what is left out, and why
content    bytes to text: size limits, gzip, binary files, encodings
plain, html, pdf, docx, tables, beir    the formats
records    tables as rows, for the readers here and for the data sets
"""

from __future__ import annotations

from isometry.data.readers.reading import read
from isometry.data.readers.units import Limits, Reading, Skipped, Unit

__all__ = ["Limits", "Reading", "Skipped", "Unit", "read"]
