"""Data sets by name and by path: the real ones, small ones written here, and each kind of bad input."""

import gzip
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from isometry.data import available, fetch, find, load_set, schemas
from isometry.errors import DataFormatError, DataWarning, EmptyInput, InputError, UnknownName
from isometry.types import Document

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def no_other_roots(tmp_path, monkeypatch):
    """Keep the sets of this machine out: an empty cache, another working folder, no environment variable."""
    monkeypatch.delenv("ISOMETRY_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    work = tmp_path / "work" / "here"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return folder


BEIR = {
    "corpus.jsonl": '{"_id": "d1", "title": "T", "text": "one", "year": 3}\n{"_id": "d2", "title": "", "text": ""}\n',
    "queries.jsonl.gz": '{"_id": "q1", "text": "what?"}\n{"_id": "q2", "text": "unjudged"}\n',
    "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n",
}


# Formats by path


def test_beir(tmp_path):
    data = load_set(write(tmp_path / "set", BEIR))
    assert data.corpus == [
        Document("d1", "one", "T", "corpus.jsonl:1", {"year": 3}),
        Document("d2", "", "", "corpus.jsonl:2"),
    ]
    assert data.corpus[0].content == "T one"
    assert (data.queries, data.qrels) == ({"q1": "what?"}, {"q1": {"d1": 2, "d2": 0}})


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq9\td1\t1\n", r"test.tsv:2: the query 'q9' is not"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\n\nq1\td9\t1\n", r"test.tsv:3: the document 'd9' is not"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t0.5\n", r"test.tsv:2: the grade '0.5' is not a whole"),
        ("qrels/test.tsv", "q1\td1\t1\nq1\td2\n", r"test.tsv:2: a judgment has three fields"),
        ("corpus.jsonl", '{"_id": "d1"}\n{"_id": "d2"}\n{"_id": "d1"}\n', r"corpus.jsonl:3: the id 'd1' .* line 1"),
        ("corpus.jsonl", BEIR["corpus.jsonl"] + "{oops\n", r"corpus.jsonl:3: the line is not valid JSON"),
        ("corpus.jsonl", BEIR["corpus.jsonl"] + '{"text": "x"}\n', r"corpus.jsonl:3: a line needs _id"),
    ],
)
def test_bad_lines_of_beir_are_named_or_left_out(tmp_path, file, content, message):
    folder = write(tmp_path / "set", {**BEIR, file: content})
    with pytest.raises(DataFormatError, match=message):
        load_set(folder)
    with pytest.warns(DataWarning, match="1 bad lines left out, the first: .*" + message):
        assert isinstance(load_set(folder, skip_bad=True), schemas.Retrieval)


def test_incomplete_beir(tmp_path):
    folder = write(tmp_path / "set", {k: v for k, v in BEIR.items() if "qrels" not in k})
    with pytest.raises(InputError, match=r"lacks qrels/\*\.tsv"):
        load_set(folder)
    with pytest.raises(UnknownName, match=r"Unknown part of .* 'dev'. It has test"):
        load_set(write(tmp_path / "whole", BEIR), split="dev")


def test_tables_by_their_columns(tmp_path):
    write(
        tmp_path,
        {
            "a.csv": 'sentence1,sentence2,score\n"a, b",c,4.5\nd,e,0\n',
            "b.tsv": "label\ttext\nx\tone\ny\ttwo\n",
            "c.jsonl": '{"anchor": "a", "positive": "p", "negative": "n"}\n',
            "d.tsv.gz": "question\tlabel\tanswer\nq\t1\ta\n",
            "e.tsv": "sentence\tr0\tr1\ns\tt\tu\n",
            "f.tsv": "eins\tone\nzwei\ttwo\n",
        },
    )
    sts = load_set(tmp_path / "a.csv")
    assert (sts.left, sts.right, sts.scores.tolist()) == (["a, b", "d"], ["c", "e"], [4.5, 0.0])
    labelled = load_set(tmp_path / "b.tsv")
    assert (labelled.texts, labelled.labels) == (["one", "two"], ["x", "y"])
    triplets = load_set(str(tmp_path / "c.jsonl"))
    assert (triplets.anchor, triplets.positive, triplets.negative) == (["a"], ["p"], ["n"])
    pairs = load_set(tmp_path / "d.tsv.gz")
    assert (pairs.left, pairs.right, pairs.labels) == (["q"], ["a"], ["1"])
    many = load_set(tmp_path / "e.tsv")
    assert (many.left, many.right, many.labels) == (["s", "s"], ["t", "u"], None)
    without_header = load_set(tmp_path / "f.tsv", kind="pairs", columns=("source", "target"))
    assert (without_header.left, without_header.right) == (["eins", "zwei"], ["one", "two"])
    assert isinstance(load_set(tmp_path / "a.csv", kind="pairs"), schemas.Pairs)


