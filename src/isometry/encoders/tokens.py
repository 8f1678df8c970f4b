"""Text to token ids, many texts per call, counting what does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isometry.types import IntArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Span = tuple[int, int]
_CALL = 1024  # texts per call: enough for the tokeniser's own threads, few enough to keep its objects small


class Tokens:
    """A fast Hugging Face tokenizer without its own cutting and padding.

    Parameters
    ----------
    tokenizer
        A ``tokenizers.Tokenizer``; a copy is used.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = type(tokenizer).from_str(tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        probe = self._tokenizer.encode("a")
        special = np.array(probe.special_tokens_mask, dtype=bool)
        inner = np.flatnonzero(~special)
        first, last = (int(inner[0]), int(inner[-1]) + 1) if len(inner) else (len(special), len(special))
        ids = np.array(probe.ids, dtype=np.int32)
        self.prefix, self.suffix = ids[:first], ids[last:]

    @property
    def specials(self) -> int:
        """How many special tokens stand around a text."""
        return len(self.prefix) + len(self.suffix)

    def _bare(self, texts: Sequence[str]) -> Iterator[list[int]]:
        for start in range(0, len(texts), _CALL):
            call = list(texts[start : start + _CALL])
            for encoding in self._tokenizer.encode_batch_fast(call, add_special_tokens=False):
                yield encoding.ids

    def count(self, texts: Sequence[str]) -> IntArray:
        """Tokens of each text without special ones, int64 ``[n]``."""
        return np.fromiter((len(ids) for ids in self._bare(texts)), dtype=np.int64, count=len(texts))

    def ids(self, texts: Sequence[str], limit: int) -> list[NDArray[np.int32]]:
        """Token ids of each text with special tokens, at most ``limit``; the end of a longer text is left out."""
        room = limit - self.specials
        parts = (np.array(ids[:room], dtype=np.int32) for ids in self._bare(texts))
        return [np.concatenate([self.prefix, part, self.suffix]) for part in parts]

    def spans(self, text: str) -> list[Span]:
        """Characters ``(start, end)`` of each token, without special ones."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).offsets)
