"""Prompts: exact formats, budgets that never cost the query its end, examples that never give the answer away."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.data import Example, draw_examples, fit_query, query_text
from isometry.errors import DimensionMismatch, InputError, UnknownName
from isometry.types import normal_text

WORDS = st.text(alphabet="ab c\n{}", min_size=1, max_size=30)
EXAMPLES = st.lists(st.builds(Example, WORDS, WORDS), max_size=5)


def spans(text):
    """Tokens are words, and every sign that is no word."""
    return [found.span() for found in re.finditer(r"\w+|[^\w\s]", text)]


def test_published_formats():
    assert query_text("T", "q") == "Instruct: T\nQuery: q"
    assert query_text("T", "q", style="qwen3") == "Instruct: T\nQuery:q"
    assert query_text("", "q", style="qwen3") == "q"
    shown = query_text("T", "q", style="in-context", examples=[Example("a", "b"), Example("c", "d", task="U")])
    assert shown == (
        "<instruct>T\n<query>a\n<response>b\n\n<instruct>U\n<query>c\n<response>d\n\n<instruct>T\n<query>q\n<response>"
    )


@given(WORDS, WORDS)
def test_no_examples_is_the_plain_format_byte_for_byte(task, query):
    plain = f"<instruct>{task}\n<query>{query}\n<response>"
    assert query_text(task, query, style="in-context", examples=[]) == plain
    assert fit_query(task, query, spans=spans, max_tokens=10_000) == plain


@given(WORDS, WORDS, EXAMPLES, st.integers(25, 120))
@settings(max_examples=200)
def test_a_fitted_prompt_keeps_the_query_and_drops_whole_examples_from_the_front(task, query, examples, room):
    if room < len(spans(query_text(task, "", style="in-context"))) + 1:
        return
    text = fit_query(task, query, spans=spans, max_tokens=room, examples=examples)
    assert len(spans(text)) <= room
    assert text.endswith("\n<response>")
    own = query_text(task, query, style="in-context")
    if len(spans(own)) <= room:
        wanted = [query_text(task, query, style="in-context", examples=examples[n:]) for n in range(len(examples) + 1)]
        fitting = [prompt for prompt in wanted if len(spans(prompt)) <= room]
        assert text == fitting[0]
    else:
        assert "\n\n<instruct>" not in text.removeprefix(query_text(task, "", style="in-context"))


def test_a_query_too_long_by_itself_loses_its_end_only():
    text = fit_query("T", "one two three four five six", spans=spans, max_tokens=13, examples=[Example("a", "b")])
    assert text == "<instruct>T\n<query>one two three\n<response>"
    with pytest.raises(InputError, match="leaves no room"):
        fit_query("T", "one", spans=spans, max_tokens=10)


def test_long_examples_are_cut_to_their_budgets():
    example = Example("a b c d", "e f g h")
    text = fit_query("T", "q", spans=spans, max_tokens=100, examples=[example], example_tokens=(2, 3))
    assert text == "<instruct>T\n<query>a b\n<response>e f g\n\n<instruct>T\n<query>q\n<response>"


def test_real_tokens(minilm):
    examples = [Example("What is dew?", "Water that condenses at night.")] * 4
    for room in (40, 70, 100):
        text = fit_query("Answer", "Where is Rome?", spans=minilm.token_spans, max_tokens=room, examples=examples)
        assert text.endswith("<query>Where is Rome?\n<response>")
        assert minilm.count_tokens([text])[0] <= room


QUERIES = ["Where is Rome?", "where is ROME", "Who wrote Faust?", "What is dew?", "Where's the dew?", "Name a river."]
RESPONSES = ["In Italy.", "in italy", "Goethe.", "Water.", "In Italy", "Rhine."]


@given(st.integers(0, 5), st.integers(0, 10_000), st.booleans())
def test_examples_never_show_the_row_or_its_like(row, seed, hide):
    found = draw_examples(
        QUERIES, RESPONSES, row, k=5, hide_response=hide, rng=np.random.default_rng(seed)
    )  # as many as there are
    keys = [normal_text(example.query) for example in found]
    assert normal_text(QUERIES[row]) not in keys
    assert len(set(keys)) == len(keys)
    if hide:
        assert normal_text(RESPONSES[row]) not in {normal_text(example.response) for example in found}
    possible = {normal_text(q) for q, r in zip(QUERIES, RESPONSES, strict=True)
                if normal_text(q) != normal_text(QUERIES[row])
                and not (hide and normal_text(r) == normal_text(RESPONSES[row]))}  # fmt: skip
    assert set(keys) == possible if len(possible) <= 5 else len(keys) == 5


def test_examples_are_drawn_evenly_and_repeat_for_a_seed():
    draws = [draw_examples(QUERIES, RESPONSES, 5, most=3, rng=np.random.default_rng(i)) for i in range(400)]
    counts = np.bincount([len(draw) for draw in draws], minlength=4) / 400
    assert np.abs(counts - 0.25).max() < 0.08
    assert draws[7] == draw_examples(QUERIES, RESPONSES, 5, most=3, rng=np.random.default_rng(7))


def test_bad_input():
    rng = np.random.default_rng(0)
    with pytest.raises(UnknownName, match="Unknown prompt style 'gwen'"):
        query_text("T", "q", style="gwen")
    with pytest.raises(InputError, match="'qwen3' has no place for examples"):
        query_text("T", "q", style="qwen3", examples=[Example("a", "b")])
    with pytest.raises(DimensionMismatch, match="2 queries, 1 responses"):
        draw_examples(["a", "b"], ["c"], 0, rng=rng)
    with pytest.raises(DimensionMismatch, match="row 2"):
        draw_examples(["a", "b"], ["c", "d"], 2, rng=rng)
    with pytest.raises(InputError, match="must be at least 0"):
        draw_examples(["a", "b"], ["c", "d"], 1, k=-1, rng=rng)
