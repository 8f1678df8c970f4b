import gzip
import json

import numpy as np
import pytest

from isometry.errors import DataFormatError, EmptyInput, InputError, UnknownName
from isometry.indexes import Exact
from isometry.ranking import Edge, NeighbourGraph, Surroundings, knn_edges, links_of, read_edges
from isometry.types import Document, Embeddings, Space, id_array


def cloud(n=40, d=5, seed=0, copies=0):
    x = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    x[:copies] = x[0]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return Embeddings(x, id_array(f"{i:03d}" for i in range(n)), Space("cloud", d))


@pytest.mark.parametrize("mutual", [False, True])
def test_knn_edges_are_brute_force(mutual):
    emb = cloud()
    cosine = emb.vectors @ emb.vectors.T
    np.fill_diagonal(cosine, -2)
    near = np.zeros_like(cosine, bool)
    np.put_along_axis(near, np.argsort(-cosine, axis=1)[:, :6], True, axis=1)
    expected = np.where(near & near.T if mutual else near | near.T, np.maximum(cosine, 0), 0)
    for index in (None, Exact.of(emb)):
        found = knn_edges(emb, 6, mutual=mutual, index=index).toarray()
        assert found == pytest.approx(expected, abs=1e-6)
        assert (found == found.T).all()


def test_an_item_with_many_copies_keeps_k_neighbours_and_no_loop():
    edges = knn_edges(cloud(30, copies=9), 3, mutual=False)
    assert edges.diagonal().max() == 0
    assert (np.diff(edges.indptr) >= 3).all()
    with pytest.raises(InputError, match="at least 1 neighbour"):
        knn_edges(cloud(), 0)
    multi = Embeddings(np.eye(3, dtype=np.float32), id_array("ab"), Space("m", 3), offsets=np.array([0, 1, 3]))
    with pytest.raises(InputError, match="one vector per item"):
        knn_edges(multi)


def test_typed_edges_their_weights_and_the_way_back():
    edges = [Edge("a", "b", "cites", 2.0), Edge("a", "b", "cites", 1.0), Edge("b", "c", "near"), Edge("c", "c"),
             Edge("c", "x"), Edge("c", "a", "no")]  # fmt: skip
    graph = NeighbourGraph.of("abc", edges, types={"cites": 0.5, "no": 0.0}, reverse=0.25)
    expected = [[0, 1, 0], [0.25, 0, 1], [0, 0.25, 0]]
    assert graph.weights.toarray().tolist() == expected
    assert graph.unknown == 1
    assert NeighbourGraph.of("abc", edges, types={"no": 0}, reverse=0).weights.toarray()[1, 0] == 0
    assert NeighbourGraph.of("abc").weights.nnz == 0


def test_links_and_neighbours_add_up():
    emb = cloud(6)
    near = knn_edges(emb, 2)
    graph = NeighbourGraph.of(emb.ids, [Edge("000", "005")], near=near)
    assert graph.weights[0, 5] == pytest.approx(1 + near[0, 5])
    assert (graph.weights - near).nnz == 2
    with pytest.raises(InputError, match="6 items"):
        NeighbourGraph.of(emb.ids, near=near[:3, :3])


@pytest.mark.parametrize("normalise", ["row", "symmetric"])
def test_transitions_are_probabilities(normalise):
    graph = NeighbourGraph.of("abcde", [Edge("a", "b", weight=3), Edge("a", "c"), Edge("d", "b")], reverse=0)
    sums = graph.transition(normalise).sum(axis=1)
    assert np.asarray(sums).ravel() == pytest.approx([1, 0, 0, 1, 0])


def test_symmetric_normalisation_damps_hubs():
    spokes = [Edge(s, "hub") for s in "abcdefgh"] + [Edge("a", "quiet")]
    graph = NeighbourGraph.of([*"abcdefgh", "hub", "quiet"], spokes)
    row, symmetric = (graph.transition(how).toarray()[0] for how in ("row", "symmetric"))
    assert row[8] == row[9]
    assert symmetric[8] < symmetric[9]
    assert graph.top_in_degree(1) == [("hub", 8.0)]
    assert graph.transition().shape == (10, 10)


