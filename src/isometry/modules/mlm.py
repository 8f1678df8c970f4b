"""Masked language modelling: which tokens are hidden, and the loss of those that are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu

from isometry.errors import DimensionMismatch, EmptyInput, InputError
from isometry.modules.table_mask import table_mask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # label of a token that is not predicted
WORD_MARKS = "#\u0120\u2581"  # what WordPiece, byte-level BPE and SentencePiece put before a token


class Structured(Protocol):
    """A text whose tokens have places in a table, such as `isometry.data.TableText`."""

    @property
    def text(self) -> str:
        """The text."""
        ...

    def cells(self, offsets: Any) -> Any:
        """Return the row and column of each token ``[t, 2]`` from its character offsets ``[t, 2]``."""
        ...


def whole_word_mask(words: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Choose whole words at random until a share of the tokens is chosen (whole-word masking).

    Parameters
    ----------
    words
        int64 ``[b, t]``: the number of each token's word; negative for special tokens and padding.
    rate
        Share of each text's tokens, in (0, 1]; at least one word is chosen wherever there is one.
    generator
        Draws the words.

    Returns
    -------
    torch.Tensor
        bool ``[b, t]``; the tokens of one word are chosen together.
    """
    if not 0 < rate <= 1 or words.ndim != 2:
        raise InputError(f"Masking needs word numbers [b, t] and a rate in (0, 1], got {list(words.shape)} and {rate}.")
    chosen = torch.zeros_like(words, dtype=torch.bool)
    for row, numbers in enumerate(words):
        found, counts = numbers[numbers >= 0].unique(return_counts=True)
        order = torch.randperm(len(found), generator=generator)
        before = counts[order].cumsum(0) - counts[order]
        picked = found[order[before < rate * counts.sum()]]
        chosen[row] = torch.isin(numbers, picked)
    return chosen


def hide_tokens(
    input_ids: Tensor,
    chosen: Tensor,
    *,
    mask_id: int,
    vocab_size: int,
    generator: torch.Generator,
    replace: tuple[float, float] = (0.8, 0.1),
) -> tuple[Tensor, Tensor]:
    """Return token ids with the chosen ones hidden, and labels that hold the originals there, -100 elsewhere.

    Parameters
    ----------
    input_ids, chosen
        int64 and bool ``[b, t]``.
    mask_id, vocab_size
        The mask token; how many ids there are to draw random tokens from.
    generator
        Draws what replaces what.
    replace
        Shares of chosen tokens that become the mask, or a random token; the rest stays as it is (BERT's 80/10/10).
    """
    if input_ids.shape != chosen.shape:
        raise DimensionMismatch(f"chosen must have the ids' shape {list(input_ids.shape)}, got {list(chosen.shape)}.")
    fate = torch.rand(input_ids.shape, generator=generator)
    noise = torch.randint(vocab_size, input_ids.shape, generator=generator)
    masked, random = replace
    hidden = input_ids.masked_fill(chosen & (fate < masked), mask_id)
    hidden = torch.where(chosen & (fate >= masked) & (fate < masked + random), noise, hidden)
    return hidden, input_ids.masked_fill(~chosen, IGNORED)


def masked_batch(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    rate: float,
    max_length: int,
    generator: torch.Generator,
    *,
    offsets: bool = False,
) -> dict[str, Tensor]:
    """Tokenize texts and hide whole words: ``input_ids, attention_mask, labels``, each int64 ``[b, t]``.

    Parameters
    ----------
    tokenizer
        A fast tokenizer with a mask token.
    rate
        Share of each text's tokens, as in `whole_word_mask`.
    offsets
        Whether to add ``offset_mapping``, int64 ``[b, t, 2]``: where each token stands in its text.

    Raises
    ------
    InputError
        If the tokenizer knows no words or has no mask token.
    """
    _check_tokenizer(tokenizer)
    options = {"padding": True, "truncation": True, "max_length": max_length, "return_tensors": "pt"}
    rows = tokenizer(list(texts), return_offsets_mapping=offsets, **options)
    numbers = [[-1 if w is None else w for w in rows.word_ids(i)] for i in range(len(texts))]
    chosen = whole_word_mask(torch.tensor(numbers), rate, generator)
    ids, labels = hide_tokens(
        rows["input_ids"], chosen, mask_id=tokenizer.mask_token_id, vocab_size=len(tokenizer), generator=generator
    )
    found = {"input_ids": ids, "attention_mask": rows["attention_mask"], "labels": labels}
    return found | ({"offset_mapping": rows["offset_mapping"]} if offsets else {})


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    if not getattr(tokenizer, "is_fast", False) or tokenizer.mask_token_id is None:
        raise InputError(f"{type(tokenizer).__name__} has no mask token or knows no words; take a fast one of BERT.")


