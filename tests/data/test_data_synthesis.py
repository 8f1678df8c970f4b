"""Synthetic rows: rules, prompts, an endpoint, filters, provenance."""

import http.server
import json
import threading
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isometry.data.schemas import Pairs
from isometry.data.synthesis import (
    Configuration,
    Filters,
    Generator,
    OpenAIEndpoint,
    PromptGenerator,
    Provenance,
    Request,
    RuleGenerator,
    SyntheticRow,
    Thesaurus,
    filter_rows,
    inverse_cloze,
    nearest_personas,
    read_rows,
    rewrite,
    synthesise,
    write_rows,
)
from isometry.data.synthesis.generator import DIFFICULTIES, LENGTHS, QUESTION_TYPES
from isometry.errors import DataFormatError, EmptyInput, InputError, UnknownName
from isometry.types import Document

PASSAGE = (
    "Marie Curie studied radium in Paris with Pierre Curie. The prize of 1903 was shared by 3 people. "
    "When the war began, she drove ambulances to Verdun."
)
WORDS = Thesaurus({"studied": ("examined",), "ambulances": ("rescue_wagons",)}, {"open": ("closed",)})
WRITER = RuleGenerator(WORDS, entities=("Berlin",))
DOCUMENTS = [
    Document("a", PASSAGE),
    Document("b", "Rivers carry sand. If it rains, the rivers rise fast.", title="Water"),
]


@pytest.mark.parametrize("kind", QUESTION_TYPES)
@pytest.mark.parametrize("length", LENGTHS)
def test_queries_by_rule(kind, length):
    asked = [
        Request("query", PASSAGE, configuration=Configuration("", kind, level, length), seed=seed)
        for seed in range(5) for level in DIFFICULTIES
    ]  # fmt: skip
    for request in asked:
        query = WRITER.generate(request)
        assert query
        assert query == WRITER.generate(request)
        if kind == "sentence":
            assert len(query.split()) <= {"short": 8, "medium": 16, "long": 40}[length] + 1
        if kind == "question":
            assert query[0].isupper()
            assert query[-1] in "?."
        if request.configuration.difficulty == "hard":
            assert "studied" not in query
    assert len({WRITER.generate(request) for request in asked}) > 1


def test_a_persona_steers_what_is_asked_about():
    for seed in range(8):
        configuration = Configuration("a driver of ambulances", "sentence", length="long")
        query = WRITER.generate(Request("query", PASSAGE, configuration=configuration, seed=seed))
        assert "ambulances" in query


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("If it rains, the river rises.", "The river rises if it rains."),
        ("The river rises because it rains.", "Because it rains, the river rises."),
        ("Paris grows when trade grows!", "When trade grows, Paris grows!"),
        ("We saw apples, pears and plums.", "We saw plums, apples and pears."),
        ("She studied.", "She examined."),
        ("Nothing to change here.", ""),
        ("", ""),
    ],
)
def test_paraphrases_by_rule(text, expected):
    assert WRITER.generate(Request("paraphrase", text)) == expected


@given(st.text(max_size=200), st.integers(0, 1000), st.sampled_from(["query", "paraphrase", "hard_negative"]))
def test_rules_take_any_text(text, seed, mode):
    request = Request(mode, text, query=text[::-1], configuration=Configuration(length="long"), seed=seed)
    found = WRITER.generate(request)
    assert found == WRITER.generate(request)
    if mode != "query":
        assert found != text or not found


def test_hard_negatives_change_what_matters_and_little_else():
    for seed in range(5):
        changed = WRITER.generate(Request("hard_negative", PASSAGE, "Where did Curie work?", seed=seed))
        before, after = PASSAGE.split(), changed.split()
        assert "1903" not in changed
        assert "3 people" not in changed
        assert "in Paris with" not in changed
        assert sum((Counter(before) & Counter(after)).values()) > 0.6 * len(before)
    assert WRITER.generate(Request("hard_negative", "the door is open", "door")) == "the door is closed"
    near = "The sky is blue. The sea is not green."
    assert WRITER.generate(Request("hard_negative", near, "green sea")) == "The sky is blue. The sea is green."
    assert WRITER.generate(Request("hard_negative", "nothing at all", "x")) == ""


def test_rules_refuse_what_needs_knowledge():
    with pytest.raises(InputError, match="Rules cannot write 'translation'"):
        WRITER.generate(Request("translation", "x"))
    with pytest.raises(UnknownName, match="length"):
        WRITER.generate(Request("query", PASSAGE, configuration=Configuration(length="huge")))


def test_inverse_cloze_parts_the_text():
    for seed in range(20):
        query, rest = inverse_cloze(PASSAGE, seed=seed, keep=0)
        assert query in PASSAGE
        assert query not in rest
        assert sorted((query + " " + rest).split()) == sorted(PASSAGE.split())
        assert inverse_cloze(PASSAGE, seed=seed, keep=1) == (query, PASSAGE)
    kept = sum(inverse_cloze(PASSAGE, seed=seed, keep=0.3)[1] == PASSAGE for seed in range(1000))
    assert 300 - 3 * 14.5 < kept < 300 + 3 * 14.5
    assert inverse_cloze("one sentence only.") is None
    with pytest.raises(InputError, match="keep must lie"):
        inverse_cloze(PASSAGE, keep=2)


