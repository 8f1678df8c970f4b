"""CRISP on the user's own judged queries."""

import json

import pytest

from isometry.errors import RecipeError
from isometry.lab import runner

KINDS = ("red", "green", "blue", "cold", "warm", "old")
THINGS = ("house by the river", "boat", "song about the sea and its many winds")


def folder(path, queries):
    """A BEIR folder: one document for each pair of words, asked for in other words."""
    items = [(f"{i}{j}", kind, thing) for i, kind in enumerate(KINDS) for j, thing in enumerate(THINGS)]
    corpus = [{"_id": f"d{n}", "title": "", "text": f"a {thing} that is {kind}"} for n, kind, thing in items]
    asked = [{"_id": f"q{n}", "text": f"{kind} {thing}"} for n, kind, thing in items][:queries]
    for name, rows in (("corpus", corpus), ("queries", asked)):
        (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "qrels").mkdir()
    lines = ["query-id\tcorpus-id\tscore", *(f"{row['_id']}\td{row['_id'][1:]}\t1" for row in asked)]
    (path / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    return path


def test_judged_queries_of_ones_own_are_split_to_train_and_to_test(tmp_path):
    lab = runner.lab_for("crisp", "smoke", user_data=folder(tmp_path, 18))
    result = runner.run("crisp", lab)
    assert result.facts["data"] == "18 documents, 9 training pairs, 9 test queries"
    assert {f.key for f in result.findings} == {claim.key for claim in runner.card("crisp").claims}
    assert all(f.verdict == "invariant ok" for f in result.findings if f.invariant)
    kept = result.facts["share of vectors kept, query and document"]
    assert kept["MV"] == [1.0, 1.0]
    assert kept["C4x8 trained"] == kept["C4x8 after"] != [1.0, 1.0]


def test_too_few_judged_queries_are_refused(tmp_path):
    lab = runner.lab_for("crisp", "smoke", user_data=folder(tmp_path, 3))
    with pytest.raises(RecipeError, match="at least 4 judged queries"):
        runner.run("crisp", lab)
