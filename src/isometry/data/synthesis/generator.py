"""The one interface of everything that writes synthetic texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, Protocol, get_args, runtime_checkable

Mode = Literal["query", "paraphrase", "hard_negative", "new_query", "document", "translation"]
MODES: tuple[Mode, ...] = get_args(Mode)
QUESTION_TYPES = ("question", "keywords", "sentence")
DIFFICULTIES = ("easy", "hard")
LENGTHS = ("short", "medium", "long")


@dataclass(frozen=True)
class Configuration:
    """Who asks, and how: the first of Qwen3-Embedding's two steps (arXiv:2506.05176, section 3.3).

    Parameters
    ----------
    persona
        Who asks, as one phrase; empty: anyone.
    question_type
        ``"question"``, ``"keywords"``, or ``"sentence"`` (a statement out of the passage).
    difficulty
        ``"easy"`` keeps the passage's words, ``"hard"`` says it in others.
    length
        ``"short"``, ``"medium"`` or ``"long"``.
    language
        Of the text to be written.
    """

    persona: str = ""
    question_type: str = "question"
    difficulty: str = "easy"
    length: str = "medium"
    language: str = "English"

    def to_dict(self) -> dict[str, str]:
        """Return the JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class Request:
    """What should be written.

    Parameters
    ----------
    mode
        ``"query"``: what somebody would ask whom ``text`` answers. ``"paraphrase"``: ``text`` in other words.
        ``"hard_negative"``: a passage near to ``text`` in its words that does not answer ``query``.
        ``"new_query"``: another query of the kind of ``text``. ``"document"``: a passage that answers the query
        ``text``. ``"translation"``: ``text`` in the configuration's language.
    text
        What to start from.
    query
        For ``"hard_negative"``.
    configuration
        Who asks, and how.
    seed
        Another seed, another text.
    """

    mode: Mode
    text: str
    query: str = ""
    configuration: Configuration = field(default_factory=Configuration)
    seed: int = 0


@runtime_checkable
class Generator(Protocol):
    """Writes texts; ``name`` goes into the provenance of every row, ``modes`` are those it can write."""

    name: str
    modes: tuple[Mode, ...]

    def configure(self, passage: str, personas: Sequence[str], seed: int) -> Configuration | None:
        """Choose who asks about a passage, and how; None where nothing usable came out."""
        ...

    def generate(self, request: Request) -> str:
        """Write one text; empty where nothing usable came out."""
        ...
