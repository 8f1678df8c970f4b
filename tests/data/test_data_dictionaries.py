"""Dictionaries: merged synonyms, shared definitions, leaks, held-out parts, files."""

import gzip
import json

import numpy as np
import pytest

from isometry.data import Dictionary, read_dictionary
from isometry.errors import DataFormatError, EmptyInput, InputError

ROWS = [
    ("car", ["a vehicle with four wheels"]),
    ("auto", ["a vehicle  with four wheels"]),
    ("coach", ["a vehicle with four wheels", "one who trains an athlete"]),
    ("cart", ["a cart drawn by a horse", " "]),
    ("empty", []),
    ("coach", ["one who trains an athlete"]),
]


def test_same_definitions_make_one_entry_and_shared_ones_have_several_owners():
    found = Dictionary.of(ROWS)
    assert found.entries == ("car | auto", "coach", "cart")
    assert len(found) == 3
    assert dict(zip(found.definitions, found.owners, strict=True)) == {
        "a vehicle with four wheels": (0, 1),
        "one who trains an athlete": (1,),
        "a cart drawn by a horse": (2,),
    }
    assert found.shared == 1


def test_order_of_rows_does_not_change_what_defines_what():
    def meaning(d):
        return {(text, d.entries[e]) for text, own in zip(d.definitions, d.owners, strict=True) for e in own}

    again = Dictionary.of([ROWS[i] for i in (0, 1, 5, 3, 2)])
    assert meaning(again) == meaning(Dictionary.of(ROWS))


def test_leaks_are_whole_words():
    found = Dictionary.of([("cart", ["a Cart with wheels"]), ("art", ["a cart"]), ("ice cream", ["ice, cream"]),
                           ("go | went", ["he went"])])  # fmt: skip
    assert found.leaks().tolist() == [True, False, False, True]


def test_split_keeps_every_entry():
    found = Dictionary.of(ROWS)
    rest, asked = found.split(np.array([False, True, False]))
    assert rest.entries == found.entries
    assert len(rest) == 2
    assert asked == [("one who trains an athlete", (1,))]
    with pytest.raises(InputError, match="keep a definition"):
        found.split(np.array([False, False, True]))
    with pytest.raises(InputError, match="held_out name each"):
        found.split(np.array([False]))


def test_some_entries_keep_all_their_definitions():
    whole = Dictionary.of([("a", ["one", "shared"]), ("b", ["shared", "two"]), ("c", ["shared"]), ("d", ["three"])])
    part = whole.only([2, 0])
    assert part.entries == ("c", "a")
    assert {part.entries[e] for own in part.owners for e in own} == {"c", "a"}
    assert dict(zip(part.definitions, part.owners, strict=True)) == {"one": (1,), "shared": (0, 1)}
    assert whole.only(range(4)) == whole


def test_files(tmp_path):
    plain = tmp_path / "dictionary.tsv"
    plain.write_text("cat\ta small animal<|list_more_def|>a whip\ndog\tanother animal\n", encoding="utf-8")
    assert list(read_dictionary(plain)) == [("cat", ["a small animal", "a whip"]), ("dog", ["another animal"])]
    words = tmp_path / "words.jsonl.gz"
    with gzip.open(words, "wt", encoding="utf-8") as file:
        file.write(json.dumps({"word": "cat", "definitions": ["a", "b"]}) + "\n")
    assert list(read_dictionary(words)) == [("cat", ["a", "b"])]
    synsets = tmp_path / "synsets.tsv"
    synsets.write_text('id\tpos\tlemmas\tdefinition\texamples\nn1\tnoun\tcat|true cat\ta "feline\t\n', encoding="utf-8")
    assert list(read_dictionary(synsets)) == [("cat", ['a "feline']), ("true cat", ['a "feline'])]
    broken = tmp_path / "broken.tsv"
    broken.write_text("cat\ta\nno definition\n", encoding="utf-8")
    with pytest.raises(DataFormatError, match=r"broken\.tsv:2: this is no entry"):
        list(read_dictionary(broken))


def test_nothing_to_define():
    with pytest.raises(EmptyInput, match="at least one entry"):
        Dictionary.of([("cat", [" "])])