def test_parts_and_languages(tmp_path):
    header = "sentence1\tsentence2\tscore\n"
    files = {
        f"{lang}-{part}.tsv": f"{header}{lang}1\t{lang}2\t1\n" for lang in ("en", "de") for part in ("dev", "test")
    }
    folder = write(tmp_path / "multi", files)
    for lang, expected in ((None, ("en1", "en2")), ("de", ("de1", "de2")), ("en-de", ("en1", "de2"))):
        data = load_set(folder, lang=lang)
        assert (data.left[0], data.right[0]) == expected
    with pytest.raises(UnknownName, match=r"'fr'. It comes in de, en"):
        load_set(folder, lang="fr")
    (folder / "de-test.tsv").write_text(header + "a\tb\t1\nc\td\t2\n")
    with pytest.raises(InputError, match="not aligned: 1 and 2 rows"):
        load_set(folder, lang="en-de")
    single = write(tmp_path / "single", {"all.tsv": "label\ttext\nx\tone\n"})
    assert load_set(single).texts == load_set(single, split="all").texts == ["one"]
    with pytest.raises(UnknownName, match=r"'train'. It has all"):
        load_set(single, split="train")


def test_graph_numbers_are_shared_by_all_parts(tmp_path):
    rows = [("anna", "knows", "bob"), ("bob", "knows", "carl"), ("carl", "likes", "anna"), ("dora", "likes", "bob")]
    plain = "".join("\t".join(row) + "\n" for row in rows)
    first = "".join(f"{r}\t{h}\t{t}\n" for h, r, t in rows)
    for name, train in (("plain", plain), ("header", "head\trelation\ttail\n" + plain), ("first", first)):
        test = "knows\tdora\tanna\n" if name == "first" else "dora\tknows\tanna\n"
        folder = write(tmp_path / name, {"train.tsv": train, "test.tsv": test})
        parts = {split: load_set(folder, split=split) for split in ("train", "test")}
        for graph in parts.values():
            assert (graph.entities, graph.relations) == (["anna", "bob", "carl", "dora"], ["knows", "likes"])
        assert parts["test"].triples.tolist() == [[3, 0, 0]]
        named = [(graph.entities[h], graph.relations[r], graph.entities[t]) for h, r, t in parts["train"].triples]
        assert named == rows


def test_graph_by_row_numbers_and_with_texts(tmp_path):
    files = {
        "train.tsv": "0\t0\t1\n",
        "test.tsv": "1\t0\t2\n",
        "entities.tsv": "index\tmid\tname\tdescription\n0\t/a\tA\tfirst\n1\t/b\tB\t\n2\t/c\tC\tthird\n",
        "relations.tsv": "index\trelation\n0\tnext\n",
    }
    graph = load_set(write(tmp_path / "g", files))
    assert (graph.entities, graph.relations, graph.texts) == (
        ["/a", "/b", "/c"],
        ["next"],
        ["A: first", "B", "C: third"],
    )
    assert graph.triples.tolist() == [[1, 0, 2]]
    (tmp_path / "g" / "test.tsv").write_text("1\t0\t7\n")
    with pytest.raises(DataFormatError, match=r"test.tsv:1: '7' is not among"):
        load_set(tmp_path / "g")


def test_graph_with_an_unknown_header_is_refused(tmp_path):
    rows = "".join(f"e{i}\tr\te{i + 1}\n" for i in range(20))
    folder = write(tmp_path / "g", {"train.tsv": "from\tedge\tto\n" + rows, "test.tsv": "e0\tr\te2\n"})
    with pytest.raises(DataFormatError, match=r"train.tsv:1: the first line \(from, edge, to\) looks like a header"):
        load_set(folder, split="train")


