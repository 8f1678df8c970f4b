"""Text encoders: a sentence-transformers or Hugging Face model, on the engine that suits the machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from isometry.encoders.engines import BertEngine, Engine, EngineName, ModuleEngine, sentence_transformer, tokens_of
from isometry.encoders.folders import ModelFolder, locate
from isometry.encoders.tokens import Tokens
from isometry.errors import DataFormatError, EmptyInput, InputError, UnknownName
from isometry.types import FloatArray, IntArray, Role, Space

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Pooling = Literal["mean", "cls", "last"]
_SURROGATE = re.compile("[\ud800-\udfff]")
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
ROLES: tuple[Role, ...] = get_args(Role)


class TextEncoder:
    """Texts to vectors; made by `load`.

    Attributes
    ----------
    space
        What the vectors mean; the same for every engine, since their vectors may be compared.
    max_tokens
        Longest input in tokens, special ones included.
    precision
        Number format of weights and activations, e.g. ``"bfloat16"``.
    source
        What `load` finds this model by again: its name, or the path of its folder.
    """

    similarity_fn_name = "cosine"

    def __init__(
        self,
        engine: Engine,
        tokens: Tokens | None,
        space: Space,
        max_tokens: int,
        model: Callable[[], SentenceTransformer],
        source: str,
    ) -> None:
        self._engine, self._tokens, self._model = engine, tokens, model
        self.space, self.max_tokens, self.precision = space, max_tokens, engine.precision
        self.similarity_fn_name, self.source = space.similarity, source

    @cached_property
    def model(self) -> SentenceTransformer:
        """The model as a sentence-transformers object, to train or to look inside; built when first asked for."""
        return self._model()

    def get_embedding_dimension(self) -> int:
        """Width of a vector."""
        return self.space.dim

    def encode_query(self, inputs: Sequence[str], *, prompt: str | None = None, batch_size: int = 32) -> FloatArray:
        """Encode questions, float32 ``[n, d]``; ``prompt`` overrides the model's own."""
        return self.encode(inputs, role="query", prompt=prompt, batch_size=batch_size)

    def encode_document(self, inputs: Sequence[str], *, prompt: str | None = None, batch_size: int = 32) -> FloatArray:
        """Encode documents, float32 ``[n, d]``; ``prompt`` overrides the model's own."""
        return self.encode(inputs, role="document", prompt=prompt, batch_size=batch_size)

    def encode(
        self,
        inputs: Sequence[str],
        *,
        role: Role,
        prompt: str | None = None,
        batch_size: int = 32,
        report: Callable[[int], None] = lambda done: None,
    ) -> FloatArray:
        """Encode texts in one role, float32 ``[n, d]``, in order; the ends of texts beyond the window are left out.

        As in sentence-transformers an empty text is encoded like any other; `isometry.encoders.embed` refuses it, and
        counts what was left out.
        """
        texts = check_texts(inputs, empty=True)
        if role not in ROLES:
            raise UnknownName("role", str(role), ROLES)
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}.")
        if not texts:
            return np.empty((0, self.space.dim), np.float32)
        chosen = self.space.prompts.get(role, "") if prompt is None else prompt
        return self._engine.encode(
            texts, role=role, prompt=chosen, limit=self.max_tokens, batch_size=batch_size, report=report
        )

    def count_tokens(self, texts: Sequence[str]) -> IntArray:
        """Tokens of each text without special ones and without prompt, int64 ``[n]``."""
        return self._require_tokens().count(check_texts(texts, empty=True))

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """Characters ``(start, end)`` of each token of a text, without special tokens."""
        return self._require_tokens().spans(text)

    def room(self, role: Role) -> int:
        """How many tokens of a text fit, beside the special ones and the role's prompt."""
        tokens = self._require_tokens()
        prompt = self.space.prompts.get(role, "")
        return self.max_tokens - tokens.specials - (int(tokens.count([prompt])[0]) if prompt else 0)

    def _require_tokens(self) -> Tokens:
        if self._tokens is None:
            raise InputError(f"The tokenizer of {self.space.model} cannot count tokens; take one with tokenizer.json.")
        return self._tokens


def check_texts(inputs: Sequence[str], *, empty: bool = False) -> list[str]:
    """Return the inputs as a list of texts.

    Raises
    ------
    InputError
        If the inputs are one string, or one of them is no string.
    EmptyInput
        If a text is empty or white space; names its row, counted from 0.
    """
    if isinstance(inputs, str):
        raise InputError("Give a list of texts, not one text: write [text].")
    texts = list(inputs)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"Row {row} is no text but {type(text).__name__}; every input must be a string.")
        if not text.isascii() and _SURROGATE.search(text):
            raise InputError(f"Row {row} holds half of a surrogate pair; read it as UTF-8, or replace it.")
        if not empty and not text.strip():
            raise EmptyInput(f"Row {row} is an empty text; remove it or give it words.")
    return texts


