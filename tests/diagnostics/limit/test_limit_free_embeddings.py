"""Training: the gradient is autograd's, chunks change nothing, spheres are kept; the search for critical n."""

import json

import numpy as np
import pytest
import torch

from isometry.diagnostics.limit import (
    Relevance,
    all_subsets,
    find_critical_n,
    ranking_margins,
    strict_accuracy,
    train_free_embeddings,
)
from isometry.diagnostics.limit.critical_n import PAPER_POINTS, paper_fit
from isometry.diagnostics.limit.free_embeddings import Training, _Problem
from isometry.errors import DataFormatError, InputError

RAGGED = Relevance.of_sets([{0}, {0, 1, 4}, {2, 3}, {1, 2, 3, 4, 5}], 6)


def test_gradient_and_loss_equal_autograd():
    problem = _Problem(RAGGED, 3, 0, Training())
    with torch.no_grad():
        loss = problem._gradient()
    table = problem.table.detach().clone().requires_grad_()
    logs = torch.log_softmax(table[:4] @ table[4:].T / 0.1, dim=1)
    expected = -logs[RAGGED.queries, RAGGED.documents].mean()
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(problem.gradient, table.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cells", [6, 12])
def test_chunks_change_nothing(cells):
    whole, parts = (_Problem(RAGGED, 3, 0, Training(cells=c)) for c in (1 << 20, cells))
    assert len(parts.chunks) == 24 // cells
    with torch.no_grad():
        assert whole._gradient() == pytest.approx(parts._gradient(), rel=1e-6)
    torch.testing.assert_close(whole.gradient, parts.gradient)
    assert whole.accuracy() == parts.accuracy()


def test_what_is_returned_is_what_is_reported():
    for n in (8, 13):
        relevance = all_subsets(n, 2)
        found = train_free_embeddings(relevance, 4, training=Training(iterations=3000))
        again = train_free_embeddings(relevance, 4, training=Training(iterations=3000))
        np.testing.assert_array_equal(found.queries, again.queries)
        np.testing.assert_allclose(np.linalg.norm(found.documents, axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(found.queries, axis=1), 1, rtol=1e-5)
        assert found.margin == pytest.approx(ranking_margins(found.queries, found.documents, relevance).min())
        assert found.accuracy == pytest.approx(strict_accuracy(found.queries @ found.documents.T, relevance))
        assert found.solved == (n == 8)
        assert found.solved == (found.accuracy == 1)


def test_patience_and_iterations_end_training():
    hopeless = all_subsets(12, 2)
    assert train_free_embeddings(hopeless, 2, training=Training(iterations=70)).iterations == 70
    assert train_free_embeddings(hopeless, 2, training=Training(patience=5, rate=1e-9)).iterations <= 7


def test_critical_n_is_the_largest_success_and_is_found_again_from_the_file(tmp_path):
    short, cache = Training(iterations=4000, patience=500), tmp_path / "attempts.json"
    seen = []
    found = find_critical_n(3, 2, restarts=2, sweep=(1, 2), training=short, cache=cache,
                            progress=lambda done, total: seen.append(done))  # fmt: skip
    assert found.value == max(n for n, margins in found.attempts.items() if max(margins) > 0)
    assert all(len(margins) == 2 for margins in found.attempts.values() if max(margins) <= 0)
    assert {found.value + 1, found.value + 2} <= found.attempts.keys()
    assert "best of 2 restarts" in str(found)
    before = cache.read_bytes()
    again = find_critical_n(3, 2, restarts=2, sweep=(1, 2), training=short, cache=cache)
    assert again == found
    assert cache.read_bytes() == before
    assert len(json.loads(before)) == len(seen)
    high = find_critical_n(3, 2, restarts=2, start=20, sweep=(1, 2), training=short, cache=cache)  # gallops down
    assert high.value == found.value


def test_the_fit_is_near_the_published_points():
    assert all(abs(paper_fit(d) - n) < 0.15 * n + 1 for d, n in PAPER_POINTS.items() if d >= 5)


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="positive"):
        train_free_embeddings(RAGGED, 0)
    with pytest.raises(InputError, match="positive"):
        train_free_embeddings(RAGGED, 2, training=Training(temperature=0))
    with pytest.raises(InputError, match="restarts"):
        find_critical_n(3, restarts=0)
    (tmp_path / "bad.json").write_text('{"a": 3}')
    with pytest.raises(DataFormatError, match="no file of attempts"):
        find_critical_n(3, cache=tmp_path / "bad.json")
