"""What every code has: fit, packed bytes, reconstruction, scores, a fingerprint and a file."""

from __future__ import annotations

import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from isometry.errors import CorruptStore, DimensionMismatch, EmptyInput, InputError, NotFitted
from isometry.files import write_whole
from isometry.types import FloatArray, check_reach, check_vectors

Bytes = NDArray[np.uint8]
BLOCK = 4096  # rows decoded at once: a few megabytes


class Code(ABC):
    """Base of all codes: vectors ``[n, d]`` to packed bytes ``[n, code_bytes]`` and back.

    A code names in `fitted` the array attributes that `fit` leaves, and implements `_fit`, `_encode`, `_decode` and
    `code_bytes`; checks, blocks, files and fingerprints are here. Parameters of ``__init__`` are kept under their own
    names, hold plain JSON values, dataclasses of them (then a dict is accepted too) or codes, and are
    checked there; a parameter ``None`` may be settled by `fit`.
    """

    fitted: ClassVar[tuple[str, ...]] = ()
    dim_: int | None = None

    @property
    @abstractmethod
    def code_bytes(self) -> int:
        """Bytes of one vector, everything that is stored per vector included."""

    @abstractmethod
    def _fit(self, x: FloatArray) -> None:
        """Learn from float32 ``[n, d]``; set every attribute named in `fitted` to an array."""

    @abstractmethod
    def _encode(self, x: FloatArray) -> Bytes:
        """Return uint8 ``[n, code_bytes]``."""

    @abstractmethod
    def _decode(self, codes: Bytes) -> FloatArray:
        """Return float32 ``[n, d]``."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from training vectors ``[n, d]``; ``y`` is ignored.

        Raises
        ------
        DimensionMismatch
            If X is no finite matrix.
        InputError
            If X has no row, its products leave float32, or the code's parameters do not fit its shape.
        """
        x = check_reach(check_vectors(X, what="training vectors"), "training vectors", least=True)
        if not x.size:
            raise EmptyInput(f"{type(self).__name__} needs training vectors, got an array of shape {x.shape}.")
        self.dim_ = x.shape[1]
        try:
            self._fit(x)
        except BaseException:
            self.dim_ = None
            raise
        return self

    def transform(self, X: Any) -> Bytes:
        """Return the packed codes of ``[n, d]``: uint8 ``[n, code_bytes]``."""
        return self._encode(check_reach(check_vectors(X, dim=self.dim)))

    def fit_transform(self, X: Any, y: Any = None) -> Bytes:
        """Fit, then return the codes of the training vectors."""
        return self.fit(X, y).transform(X)

    def inverse_transform(self, codes: Any) -> FloatArray:
        """Return the reconstruction of packed codes: float32 ``[n, d]``."""
        return self._decode(self._checked(codes))

    def score(self, queries: Any, codes: Any) -> FloatArray:
        """Estimate dot products of float queries ``[q, d]`` with coded vectors (asymmetric): float32 ``[q, n]``."""
        queries, codes = self._asked(queries), self._checked(codes)
        return self._by_block(codes, lambda block: queries @ self._decode(block).T, len(queries))

    def score_codes(self, a: Any, b: Any) -> FloatArray:
        """Estimate dot products of two sets of coded vectors (symmetric): float32 ``[n_a, n_b]``."""
        return self.score(self.inverse_transform(a), b)

    def norms(self, codes: Any) -> FloatArray:
        """Return the Euclidean norms of the reconstructions, float32 ``[n]``: divide scores by them for cosines."""

        def lengths(block: Bytes) -> FloatArray:
            return np.asarray(np.linalg.norm(self._decode(block), axis=1), np.float32)

        return self._by_block(self._checked(codes), lengths, 1).ravel()

    @property
    def dim(self) -> int:
        """Width d of the vectors; raises `NotFitted` before `fit`."""
        if self.dim_ is None:
            raise NotFitted(f"This {type(self).__name__} is not fitted yet; call fit with training vectors first.")
        return self.dim_

    @property
    def overhead_bytes(self) -> int:
        """Bytes kept once for all vectors: codebooks, rotations, ranges."""
        return sum(array.nbytes for array in self.arrays().values())

    @property
    def fingerprint(self) -> str:
        """Class and hash of parameters and fitted arrays; equal fingerprints, comparable codes. For ``Space.chain``."""
        digest = hashlib.sha256(json.dumps(self.header(), sort_keys=True).encode())
        for name, array in sorted(self.arrays().items()):
            digest.update(f"{name}{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return f"{type(self).__name__}#{digest.hexdigest()[:12]}"

    def get_params(self, deep: bool = False) -> dict[str, Any]:
        """Return the parameters of ``__init__`` (``deep`` is scikit-learn's and changes nothing)."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the fitted arrays by name; those of a code inside this one as ``parameter.name``."""
        own = {name: getattr(self, name) for name in self.fitted if self.dim}
        inner = {name: value for name, value in self.get_params().items() if isinstance(value, Code)}
        return own | {f"{name}.{key}": array for name, code in inner.items() for key, array in code.arrays().items()}

    def header(self) -> dict[str, Any]:
        """Return class, width and parameters as JSON values; a code inside this one as its own header."""
        params = {name: _plain(value) for name, value in self.get_params().items()}
        return {"class": type(self).__name__, "dim": self.dim, "params": params}

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all; the parameters are JSON in its header."""
        from safetensors.numpy import save

        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays().items()}
        write_whole(path, save(arrays, metadata={"isometry.code": json.dumps(self.header(), sort_keys=True)}))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; ``Code.load`` reads any code.

        Raises
        ------
        CorruptStore
            If the file is not one of a code, or is broken.
        InputError
            If it holds a code of another class than the one asked for.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                header = json.loads((file.metadata() or {})["isometry.code"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            code = _restore(header, arrays)
        except (SafetensorError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise CorruptStore(f"{path} is not a file of a code, or it is broken ({error}); write it again.") from error
        if not isinstance(code, cls):
            raise InputError(f"{path} holds a {type(code).__name__}, not a {cls.__name__}; load it with Code.load.")
        return code

    def _restored(self, header: dict[str, Any]) -> None:  # noqa: B027 (most codes have nothing to rebuild)
        """Rebuild from header and arrays whatever else `fit` leaves."""

    def _asked(self, queries: Any) -> FloatArray:
        return check_reach(check_vectors(queries, dim=self.dim, what="queries"), "queries")

    def _checked(self, codes: Any) -> Bytes:
        codes, dim = np.asarray(codes), self.dim
        if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != self.code_bytes:
            raise DimensionMismatch(
                f"Codes of this {type(self).__name__} of {dim}-d vectors must be uint8 [n, {self.code_bytes}], "
                f"got {codes.dtype} {list(codes.shape)}."
            )
        return np.ascontiguousarray(codes)

    @staticmethod
    def _by_block(codes: Bytes, values: Callable[[Bytes], Any], rows: int) -> FloatArray:
        out = np.empty((rows, len(codes)), np.float32)
        for start in range(0, len(codes), BLOCK):
            out[:, start : start + BLOCK] = values(codes[start : start + BLOCK])
        return out


def _plain(value: Any) -> Any:
    """A parameter as JSON values."""
    if isinstance(value, Code):
        return value.header()
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _restore(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Code:
    """Build a code from its header and its arrays."""
    cls = getattr(import_module(__package__), header["class"])
    params, own = dict(header["params"]), set(arrays)
    for name, value in params.items():
        if isinstance(value, dict) and "class" in value:
            inside = {k.removeprefix(f"{name}."): v for k, v in arrays.items() if k.startswith(f"{name}.")}
            params[name], own = _restore(value, inside), own - {f"{name}.{key}" for key in inside}
    code: Code = cls(**params)
    if own != set(cls.fitted):
        raise KeyError(f"arrays {sorted(own)} where {sorted(cls.fitted)} belong")
    code.dim_ = header["dim"]
    for name in own:
        setattr(code, name, arrays[name])
    code._restored(header)
    return code


def directions(x: FloatArray, what: str = "vectors") -> FloatArray:
    """Return rows ``[n, d]`` scaled to norm 1.

    Raises
    ------
    InputError
        If a row is zero: it has no direction.
    """
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    if len(zero := np.flatnonzero(norms[:, 0] == 0)):
        rows = f"{zero[:5].tolist()}{' ...' if len(zero) > 5 else ''}"
        raise InputError(f"{what} hold {len(zero)} zero rows ({rows}), which have no direction; remove them.")
    return np.asarray(x / norms, np.float32)


def check_code_size(bits: int, what: str) -> int:
    """Return the bytes that ``bits`` bits take, rounded up.

    Raises
    ------
    InputError
        If they are fewer than 8: nothing smaller than one byte can be stored per vector.

    >>> check_code_size(12, "a sign code")
    2
    """
    if bits < 8:
        raise InputError(f"A vector takes at least one byte: {what} of {bits} bits is too small; ask for 8 or more.")
    return -(-bits // 8)
