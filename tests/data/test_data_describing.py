"""A set is described by its kind, the sizes of its columns and a few rows."""

import pytest

from isometry.data import describe
from isometry.errors import InputError, UnknownName


def test_the_built_in_corpus():
    about = describe("papers")
    assert (about["kind"], about["corpus"]) == ("retrieval", 102)
    assert any(example.startswith("queries") for example in about["examples"])


def test_every_set_found_can_be_described(data_root):
    for name in ("ir/adi", "sts/stsb", "cls/banking77", "pairs/mrpc", "kg/nations", "recsys/groceries"):
        about = describe(name, root=data_root)
        assert about["examples"], name


def test_what_is_no_set_says_so(tmp_path):
    with pytest.raises(InputError, match="no known format"):
        describe(str(tmp_path))
    with pytest.raises(UnknownName, match="papers"):
        describe("paperz")