def test_interactions(tmp_path):
    ratings = "userId,movieId,rating,timestamp\n1,10,4.5,100\n1,11,3,90\n2,10,1,80\n"
    folder = write(tmp_path / "r", {"ratings.csv": ratings, "movies.csv": "movieId,title\n10,Alien\n11,Brazil\n"})
    data = load_set(folder)
    assert data.by_user() == {"1": ["10", "11"], "2": ["10"]}
    assert (data.ratings.tolist(), data.times.tolist()) == ([4.5, 3.0, 1.0], [100, 90, 80])
    assert data.texts == {"10": "Alien", "11": "Brazil"}
    assert load_set(write(tmp_path / "n", {"test.txt": "7 1 2\n8 3\n"})).by_user() == {"7": ["1", "2"], "8": ["3"]}
    baskets = load_set(write(tmp_path / "b", {"baskets.txt.gz": "tea|milk\nrice\n"}))
    assert list(baskets.by_user().values()) == [["tea", "milk"], ["rice"]]
    (folder / "ratings.csv").write_text(ratings + "3,10,good,70\n")
    with pytest.raises(DataFormatError, match=r"ratings.csv:5: the rating or time is not a number"):
        load_set(folder)


def test_sequences(tmp_path):
    files = {"a.fa.gz": ">s1 first\nACGT\nAC\n>s2\nTT\n", "facts.tsv": "id\tspecies\na\tE. coli\n"}
    data = load_set(write(tmp_path / "s", files))
    assert (data.ids, data.sequences) == (["a/s1", "a/s2"], ["ACGTAC", "TT"])
    assert data.facts[0] == {"id": "a", "species": "E. coli", "file": "a.fa.gz", "about": "first"}
    with pytest.raises(DataFormatError, match=r"b.fa:1: a FASTA file starts with"):
        load_set(write(tmp_path / "t", {"b.fa": "ACGT\n"}))


def test_image_folder(tmp_path):
    files = {"metadata.jsonl": '{"file_name": "a.png", "text": "a cat", "label": "cat"}\n', "a.png": b"png"}
    folder = write(tmp_path / "i", files)
    data = load_set(folder)
    assert (data.images[0].path.name, data.texts, data.labels) == ("a.png", ["a cat"], ["cat"])
    (folder / "a.png").unlink()
    with pytest.raises(DataFormatError, match=r"metadata.jsonl:1: there is no picture 'a.png'"):
        load_set(folder)


