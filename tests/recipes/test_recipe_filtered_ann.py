"""The filtered-search recipe on a user's own documents: fields are typed, methods follow the fields there are."""

import json

import numpy as np

from isometry.lab import runner

WORDS = ["river", "stone", "garden", "winter", "silver", "engine", "market", "letter", "window", "forest", "bridge"]


def test_own_documents_with_metadata(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"id": f"d{i}", "text": " ".join(rng.choice(WORDS, 8)) + f" {i}", "lang": str(rng.choice(["de", "en", "fr"])),
         "day": f"20{rng.integers(10, 25)}-0{rng.integers(1, 9)}-01",
         "tags": sorted(set(rng.choice(WORDS, 2).tolist()))}
        for i in range(150)
    ]  # fmt: skip
    for row in rows[:7]:
        del row["lang"]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = runner.run("filtered-ann", runner.lab_for("filtered-ann", "smoke", user_data=path, cache=tmp_path))
    assert {f.key for f in result.findings} == {claim.key for claim in runner.card("filtered-ann").claims}
    assert all(f.verdict == "invariant ok" for f in result.findings if f.invariant)
    assert result.facts["attributes"]["lang"] == "categorical"
    assert result.facts["attributes"]["day"] == "ordered"
    assert result.facts["attributes"]["tags"] == "set"
    assert result.facts["items without the attribute"]["lang"] <= 7
    answered = {name for name in result.facts if name.startswith("build, ")}
    assert {"build, UNG (tags)", "build, FilteredVamana (lang)"} <= answered
    assert any(name.startswith("build, SeRF") for name in answered)
