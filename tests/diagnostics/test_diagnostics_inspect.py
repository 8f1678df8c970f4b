"""Inspection: every figure equals its own diagnosis, bad rows are named, findings speak, the page is safe."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from isometry.diagnostics import (
    cosine_depth,
    effective_rank,
    inspect_vectors,
    k_occurrence,
    lid,
    mean_cosine,
    mle_dimension,
    two_nn,
    write_html,
)
from isometry.diagnostics.svg import histogram
from isometry.errors import DimensionMismatch, EmptyInput, InputError


def cloud(n=300, d=16, shift=0.3, seed=0):
    return np.random.default_rng(seed).normal(shift, 1, (n, d))


def texts_of(n):
    return [f"text {i} " + "word " * (i % 17) for i in range(n)]


def said(seen):
    return " ".join(f.text for f in seen.findings)


def test_figures_are_those_of_the_diagnoses():
    x = cloud()
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    seen = inspect_vectors(x, ids=[f"d{i}" for i in range(300)], texts=texts_of(300))
    assert (seen.size, seen.dim, seen.usable, seen.sample, seen.sampled) == (300, 16, 300, 300, False)
    assert seen.mean_cosine == pytest.approx(mean_cosine(x))
    assert seen.effective_rank == pytest.approx(effective_rank(x))
    assert seen.hub_skewness == pytest.approx(k_occurrence(x, 10).skewness)
    assert seen.lid == pytest.approx(mle_dimension(lid(unit, 20)))
    assert seen.two_nn == pytest.approx(two_nn(unit))
    depths = cosine_depth(x, x, in_sample=True)
    assert seen.central[0].id == f"d{depths.argmax()}"
    assert seen.outliers[0].row == depths.argmin()
    assert seen.outliers[0].text == texts_of(300)[depths.argmin()]
    assert seen.norm_mean == pytest.approx(np.linalg.norm(x, axis=1).mean())


def test_json_form_is_plain_and_its_keys_are_stable():
    full = json.loads(json.dumps(inspect_vectors(cloud(), texts=texts_of(300)).to_dict()))
    tiny = inspect_vectors(np.ones((1, 3))).to_dict()
    assert list(full) == list(tiny)
    assert {"size", "mean_cosine", "findings", "sampled", "lid", "outliers"} <= full.keys()
    assert "series" not in full


def test_sampling_is_stated_deterministic_and_close():
    x = cloud(2000)
    part, again, whole = (inspect_vectors(x, sample=size, seed=1) for size in (500, 500, 2000))
    assert part.sampled
    assert part.sample == 500
    assert part.to_dict() == again.to_dict()
    assert part.mean_cosine == whole.mean_cosine  # over all rows in any case
    assert part.effective_rank == pytest.approx(whole.effective_rank, rel=0.05)


def test_bad_rows_are_counted_named_and_left_out():
    x = cloud(60)
    broken = x.copy()
    broken[3], broken[5, 2], broken[7, 0] = 0, np.nan, np.inf
    seen = inspect_vectors(broken, ids=[f"d{i}" for i in range(60)])
    assert (seen.nan_rows, seen.zero_rows, seen.usable) == (2, 1, 57)
    assert seen.bad_ids == ("d3", "d5", "d7")
    assert [f.level for f in seen.findings][:2] == ["problem", "problem"]
    rest = inspect_vectors(np.delete(x, [3, 5, 7], axis=0))
    assert seen.mean_cosine == pytest.approx(rest.mean_cosine)
    assert seen.lid == pytest.approx(rest.lid)
    assert {item.id for item in seen.outliers} == {f"d{r + (r >= 3) + (r >= 4) + (r >= 5)}" for r in
                                                  (item.row for item in rest.outliers)}  # fmt: skip


def test_findings_say_what_is_wrong_and_only_then():
    assert "Mean cosine is 0." in said(inspect_vectors(cloud(shift=1.0)))
    assert "centre before" not in said(inspect_vectors(cloud(shift=0.0)))
    x = cloud(200, shift=0)
    doubled = inspect_vectors(np.concatenate([x, x[:30]]))
    assert doubled.exact_duplicates == 30
    assert doubled.near_duplicates == 30
    assert "30 vectors (13.0%) repeat" in said(doubled)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert "norm" not in said(inspect_vectors(unit)).lower()
    assert "Norms run" in said(inspect_vectors(x))
    assert "All norms are 2" in said(inspect_vectors(unit * 2))
    assert "95% of the variance" in said(inspect_vectors(x * [5.0] * 16 * np.r_[np.ones(4), np.full(12, 0.01)]))
    assert "Intrinsic dimension" in said(inspect_vectors(cloud(1500, 200, 0)))
    assert "Hubs" in said(inspect_vectors(cloud(1500, 300, 0.5)))


def test_length_finding_needs_texts_and_an_effect():
    x = cloud(300, shift=0)
    lengths = np.arange(300)
    x[:, 0] += lengths / 40
    texts = ["w " * int(n) for n in lengths]
    assert "Longer texts" in said(inspect_vectors(x, texts=texts))
    assert inspect_vectors(x).length_rho is None
    assert "texts are more similar" not in said(inspect_vectors(cloud(), texts=texts))
    assert inspect_vectors(x, texts=["same"] * 300).length_rho is None


def test_a_far_row_is_an_outlier():
    x = cloud(200, shift=2)
    x[17] = -x[17]
    seen = inspect_vectors(x)
    assert seen.outlier_count >= 1
    assert seen.outliers[0].row == 17
    assert "'17'" in said(seen)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 12])
@pytest.mark.parametrize("same", [True, False])
def test_small_and_constant_sets(n, same, tmp_path):
    x = np.ones((n, 4)) if same else cloud(n, 4)
    texts = texts_of(n)
    seen = inspect_vectors(x, texts=texts)
    json.dumps(seen.to_dict(), allow_nan=False)
    assert len(seen.central) == min(n, 10)
    write_html(seen, x, texts, tmp_path / "page.html")


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8])
def test_any_numeric_type(dtype):
    x = (cloud() * 20).astype(dtype)
    assert inspect_vectors(x).dtype == np.dtype(dtype).name


def test_one_dimension_and_wide():
    assert inspect_vectors(cloud(50, 1)).isoscore is None
    assert inspect_vectors(cloud(20, 100)).effective_rank < 20


def test_bad_input_is_refused():
    x = cloud(20)
    with pytest.raises(DimensionMismatch, match="matrix"):
        inspect_vectors(x[0])
    with pytest.raises(DimensionMismatch, match="numbers"):
        inspect_vectors(np.array([["a"]]))
    with pytest.raises(EmptyInput):
        inspect_vectors(np.zeros((0, 3)))
    with pytest.raises(EmptyInput, match="usable"):
        inspect_vectors(np.zeros((5, 3)))
    with pytest.raises(InputError, match="20 ids"):
        inspect_vectors(x, ids=["a"])
    with pytest.raises(InputError, match="20 texts"):
        inspect_vectors(x, texts=["a"])
    with pytest.raises(InputError, match="sample"):
        inspect_vectors(x, sample=5)


class Page(HTMLParser):
    """Collects tags, attributes and the titles of dots."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.words = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.words.append(data)