def test_surroundings_is_the_part_of_the_whole_graph_near_the_seeds():
    emb = cloud(60)
    index = Exact.of(emb)
    around = Surroundings(lambda ids: emb.take([int(i) for i in ids]), index.search, k=4, hops=2)
    graph = around(["007", "021"])
    assert graph.ids[:2].tolist() == ["007", "021"]
    asked = index.search(emb.take([7, 21]), 5).ids.tolist()
    assert set(asked) <= set(graph.ids)
    whole = knn_edges(emb, 4)
    rows = [int(i) for i in graph.ids]
    part = whole[rows][:, rows].toarray()
    inner = graph.weights.toarray()
    assert inner[inner > 0] == pytest.approx(part[inner > 0], abs=1e-6)
    assert (inner[0] > 0).sum() >= 4
    with pytest.raises(InputError, match="at least 1"):
        Surroundings(lambda ids: emb, index.search, hops=0)


def test_bad_graphs():
    with pytest.raises(InputError, match="same id"):
        NeighbourGraph.of("aba")
    with pytest.raises(InputError, match="at least 0"):
        NeighbourGraph.of("ab", [Edge("a", "b", weight=-1)])
    with pytest.raises(InputError, match="at least 0"):
        NeighbourGraph.of("ab", [Edge("a", "b")], reverse=float("nan"))
    with pytest.raises(UnknownName, match="normalisation"):
        NeighbourGraph.of("ab").transition("column")


EDGES = [Edge("a", "b", "cites", 2.0), Edge("b", "c", "cites", 0.0)]


def test_edges_from_files(tmp_path):
    table = "a\tb\tcites\t2\nb\tc\tcites\t0\n"
    for name, text in {
        "edges.tsv": table,
        "with_header.tsv": "source\ttarget\ttype\tweight\n" + table,
        "edges.csv": table.replace("\t", ","),
        "edges.jsonl": "\n".join(json.dumps(e._asdict()) for e in EDGES),
    }.items():
        (tmp_path / name).write_text(text)
        assert read_edges(tmp_path / name) == EDGES
    with gzip.open(tmp_path / "edges.tsv.gz", "wt") as file:
        file.write(table)
    assert read_edges(tmp_path / "edges.tsv.gz") == EDGES
    (tmp_path / "two.tsv").write_text("a\tb\n")
    assert read_edges(tmp_path / "two.tsv") == [Edge("a", "b")]


def test_bad_edge_files(tmp_path):
    def written(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    with pytest.raises(DataFormatError, match=r"edges.tsv:2.*weight 'x'"):
        read_edges(written("edges.tsv", "a\tb\tl\t1\na\tb\tl\tx\n"))
    with pytest.raises(DataFormatError, match="at least 0"):
        read_edges(written("edges.tsv", "a\tb\tl\t-1\n"))
    with pytest.raises(DataFormatError, match=r":1: .*source and a target"):
        read_edges(written("edges.jsonl", '{"source": "a"}\n'))
    with pytest.raises(DataFormatError, match="source and a target"):
        read_edges(written("one.tsv", "a\nb\n"))
    with pytest.raises(DataFormatError, match="3 fields"):
        read_edges(written("ragged.tsv", "a\tb\na\tb\tc\n"))
    with pytest.raises(EmptyInput, match="empty"):
        read_edges(written("empty.tsv", ""))
    with pytest.raises(InputError, match="does not exist"):
        read_edges(tmp_path / "missing.tsv")
    with pytest.raises(InputError, match=r"\.jsonl"):
        read_edges(written("edges.txt", "a b"))


def test_links_of_documents():
    documents = [
        Document("a", "", payload={"links": ["b", "c"]}),
        Document("b", "", payload={"links": "c, a"}),
        Document("c", "", payload={"links": 7, "see": ["a"]}),
        Document("d", ""),
    ]
    assert [(e.source, e.target) for e in links_of(documents)] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
        ("b", "a"),
        ("c", "7"),
    ]
    assert links_of(documents, "see") == [Edge("c", "a", "see")]
