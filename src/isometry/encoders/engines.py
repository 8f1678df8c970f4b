"""Engines: what turns texts into vectors, one for the BERT family and one for everything else.

Precision is an engine's own business: ``torch`` is the reference in float32, ``fast`` is bfloat16 where the processor
multiplies it in hardware, else 8-bit products where it has those. Both give vectors of one space.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from isometry.encoders.batching import by_length
from isometry.encoders.folders import ModelFolder
from isometry.encoders.tokens import Tokens
from isometry.errors import DataFormatError, InputError
from isometry.types import FloatArray, Role

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

EngineName = Literal["fast", "torch"]
Report = Callable[[int], None]
UNBOUNDED = 1 << 30  # the window of a model without one, such as a table of word vectors
TOKENS_PER_TEXT = 64  # a batch of b texts may hold 64 b tokens: 2,048 at the default, where the products run at speed


class Engine(Protocol):
    """Texts to vectors, float32 ``[n, d]``, in order."""

    precision: str  # number format of weights and activations

    @property
    def dim(self) -> int:
        """Width of a vector."""
        ...

    @property
    def limit(self) -> int:
        """Most tokens the model itself can take."""
        ...

    def encode(
        self, texts: Sequence[str], *, role: Role, prompt: str, limit: int, batch_size: int, report: Report
    ) -> FloatArray:
        """Encode; ``report`` is told how many texts each batch finished."""
        ...


class BertEngine:
    """`isometry.encoders.bert.Bert` over the files of a folder; loads without transformers.

    Raises
    ------
    DataFormatError
        If the weights are broken.
    """

    def __init__(
        self, folder: ModelFolder, tokens: Tokens, pooling: Literal["mean", "cls", "last"], engine: EngineName
    ) -> None:
        import torch
        from safetensors import SafetensorError

        from isometry.encoders.bert import Bert, read_weights

        dtype = torch.float32
        if engine == "fast":
            dtype = torch.bfloat16 if multiplies_bfloat16() else torch.int8 if multiplies_int8() else torch.float32
        self.precision = str(dtype).removeprefix("torch.")
        self._tokens, self._pooling, self._normalized = tokens, pooling, folder.normalized or not folder.modules
        path = folder.path / "model.safetensors"
        try:
            self._bert = Bert(read_weights(path), dict(folder.config), dtype)
        except (SafetensorError, OSError, KeyError, StopIteration, RuntimeError, ValueError) as error:
            problem = f"the weights do not fit config.json or are broken ({type(error).__name__}: {error})."
            raise DataFormatError(path, None, problem) from error

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return self._bert.dim

    @property
    def limit(self) -> int:
        """Most tokens the model itself can take."""
        return self._bert.max_length

    def encode(
        self, texts: Sequence[str], *, role: Role, prompt: str, limit: int, batch_size: int, report: Report
    ) -> FloatArray:
        """Encode in batches of whole texts, longest first; a text's vector does not depend on its batch."""
        import torch.nn.functional as F

        ids = self._tokens.ids([prompt + text for text in texts] if prompt else texts, limit)
        vectors = np.empty((len(ids), self.dim), dtype=np.float32)
        for rows in by_length(np.array([len(i) for i in ids], dtype=np.int64), batch_size * TOKENS_PER_TEXT):
            pooled = self._bert([ids[row] for row in rows], self._pooling)
            vectors[rows] = (F.normalize(pooled, dim=-1) if self._normalized else pooled).numpy()
            report(len(rows))
        return vectors


