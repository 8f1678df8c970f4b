"""Every recipe runs at its smallest scale and reports each of its claims; results kept are of this card."""

import pytest

from isometry import registry
from isometry.errors import UnknownName
from isometry.lab import runner
from isometry.lab.outcome import HONEST_FAILURES


@pytest.mark.parametrize("slug", registry.recipes())
def test_smoke(slug, data_root, tmp_path):
    lab = runner.lab_for(slug, "smoke", data_root=data_root, cache=tmp_path)
    result = runner.run(slug, lab)
    verdicts = {f.key: f.verdict for f in result.findings}
    assert not [f for f in result.findings if f.verdict in HONEST_FAILURES], [f.detail for f in result.findings]
    assert verdicts.keys() == {claim.key for claim in runner.card(slug).claims}


@pytest.mark.parametrize("slug", registry.recipes())
def test_card_is_complete(slug):
    card = runner.card(slug)
    assert {"smoke", "laptop", "paper"} <= set(card.presets)
    assert card.title
    assert card.summary
    assert card.headline
    assert card.claims
    assert {"task", "method", "data"} <= set(card.aspects)
    with pytest.raises(UnknownName, match="Unknown preset 'huge'"):
        card.preset("huge")


@pytest.mark.parametrize("slug", registry.recipes())
def test_kept_result_matches_the_card(slug):
    result = runner.load_result(slug)
    assert result is not None, f"run: make claims RECIPE={slug}"
    assert [c["key"] for c in result["claims"]] == [c.key for c in runner.card(slug).claims]
    assert result["preset"] == "laptop"
