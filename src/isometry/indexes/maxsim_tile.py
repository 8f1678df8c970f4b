"""One register tile of MaxSim: a few document tokens against a block of query tokens, the maximum fused in.

The compiler does not keep a tile of accumulators in registers by itself, so this one function is written as vector
instructions of LLVM, which every processor gets in its own width. Everything around it is plain numba.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

# Eight tokens times two 16-wide accumulators fill 16 of AVX-512's 32 registers and leave room for the operands; six
# times two 8-wide ones fill 12 of AVX2's 16. Measured best on one thread; wider tiles spill or wait for memory.
_WIDE: Final = bool(binding.get_host_cpu_features().get("avx512f"))
LANES: Final = 16 if _WIDE else 8
TOKENS: Final = 8 if _WIDE else 6
COLUMNS: Final = 2 * LANES  # query tokens in a block

_FLOATS: Final = types.CPointer(types.float32)
_INDICES: Final = types.CPointer(types.int64)


@intrinsic  # type: ignore[untyped-decorator]
def pointer(context: Any, array: Any) -> Any:
    """Address of a contiguous array's first element."""

    def code(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return cgutils.create_struct_proxy(array)(target, builder, value=arguments[0]).data

    return types.CPointer(array.dtype)(array), code


@intrinsic  # type: ignore[untyped-decorator]
def tile(context: Any, tokens: Any, rows: Any, dim: Any, queries: Any, first: Any, maxima: Any, column: Any) -> Any:
    """Raise ``maxima[column:column + COLUMNS]`` to the dot products of ``TOKENS`` rows with a block of queries.

    Parameters
    ----------
    tokens
        Address of float32 ``[t, dim]``.
    rows
        Address of int64 ``[TOKENS]``: which rows, repetitions allowed.
    dim
        Their width.
    queries, first
        Address of float32 numbers and where in them the block ``[dim, COLUMNS]`` begins.
    maxima, column
        Address of float32 numbers and where in them the block's maxima are.
    """
    wide = types.int64
    signature = types.void(_FLOATS, _INDICES, wide, _FLOATS, wide, _FLOATS, wide)
    return signature, _tile


def _tile(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    tokens, rows, dim, queries, first, maxima, column = arguments
    vector, number = ir.VectorType(ir.FloatType(), LANES), ir.IntType(64)
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    undefined = ir.Constant(vector, ir.Undefined)
    name = f"llvm.fmuladd.v{LANES}f32"
    fused = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)

    def vectors_at(base: Any, offset: Any) -> list[Any]:
        places = [builder.gep(base, [builder.add(offset, number(LANES * half))]) for half in range(2)]
        return [builder.bitcast(place, vector.as_pointer()) for place in places]

    starts = [builder.gep(tokens, [builder.mul(builder.load(builder.gep(rows, [number(t)])), dim)])
              for t in range(TOKENS)]  # fmt: skip
    zero = ir.Constant(vector, [0.0] * LANES)
    sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(2)] for _ in range(TOKENS)]
    with cgutils.for_range(builder, dim) as loop:
        at = builder.add(first, builder.mul(loop.index, number(COLUMNS)))
        query = [builder.load(place, align=4) for place in vectors_at(queries, at)]
        for start, pair in zip(starts, sums, strict=True):
            value = builder.load(builder.gep(start, [loop.index]))
            single = builder.insert_element(undefined, value, ir.IntType(32)(0))
            spread = builder.shuffle_vector(single, undefined, lanes)
            for half in range(2):
                builder.store(builder.call(fused, [spread, query[half], builder.load(pair[half])]), pair[half])
    for half, place in enumerate(vectors_at(maxima, column)):
        best = builder.load(place, align=4)
        for pair in sums:
            value = builder.load(pair[half])
            best = builder.select(builder.fcmp_ordered(">", value, best), value, best)
        builder.store(best, place, align=4)
    return target.get_dummy_value()
