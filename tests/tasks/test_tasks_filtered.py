"""The protocol of filtered search: tie-tolerant recall, honest denominators, filters of a selectivity, budgets."""

import numpy as np
import pytest

from isometry.errors import InputError
from isometry.indexes.filtered import (
    Attributes,
    Between,
    Contains,
    Equals,
    Everything,
    Found,
    InlineHNSW,
    PreFilter,
    Rows,
    SeRF,
)
from isometry.indexes.filtered.baselines import spherical_kmeans
from isometry.tasks.filtered import (
    Field,
    FilteredQueries,
    at_recall,
    build_within,
    correlated_rows,
    draw_predicates,
    measure,
    popularity,
    predicates_of,
    sweep,
)
from isometry.tasks.filtered_methods import cells_of, fields_of, methods_of


def cloud(n, seed=0, d=8):
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def some(n, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {"lang": f"l{min(9, int(rng.exponential(2)))}", "year": int(rng.integers(0, 5000)),
         "tags": [f"t{j}" for j in range(6) if rng.random() < 0.3]}
        for _ in range(n)
    ]  # fmt: skip


class Fixed(PreFilter):
    """Answers with given rows."""

    rows = np.empty(0, np.int64)

    def search(self, query, predicate, k, ef=100):
        rows = self.rows[:k]
        return Found(rows, (1 - self.vectors[rows] @ query).astype(np.float32), 7)


def test_truth_is_brute_force_and_exact_search_has_recall_one():
    index = PreFilter.build(cloud(300), Attributes(some(300)))
    predicates = [Equals("lang", "l0"), Contains("tags", "t1"), Between("year", 100, 120), Everything()]
    queries = FilteredQueries.of(index, cloud(4, 1), predicates, 10)
    for i, predicate in enumerate(predicates):
        distances = np.sort(1 - index.vectors[index.attributes.mask(predicate)] @ queries.vectors[i])
        assert queries.matches[i] == len(distances)
        if len(distances):
            assert queries.kth[i] == pytest.approx(distances[:10][-1], abs=1e-6)
    row = measure(index, queries, 10)
    assert (row.recall == 1).all()
    assert row.whole.all()
    assert (row.seconds >= 0).all()


def test_ties_count_and_short_truth_sets_the_denominator():
    x = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)  # rows in triples of equal vectors
    index = Fixed.build(x, Attributes([{}] * 12))
    q = np.array([[1, 0.5, 0, 0]], np.float32)
    queries = FilteredQueries.of(index, q, [Everything()], 2)
    index.rows = np.array([2, 1])  # the other two of the nearest triple
    assert measure(index, queries, 1).recall[0] == 1
    index.rows = np.array([0, 3])
    assert measure(index, queries, 1).recall[0] == 0.5
    few = FilteredQueries.of(index, q, [Rows(np.arange(12) == 5)], 10)
    index.rows = np.array([5])
    assert measure(index, few, 1).recall[0] == 1
    index.rows = np.empty(0, np.int64)
    assert measure(index, few, 1).recall[0] == 0
    assert not measure(index, few, 1).whole[0]
    none = FilteredQueries.of(index, q, [~Everything()], 10)
    assert measure(index, none, 1).recall[0] == 1
    assert np.isnan(none.kth[0])


def test_drawn_filters_pass_the_share_asked_for():
    items = Attributes(some(2000))
    for share in (0.01, 0.1, 0.5):
        drawn = draw_predicates(items, "R", "year", 50, selectivity=share)
        passed = [items.mask(p).mean() for p in drawn]
        assert np.allclose(passed, share, atol=0.005)  # more only where years tie at an end
        assert min(passed) >= share
    for kind, field in (("EM", "lang"), ("EMIS", "tags")):
        drawn = draw_predicates(items, kind, field, 50, selectivity=0.25, seed=1)
        assert all(0.125 <= items.mask(p).mean() <= 0.5 for p in drawn)
    assert draw_predicates(items, "EMIS", "tags", 5, selectivity=0.0001) is None
    assert draw_predicates(items, "R", "year", 5, selectivity=0.0001) is None
    one, two = (draw_predicates(items, "R", "year", 9, selectivity=0.1, seed=s) for s in (0, 0))
    assert one == two


def test_drawn_dates_are_dates():
    items = Attributes([{"day": f"2024-01-{i:02d}"} for i in range(1, 31)])
    for predicate in draw_predicates(items, "R", "day", 10, selectivity=0.2):
        assert items.mask(predicate).sum() == 6


def test_popular_labels_are_drawn_more_often_from_items():
    items = Attributes([{"lang": "common"}] * 95 + [{"lang": "rare"}] * 5)
    assert popularity(items, Field("EM", "lang")) == {"10-100 %": 95, "1-10 %": 5}