def load(
    name_or_path: str | Path = "minilm",
    *,
    engine: EngineName | str = "fast",
    pooling: Pooling | str | None = None,
    prompts: Mapping[str, str] | None = None,
    max_tokens: int | None = None,
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> TextEncoder:
    """Load a text encoder.

    Parameters
    ----------
    name_or_path
        ``"minilm"`` (all-MiniLM-L6-v2 from its package, no network), the folder of a sentence-transformers model or of
        a Hugging Face encoder or decoder, or a hub name.
    engine
        ``"fast"``: bfloat16 where the processor multiplies it, no padding; ``"torch"``: float32, the reference.
    pooling
        For a folder that says nothing about it: ``"mean"``, ``"cls"`` or ``"last"``.
    prompts
        By role (``query``, ``document``); replaces the model's own of that role.
    max_tokens
        Longest input, special tokens included; default: what the model says.
    trust_remote_code
        Whether the model may run code of its own.

    Raises
    ------
    UnknownName
        If there is no such model, engine, pooling or role.
    InputError
        If the folder has no pooling and none was given, or has one and another was given, ``max_tokens`` is beyond
        the model's, or a prompt leaves no room for text.
    DataFormatError
        If the folder is broken.
    """
    chosen = next((name for name in ENGINES if name == engine), None)
    if chosen is None:
        raise UnknownName("engine", str(engine), ENGINES)
    way = next((name for name in POOLINGS if name == pooling), None)
    if pooling is not None and way is None:
        raise UnknownName("pooling", str(pooling), POOLINGS)
    label, path = locate(name_or_path)
    folder = ModelFolder(path)
    if not folder.modules and pooling is None:
        raise InputError(f"{path} does not say how to pool its tokens; give pooling='mean', 'cls' or 'last'.")
    if folder.modules and pooling is not None:
        raise InputError(f"{path} says itself how to pool its tokens; leave pooling={pooling!r} out.")
    worker, tokens = _engine(folder, chosen, way, device, trusted=trust_remote_code)
    window = _window(folder, worker, max_tokens)
    space = Space(
        label,
        worker.dim,
        revision=folder.fingerprint(),
        similarity=_similarity(folder),
        normalized=folder.normalized or not folder.modules,
        prompts=_prompts(folder, prompts or {}),
        chain=() if pooling is None else (f"pooling={pooling}",),
    )
    source = str(path) if Path(name_or_path).expanduser().resolve() == path else label
    model = partial(_model, worker, folder, way, window)
    encoder = TextEncoder(worker, tokens, space, window, model, source)
    for role in ROLES if tokens is not None else ():
        if encoder.room(role) < 1:
            raise InputError(f"The prompt for role {role!r} leaves no room for text in {window} tokens; shorten it.")
    return encoder


def _model(worker: Engine, folder: ModelFolder, pooling: Pooling | None, window: int) -> SentenceTransformer:
    if isinstance(worker, ModuleEngine):
        return worker.model
    model: SentenceTransformer = sentence_transformer(folder, pooling, "cpu", trusted=False)
    model.max_seq_length = window
    return model


def _prompts(folder: ModelFolder, given: Mapping[str, str]) -> dict[str, str]:
    for role, prompt in given.items():
        if role not in ROLES:
            raise UnknownName("role", str(role), ROLES, hint="Prompts are given by role.")
        check_texts([prompt], empty=True)
    return {role: prompt for role, prompt in {**folder.prompts, **given}.items() if prompt}


def _similarity(folder: ModelFolder) -> Literal["cosine", "dot", "euclidean"]:
    known: tuple[Literal["cosine", "dot", "euclidean"], ...] = ("cosine", "dot", "euclidean")
    named = folder.settings.get("similarity_fn_name") or "cosine"
    found = next((name for name in known if name == named), None)
    if found is None:
        raise InputError(f"{folder.path} compares vectors by {named!r}; only {', '.join(known)} are supported.")
    return found


def _engine(
    folder: ModelFolder, engine: EngineName, pooling: Pooling | None, device: str, *, trusted: bool
) -> tuple[Engine, Tokens | None]:
    if (way := _lean(folder, pooling, device)) is not None:
        from tokenizers import Tokenizer

        path = folder.path / "tokenizer.json"
        try:
            tokens = Tokens(Tokenizer.from_file(str(path)))
        except Exception as error:  # the tokenizers package raises no class of its own
            raise DataFormatError(path, None, f"the tokenizer cannot be read ({error}).") from error
        return BertEngine(folder, tokens, way, engine), tokens
    model = sentence_transformer(folder, pooling, device, trusted=trusted)
    known = tokens_of(model)
    return ModuleEngine(model, known, engine, normalized=folder.normalized or not folder.modules), known


def _lean(folder: ModelFolder, pooling: Pooling | None, device: str) -> Pooling | None:
    """Return the pooling if this is a BERT that needs neither transformers nor sentence-transformers."""
    from isometry.encoders.bert import supports

    files = all((folder.path / name).is_file() for name in ("model.safetensors", "tokenizer.json"))
    inner = any(module.get("path") for module in folder.modules[:1])
    shapes = ((), ("Transformer", "Pooling"), ("Transformer", "Pooling", "Normalize"))
    if device != "cpu" or inner or not files or folder.kinds not in shapes:
        return None
    if not supports(dict(folder.config)) or not folder.plain:
        return None
    said = tuple("last" if way == "lasttoken" else way for way in folder.pooling) or (pooling,)
    return next((way for way in POOLINGS if said == (way,)), None)


def _window(folder: ModelFolder, worker: Engine, wanted: int | None) -> int:
    limit = min(folder.window or worker.limit, worker.limit)
    if wanted is None:
        return limit
    if not 3 <= wanted <= worker.limit:
        raise InputError(f"max_tokens must lie between 3 and {worker.limit} for this model, got {wanted}.")
    return wanted
