"""Search that spreads its answers and follows links, on a folder with links, and what it says about each answer."""

import json

import pytest

DOCUMENTS = [
    {"_id": "bridge", "text": "The old stone bridge over the river was closed in spring.", "links": ["firm"]},
    {"_id": "bridge2", "text": "The old stone bridge over the river was closed in spring."},
    {"_id": "road", "text": "The road along the river is open to bicycles."},
    {"_id": "firm", "text": "Halvorsen and Sons, masons, founded 1911.", "links": ["owner"]},
    {"_id": "owner", "text": "Ada Halvorsen keeps bees."},
    {"_id": "soup", "text": "Simmer the onions in butter before adding stock."},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("linked")
    (root / "town.jsonl").write_text("\n".join(map(json.dumps, DOCUMENTS)), encoding="utf-8")
    (root / "plain.md").write_text("# Masons\n\nMasons cut stone.\n", encoding="utf-8")
    return root


@pytest.fixture
def town(isometry, folder):
    assert isometry("index", folder, "--name", "town").code == 0
    return isometry


QUERY = ("search", "which bridge was closed?", "-c", "town", "--mode", "vector", "--json")


def ids(rows):
    return [row["id"].removeprefix("town.jsonl:") for row in rows]


def test_plain_search_has_no_provenance(town):
    assert all("provenance" not in row for row in town(*QUERY, "-k", "3").json)


def test_links_of_documents_bring_in_what_similarity_does_not(town):
    plain, linked = (town(*QUERY, "-k", "4", *more).json for more in ((), ("--hops", "1")))
    assert ids(plain)[:2] == ["bridge", "bridge2"]
    assert "firm" in ids(linked)
    origin = linked[ids(linked).index("firm")]["provenance"]
    assert set(origin) == {"rank", "seed", "path", "gain", "copies"}
    assert origin["path"] == ["town.jsonl:bridge", "town.jsonl:firm"]
    assert origin["seed"] == "town.jsonl:bridge"
    assert origin["gain"] is None
    shown = town("search", "which bridge was closed?", "-c", "town", "--mode", "vector", "--hops", "1")
    assert "linked: town.jsonl:bridge > town.jsonl:firm" in " ".join(shown.out.split())


@pytest.mark.parametrize(("method", "relevance"), [("mmr", "0.4"), ("coverage", "0.1"), ("dpp", "0.4")])
def test_answers_are_spread_and_copies_named(town, method, relevance):
    rows = town(*QUERY, "-k", "3", "--diverse", relevance, "--diverse-by", method).json
    assert len({*ids(rows)} & {"bridge", "bridge2"}) == 1
    first = rows[0]["provenance"]
    assert first["rank"] == 1
    assert first["copies"] == ["town.jsonl:bridge2"]
    gains = [row["provenance"]["gain"] for row in rows]
    assert gains == sorted(gains, reverse=True)
    assert gains == [row["score"] for row in rows]


def test_edges_from_a_file_by_row_id_by_file_or_by_whole_id(town, tmp_path):
    for name, text in {
        "rows.tsv": "bridge\tsoup\n",
        "typed.tsv": "source\ttarget\ttype\tweight\ntown.jsonl:bridge\ttown.jsonl:soup\tsee\t2\n",
        "edges.jsonl": '{"source": "bridge", "target": "soup"}\n',
    }.items():
        (tmp_path / name).write_text(text)
        rows = town(*QUERY, "-k", "7", "--hops", "1", "--edges", tmp_path / name).json
        assert rows[ids(rows).index("soup")]["provenance"]["path"] == ["town.jsonl:bridge", "town.jsonl:soup"]
    (tmp_path / "file.tsv").write_text("bridge\tplain.md\nbridge\tnowhere\n")
    ran = town(*QUERY, "-k", "7", "--hops", "1", "--edges", tmp_path / "file.tsv")
    assert [r["id"] for r in ran.json if r["provenance"]["path"]] == ["plain.md#0"]
    assert "1 of 2 links name documents that are not in the collection" in ran.err


def test_links_and_diversity_together_under_a_filter(town):
    ran = town(*QUERY, "-k", "9", "--hops", "2", "--diverse", "0.5", "--where", "file = 'town.jsonl'", "--explain")
    assert len(ran.json) == 6
    assert "only 6 candidates for 9 answers" in ran.err
    stages = {part["stage"] for row in ran.json for part in row["explanation"]}
    assert {"retrieve", "graph", "expand", "diversify"} <= stages
    none = town(*QUERY, "--hops", "1", "--where", "file = 'plain.md'").json
    assert [row["id"] for row in none] == ["plain.md#0"]


def test_without_links_neighbours_are_followed_and_it_says_what_that_is_worth(isometry, notes):
    assert isometry("index", notes, "--name", "unlinked").code == 0
    ran = isometry("search", "cats", "-c", "unlinked", "--mode", "vector", "--hops", "1", "--json", "-k", "3")
    assert len(ran.json) == 3
    assert "adds little" in ran.err
    assert "--edges" in ran.err


def test_bad_options_are_one_sentence(town, tmp_path):
    (tmp_path / "strange.tsv").write_text("x\ty\n")
    (tmp_path / "broken.tsv").write_text("bridge\tsoup\tsee\theavy\n")
    for options, message in {
        ("--hops", "0"): "hops must be at least 1",
        ("--edges", tmp_path / "strange.tsv"): "--hops",
        ("--hops", "1", "--edges", tmp_path / "strange.tsv"): "None of the 1 links",
        ("--hops", "1", "--edges", tmp_path / "broken.tsv"): "'heavy'",
        ("--hops", "1", "--edges", tmp_path / "missing.tsv"): "does not exist",
        ("--diverse", "0.5", "--diverse-by", "luck"): "Unknown way to diversify 'luck'",
        ("--diverse", "2"): "lam (--diverse) must be between",
        ("--diverse-by", "dpp"): "give --diverse",
    }.items():
        ran = town(*QUERY, *options)
        assert ran.code == 2
        assert message in ran.err
        assert "Traceback" not in ran.err


def test_as_many_answers_as_one_likes(town):
    assert len(town(*QUERY, "-k", str(10**20)).json) == len(town(*QUERY, "-k", "100").json) > 0
