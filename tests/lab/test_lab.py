"""Verdicts are computed from per-unit scores; results are written whole; crashes are reported as such."""

import json

import numpy as np
import pytest

from isometry.errors import RecipeError, UnknownName
from isometry.lab import Card, Claim, Lab, Outcome, runner
from isometry.lab.outcome import status_of, verdict_of
from isometry.types import Scores

CARD = Card(
    "toy", "Toy", claims=(Claim("a beats b", key="beats"), Claim("always", key="always", invariant=True)), presets={}
)


def scores(values, metric="m"):
    return Scores.of("t", "s", {metric: {str(i): float(v) for i, v in enumerate(values)}})


def outcome(shift, n=60, seed=0):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=n)
    found = Outcome()
    found.compare("beats", scores(base + shift + 0.1 * rng.normal(size=n)), scores(base))
    return found


@pytest.mark.parametrize(("shift", "verdict"), [(0.5, "holds"), (-0.5, "contradicted")])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_verdict_follows_the_interval(shift, verdict, seed):
    (finding,) = outcome(shift, seed=seed).findings(CARD)
    assert finding.verdict == verdict
    assert finding.n == 60
    assert finding.ci95[0] < shift < finding.ci95[1]


def test_no_difference_is_not_shown():
    base = np.random.default_rng(0).normal(size=50)
    found = Outcome()
    found.compare("beats", scores(base + np.tile([1, -1], 25)), scores(base))
    assert found.findings(CARD)[0].verdict == "not shown"


def test_smaller_is_claimed_with_the_other_sign_and_margins_count():
    assert verdict_of((-3, -1), "<") == "holds"
    assert verdict_of((-3, -1), "<", margin=2) == "not shown"
    assert verdict_of((0.1, 0.3), ">", margin=0.4) == "contradicted"
    assert verdict_of((float("nan"), float("nan")), ">") == "not shown"


def test_invariants_and_unknown_claims():
    found = Outcome()
    found.invariant("always", False, "off by 1")
    assert found.findings(CARD)[0].verdict == "invariant broken"
    found.invariant("never", True)
    with pytest.raises(RecipeError, match="never"):
        found.findings(CARD)
    two = Scores.of("t", "s", {"a": {"0": 1.0}, "b": {"0": 1.0}})
    with pytest.raises(RecipeError, match="Name the metric"):
        found.compare("beats", two, 0.0)


def test_status_is_the_worst_verdict():
    rows = [{"verdict": v} for v in ("holds", "crashed", "not shown")]
    assert status_of(rows) == "crashed"
    assert status_of([]) == "never run"


def test_cards_from_literals_are_checked():
    values = {"slug": "x", "title": "X", "claims": ({"0": "text", "key": "k", "sign": "<"},)}
    assert Card.from_literals(values).claim("k").sign == "<"
    with pytest.raises(RecipeError, match="cannot be read"):
        Card.from_literals({**values, "colour": 1})
    with pytest.raises(RecipeError, match="one distinct key"):
        Card.from_literals({**values, "claims": values["claims"] * 2})
    with pytest.raises(UnknownName, match="Unknown claim"):
        Card.from_literals(values).claim("kk")


def test_a_recipe_that_fails_is_a_crash_not_a_zero(monkeypatch):
    slug = "text-embedding-depth"
    module = __import__("isometry.recipes.text_embedding_depth", fromlist=["run"])

    def broken(lab):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(module, "run", broken)
    result = runner.run(slug, Lab())
    assert {f.verdict for f in result.findings} == {"crashed"}
    assert "planted" in result.findings[0].detail
    assert result.findings[0].delta is None


def test_results_round_trip(tmp_path):
    result = runner.RunResult("toy", "laptop", 1.0, 3, "builtin", outcome(0.5).findings(CARD), {"x": np.float64(1.5)})
    path = runner.write(result, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["toy.json"]
    kept = runner.load_result("toy", tmp_path)
    assert kept == json.loads(path.read_text())
    assert kept["claims"][0]["verdict"] == "holds"
    assert kept["facts"] == {"x": 1.5}
    assert runner.load_result("other", tmp_path) is None


def test_few_units_decide_nothing():
    """Two seeds that agree by chance gave an interval of no width, and with it a verdict."""
    found = Outcome()
    found.compare("beats", scores([0.5, 0.6]), scores([0.1, 0.2]))
    assert found.findings(CARD)[0].verdict == "not shown"
