"""The built-in collection of paper summaries: layout, limits, judgements, and that the summaries are our own words."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter, defaultdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

KINDS = {"system", "method", "study", "benchmark", "survey"}
ASPECTS = {"task", "method", "data"}
FIELDS = {"_id": str, "title": str, "text": str, "year": int, "arxiv": str, "kind": str, "aspects": dict}
SHARED_WORDS = 8  # a run of this many words found in an abstract counts as copied


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(str(files("isometry"))) / "data" / "builtin" / "papers"


@pytest.fixture(scope="module")
def corpus(folder: Path) -> list[dict[str, Any]]:
    return _rows(folder / "corpus.jsonl")


@pytest.fixture(scope="module")
def queries(folder: Path) -> list[dict[str, Any]]:
    return _rows(folder / "queries.jsonl")


@pytest.fixture(scope="module")
def qrels(folder: Path) -> list[dict[str, str]]:
    with (folder / "qrels" / "test.tsv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {tuple(words[i : i + SHARED_WORDS]) for i in range(len(words) - SHARED_WORDS + 1)}


def _repeated(values: list[Any]) -> list[Any]:
    return [value for value, count in Counter(values).items() if count > 1]


def test_there_are_102_documents_with_unique_names_titles_and_texts(corpus):
    assert len(corpus) == 102
    for field in ("_id", "title", "text"):
        assert _repeated([row[field] for row in corpus]) == []
    assert _repeated([row["arxiv"] for row in corpus if row["arxiv"]]) == []
    assert [row["_id"] for row in corpus] == sorted(row["_id"] for row in corpus)


def test_every_field_is_present_and_typed(corpus):
    for row in corpus:
        assert {name: type(value) for name, value in row.items()} == FIELDS, row["_id"]
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", row["_id"])
        assert row["title"] == row["title"].strip() != ""
        assert row["kind"] in KINDS, row["_id"]
    assert {row["kind"] for row in corpus} == KINDS  # no kind is left unused


def test_the_year_is_that_of_the_arxiv_identifier(corpus):
    for row in corpus:
        assert 2000 <= row["year"] <= 2030, row["_id"]
        if row["arxiv"]:
            assert re.fullmatch(r"\d{2}(0[1-9]|1[0-2])\.\d{4,5}", row["arxiv"]), row["_id"]
            assert row["year"] == 2000 + int(row["arxiv"][:2]), row["_id"]


def test_summaries_and_aspects_keep_their_word_limits(corpus):
    for row in corpus:
        assert 60 <= len(row["text"].split()) <= 120, row["_id"]
        assert row["text"].isascii(), row["_id"]
        assert row["text"].endswith("."), row["_id"]
        assert " ".join(row["text"].split()) == row["text"], row["_id"]
        assert set(row["aspects"]) == ASPECTS, row["_id"]
        for phrase in row["aspects"].values():
            assert 3 <= len(phrase.split()) <= 10, (row["_id"], phrase)


def test_summaries_do_not_repeat_each_other(corpus):
    owners: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for row in corpus:
        for run in _runs(row["text"]):
            owners[run].add(row["_id"])
    assert {" ".join(run): names for run, names in owners.items() if len(names) > 1} == {}


def test_queries_are_unique_and_typed(queries):
    for row in queries:
        assert set(row) == {"_id", "text", "type"}
        assert row["text"].strip() != ""
    assert _repeated([row["_id"] for row in queries]) == []
    assert _repeated([row["text"] for row in queries]) == []
    assert {row["type"] for row in queries} == {"keyword", "question", "paraphrase", "method", "practitioner"}


def test_qrels_name_known_queries_and_documents_once(corpus, queries, qrels):
    assert set(qrels[0]) == {"query-id", "corpus-id", "score"}
    assert {row["query-id"] for row in qrels} <= {row["_id"] for row in queries}
    assert {row["corpus-id"] for row in qrels} <= {row["_id"] for row in corpus}
    assert {row["score"] for row in qrels} <= {"0", "1", "2"}
    assert _repeated([(row["query-id"], row["corpus-id"]) for row in qrels]) == []


def test_every_query_has_something_to_find(queries, qrels):
    answered = {row["query-id"] for row in qrels if int(row["score"]) > 0}
    assert len(answered) >= 60
    assert answered == {row["_id"] for row in queries}


def test_summaries_share_no_run_of_words_with_the_abstracts(corpus, data_root):
    path = data_root / "papers" / "papers.jsonl"
    if not path.is_file():
        pytest.skip("the papers' abstracts (papers/papers.jsonl) are not among the shared data sets")
    copied = set().union(*(_runs(row["text"]) for row in _rows(path)))
    assert copied  # the abstracts were read
    shared = {row["_id"]: [" ".join(run) for run in _runs(row["text"]) & copied] for row in corpus}
    assert {name: runs for name, runs in shared.items() if runs} == {}