def test_synthesis_is_deterministic_and_says_where_rows_came_from(tmp_path):
    made = synthesise(WRITER, DOCUMENTS, per_document=3, negatives=True, seed=5)
    again = synthesise(WRITER, DOCUMENTS, per_document=3, negatives=True, seed=5)
    assert made.rows == again.rows
    assert made.rows != synthesise(WRITER, DOCUMENTS, per_document=3, negatives=True, seed=6).rows
    assert len(made.rows) + sum(made.failed.values()) == 6
    contents = {d.id: d.content for d in DOCUMENTS}
    for row in made.rows:
        origin = row.provenance
        assert contents[origin.source] == row.positive
        assert origin.generator == WRITER.name
        request = Request("query", row.positive, configuration=Configuration(**origin.configuration), seed=origin.seed)
        assert WRITER.generate(request) == row.query  # the provenance is enough to write the row again
    assert list(made.triplets().negative) == [row.negative for row in made.rows]
    assert list(made.pairs().left) == [row.query for row in made.rows]
    write_rows(made.rows, tmp_path / "rows.jsonl")
    assert read_rows(tmp_path / "rows.jsonl") == made.rows
    (tmp_path / "bad.jsonl").write_text(json.dumps(made.rows[0].to_dict()) + "\n{}\n")
    with pytest.raises(DataFormatError, match=r"bad.jsonl:2: this is no synthetic row"):
        read_rows(tmp_path / "bad.jsonl")


def test_rewriting_of_rows():
    pairs = Pairs(["If it rains, what rises?", "no"], ["The river of 1850 rises.", "The 7 hills."], name="mine")
    made = rewrite(WRITER, pairs, "paraphrase")
    assert [(r.query, r.provenance.source) for r in made.rows] == [("What rises if it rains?", "mine:0")]
    assert made.failed == {"paraphrase": 1}
    made = rewrite(WRITER, pairs, "hard_negative")
    assert [row.query for row in made.rows] == list(pairs.left)
    assert all(row.negative not in ("", row.positive) for row in made.rows)
    with pytest.raises(InputError, match=r"cannot write \['document', 'new_query'\]"):
        rewrite(WRITER, pairs, "augment")
    with pytest.raises(UnknownName, match="rewriting"):
        rewrite(WRITER, pairs, "shorten")
    model = PromptGenerator(lambda prompt: "Query: new" if "another topic" in prompt else '"an answer"', name="m")
    made = rewrite(model, pairs, "augment")
    assert [(r.query, r.positive) for r in made.rows] == [("new", "an answer")] * 2


def test_synthesis_refuses_what_it_cannot_do():
    calls = []
    synthesise(WRITER, DOCUMENTS, progress=lambda *c: calls.append(c))
    assert calls == [(1, 2), (2, 2)]
    with pytest.raises(EmptyInput, match="nothing to write"):
        synthesise(WRITER, [])
    with pytest.raises(InputError, match="personas for each of 2 documents"):
        synthesise(WRITER, DOCUMENTS, personas=[["x"]])


def count_letters(texts):
    return np.asarray([[text.lower().count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for text in texts], np.float32)


def test_personas_are_the_nearest_by_brute_force():
    people = ["a driver", "a physicist", "a sailor of rivers", "zzz"]
    near = nearest_personas(DOCUMENTS, people, count_letters, k=2)
    for document, found in zip(DOCUMENTS, near, strict=True):
        d, p = count_letters([document.content])[0], count_letters(people)
        cosines = p @ d / np.linalg.norm(p, axis=1) / np.linalg.norm(d)
        assert found == [people[i] for i in np.argsort(-cosines)[:2]]
    made = synthesise(WRITER, DOCUMENTS, personas=near, seed=1)
    assert {row.provenance.configuration["persona"] for row in made.rows} <= set(people)
    assert nearest_personas(DOCUMENTS, [], count_letters) == [[], []]


def row(query, positive, negative=""):
    return SyntheticRow(query, positive, Provenance("g", ("query",), "s", 0), negative)


def test_filters():
    rows = [
        row("who is it", "it is a man"), row("Who IS it?", "It is a man!"), row("who is it", "another thing entirely"),
        row("same text here", "Same text, here."), row("short", "it is a man"), row("in the test", "it is a man"),
        row("one more query", "it is a man", "one more query"), row("who was it", "it is a man", "no"),
    ]  # fmt: skip
    kept, dropped = filter_rows(rows, Filters(), known=["In the test?"])
    assert [rows.index(r) for r in kept] == [0, 2]
    assert dropped == {"duplicate": 2, "copy": 2, "length": 2}
    scored, dropped = filter_rows(rows[:1], Filters(similarity=(0.5, 0.6)), embed=lambda texts: np.eye(2)[: len(texts)])
    assert scored == []
    assert dropped == {"copy": 0, "similarity": 1} or dropped == {"similarity": 1}
    both, _ = filter_rows([rows[0], rows[2]], Filters(similarity=(0.1, 1)), embed=count_letters)
    for one in both:
        a, b = count_letters([one.query, one.positive])
        assert one.similarity == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6)
    with pytest.raises(InputError, match="needs an encoder"):
        filter_rows(rows, Filters(similarity=(0.7, 1.0)))
    with pytest.raises(InputError, match="query_words must be"):
        Filters(query_words=(5, 2))


