"""Sign codes: one bit per projection, compared by Hamming distance."""

from __future__ import annotations

from typing import Literal

import numpy as np

from isometry.codes.code import Bytes, Code, check_code_size
from isometry.codes.packing import pack, unpack
from isometry.errors import InputError
from isometry.types import FloatArray

Rotation = Literal["none", "random", "itq"]


class BinaryCode(Code):
    """Sign of each coordinate, plain, after random rotations (SimHash), or after a learned one (ITQ).

    A vector is centred, rotated, and the sign of each coordinate kept (0 counts as positive). The reconstruction is
    the rotated-back signs times one length fitted by least squares, plus the mean; Hamming distances of packed rows
    are those of `isometry.codes.distances.hamming`. Charikar, STOC 2002; Gong and Lazebnik, CVPR 2011.

    Parameters
    ----------
    bits
        Bits m of a vector; default: the width d. More than d take further random rotations.
    rotation
        ``"none"`` (m <= d: the first m coordinates), ``"random"``: orthogonal, ``"itq"``: principal components
        rotated so that the signs lie close (m <= d).
    center
        Subtract the training mean first.
    seed
        Of the random rotations.

    Examples
    --------
    >>> code = BinaryCode(16).fit(np.eye(16))
    >>> code.transform(np.eye(16)[:1]).tolist()
    [[1, 0]]
    """

    fitted = ("mean_", "rotation_", "length_")

    def __init__(
        self, bits: int | None = None, *, rotation: Rotation = "none", center: bool = True, seed: int = 0
    ) -> None:
        if rotation not in ("none", "random", "itq"):
            raise InputError(f"rotation must be 'none', 'random' or 'itq', got {rotation!r}.")
        if bits is not None:
            check_code_size(bits, "a sign code")
        self.bits, self.rotation, self.center, self.seed = bits, rotation, center, seed

    @property
    def code_bytes(self) -> int:
        """Bytes of one vector: m / 8, rounded up."""
        return check_code_size(self.width, "a sign code")

    @property
    def width(self) -> int:
        """Bits m of one vector."""
        return self.dim if self.bits is None else self.bits

    def _fit(self, x: FloatArray) -> None:
        check_code_size(self.width, "a sign code")
        if self.width > x.shape[1] and self.rotation != "random":
            raise InputError(
                f"{self.width} bits of {x.shape[1]}-d vectors need rotation='random'; {self.rotation!r} gives one bit "
                "per dimension at most."
            )
        self.mean_ = x.mean(axis=0) if self.center else np.zeros(x.shape[1], np.float32)
        centred = x - self.mean_
        if self.rotation == "random":
            self.rotation_ = random_rotations(x.shape[1], self.width, self.seed)
        elif self.rotation == "itq":
            self.rotation_ = _iterative_quantisation(centred, self.width, self.seed)
        else:
            self.rotation_ = np.zeros((x.shape[1], 0), np.float32)  # the identity is not stored
        self.length_ = np.ones(1, np.float32)
        signs = self._unsigned(self._encode(x))
        self.length_ = np.array([(centred * signs).sum() / max(float((signs * signs).sum()), 1e-30)], np.float32)

    def _encode(self, x: FloatArray) -> Bytes:
        centred = x - self.mean_
        z = centred @ self.rotation_ if self.rotation_.size else centred[:, : self.width]
        return pack((z >= 0).view(np.uint8), 1)

    def _unsigned(self, codes: Bytes) -> FloatArray:
        """Signs rotated back, ``[n, d]``."""
        signs = unpack(codes, 1, self.width) * np.float32(2) - np.float32(1)
        if self.rotation_.size:
            return np.asarray(signs @ self.rotation_.T, np.float32)
        return np.pad(signs, ((0, 0), (0, self.dim - self.width)))

    def _decode(self, codes: Bytes) -> FloatArray:
        return self.mean_ + self.length_ * self._unsigned(codes)


def random_rotations(dim: int, width: int, seed: int) -> FloatArray:
    """Return ``[dim, width]`` float32: independent random orthogonal matrices side by side, the last one cut.

    Each is Haar-distributed (the sign of R's diagonal is put back; Mezzadri, arXiv:math-ph/0609050).
    """
    rng, blocks = np.random.default_rng(seed), []
    for start in range(0, width, dim):
        q, r = np.linalg.qr(rng.standard_normal((dim, dim)))
        blocks.append((q * np.sign(np.diag(r)))[:, : min(dim, width - start)])
    return np.ascontiguousarray(np.hstack(blocks), np.float32)


def _iterative_quantisation(x: FloatArray, width: int, seed: int, steps: int = 50) -> FloatArray:
    """Principal axes ``[d, m]`` rotated to minimise ``|sign(x R) - x R|`` (ITQ): signs and Procrustes in turn."""
    _, vectors = np.linalg.eigh((x.T @ x).astype(np.float64))
    axes = vectors[:, ::-1][:, :width].astype(np.float32)
    reduced, rotation = x @ axes, random_rotations(width, width, seed)
    for _ in range(steps):
        signs = np.where(reduced @ rotation >= 0, np.float32(1), np.float32(-1))
        u, _, vt = np.linalg.svd(reduced.T @ signs)
        rotation = u @ vt
    return np.ascontiguousarray(axes @ rotation, np.float32)
