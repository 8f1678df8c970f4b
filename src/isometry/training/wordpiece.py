"""A WordPiece vocabulary from texts, the same for the same texts: ties are broken by spelling."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import Any

from isometry.errors import EmptyInput, InputError

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
Pair = tuple[str, str]


def train_wordpiece(texts: Iterable[str], size: int) -> Any:
    """Learn a lower-case WordPiece vocabulary and return it as a transformers tokenizer of the BERT kind.

    Pieces come from merging the most frequent pair again and again (Sennrich et al. 2016), as in the trainer of
    Hugging Face's tokenizers, whose result differs from run to run where frequencies tie.

    Raises
    ------
    InputError
        If the size leaves no room beside the special tokens.
    EmptyInput
        If the texts hold no word.

    Examples
    --------
    >>> tokenizer = train_wordpiece(["a cat", "a cap"] * 3, 30)
    >>> tokenizer.tokenize("A cat")
    ['a', 'cat']
    """
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    if size <= len(SPECIALS):
        raise InputError(f"A vocabulary holds {len(SPECIALS)} special tokens and more, got size={size}.")
    cutter = BertWordPieceTokenizer({token: i for i, token in enumerate(SPECIALS)}, lowercase=True)
    words: Counter[str] = Counter()
    for text in texts:
        clean = cutter.normalizer.normalize_str(text)
        words.update(word for word, _ in cutter.pre_tokenizer.pre_tokenize_str(clean))
    if not words:
        raise EmptyInput("The texts hold no word to learn a vocabulary from.")
    pieces = learn_pieces(words, size - len(SPECIALS))
    vocabulary = {token: number for number, token in enumerate([*SPECIALS, *pieces])}
    made = BertWordPieceTokenizer(vocabulary, lowercase=True)
    return BertTokenizerFast(tokenizer_object=made._tokenizer, do_lower_case=True)


def learn_pieces(words: Counter[str], size: int) -> list[str]:
    """Return at most ``size`` pieces of words: first letters, then what merging the most frequent pair gives.

    A piece inside a word begins with ``##``. Of equally frequent pairs the first in the alphabet is merged.

    >>> learn_pieces(Counter({"low": 3, "lot": 2}), 5)
    ['##o', '##t', '##w', 'l', 'lo']
    """
    spelled = [[w[0], *(f"##{c}" for c in w[1:])] for w in sorted(words)]
    counts = [words[w] for w in sorted(words)]
    letters: Counter[str] = Counter()
    pairs: Counter[Pair] = Counter()
    places: dict[Pair, set[int]] = defaultdict(set)
    for row, (symbols, count) in enumerate(zip(spelled, counts, strict=True)):
        for symbol in symbols:
            letters[symbol] += count
        _count(symbols, count, row, pairs, places)
    pieces = dict.fromkeys(sorted(sorted(letters, key=lambda c: (-letters[c], c))[:size]))
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapify(heap)
    while heap and len(pieces) < size:
        count, pair = heappop(heap)
        if -count != pairs[pair] or not count:
            continue  # its frequency has changed since; the newer entry is in the heap too
        merged = pair[0] + pair[1].removeprefix("##")
        pieces.setdefault(merged)
        changed = set[Pair]()
        for row in places.pop(pair):
            changed |= _merge(spelled[row], pair, merged, counts[row], row, pairs, places)
        for other in changed - {pair}:
            heappush(heap, (-pairs[other], other))
        pairs[pair] = 0
    return list(pieces)


def _count(symbols: list[str], count: int, row: int, pairs: Counter[Pair], places: dict[Pair, set[int]]) -> set[Pair]:
    """Add a word's pairs to the counts, or with a negative count take them out; return them."""
    found = list(pairwise(symbols))
    for pair in found:
        pairs[pair] += count
        if count > 0:
            places[pair].add(row)
    return set(found)


def _merge(
    symbols: list[str], pair: Pair, merged: str, count: int, row: int, pairs: Counter[Pair],
    places: dict[Pair, set[int]],
) -> set[Pair]:  # fmt: skip
    """Merge a pair in one word, in place, and return the pairs whose counts changed."""
    changed = _count(symbols, -count, row, pairs, places)
    out = list[str]()
    for symbol in symbols:
        if out and (out[-1], symbol) == pair:
            out[-1] = merged
        else:
            out.append(symbol)
    symbols[:] = out
    return changed | _count(symbols, count, row, pairs, places)