def test_correlated_matches_lie_near_or_far():
    x, q = cloud(1000, 0, 6), cloud(20, 1, 6)
    centroids, home = spherical_kmeans(x, 25)
    mean = {}
    for how in ("positive", "random", "negative"):
        masks = [correlated_rows(centroids, home, v, 0.05, how, seed=i) for i, v in enumerate(q)]
        assert {int(m.sum()) for m in masks} == {50}
        mean[how] = np.mean([(x[m] @ v).mean() for m, v in zip(masks, q, strict=True)])
    assert mean["positive"] > mean["random"] + 0.1
    assert mean["negative"] < mean["random"] - 0.1


def test_sweep_stops_at_the_recall_and_picks_the_cheapest():
    inline = InlineHNSW.build(cloud(1500, 0, 24), Attributes([{}] * 1500), m=6, ef_construction=40)
    queries = FilteredQueries.of(inline, cloud(40, 1, 24), [Everything()] * 40, 10)
    rows = sweep(inline, queries, (160, 10, 40, 640), until=0.9)
    assert [r.ef for r in rows] == [10, 40, 160, 640][: len(rows)]
    assert rows[-1].recall.mean() >= 0.9
    assert all(r.recall.mean() < 0.9 for r in rows[:-1])
    assert at_recall(rows, 0.9) is rows[-1]
    assert at_recall(rows[:-1], 0.9) is None
    assert rows[-1].summary["recall"] == pytest.approx(rows[-1].recall.mean(), abs=1e-4)


def test_filters_of_a_benchmark_become_predicates():
    assert predicates_of("R", "year", [{"range_start": 1, "range_end": 2}]) == [Between("year", 1, 2)]
    assert predicates_of("EM", "n", [{"label": 3}]) == [Equals("n", 3)]
    assert predicates_of("EMIS", "topics", [{"label": "cs"}]) == [Contains("topics", "cs")]
    with pytest.raises(InputError, match=r"Query 1: .*swap"):
        predicates_of("R", "year", [{"range_start": 1, "range_end": 2}, {"range_start": 3, "range_end": 2}])
    with pytest.raises(InputError, match=r"Query 0: .*'label'"):
        predicates_of("EM", "year", [{"range_start": 1}])


def test_wrong_queries_are_named():
    index = PreFilter.build(cloud(5), Attributes([{"lang": "a"}] * 5))
    with pytest.raises(InputError, match="2 queries need as many predicates"):
        FilteredQueries.of(index, cloud(2), [Everything()], 3)
    with pytest.raises(InputError, match="Query 1: The attribute 'lang' has no order"):
        FilteredQueries.of(index, cloud(2), [Everything(), Between("lang", 1, 2)], 3)


def test_a_build_over_budget_or_refused_is_a_result():
    x, items = cloud(50), Attributes([{"lang": "a"}] * 50)
    refused = build_within(lambda n: SeRF.build(x, items, "lang"), 50, 60)
    assert refused.index is None
    assert refused.summary.startswith("not applicable: The attribute 'lang' has no order")
    sizes = []

    def build(n):
        sizes.append(n)
        return PreFilter.build(x[:n], Attributes([{}] * n))

    assert build_within(build, 50, -1.0, pilot=10).summary.startswith("did not finish: about ")
    assert sizes == [10, 10]
    assert build_within(build, 50, 60, pilot=10).summary.keys() == {"seconds", "bytes", "distances"}
    assert sizes[-1] == 50


def test_every_method_answers_its_cells():
    rows, x = some(400), cloud(400)
    inline = InlineHNSW.build(x, Attributes(rows), m=6, ef_construction=30)
    fields = fields_of(inline.attributes)
    assert fields == [Field("EM", "lang"), Field("R", "year"), Field("EMIS", "tags")]
    cells = cells_of(inline, cloud(5, 1), fields, (0.3,), 5)
    answered = {}
    for name, build in methods_of(inline, rows, fields, m=6, construction=30, degree=12).items():
        index = build(400)
        answered[name] = [cell.kind for cell in cells if cell.suits(index)]
        for cell in cells:
            if cell.suits(index):
                assert measure(index, cell.queries, 64).recall.mean() >= 0.8, (name, cell.name)
    everywhere = ["EM", "R", "EMIS", "all"]
    assert {k: v for k, v in answered.items() if v != everywhere} == {
        "SeRF (year)": ["R"], "FilteredVamana (lang)": ["EM"], "StitchedVamana (lang)": ["EM"],
        "FilteredVamana (tags)": ["EMIS"], "StitchedVamana (tags)": ["EMIS"], "UNG (tags)": ["EMIS"]}  # fmt: skip
    assert len(answered) == 14
