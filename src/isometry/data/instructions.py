"""Instructions before queries, and worked examples before instructions, as text embedders built on decoders read them.

A prompt is plain text: whatever depends on task or examples is in it, so a cache of vectors by text stays right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from isometry.errors import DimensionMismatch, InputError, UnknownName
from isometry.types import normal_text

Spans = Callable[[str], Sequence[tuple[int, int]]]


@dataclass(frozen=True)
class Template:
    """How one family of models writes a query.

    Parameters
    ----------
    query
        With the fields ``{task}`` and ``{query}``.
    response
        What comes between a query and its response, where the family knows worked examples; else empty.
    between
        What separates an example from what follows it.
    """

    query: str
    response: str = ""
    between: str = "\n\n"


STYLES: Final = {
    "instruct": Template("Instruct: {task}\nQuery: {query}"),  # E5-Mistral, arXiv:2401.00368
    "qwen3": Template("Instruct: {task}\nQuery:{query}"),  # Qwen3-Embedding, arXiv:2506.05176
    "in-context": Template("<instruct>{task}\n<query>{query}", "\n<response>"),  # bge-en-icl, LG-ANNA (2506.07438)
}


@dataclass(frozen=True)
class Example:
    """A worked example: a query, what answers it, and the task it was asked for (empty: that of the prompt)."""

    query: str
    response: str
    task: str = ""


def query_text(task: str, query: str, *, style: str = "instruct", examples: Sequence[Example] = ()) -> str:
    r"""Return a query as the model reads it: worked examples, the task's instruction, the query.

    Without a task the plain styles give the bare query. Documents of asymmetric tasks are never written this way;
    those of symmetric tasks (sentence similarity, clustering) are, by this same function.

    Parameters
    ----------
    task
        One sentence, such as ``"Given a claim, retrieve abstracts that refute or support it"``.
    style
        ``"instruct"``, ``"qwen3"`` or ``"in-context"``.
    examples
        In the order they are shown; only ``"in-context"`` knows them.

    Raises
    ------
    UnknownName
        If there is no such style.
    InputError
        If the style has no place for examples.

    Examples
    --------
    >>> query_text("Find the answer", "who?")
    'Instruct: Find the answer\nQuery: who?'
    >>> query_text("T", "q", style="in-context", examples=[Example("x", "y")])
    '<instruct>T\n<query>x\n<response>y\n\n<instruct>T\n<query>q\n<response>'
    """
    template = _template(style, examples)
    shown = [_shown(template, task, example) for example in examples]
    return template.between.join([*shown, _asked(template, task, query)])


def fit_query(
    task: str,
    query: str,
    *,
    spans: Spans,
    max_tokens: int,
    style: str = "in-context",
    examples: Sequence[Example] = (),
    example_tokens: tuple[int, int] = (64, 96),
) -> str:
    """Return `query_text` within a budget of tokens, built from its right end.

    The query comes first: whole examples are left out from the front until the rest fits. Only a query that is too long
    by itself loses its end, and never the marker after it.

    Parameters
    ----------
    spans
        Characters ``(start, end)`` of each token of a text, such as `TextEncoder.token_spans`.
    max_tokens
        Without the special tokens that the tokenizer adds.
    example_tokens
        Longest query and response of an example; longer ones lose their end (defaults of bge-en-icl's recipe).

    Raises
    ------
    InputError
        If not even the instruction fits.
    """
    template = _template(style, examples)
    room = max_tokens - len(spans(_asked(template, task, "")))
    if room < 1:
        raise InputError(f"The instruction {task!r} leaves no room for a query in {max_tokens} tokens; shorten it.")
    best = query_text(task, query, style=style)
    length = room
    while len(spans(best)) > max_tokens:  # tokens may merge across a seam, so the whole text is counted
        if length < 1:
            raise InputError(f"The instruction {task!r} leaves no room for a query in {max_tokens} tokens; shorten it.")
        best = query_text(task, _cut(query, spans, length), style=style)
        length -= 1
    for example in reversed(examples):
        asked, answer = _cut(example.query, spans, example_tokens[0]), _cut(example.response, spans, example_tokens[1])
        longer = template.between.join([_shown(template, task, Example(asked, answer, example.task)), best])
        if len(spans(longer)) > max_tokens:
            break
        best = longer
    return best


def draw_examples(
    queries: Sequence[str],
    responses: Sequence[str],
    row: int,
    *,
    k: int | None = None,
    most: int = 5,
    hide_response: bool = True,
    rng: np.random.Generator,
) -> list[Example]:
    """Draw worked examples for one row from the other rows of its batch, all of one task (bge-en-icl, LG-ANNA).

    Neither the row itself nor one that differs from it only in case, white space or punctuation is shown: it would hand
    over the answer.

    Parameters
    ----------
    queries, responses
        The rows of the batch; where the task is to classify, a response is the class's name.
    row
        Whose prompt is written.
    k
        How many, as far as there are; None draws it evenly from ``0 .. most``.
    hide_response
        Also leave out rows whose response is this row's; set False where responses are names of classes.

    Raises
    ------
    DimensionMismatch
        If the columns differ in length or there is no such row.
    """
    if len(queries) != len(responses) or not 0 <= row < len(queries):
        raise DimensionMismatch(
            f"Examples need a response for each query and a row among them; got {len(queries)} queries, "
            f"{len(responses)} responses and row {row}."
        )
    wanted = int(rng.integers(most + 1)) if k is None else k
    if wanted < 0:
        raise InputError(f"The number of examples must be at least 0, got {wanted}.")
    own = {normal_text(queries[row])} | ({normal_text(responses[row])} if hide_response else set())
    chosen: list[Example] = []
    seen = set(own)
    for other in rng.permutation(len(queries)).tolist():
        if len(chosen) == wanted:
            break
        key, answer = normal_text(queries[other]), normal_text(responses[other])
        if other != row and key not in seen and not (hide_response and answer in own):
            chosen.append(Example(queries[other], responses[other]))
            seen.add(key)
    return chosen


def _template(style: str, examples: Sequence[Example]) -> Template:
    if style not in STYLES:
        raise UnknownName("prompt style", style, STYLES)
    if examples and not STYLES[style].response:
        raise InputError(f"The prompt style {style!r} has no place for examples; take 'in-context'.")
    return STYLES[style]


def _asked(template: Template, task: str, query: str) -> str:
    if not task and not template.response:
        return query
    # Not str.format, which would trip over braces inside a task: the parts are joined as they are.
    before, after = template.query.split("{task}")
    return before + task + after.replace("{query}", "") + query + template.response


def _shown(template: Template, task: str, example: Example) -> str:
    return _asked(template, example.task or task, example.query) + example.response


def _cut(text: str, spans: Spans, tokens: int) -> str:
    """Keep the first tokens of a text."""
    found = spans(text)
    return text if len(found) <= tokens else text[: found[tokens - 1][1]] if tokens > 0 else ""