class MaskingCollator:
    """Texts to a batch for masked language modelling, with a second, differently masked copy for a weak decoder.

    Parameters
    ----------
    tokenizer
        A fast tokenizer with a mask token.
    rate, decoder_rate
        Share of tokens hidden from the encoder and from the decoder; whole words.
    max_length
        Texts are cut there.
    seed
        Of the masks; they differ from call to call.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        rate: float = 0.2,
        decoder_rate: float = 0.6,
        max_length: int = 512,
        seed: int = 0,
    ) -> None:
        _check_tokenizer(tokenizer)
        self.tokenizer, self.rate, self.decoder_rate, self.max_length = tokenizer, rate, decoder_rate, max_length
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(
        self, texts: Sequence[str | Structured], decoder_texts: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Return ``input_ids, attention_mask, labels`` and the same for the decoder, each int64 ``[b, t]``.

        Where the texts are tables, ``may_attend``, bool ``[b, t, t]``, is added: the mask of their structure.

        Parameters
        ----------
        texts
            What the encoder reads: texts, or tables only.
        decoder_texts
            What the decoder must restore, where that is another text, e.g. a table's summary.
        """
        if not texts or (decoder_texts is not None and len(decoder_texts) != len(texts)):
            raise EmptyInput("A batch needs at least one text, and as many decoder texts as texts where there are any.")
        plain = [item if isinstance(item, str) else item.text for item in texts]
        batch = self._hide(plain, self.rate, [item for item in texts if not isinstance(item, str)])
        decoder = self._hide(plain if decoder_texts is None else decoder_texts, self.decoder_rate)
        return batch | {f"decoder_{name}": value for name, value in decoder.items()}

    def _hide(self, texts: Sequence[str], rate: float, tables: Sequence[Structured] = ()) -> dict[str, Tensor]:
        if len(tables) not in (0, len(texts)):
            raise InputError("A batch holds either plain texts or tables, since their attention masks differ.")
        found = masked_batch(self.tokenizer, texts, rate, self.max_length, self.generator, offsets=bool(tables))
        if tables:
            offsets = found.pop("offset_mapping").numpy()
            cells = [torch.as_tensor(table.cells(o)) for table, o in zip(tables, offsets, strict=True)]
            found["may_attend"] = table_mask(torch.stack(cells), found["attention_mask"])
        return found


def numeric_share(labels: Tensor, tokenizer: PreTrainedTokenizerBase) -> float:
    """Share of the masked tokens that are digits: predicting them is mostly noise, so tables should report it."""
    ids = labels[labels != IGNORED].tolist()
    tokens: list[str] = tokenizer.convert_ids_to_tokens(ids)
    digits = sum(token.lstrip(WORD_MARKS).isdigit() for token in tokens)
    return digits / max(1, len(tokens))


class PredictionHead(nn.Module):
    """The head of a masked language model in two halves: a transform of states, and scores over the vocabulary.

    Parameters
    ----------
    mlm
        ``BertForMaskedLM``, ``RobertaForMaskedLM``, ``ModernBertForMaskedLM`` or a model built like one of them; its
        modules are shared, not copied.

    Raises
    ------
    InputError
        If the head is of another kind.
    """

    def __init__(self, mlm: nn.Module) -> None:
        super().__init__()
        model: Any = mlm
        if hasattr(model, "cls"):
            self.first, self.last = model.cls.predictions.transform, model.cls.predictions.decoder
        elif hasattr(model, "lm_head") and hasattr(model.lm_head, "dense"):
            head = model.lm_head
            self.first = nn.Sequential(head.dense, _Gelu(), head.layer_norm)
            self.last = head.decoder
        elif hasattr(model, "head") and hasattr(model, "decoder"):
            self.first, self.last = model.head, model.decoder
        else:
            raise InputError(f"{type(mlm).__name__} has no masked language modelling head of a known kind.")

    @property
    def dense(self) -> nn.Linear:
        """The transform's linear map: what RoBERTa, without a pooler of its own, has in its place."""
        found = next(part for part in self.first.modules() if isinstance(part, nn.Linear))
        return found

    def transform(self, states: Tensor) -> Tensor:
        """Return transformed states ``[..., d]``."""
        out: Tensor = self.first(states)
        return out

    def forward(self, states: Tensor) -> Tensor:
        """Return logits ``[..., v]`` of states ``[..., d]``."""
        logits: Tensor = self.last(self.transform(states))
        return logits


class _Gelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return gelu(x)


def masked_losses(states: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    """Cross-entropy of each text's masked tokens, mean over these, ``[b]``; 0 for a text without any.

    Parameters
    ----------
    states
        ``[b, t, d]``.
    labels
        int64 ``[b, t]``; -100 where nothing is predicted.
    head
        States ``[n, d]`` to logits ``[n, v]``; applied to masked tokens alone, a fraction of the full cost.
    """
    wanted = labels != IGNORED
    by_token = cross_entropy(head(states[wanted]), labels[wanted], reduction="none")
    sums = by_token.new_zeros(len(labels)).index_add(0, wanted.nonzero()[:, 0], by_token)
    return sums / wanted.sum(1).clamp_min(1)


def masked_loss(states: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean cross-entropy of all masked tokens of a batch; see `masked_losses`."""
    wanted = labels != IGNORED
    if not wanted.any():
        return 0.0 * states.sum()
    return cross_entropy(head(states[wanted]), labels[wanted])