def test_prompts_hold_the_request_and_answers_are_trimmed():
    seen = []

    def complete(prompt):
        seen.append(prompt)
        return '<think>hm {"a": 1}</think> Query:  "What   is it?"'

    model = PromptGenerator(complete, name="test-model")
    assert isinstance(model, Generator)
    assert isinstance(WRITER, Generator)
    configuration = Configuration("a nurse", "question", "hard", "long", "German")
    assert model.generate(Request("query", "THE TEXT {x}", configuration=configuration)) == "What is it?"
    assert all(part in seen[0] for part in ("THE TEXT {x}", "a nurse", "hard", "long", "German"))
    for mode in model.modes:
        model.generate(Request(mode, "some text", "some query"))
    answers = {
        '{"persona": "a nurse", "question_type": "keywords", "difficulty": "easy", "length": "short"}': "a nurse",
        'So: {"persona": "a king", "question_type": "keywords", "difficulty": "easy", "length": "short"}': "",
    }
    for answer, persona in answers.items():
        chosen = PromptGenerator(lambda _, answer=answer: answer, name="m").configure("text", ["a nurse"], 0)
        assert chosen == Configuration(persona, "keywords", "easy", "short")
    for answer in ("", "nonsense", "{broken}", '{"question_type": "poem"}'):
        model = PromptGenerator(lambda _, answer=answer: answer, name="m")
        assert model.configure("text", [], 0) is None
        assert synthesise(model, DOCUMENTS).failed == {"configuration": 2}
    with pytest.raises(InputError, match="needs a name"):
        PromptGenerator(complete, name="")
    with pytest.raises(InputError, match="poem"):
        PromptGenerator(complete, name="m", prompts={"poem": "write"})


@pytest.fixture
def server():
    """A local endpoint that answers from a list of (status, body), and keeps what it was asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, self.headers.get("Authorization"), json.loads(body)))
            status, answer = answers.pop(0)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *args):
            pass

    asked, answers = [], []
    httpd = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}/v1", asked, answers
    httpd.shutdown()
    httpd.server_close()
    thread.join()


GOOD = json.dumps({"choices": [{"message": {"content": "hello"}}]})


def test_endpoint(server):
    url, asked, answers = server
    waited = []
    endpoint = OpenAIEndpoint(url, "m", api_key="secret", seed=3, sleep=waited.append)
    answers += [(503, "busy"), (429, "slow"), (200, GOOD)]
    assert endpoint("hi") == "hello"
    assert waited == [1.0, 2.0]
    path, token, body = asked[-1]
    assert (path, token) == ("/v1/chat/completions", "Bearer secret")
    assert body["messages"] == [{"role": "user", "content": "hi"}]
    assert (body["model"], body["seed"]) == ("m", 3)
    assert "secret" not in repr(endpoint)
    answers += [(401, "who are you?")]
    with pytest.raises(InputError, match=r"refused \(401 .*who are you"):
        endpoint("hi")
    answers += [(500, "broken")] * 3
    with pytest.raises(InputError, match=r"refused \(500"):
        endpoint("hi")
    answers += [(200, "no json")]
    with pytest.raises(InputError, match="did not answer with JSON"):
        endpoint("hi")
    answers += [(200, '{"choices": []}')]
    with pytest.raises(InputError, match="without a message"):
        endpoint("hi")


def test_endpoint_that_is_not_there():
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match=r"no answer within 0.2 s"):
            OpenAIEndpoint(url, "m", timeout=0.2, retries=0)("hi")
    with pytest.raises(InputError, match="cannot be reached"):
        OpenAIEndpoint(url, "m", retries=1, sleep=lambda _: None)("hi")
    with pytest.raises(InputError, match="must begin with http"):
        OpenAIEndpoint("file:///etc/passwd", "m")
    with pytest.raises(InputError, match="timeout must be > 0"):
        OpenAIEndpoint("http://x", "m", timeout=0)


def test_wordnet(data_root):
    words = Thesaurus.wordnet(data_root / "wordnet")
    assert len(words.synonyms) > 10_000
    assert all(word.islower() and word not in others for word, others in list(words.synonyms.items())[:2000])
    assert "decrease" in words.antonyms["increase"] or "decrease" in " ".join(words.antonyms["increase"])
    writer = RuleGenerator(words)
    assert writer.generate(Request("paraphrase", "The physician bought an automobile.")) != ""
    with pytest.raises(DataFormatError, match="WordNet cannot be read"):
        Thesaurus.wordnet(data_root / "papers")
