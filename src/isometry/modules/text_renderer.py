"""Text as thin grey pictures, cut into patches: the input of encoders without a tokenizer (PIXEL, arXiv:2207.06991)."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isometry.errors import InputError, MissingExtra
from isometry.types import IntArray

WHITE, BLACK = 255, 0
_UNASSIGNED = "\U0010fffd"  # private: no font of text draws it


class Rendered(NamedTuple):
    """Pictures of texts.

    Parameters
    ----------
    images
        uint8 ``[n, height, width]``, black on white.
    patches
        int64 ``[n]``: patches in use, the black one that ends the text included.
    cut
        int64 ``[n]``: pixels of text that did not fit.
    """

    images: NDArray[np.uint8]
    patches: IntArray
    cut: IntArray


def monospace_font() -> Path:
    """Return the font file that matplotlib brings along, DejaVu Sans Mono.

    Raises
    ------
    MissingExtra
        If matplotlib is not installed.
    """
    found = find_spec("matplotlib")
    if found is None or found.origin is None:
        raise MissingExtra("matplotlib", "explore", "draw text with its monospaced font; or name a font file")
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSansMono.ttf"


@dataclass(frozen=True)
class TextRenderer:
    """Draw texts left to right on one line, deterministically for a font file.

    Supported are scripts whose letters stand side by side and need no shaping: Latin, Greek, Cyrillic, Armenian,
    Chinese, Japanese, Korean and the like, as far as the font has their glyphs. Texts are first composed (NFC), and
    white space becomes single blanks.

    Parameters
    ----------
    font
        A TrueType or OpenType file; None: `monospace_font`. In a monospaced font one changed letter changes only the
        patches it overlaps; in a proportional one everything after it moves.
    size
        Font size in pixels; 11 makes letters of the default font 7 pixels wide.
    height, patch_width
        Of a patch in pixels; a patch is as high as the picture.
    patches
        Most patches of a picture, S.
    words
        Whether each word begins in a patch of its own, after at least a blank: after a lost letter later words then
        have the same patches, if one place further left. Otherwise words follow each other as in print, and all later
        patches change.
    remember
        How many pictures to keep, the first drawn, as uint8: drawing takes longer than a small model's look at it.

    Examples
    --------
    >>> images, patches, cut = TextRenderer(patches=8).render(["pixels"])
    >>> images.shape, patches.tolist(), cut.tolist()
    ((1, 16, 128), [4], [0])
    """

    font: Path | None = None
    size: int = 11
    height: int = 16
    patch_width: int = 16
    patches: int = 64
    words: bool = False
    remember: int = 0
    _lines: dict[str, tuple[NDArray[np.uint8], int]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _known: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if min(self.size, self.height, self.patch_width) < 1 or self.patches < 2:
            raise InputError(
                "A renderer needs size, height and patch_width >= 1 and patches >= 2; "
                f"got {self.size}, {self.height}, {self.patch_width}, {self.patches}."
            )

    @property
    def patch_pixels(self) -> int:
        """Numbers in one patch."""
        return self.height * self.patch_width

    @cached_property
    def font_name(self) -> str:
        """Family and style of the font, e.g. ``"DejaVu Sans Mono Book"``."""
        return " ".join(self._font.getname())

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the font file and the parameters: equal ones draw equal pictures."""
        digest = hashlib.sha256((self.font or monospace_font()).read_bytes())
        digest.update(repr((self.size, self.height, self.patch_width)).encode() + b"words" * self.words)
        return digest.hexdigest()[:16]

    @cached_property
    def _font(self) -> Any:
        try:
            from PIL import ImageFont
        except ImportError as error:
            raise MissingExtra("pillow", "explore", "draw text") from error
        path = self.font or monospace_font()
        try:
            return ImageFont.truetype(str(path), self.size, layout_engine=ImageFont.Layout.BASIC)
        except OSError as error:
            raise InputError(f"{path} cannot be read as a font ({error}); name a TrueType or OpenType file.") from error

    @cached_property
    def _missing(self) -> tuple[tuple[int, int], bytes]:
        return _picture(self._font, _UNASSIGNED)

    @cached_property
    def _baseline(self) -> int:
        ascent, descent = self._font.getmetrics()
        return int((self.height - ascent - descent) // 2 + ascent)

    def render(self, texts: Sequence[str]) -> Rendered:
        """Draw texts; what does not fit is left out and counted.

        Raises
        ------
        InputError
            If a text is in a script that needs shaping, or has characters the font does not draw; names them.
        """
        clean = [" ".join(unicodedata.normalize("NFC", text).split()) for text in texts]
        self.check(clean)
        images = np.full((len(clean), self.height, self.patches * self.patch_width), WHITE, np.uint8)
        used, cut = np.empty(len(clean), np.int64), np.zeros(len(clean), np.int64)
        for row, text in enumerate(clean):
            picture, cut[row] = self._line(text)
            images[row, :, : picture.shape[1]] = picture
            used[row] = picture.shape[1] // self.patch_width
        return Rendered(images, used, cut)

    def _line(self, text: str) -> tuple[NDArray[np.uint8], int]:
        """Return the picture of a text up to its black patch, and the pixels that do not fit."""
        if text in self._lines:
            return self._lines[text]
        from PIL import Image, ImageDraw

        room = (self.patches - 1) * self.patch_width
        places, width = self._places(text)
        ends = -(-min(width, room) // self.patch_width) * self.patch_width
        canvas = Image.new("L", (ends + 1, self.height), WHITE)
        for x, part in places:
            ImageDraw.Draw(canvas).text((x, self._baseline), part, fill=BLACK, font=self._font, anchor="ls")
        picture = np.full((self.height, ends + self.patch_width), BLACK, np.uint8)
        picture[:, :ends] = np.asarray(canvas)[:, :ends]
        found = picture, max(0, width - room)
        if len(self._lines) < self.remember:
            self._lines[text] = found
        return found

    def _places(self, text: str) -> tuple[list[tuple[int, str]], int]:
        """Return where each part of a text is drawn, and where the last one ends."""
        if not self.words:
            return [(0, text)], round(self._font.getlength(text))
        places, x, end, blank = list[tuple[int, str]](), 0, 0, self._font.getlength(" ")
        for word in text.split():
            places.append((x, word))
            end = x + round(self._font.getlength(word))
            x = -(-(end + round(blank)) // self.patch_width) * self.patch_width
        return places, end

    def to_patches(self, images: NDArray[np.uint8], most: int | None = None) -> NDArray[np.float32]:
        """Cut pictures into patches of ink in [0, 1], float32 ``[n, s, patch_pixels]``; only the first ``most``."""
        cut = images[:, :, : (most or self.patches) * self.patch_width]
        patches = cut.reshape(len(cut), self.height, -1, self.patch_width).transpose(0, 2, 1, 3)
        return np.asarray(1 - patches.reshape(len(cut), -1, self.patch_pixels) / np.float32(WHITE), np.float32)

    def check(self, texts: Sequence[str]) -> None:
        """Raise `InputError` if `render` would not draw a text truly; see there."""
        fresh = sorted(set().union(*texts) - self._known - {" "})
        if shaped := [c for c in fresh if needs_shaping(c)]:
            raise InputError(
                f"Characters {_named(shaped)} belong to a script that runs right to left or combines letters, which is "
                "not drawn here; leave these texts out or encode them with a tokenizer."
            )
        if missing := [c for c in fresh if _picture(self._font, c) == self._missing]:
            raise InputError(
                f"The font {self.font_name} has no glyph for {_named(missing)}: different texts would look the same; "
                "name a font file that covers them."
            )
        self._known.update(fresh)


def needs_shaping(character: str) -> bool:
    r"""Whether a character runs right to left or combines with its neighbours, so that it cannot be drawn alone.

    >>> [needs_shaping(c) for c in ("a", "\u05d0", "\u0301", "\u65e5")]
    [False, True, True, False]
    """
    return unicodedata.bidirectional(character) in ("R", "AL", "AN") or unicodedata.category(character)[0] == "M"


def _picture(font: Any, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)


def _named(characters: Sequence[str]) -> str:
    shown = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in characters[:8])
    return shown + (f" and {len(characters) - 8} more" if len(characters) > 8 else "")
