"""A generator that prompts a language model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from isometry.data.synthesis.generator import (
    DIFFICULTIES,
    LENGTHS,
    MODES,
    QUESTION_TYPES,
    Configuration,
    Mode,
    Request,
)
from isometry.errors import InputError

PROMPTS: Final[Mapping[Mode, str]] = {
    "query": (
        "Write one {length} {question_type} in {language} that the passage below answers, as {persona} would put it. "
        "Difficulty: {difficulty}. Do not mention the passage. Answer with the text alone.\n\nPassage: {text}"
    ),
    "paraphrase": (
        "Say the same in other words and in another sentence structure, in {language}. Keep every fact. "
        "Answer with the text alone.\n\nText: {text}"
    ),
    "hard_negative": (
        "Write a passage in {language} that shares topic and wording with the passage below but does not answer the "
        "query. Answer with the passage alone.\n\nQuery: {query}\n\nPassage: {text}"
    ),
    "new_query": (
        "Write one query in {language} of the same kind as the one below on another topic or from another domain, as "
        "{persona} would put it. Answer with the query alone.\n\nQuery: {text}"
    ),
    "document": (
        "Write a {length} passage in {language} that answers the query below with facts. "
        "Answer with the passage alone.\n\nQuery: {text}"
    ),
    "translation": "Translate into {language}. Answer with the translation alone.\n\nText: {text}",
}
CONFIGURE: Final = (
    "A passage is given, and people who may be interested in it. Choose who would most likely ask about it, and how. "
    'Answer with one JSON object of the keys "persona" (one of the people), "question_type" (one of {types}), '
    '"difficulty" (one of {difficulties}), "length" (one of {lengths}).\n\nPassage: {text}\n\nPeople:\n{personas}'
)
_LABEL = re.compile(r"^\s*(?:query|question|keywords|passage|text|translation|answer|document)\s*:\s*", re.IGNORECASE)
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_OBJECT = re.compile(r"\{.*?\}", re.DOTALL)


class PromptGenerator:
    """Generator that prompts a language model (the writer of Qwen3-Embedding's and QZhou's synthetic pairs).

    Parameters
    ----------
    complete
        A prompt to the model's answer: `OpenAIEndpoint`, or any function around a local model.
    name
        What a row's provenance should say: the model and its version.
    prompts
        Templates by mode, to use in place of the built-in ones; fields ``{text}``, ``{query}`` and the configuration's.
    language
        Of what is written, where `configure` chooses.

    Notes
    -----
    What the model answers is trimmed: thoughts in ``<think>`` tags, a leading label such as ``Query:`` and quotation
    marks around the whole are taken off. Seeds are the model's own affair.
    """

    def __init__(
        self,
        complete: Callable[[str], str],
        *,
        name: str,
        prompts: Mapping[Mode, str] | None = None,
        language: str = "English",
    ) -> None:
        self.complete, self.name, self.language = complete, name, language
        self.modes: tuple[Mode, ...] = MODES
        self.prompts = {**PROMPTS, **(prompts or {})}
        if not name or self.prompts.keys() != set(MODES):
            unknown = sorted(self.prompts.keys() - set(MODES))
            raise InputError(f"A generator needs a name, and prompts for {MODES} only; got {name!r}, {unknown}.")

    def configure(self, passage: str, personas: Sequence[str], seed: int) -> Configuration | None:
        """Let the model choose; None where its answer holds no usable JSON object."""
        prompt = CONFIGURE.format(
            types=list(QUESTION_TYPES),
            difficulties=list(DIFFICULTIES),
            lengths=list(LENGTHS),
            text=passage,
            personas="\n".join(f"- {persona}" for persona in personas) or "- anyone",
        )
        found = _OBJECT.search(_THOUGHT.sub("", self.complete(prompt)))
        try:
            chosen: dict[str, Any] = json.loads(found[0]) if found else {}
        except ValueError:
            return None
        allowed = {"question_type": QUESTION_TYPES, "difficulty": DIFFICULTIES, "length": LENGTHS}
        if any(chosen.get(key) not in values for key, values in allowed.items()):
            return None
        persona = str(chosen.get("persona", ""))
        picked = {key: str(chosen[key]) for key in allowed}
        return Configuration(persona if persona in personas else "", language=self.language, **picked)

    def generate(self, request: Request) -> str:
        """Prompt the model and trim its answer."""
        values = request.configuration.to_dict() | {"text": request.text, "query": request.query}
        values["persona"] = values["persona"] or "an ordinary reader"
        answer = _THOUGHT.sub("", self.complete(self.prompts[request.mode].format(**values)))
        text = _LABEL.sub("", " ".join(answer.split()))
        quoted = len(text) > 1 and (text[0], text[-1]) in {('"', '"'), ("“", "”"), ("'", "'")}
        return text[1:-1].strip() if quoted else text.strip()
