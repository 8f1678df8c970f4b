"""The code itself: learned multi-level binary codes with fit, packed bytes and an encoder's identity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch

from isometry.codes.code import Bytes, Code, directions
from isometry.codes.distances import levels, pack_planes, plane_dots
from isometry.codes.recurrent_binary.network import Binariser, Init, check_shape
from isometry.codes.recurrent_binary.training import Old, Training, train_binariser
from isometry.errors import EmptyInput, InputError, SpaceMismatch
from isometry.types import FloatArray, IntArray, check_vectors
from isometry.types.progress import Progress

_ENCODED_AT_ONCE = 64  # always exactly so many rows: a product of another height may round, and so binarise, otherwise
_DECODER_ROWS = 8192


class RecurrentBinaryCode(Code):
    """Recurrent binarisation of embeddings (BEBR): u + 1 learned bits for each of m output dimensions.

    A code is the value ``b = w / 2^u`` of odd integers w, packed as bit planes, plus ``1 / |b|`` as float32; two codes
    are compared by the cosine of their b (`score_codes`), an integer dot product. Only directions are coded: rows are
    normalised. `inverse_transform` is a linear least-squares decoder fitted at the end. arXiv:2302.08714.

    Parameters
    ----------
    bits, rounds
        m, a multiple of 8, and u: ``m (u + 1)`` bits a vector. u = 0 is a plain learned hash.
    init, hidden, blocks
        Of the network (`Binariser`); ``hidden`` None: twice the width of the vectors.
    training
        Settings, or their values as a mapping.
    seed
        Of initial weights and batches.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32)
    >>> code = RecurrentBinaryCode(16, training=Training(epochs=0)).fit(x)
    >>> code.code_bytes, code.transform(x[:2]).shape
    (8, (2, 8))
    """

    fitted = ("weights_", "decoder_")

    def __init__(
        self, bits: int = 384, rounds: int = 1, *, init: Init = "rotation_skip", hidden: int | None = None,
        blocks: int = 1, training: Training | Mapping[str, Any] | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        check_shape(bits, rounds)
        self.bits, self.rounds, self.init, self.hidden, self.blocks = bits, rounds, init, hidden, blocks
        self.training = training if isinstance(training, Training) else Training(**(training or {}))
        self.seed = seed
        self.compatible_: tuple[str, ...] = ()

    @property
    def code_bytes(self) -> int:
        """Bytes of one vector: m (u + 1) / 8, and four for ``1 / |b|``."""
        return self.bits * (self.rounds + 1) // 8 + 4

    def fit_pairs(
        self,
        queries: Any,
        documents: Any = None,
        *,
        ids: IntArray | None = None,
        old: RecurrentBinaryCode | None = None,
        old_documents: Any = None,
        progress: Progress | None = None,
    ) -> Self:
        """Train on positive pairs, and so that new queries search the codes of an older encoder.

        Parameters
        ----------
        queries, documents
            ``[n, d]`` each, row by row; without documents as in `fit`.
        ids
            int64 ``[n]``: rows of one id are never each other's negatives.
        old, old_documents
            A fitted code of the same bits and rounds, kept frozen, and the same documents as the old encoder embedded
            them, ``[n, d_old]``. The new code then declares itself compatible with the old one.
        progress
            Called with (steps done, steps).

        Raises
        ------
        SpaceMismatch
            If the old code has other bits or rounds.
        InputError
            If only one of old and old_documents is given, or rows do not fit.
        """
        x = directions(check_vectors(queries, what="queries"), "queries")
        y = None if documents is None else check_vectors(documents, dim=x.shape[1], what="documents")
        if not len(x):
            raise EmptyInput("Training needs rows, got none.")
        if (old is None) != (old_documents is None):
            raise InputError("Backward-compatible training needs the old code and the old vectors; only one was given.")
        frozen = None
        if old is not None:
            if (old.bits, old.rounds) != (self.bits, self.rounds):
                raise SpaceMismatch(
                    f"Codes of {old.bits} bits and {old.rounds} rounds cannot be compared with {self.bits} and "
                    f"{self.rounds}; choose the old ones."
                )
            frozen = Old(old.values(old.transform(old_documents)))
        network = self._network(x.shape[1])
        unit = None if y is None else directions(y, "documents")
        self.history_ = train_binariser(
            network, x, unit, settings=self.training, ids=ids, old=frozen, seed=self.seed, progress=progress
        )
        self.dim_, self.network_, self.weights_ = x.shape[1], network.eval(), network.weights()
        self.compatible_ = () if old is None else (old.fingerprint, *old.compatible_)
        self.decoder_ = self._fit_decoder(x if unit is None else unit)
        return self

    def _fit(self, x: FloatArray) -> None:
        self.fit_pairs(x)

    def _fit_decoder(self, x: FloatArray) -> FloatArray:
        """Ridge regression of unit vectors on their unit codes, ``[m, d]``."""
        x = x[np.random.default_rng(self.seed).permutation(len(x))[:_DECODER_ROWS]]
        b = self._unit(self._encode(x)).astype(np.float64)
        gram = b.T @ b
        ridge = 1e-3 * np.trace(gram) / len(gram) + 1e-9
        return np.ascontiguousarray(np.linalg.solve(gram + ridge * np.eye(len(gram)), b.T @ x), np.float32)

    def _network(self, dim: int) -> Binariser:
        return Binariser(
            dim, self.bits, self.rounds, hidden=self.hidden or 2 * dim, blocks=self.blocks, init=self.init,
            seed=self.seed,
        )  # fmt: skip

    def _restored(self, header: dict[str, Any]) -> None:
        self.network_ = self._network(self.dim).eval()
        self.network_.set_weights(self.weights_)
        self.compatible_ = tuple(header["compatible"])

    def header(self) -> dict[str, Any]:
        """Return class, width, parameters, and the fingerprints of the older codes it may be compared with."""
        return super().header() | {"compatible": list(self.compatible_)}

    def accepts(self, fingerprint: str) -> bool:
        """Whether queries coded by this code may search codes of that fingerprint."""
        return fingerprint == self.fingerprint or fingerprint in self.compatible_

    def _encode(self, x: FloatArray) -> Bytes:
        unit, step = directions(x), _ENCODED_AT_ONCE
        signs = np.empty((len(x), self.rounds + 1, self.bits), bool)
        block = np.zeros((step, x.shape[1]), np.float32)
        with torch.inference_mode():
            for start in range(0, len(x), step):
                rows = unit[start : start + step]
                block[: len(rows)] = rows
                planes = torch.stack(self.network_.planes(torch.from_numpy(block)), dim=1)
                signs[start : start + step] = planes[: len(rows)].numpy() > 0
        planes_packed = pack_planes(signs)
        norms = np.linalg.norm(levels(planes_packed, self.rounds).astype(np.float32), axis=1) / 2**self.rounds
        return np.hstack([planes_packed, (1 / norms)[:, None].astype("<f4").view(np.uint8)])

    def values(self, codes: Any) -> FloatArray:
        """Return the codes' values b, float32 ``[n, m]``, multiples of ``2^-u``: nothing is lost by packing."""
        return levels(self._checked(codes)[:, :-4], self.rounds) * np.float32(0.5**self.rounds)

    def _unit(self, codes: Bytes) -> FloatArray:
        return self.values(codes) * _inverse_norms(codes)[:, None]

    def _decode(self, codes: Bytes) -> FloatArray:
        return np.asarray(self._unit(codes) @ self.decoder_, np.float32)

    def score_codes(self, a: Any, b: Any) -> FloatArray:
        """Cosines of two sets of codes by exact integer products, float32 ``[n_a, n_b]``."""
        a, b = self._checked(a), self._checked(b)
        return coded_cosines(a, b, self.rounds)


def coded_cosines(a: Bytes, b: Bytes, rounds: int) -> FloatArray:
    """Cosines of packed codes with their inverse norms, ``[n_a, code_bytes]`` and ``[n_b, code_bytes]``."""
    dots = plane_dots(a[:, :-4], b[:, :-4], rounds)
    dots *= _inverse_norms(a)[:, None]
    dots *= _inverse_norms(b)
    return dots


def _inverse_norms(codes: Bytes) -> FloatArray:
    return np.ascontiguousarray(codes[:, -4:]).view("<f4").ravel()
