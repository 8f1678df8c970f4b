"""WordPiece vocabularies: merges by brute force, the same in every process, what is refused."""

import subprocess
import sys
from collections import Counter

import pytest

from isometry.errors import EmptyInput, InputError
from isometry.training import train_wordpiece
from isometry.training.wordpiece import SPECIALS, learn_pieces

TEXTS = [f"a {c} {t} seen in the {p}" for c in ("red", "green", "blue") for t in ("bird", "stone", "house", "river")
         for p in ("north", "south")]  # fmt: skip


def slow(words, size):
    """The definition, with all pairs counted anew for each merge."""
    spelled = {w: [w[0], *(f"##{c}" for c in w[1:])] for w in words}
    letters = Counter()
    for w, n in words.items():
        for s in spelled[w]:
            letters[s] += n
    pieces = sorted(sorted(letters, key=lambda c: (-letters[c], c))[:size])
    while len(pieces) < size:
        pairs = Counter()
        for w, n in words.items():
            for pair in zip(spelled[w], spelled[w][1:], strict=False):
                pairs[pair] += n
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merged = best[0] + best[1][2:]
        pieces += [] if merged in pieces else [merged]
        for w, symbols in spelled.items():
            out = []
            for s in symbols:
                if out and (out[-1], s) == best:
                    out[-1] = merged
                else:
                    out.append(s)
            spelled[w] = out
    return pieces


@pytest.mark.parametrize("size", [5, 20, 45, 500])
def test_merges_agree_with_the_definition(size):
    words = Counter(" ".join([*TEXTS, "banana bananas nanna aaaa aaa"]).split())
    assert learn_pieces(words, size) == slow(words, size)


def test_every_process_learns_the_same():
    code = f"from isometry.training import train_wordpiece; print(sorted(train_wordpiece({TEXTS!r}, 60).vocab.items()))"
    found = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
             for _ in range(2)}  # fmt: skip
    assert found == {f"{sorted(train_wordpiece(TEXTS, 60).vocab.items())}\n"}


def test_tokens_spell_the_text_and_the_vocabulary_is_as_large_as_asked():
    tokenizer = train_wordpiece(TEXTS, 60)
    assert len(tokenizer) == 60
    assert tokenizer.convert_ids_to_tokens(range(5)) == list(SPECIALS)
    assert "".join(t.removeprefix("##") for t in tokenizer.tokenize("A Green house")) == "agreenhouse"
    assert tokenizer.tokenize("字") == ["[UNK]"]
    assert tokenizer("red")["input_ids"][0] == SPECIALS.index("[CLS]")


def test_bad_input():
    with pytest.raises(InputError, match="special tokens"):
        train_wordpiece(["a"], 3)
    with pytest.raises(EmptyInput, match="no word"):
        train_wordpiece([" "], 30)
