"""Texts as padded batches of tokens, with what counts as a token vector and what is only read."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isometry.encoders.engines import UNBOUNDED
from isometry.errors import InputError
from isometry.types import Role

if TYPE_CHECKING:
    from isometry.encoders.text import TextEncoder

_WORD_MARKS = "\u2581\u0120 "  # how tokenizers of the SentencePiece and byte-level kind write a leading space


@dataclass(frozen=True)
class TokenChoice:
    """Which tokens keep a vector.

    Parameters
    ----------
    drop_special
        Leave out what the tokenizer puts around a text ([CLS], [SEP]).
    drop_prompt
        Leave out the prompt's tokens; the text's own still attend to them.
    drop_punctuation
        Leave out punctuation, on the document side (ColBERT, section 3.3).
    query_expansion
        Fill queries with [MASK] up to this many tokens, special ones included, and keep their vectors (ColBERT,
        section 3.2); longer queries stay as they are. The query's own tokens do not attend to them. 0: do not.
    """

    drop_special: bool = True
    drop_prompt: bool = False
    drop_punctuation: bool = False
    query_expansion: int = 0

    def __str__(self) -> str:
        dropped = [name for name in ("special", "prompt", "punctuation") if getattr(self, f"drop_{name}")]
        expanded = [f"queries filled to {self.query_expansion}"] if self.query_expansion else []
        return ", ".join([f"without {'+'.join(dropped)}" if dropped else "all tokens", *expanded])


@dataclass(frozen=True)
class TokenRow:
    """One text: token ids int32 ``[t]``, which attend and which keep a vector (bool ``[t]``), tokens left out."""

    ids: NDArray[np.int32]
    attend: NDArray[np.bool_]
    keep: NDArray[np.bool_]
    cut: int = 0

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class TokenBatch:
    """Padded texts: ids int64, attention and kept tokens bool, all ``[b, t]``."""

    ids: Tensor
    attend: Tensor
    keep: Tensor

    @classmethod
    def of(cls, rows: Sequence[TokenRow], *, device: Any = None) -> TokenBatch:
        """Pad rows at their ends with token 0, which nothing attends to."""
        shape = len(rows), max(len(row) for row in rows)
        ids, attend, keep = np.zeros(shape, np.int64), np.zeros(shape, bool), np.zeros(shape, bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)], attend[i, : len(row)], keep[i, : len(row)] = row.ids, row.attend, row.keep
        return cls(*(torch.from_numpy(part).to(device) for part in (ids, attend, keep)))


class TokenReader:
    """Texts to `TokenRow` in one role: prompt, special tokens, window, masks.

    Parameters
    ----------
    encoder
        Whose tokenizer, window and prompts to use.
    choice
        Which tokens keep a vector.

    Raises
    ------
    InputError
        If the tokenizer is not of the fast kind, or has no mask token to fill queries with.
    """

    def __init__(self, encoder: TextEncoder, choice: TokenChoice) -> None:
        self._tokens, self._tokenizer, self.choice = encoder._require_tokens(), encoder.model.tokenizer, choice
        self.prompts, self.limit = encoder.space.prompts, encoder.max_tokens
        self._mask_id = getattr(self._tokenizer, "mask_token_id", None)
        if not 0 <= choice.query_expansion <= self.limit:
            raise InputError(f"query_expansion must lie between 0 and {self.limit}, got {choice.query_expansion}.")
        if choice.query_expansion and self._mask_id is None:
            raise InputError("This model's tokenizer has no mask token; use query_expansion=0.")

    @cached_property
    def _punctuation(self) -> NDArray[np.bool_]:
        """By token id, whether the token is nothing but punctuation."""
        entries = self._tokenizer.get_vocab()
        table = np.zeros(max(entries.values()) + 1, bool)
        for token, number in entries.items():
            text = token.removeprefix("##").strip(_WORD_MARKS)
            table[number] = bool(text) and all(character in string.punctuation for character in text)
        return table

    def read(self, texts: Sequence[str], role: Role, prompt: str | None = None) -> list[TokenRow]:
        """Tokenise texts in one role; ``prompt`` overrides the role's own.

        Raises
        ------
        InputError
            If the prompt leaves no room for text.
        """
        before = self.prompts.get(role, "") if prompt is None else prompt
        start = len(self._tokens.prefix) + (int(self._tokens.count([before])[0]) if before else 0)
        if start + len(self._tokens.suffix) >= self.limit:
            raise InputError(f"The prompt {before!r} leaves no room for text in {self.limit} tokens; shorten it.")
        full = self._tokens.ids([before + text for text in texts] if before else texts, UNBOUNDED)
        return [self._row(ids, role, start) for ids in full]

    def _row(self, ids: NDArray[np.int32], role: Role, start: int) -> TokenRow:
        choice, suffix = self.choice, self._tokens.suffix
        cut = max(len(ids) - self.limit, 0)
        if cut:
            ids = np.concatenate([ids[: self.limit - len(suffix)], suffix])
        keep = np.ones(len(ids), bool)
        if choice.drop_punctuation and role == "document":
            keep &= ~self._punctuation[ids]
        if choice.drop_prompt:
            keep[len(self._tokens.prefix) : start] = False
        specials = keep[: len(self._tokens.prefix)], keep[len(ids) - len(suffix) :]
        for part in specials:
            part[:] = not choice.drop_special
        fill = max(choice.query_expansion - len(ids), 0) if role == "query" else 0
        attend = np.arange(len(ids) + fill) < len(ids)
        filled = np.concatenate([ids, np.full(fill, self._mask_id or 0, np.int32)])
        return TokenRow(filled, attend, np.concatenate([keep, np.ones(fill, bool)]), cut)
