"""Vocabulary extension: whole tokens for the words of a domain that a tokenizer breaks into many pieces.

Done before fine-tuning, as T-VEC (arXiv:2504.16460) does for telecommunications. Texts without the new words are
tokenised, and so embedded, exactly as before.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isometry.errors import EmptyInput, InputError

if TYPE_CHECKING:
    from torch import Tensor

_TERM = re.compile(r"\w+(?:[-/.&+]\w+)*")


@dataclass(frozen=True)
class Fertility:
    """How finely a tokenizer cuts: ``tokens / words``, words being what white space separates."""

    tokens: int
    words: int

    @property
    def per_word(self) -> float:
        """Tokens per word."""
        return self.tokens / self.words


def fertility(tokenizer: Any, texts: Iterable[str]) -> Fertility:
    """Count tokens, without special ones, and words of texts.

    Raises
    ------
    EmptyInput
        If the texts hold no word.
    """
    kept = list(texts)
    words = sum(len(text.split()) for text in kept)
    if not words:
        raise EmptyInput("Fertility is tokens per word, and the texts hold no word.")
    return Fertility(sum(len(_ids(tokenizer, text)) for text in kept), words)


def candidate_terms(
    tokenizer: Any, texts: Iterable[str], *, pieces: int = 3, least: int = 5, most: int = 1000
) -> dict[str, int]:
    """Return the frequent words that a tokenizer breaks into many pieces, with their counts, most frequent first.

    Words may hold hyphens, slashes, dots, ampersands and plus signs (``gNB-CU``, ``TCP/IP``). Spellings that differ in
    case are counted together under the most frequent one where the tokenizer does not tell them apart.

    Parameters
    ----------
    pieces
        Least number of pieces.
    least
        Least number of occurrences.
    most
        How many words at most.
    """
    counts = Counter(found.group() for text in texts for found in _TERM.finditer(text))
    merged: dict[tuple[int, ...], tuple[str, int]] = {}
    for term, count in counts.most_common():
        ids = tuple(_ids(tokenizer, term))
        if len(ids) >= pieces:
            spelling, before = merged.get(ids, (term, 0))
            merged[ids] = (spelling, before + count)
    ranked = sorted((pair for pair in merged.values() if pair[1] >= least), key=lambda pair: (-pair[1], pair[0]))
    return dict(ranked[:most])


@dataclass(frozen=True, eq=False)
class Extension:
    """An extended copy of a model.

    Parameters
    ----------
    model, tokenizer
        The copies; for a ``SentenceTransformer`` the tokenizer is the model's own.
    added
        Terms that are now one token.
    known
        Terms that were one token before; nothing was done about them.
    unmatched
        Terms that the tokenizer would never find in a text, for instance because it begins with a space or
        characters are changed first, or cannot tell apart from an added one; they were not added.
    """

    model: Any
    tokenizer: Any
    added: tuple[str, ...]
    known: tuple[str, ...]
    unmatched: tuple[str, ...]


def extend_vocabulary(model: Any, terms: Iterable[str], *, tokenizer: Any = None, keep_norms: bool = True) -> Extension:
    """Add whole tokens to a copy of a model, each embedded as the mean of the pieces it was broken into.

    Parameters
    ----------
    model
        A ``SentenceTransformer``, or a transformers model with its ``tokenizer``.
    terms
        Words to add. Each is tried in a sentence first; those that would not come out as one token are listed instead.
    keep_norms
        Give each new row the mean length of its pieces' rows; a mean of vectors is shorter than they are.

    Raises
    ------
    InputError
        If there is no tokenizer to extend.
    """
    extended = copy.deepcopy(model)
    is_sentence_model = hasattr(model, "encode") and hasattr(model, "tokenizer")
    tokens = extended.tokenizer if is_sentence_model else copy.deepcopy(tokenizer)
    body = extended[0].auto_model if is_sentence_model else extended
    if tokens is None or not hasattr(tokens, "add_tokens"):
        raise InputError(f"{type(model).__name__} has no tokenizer to extend; pass one as tokenizer=.")
    wanted = list(dict.fromkeys(terms))
    pieces = {term: _ids(tokens, term) for term in wanted}
    known = tuple(term for term in wanted if len(pieces[term]) == 1)
    added, unmatched = _add(tokens, [term for term in wanted if term not in known])
    if added:
        _add_rows(body, {tokens.convert_tokens_to_ids(term): pieces[term] for term in added}, len(tokens), keep_norms)
    return Extension(extended, tokens, tuple(added), known, tuple(unmatched))


def _add(tokenizer: Any, terms: Sequence[str]) -> tuple[list[str], list[str]]:
    """Add to the tokenizer what matches in running text; return that and the rest."""
    normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    spellings: dict[str, str] = {}  # of those that the tokenizer does not tell apart, the first
    for term in terms:
        spellings.setdefault(normalizer.normalize_str(term) if normalizer else term, term)
    trial = copy.deepcopy(tokenizer)
    trial.add_tokens([_token(trial, term) for term in spellings.values()])
    matched = [term for term in spellings.values() if _found(trial, tokenizer, term)]
    tokenizer.add_tokens([_token(tokenizer, term) for term in matched])
    return matched, [term for term in terms if term not in matched]


def _found(trial: Any, before: Any, term: str) -> bool:
    """Whether a term becomes its token between other words, and nothing else of the sentence changes."""
    number = trial.convert_tokens_to_ids(term)
    left, right = _ids(before, "the"), _ids(before, "the,")[1:]
    return _ids(trial, f"the {term.strip()},") == [*left, number, *right]


def _token(tokenizer: Any, term: str) -> Any:
    from tokenizers import AddedToken

    # Where a space belongs to the word after it, the new token must swallow it, or a lone space would be left over.
    return AddedToken(term, single_word=True, normalized=True, lstrip=_leading_space(tokenizer))


def _leading_space(tokenizer: Any) -> bool:
    """Whether pieces of words carry the space before them (byte-level BPE, SentencePiece)."""
    return any(piece.startswith(("Ġ", "▁")) for piece in tokenizer.convert_ids_to_tokens(_ids(tokenizer, "a word")))


def _add_rows(body: Any, rows: dict[int, list[int]], size: int, keep_norms: bool) -> None:
    """Make room in the embedding tables and fill the new rows."""
    import torch

    if size > body.get_input_embeddings().weight.shape[0]:
        body.resize_token_embeddings(size, mean_resizing=False)
    tables = {id(t.weight): t.weight for t in (body.get_input_embeddings(), body.get_output_embeddings()) if t}
    with torch.no_grad():
        for table in tables.values():
            for number, pieces in rows.items():
                table[number] = _mean(table[pieces], keep_norms)


def _mean(rows: Tensor, keep_norms: bool) -> Tensor:
    mean: Tensor = rows.mean(0)
    return mean * (rows.norm(dim=-1).mean() / mean.norm().clamp(min=1e-12)) if keep_norms else mean


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