EVIL = '<script>alert(1)</script><img src=x onerror="alert(2)">\'"&</title></svg>\ud800'


@pytest.fixture
def page(tmp_path):
    x = cloud(120)
    texts = [f"{EVIL} {i}" for i in range(120)]
    write_html(inspect_vectors(x, ids=texts, texts=texts), x, texts, tmp_path / "report.html")
    content = (tmp_path / "report.html").read_text(encoding="utf-8")
    parsed = Page()
    parsed.feed(content)
    return content, parsed, list(tmp_path.iterdir())


def test_texts_and_ids_cannot_bring_markup(page):
    content, parsed, _ = page
    assert not {"script", "img", "iframe", "link"} & set(parsed.tags)
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]
    assert any(word.startswith("<script>alert(1)</script>") for word in parsed.words)
    assert "<script" not in content


def test_the_page_asks_nothing_of_the_network_and_is_whole(page):
    content, parsed, files = page
    assert not re.search(r"https?://|url\(|@import", content)
    assert not {"src", "href"} & {name for name, _ in parsed.attributes}
    assert parsed.tags.count("circle") == 120
    assert parsed.tags.count("svg") == 5
    assert content.startswith("<!doctype html>")
    assert content.endswith("</html>\n")
    assert len(files) == 1


def test_the_map_is_sampled_and_names_rows_without_texts(tmp_path):
    x = cloud(2300, 6)
    write_html(inspect_vectors(x), x, None, tmp_path / "a.html")
    content = (tmp_path / "a.html").read_text()
    assert content.count("<circle") == 2000
    assert "<title>row " in content


def test_write_html_refuses_other_vectors(tmp_path):
    x = cloud(30)
    seen = inspect_vectors(x)
    with pytest.raises(InputError, match="inspect these"):
        write_html(seen, x[:20], None, tmp_path / "a.html")
    with pytest.raises(InputError, match="30 texts"):
        write_html(seen, x, ["a"], tmp_path / "a.html")
    for wrong in (tmp_path / "missing" / "a.html", tmp_path):
        with pytest.raises(InputError, match="folder that exists"):
            write_html(seen, x, None, wrong)
    assert not list(tmp_path.iterdir())


def test_histogram_bars_hold_every_value():
    drawn = histogram(np.random.default_rng(0).normal(size=500), "x")
    assert sum(int(c) for c in re.findall(r": (\d+)</title>", drawn)) == 500
    counts = histogram(np.array([0, 0, 1, 3]), "k")
    assert sorted(re.findall(r": (\d+)</title>", counts)) == ["1", "1", "2"]


def test_few_rows_are_not_told_to_be_shortened():
    """A hundred rows of width 384 span a hundred directions whatever they are; that is no reason to cut them."""
    from isometry.diagnostics import inspect_vectors

    rng = np.random.default_rng(0)
    few, many = rng.normal(size=(100, 64)), rng.normal(size=(600, 64)) * np.geomspace(1, 0.01, 64)
    assert not [f for f in inspect_vectors(few[:60]).findings if "shortened" in f.text]
    assert [f for f in inspect_vectors(many).findings if "shortened" in f.text]