@pytest.mark.parametrize(
    ("name", "content", "kind", "error", "message"),
    [
        ("a.tsv", "sentence1\tsentence2\tscore\na\tb\thigh\n", None, DataFormatError, r"a.tsv:2: the score 'high'"),
        ("a.tsv", "sentence1\tsentence2\tscore\na\tb\tnan\n", None, DataFormatError, r"a.tsv:2: the score 'nan'"),
        ("a.tsv", "sentence1\tsentence2\tscore\na\tb\n", None, DataFormatError, r"a.tsv:2: the row has 2 fields"),
        ("a.tsv", "sentence1\tsentence2\tscore\n", None, EmptyInput, "has no rows"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n', None, DataFormatError, r"a.jsonl:2: .*'label'"),
        ("a.tsv", "alpha\tbeta\n1\t2\n", None, InputError, "in no known format"),
        ("a.tsv", "alpha\tbeta\n1\t2\n", "sts", InputError, "cannot be read as sts: its columns are alpha, beta"),
        ("a.tsv", "label\ttext\n1\t2\n", "stss", UnknownName, "Did you mean 'sts'"),
    ],
)
def test_bad_tables(tmp_path, name, content, kind, error, message):
    with pytest.raises(error, match=message):
        load_set(write(tmp_path / "set", {name: content}) / name, kind=kind)


def test_schemas_check_themselves():
    document = Document("d", "text")
    with pytest.raises(InputError, match="unknown document 'x'"):
        schemas.Retrieval([document], {"q": "?"}, {"q": {"x": 1}})
    with pytest.raises(InputError, match="unknown query 'x'"):
        schemas.Retrieval([document], {"q": "?"}, {"x": {"d": 1}})
    with pytest.raises(InputError, match="2 documents but only 1 ids"):
        schemas.Retrieval([document, document], {}, {})
    with pytest.raises(InputError, match="left: 1, right: 2"):
        schemas.Pairs(["a"], ["b", "c"])
    with pytest.raises(EmptyInput, match="at least one row"):
        schemas.Labelled([], [])
    with pytest.raises(InputError, match="NaN"):
        schemas.STS(["a"], ["b"], np.asarray([np.nan]))
    with pytest.raises(InputError, match="point outside"):
        schemas.Graph(np.asarray([[0, 0, 5]]), ["a"], ["r"])


# Names


def test_find_looks_through_the_roots_in_order(tmp_path, monkeypatch):
    for place in ("root", "env", "work/shared/data", "cache/isometry/data"):
        write(tmp_path / place / "ir" / "tiny", BEIR)
    monkeypatch.setenv("ISOMETRY_DATA", str(tmp_path / "env"))
    assert find("ir/tiny", root=tmp_path / "root") == tmp_path / "root" / "ir" / "tiny"
    assert find("ir/tiny") == tmp_path / "env" / "ir" / "tiny"
    monkeypatch.delenv("ISOMETRY_DATA")
    assert find("ir/tiny") == tmp_path / "work" / "shared" / "data" / "ir" / "tiny"
    infos = {info.name: info for info in available(tmp_path / "root")}
    assert infos["ir/tiny"].path == find("ir/tiny", root=tmp_path / "root")
    assert (infos["ir/tiny"].kind, infos["ir/tiny"].parts, infos["ir/tiny"].builtin) == ("retrieval", ("test",), False)
    assert infos["ir/tiny"].size_bytes == sum(p.stat().st_size for p in infos["ir/tiny"].path.rglob("*") if p.is_file())
    assert all(find(name, root=tmp_path / "root") == info.path for name, info in infos.items())


def test_a_folder_in_no_known_format_does_not_hide_a_set(tmp_path):
    write(tmp_path / "root" / "tiny", {"notes.txt": "text"})
    write(tmp_path / "work" / "shared" / "data" / "tiny", BEIR)
    assert find("tiny", root=tmp_path / "root") == tmp_path / "work" / "shared" / "data" / "tiny"


def test_names_before_paths_and_unknown_names(tmp_path):
    write(tmp_path / "root" / "tiny", BEIR)
    write(Path("tiny"), {"corpus.jsonl": "", "other.tsv": "label\ttext\nx\tone\n"})
    assert isinstance(load_set("tiny", root=tmp_path / "root"), schemas.Retrieval)
    assert isinstance(load_set("./tiny/other.tsv"), schemas.Labelled)
    assert isinstance(load_set("tiny/other.tsv"), schemas.Labelled)
    with pytest.raises(UnknownName) as caught:
        find("tinny", root=tmp_path / "root")
    assert "tiny" in caught.value.nearest
    for name in ("", ".", "../root/tiny", "/etc"):
        with pytest.raises(UnknownName):
            find(name, root=tmp_path / "root")
    with pytest.raises(InputError, match=r"data folder .* does not exist"):
        find("tiny", root=tmp_path / "nope")
    with pytest.raises(InputError, match="no file or folder"):
        load_set("./nope")


# Fetching


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the package datasets that knows one data set of two splits."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    rows = {"train": [{"text": "é", "label": 1}], "test": [{"text": "b", "label": float("nan")}]}
    module = types.ModuleType("datasets")

    def load_dataset(name, config=None, split=None):
        if name == "offline/set":
            raise ConnectionError("Couldn't reach the hub\nmore detail")
        return rows[split] if split else rows

    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


def test_fetched_sets_are_found_and_loaded(hub, tmp_path):
    folder = fetch("owner/set", config="small")
    assert folder == tmp_path / "cache" / "isometry" / "data" / "owner" / "set" / "small"
    assert find("owner/set/small") == folder
    assert (folder / "train.jsonl").read_text(encoding="utf-8") == '{"text": "é", "label": 1}\n'
    assert (folder / "test.jsonl").read_text() == '{"text": "b", "label": null}\n'
    assert load_set("owner/set/small", split="train").labels == ["1"]
    fetch("owner/set", split="test", to=tmp_path / "to")
    assert [p.name for p in (tmp_path / "to").iterdir()] == ["test.jsonl"]
    fetch("owner/set", split="train", to=tmp_path / "to")
    assert sorted(p.name for p in (tmp_path / "to").iterdir()) == ["test.jsonl", "train.jsonl"]


def test_a_fetch_that_breaks_leaves_nothing(hub, tmp_path):
    def broken():
        yield {"text": "a"}
        raise RuntimeError("lost")

    hub.load_dataset = lambda *args, **kwargs: {"train": broken()}
    with pytest.raises(RuntimeError):
        fetch("owner/set", to=tmp_path / "new" / "set")
    assert list((tmp_path / "new").iterdir()) == []


def test_fetch_refuses_clearly(hub, monkeypatch):
    with pytest.raises(InputError, match=r"cannot be fetched from the hub: Couldn't reach the hub$"):
        fetch("offline/set")
    with pytest.raises(InputError, match="is no name of a data set"):
        fetch("../escape")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        fetch("owner/set")


# The real sets

SIZES = {
    "ir/adi": (82, 35, 170),
    "ir/cisi": (1460, 76, 3114),
    "ir/cosqa": (6267, 500, 500),
    "ir/cranfield": (1400, 225, 1837),
    "ir/csfcube": (4205, 50, 6244),
    "ir/limit-small": (46, 1000, 2000),
    "ir/npl": (11426, 93, 2083),
    "ir/qmsum": (232, 237, 237),
    "ir/scifact": (5183, 300, 339),
    "ir/xquad": (240, 1190, 1190),
}


@pytest.mark.data
@pytest.mark.parametrize("name", SIZES)
def test_real_retrieval_sets(data_root, name):
    data = load_set(name, root=data_root)
    assert (len(data.corpus), len(data.queries), sum(map(len, data.qrels.values()))) == SIZES[name]
    assert all(text.strip() for text in data.queries.values())


@pytest.mark.data
def test_every_set_that_is_listed_loads_in_all_its_parts(data_root):
    infos = [info for info in available(data_root) if info.path.is_relative_to(data_root.resolve())]
    kinds = {info.kind for info in infos}
    assert kinds == {"retrieval", "sts", "labelled", "pairs", "graph", "interactions", "sequences", "image-text"}
    shapes = {"retrieval": "Retrieval", "sts": "STS", "image-text": "ImageText"}
    for info in infos:
        if info.kind == "retrieval":
            continue  # above
        for part in info.parts[:4] or ("test",):
            data = load_set(info.name, split=part, root=data_root)
            assert type(data).__name__ == shapes.get(info.kind, info.kind.capitalize()), info.name


@pytest.mark.data
def test_real_sets_say_what_their_table_says(data_root):
    sick = load_set("sts/sick", root=data_root)
    assert len(sick.left) == 4927
    assert (sick.scores.min(), sick.scores.max()) == (1, 5)
    assert set(load_set("sts/sick", kind="pairs", root=data_root).labels) == {"neutral", "entailment", "contradiction"}
    assert len(load_set("sts/sts12-15/sts14", root=data_root).left) == 3750
    for lang in ("en", "de", "zh", "en-fr"):
        assert len(load_set("sts/stsb", root=data_root, lang=lang).left) == 1379
    assert len(set(load_set("cls/banking77", split="train", root=data_root).labels)) == 77
    kinship = load_set("kg/kinship", split="train", root=data_root)
    assert (kinship.triples.shape, len(kinship.entities), len(kinship.relations)) == ((8548, 3), 104, 25)
    freebase = load_set("kg/fb15k-237", root=data_root)
    assert (freebase.triples.shape, len(freebase.entities), len(freebase.relations)) == ((20466, 3), 14541, 237)
    movies = load_set("recsys/ml-latest-small", root=data_root)
    assert (len(movies.users), len(movies.by_user()), len(movies.texts)) == (100848, 610, 9742)
    genomes = load_set("bio/genomes", root=data_root)
    assert sum(map(len, genomes.sequences)) == 32_257_961
    emoji = load_set("emoji", split="google", root=data_root)
    assert len(emoji.images) == len(set(emoji.images)) == 1906
    assert "😀" not in emoji.texts
    assert emoji.texts[0] == "grinning face"
    assert load_set("emoji", split="google", lang="de", root=data_root).texts[0] == "grinsendes Gesicht"
    crossed = load_set("ir/xquad", lang="en-de", root=data_root)
    assert crossed.queries == load_set("ir/xquad", root=data_root).queries
    assert crossed.corpus == load_set("ir/xquad", lang="de", root=data_root).corpus