class ModuleEngine:
    """A ``SentenceTransformer``, fed batches of like length; ``fast`` casts it to bfloat16 on processors made for it.

    Raises
    ------
    InputError
        If the model has no text input.
    """

    def __init__(
        self, model: SentenceTransformer, tokens: Tokens | None, engine: EngineName, *, normalized: bool
    ) -> None:
        import torch

        self.model, self._tokens, self._normalized = model.eval(), tokens, normalized
        if engine == "fast" and (model.device.type != "cpu" or multiplies_bfloat16()):
            model.to(torch.bfloat16)
        self.precision = str(next((p.dtype for p in model.parameters()), torch.float32)).removeprefix("torch.")

    @cached_property
    def dim(self) -> int:
        """Width of a vector."""
        known = self.model.get_embedding_dimension()
        return int(known if known is not None else np.shape(self.model.encode(["a"]))[1])

    @property
    def limit(self) -> int:
        """Most tokens the model itself can take."""
        config = getattr(self.model[0], "config", None)
        positions = getattr(config, "max_position_embeddings", None)
        known = (positions, self.model.max_seq_length)
        return int(min([UNBOUNDED, *(n for n in known if isinstance(n, int | float) and n > 0)]))

    def encode(
        self, texts: Sequence[str], *, role: Role, prompt: str, limit: int, batch_size: int, report: Report
    ) -> FloatArray:
        """Encode in batches of like length, longest first."""
        method = self.model.encode_query if role == "query" else self.model.encode_document
        if limit != self.limit:
            self.model.max_seq_length = limit
        lengths: NDArray[Any] = np.array([len(text) for text in texts], dtype=np.int64)
        if self._tokens is not None:
            lengths = np.minimum(self._tokens.count(texts) + self._tokens.specials, limit)
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        for rows in by_length(lengths, batch_size * TOKENS_PER_TEXT, padded=True):
            vectors[rows] = method(
                [texts[row] for row in rows],
                prompt=prompt,
                batch_size=len(rows),
                show_progress_bar=False,
                normalize_embeddings=self._normalized,
            )
            report(len(rows))
        return vectors


def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16 products (AVX512-BF16, AMX or Arm's BF16)."""
    import torch

    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in ("AVX2", "AVX512_CORE", "AVX512_CORE_VNNI"):
        return False
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    found = any(bool(getattr(torch.cpu, check, bool)()) for check in checks)
    return found or any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))


def multiplies_int8() -> bool:
    """Whether this processor has instructions for 8-bit products (VNNI); without them they are no faster."""
    import torch

    return bool(getattr(torch.cpu, "_is_vnni_supported", bool)()) and hasattr(torch, "_int_mm")


def tokens_of(model: SentenceTransformer) -> Tokens | None:
    """Return the tokenizer of a model if it is of the fast kind, else None."""
    from tokenizers import Tokenizer

    tokenizer = getattr(model, "tokenizer", None)
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    return Tokens(backend) if isinstance(backend, Tokenizer) else None


def sentence_transformer(folder: ModelFolder, pooling: str | None, device: str, *, trusted: bool) -> Any:
    """Build the ``SentenceTransformer`` of a folder; a plain one gets ``pooling`` and unit norm.

    Raises
    ------
    DataFormatError
        If it cannot be loaded.
    """
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        if folder.modules:
            ours = {m["type"]: _class(m["type"]) for m in folder.modules if m["type"].startswith("isometry.modules.")}
            return SentenceTransformer._load_with_module_classes(
                str(folder.path), ours, device=device, trust_remote_code=trusted, local_files_only=True
            )
        return _plain(folder, pooling or "mean", device, trusted)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        raise DataFormatError(folder.path, None, _why(folder, error)) from error
    except Exception as error:
        # safetensors' error derives from Exception alone; anything else is a bug and goes up as it is.
        if type(error).__module__.partition(".")[0] != "safetensors":
            raise
        raise DataFormatError(folder.path, None, _why(folder, error)) from error
    finally:
        if bars:
            logging.enable_progress_bar()


def _why(folder: ModelFolder, error: Exception) -> str:
    said = " ".join(str(error).split())
    if "trust_remote_code" in said:
        return (
            "the model asks to run code of its own; load it with trust_remote_code=True if you trust where it is from."
        )
    return f"the model cannot be loaded ({type(error).__name__}: {said[:300]})."


def _class(reference: str) -> Any:
    from importlib import import_module

    module, _, name = reference.rpartition(".")
    return getattr(import_module(module), name)


def _plain(folder: ModelFolder, pooling: str, device: str, trusted: bool) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    options = {"local_files_only": True, "trust_remote_code": trusted}
    kinds = ("model_kwargs", "processor_kwargs", "config_kwargs")
    body = Transformer(str(folder.path), **{kind: dict(options) for kind in kinds})
    if body.tokenizer is None:
        raise InputError(f"{folder.path} has no tokenizer, so it cannot encode text.")
    if body.tokenizer.pad_token is None:  # decoders rarely have one; padding is masked, so any token will do
        body.tokenizer.pad_token = body.tokenizer.eos_token or body.tokenizer.unk_token
    head = Pooling(body.get_embedding_dimension(), {"last": "lasttoken"}.get(pooling, pooling))
    return SentenceTransformer(modules=[body, head, Normalize()], device=device)
