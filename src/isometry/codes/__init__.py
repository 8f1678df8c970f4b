"""Vectors to bytes and back: quantisers with scikit-learn's ``fit`` and ``transform``, and distances between codes.

Every code is a `Code` (`isometry.codes.code`) and has, after ``fit(X [n, d])``:

============================== ======================================================================================
``transform(X)``               packed codes, uint8 ``[n, code_bytes]``
``inverse_transform(codes)``   reconstruction, float32 ``[n, d]``
``score(queries, codes)``      dot products of float queries with coded vectors (asymmetric): float32 ``[q, n]``
``score_codes(a, b)``          the same between two sets of codes (symmetric)
``norms(codes)``               lengths of the reconstructions: divide scores by them for cosines
``code_bytes``                 bytes of one vector, everything stored per vector included
``overhead_bytes``             bytes kept once: codebooks, rotations, ranges
``fingerprint``                class and content hash, a step for ``Space.then``
``save(path)``, ``load(path)`` one safetensors file with a JSON header; ``Code.load`` reads any code
``get_params()``               the parameters of ``__init__``
============================== ======================================================================================

Errors: `NotFitted` before ``fit``; `DimensionMismatch` for another width, NaN or infinity, or bytes of another code;
`InputError` for parameters that do not fit the data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

# Public names and their homes; each is imported when first asked for.
_HOMES: dict[str, str] = {
    "BinaryCode": "binary",
    "Code": "code",
    "DedupCode": "dedup",
    "LowRankCode": "low_rank",
    "MagnitudeCode": "magnitude",
    "ProductCode": "product",
    "PrunedCode": "pruned",
    "RecurrentBinaryCode": "recurrent_binary",
    "RotatedCode": "rotated",
    "ScalarCode": "scalar",
    "TableCode": "table",
    "TensorTrainCode": "tensor_train",
}

if TYPE_CHECKING:
    from isometry.codes.binary import BinaryCode
    from isometry.codes.code import Code
    from isometry.codes.dedup import DedupCode
    from isometry.codes.low_rank import LowRankCode
    from isometry.codes.magnitude import MagnitudeCode
    from isometry.codes.product import ProductCode
    from isometry.codes.pruned import PrunedCode
    from isometry.codes.recurrent_binary import RecurrentBinaryCode
    from isometry.codes.rotated import RotatedCode
    from isometry.codes.scalar import ScalarCode
    from isometry.codes.table import TableCode
    from isometry.codes.tensor_train import TensorTrainCode

__all__ = [
    "BinaryCode",
    "Code",
    "DedupCode",
    "LowRankCode",
    "MagnitudeCode",
    "ProductCode",
    "PrunedCode",
    "RecurrentBinaryCode",
    "RotatedCode",
    "ScalarCode",
    "TableCode",
    "TensorTrainCode",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
