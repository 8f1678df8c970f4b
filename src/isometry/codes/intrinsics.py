"""Vector instructions that numba does not reach by itself, as functions for compiled kernels.

Each is a few lines of LLVM: products of unsigned codes with signed bytes (one VNNI instruction for 64 of them where
the processor has it, ordinary vector arithmetic elsewhere, the same integers either way), population count, and
prefetching. Arrays are passed whole with an offset in elements, so that a row costs no slice.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_BYTES, _WORDS = ir.VectorType(_I8, 64), ir.VectorType(_I32, 16)
VNNI = bool(binding.get_host_cpu_features().get("avx512vnni"))


def _pointer(context: Any, builder: Any, kind: Any, array: Any, offset: Any, element: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), element.as_pointer())


def _load(builder: Any, pointer: Any, index: Any) -> Any:
    value = builder.load(builder.gep(pointer, [index]))
    value.align = 1
    return value


def _call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    signature = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), arguments)


def _splat(vector: Any, value: int) -> Any:
    return ir.Constant(vector, [value] * vector.count)


def _multiply_add_vnni(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    return _call(builder, "llvm.x86.avx512.vpdpbusd.512", _WORDS, [total, unsigned, signed])


def _multiply_add_portable(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    wide, wider = ir.VectorType(_I16, 64), ir.VectorType(_I32, 64)
    product = builder.sext(builder.mul(builder.zext(unsigned, wide), builder.sext(signed, wide)), wider)
    for lane in range(4):  # lane, lane + 4, ...: any grouping sums to the same total
        picks = ir.Constant(ir.VectorType(_I32, 16), [4 * i + lane for i in range(16)])
        total = builder.add(total, builder.shuffle_vector(product, ir.Constant(wider, ir.Undefined), picks))
    return total


def _dot(multiply_add: Any, *, nibbles: bool) -> Any:
    """An intrinsic ``(codes, offset, query, query_offset, chunks) -> int32`` over 64-byte chunks of codes."""

    def dot(typing: Any, codes: Any, offset: Any, query: Any, query_offset: Any, chunks: Any) -> Any:
        signature = types.int32(codes, types.int64, query, types.int64, types.int64)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code = _pointer(context, builder, signature.args[0], arguments[0], arguments[1], _BYTES)
            asked = _pointer(context, builder, signature.args[2], arguments[2], arguments[3], _BYTES)
            total = cgutils.alloca_once_value(builder, _splat(_WORDS, 0))
            with cgutils.for_range(builder, arguments[4], intp=_I64) as loop:
                value, running = _load(builder, code, loop.index), builder.load(total)
                if nibbles:
                    first = builder.mul(loop.index, ir.Constant(_I64, 2))
                    second = builder.add(first, ir.Constant(_I64, 1))
                    low, high = builder.and_(value, _splat(_BYTES, 15)), builder.lshr(value, _splat(_BYTES, 4))
                    running = multiply_add(builder, running, low, _load(builder, asked, first))
                    running = multiply_add(builder, running, high, _load(builder, asked, second))
                else:
                    running = multiply_add(builder, running, value, _load(builder, asked, loop.index))
                builder.store(running, total)
            return _call(builder, "llvm.vector.reduce.add.v16i32", _I32, [builder.load(total)])

        return signature, generate

    return intrinsic(dot)


_multiply_add = _multiply_add_vnni if VNNI else _multiply_add_portable
dot_nibbles = _dot(_multiply_add, nibbles=True)
dot_bytes = _dot(_multiply_add, nibbles=False)
portable_dot_nibbles = _dot(_multiply_add_portable, nibbles=True)
portable_dot_bytes = _dot(_multiply_add_portable, nibbles=False)


@intrinsic
def butterfly16(typing: Any, array: Any, first: Any, second: Any) -> Any:
    """Replace 16 float32 at two offsets by their sums and differences."""
    lanes = ir.VectorType(ir.FloatType(), 16)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places = [_pointer(context, builder, signature.args[0], arguments[0], o, lanes) for o in arguments[1:]]
        a, b = (_load(builder, place, ir.Constant(_I64, 0)) for place in places)
        for value, place in zip((builder.fadd(a, b), builder.fsub(a, b)), places, strict=True):
            builder.store(value, place).align = 1
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), generate


@intrinsic
def add_scaled16(typing: Any, target: Any, place: Any, scale: Any, source: Any, offset: Any) -> Any:
    """Add ``scale`` times 16 float32 of ``source`` to 16 of ``target``."""
    lanes = ir.VectorType(ir.FloatType(), 16)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to = _pointer(context, builder, signature.args[0], arguments[0], arguments[1], lanes)
        of = _pointer(context, builder, signature.args[3], arguments[3], arguments[4], lanes)
        empty = ir.Constant(lanes, ir.Undefined)
        first = builder.insert_element(empty, arguments[2], ir.Constant(_I32, 0))
        factor = builder.shuffle_vector(first, empty, _splat(ir.VectorType(_I32, 16), 0))
        zero = ir.Constant(_I64, 0)
        total = builder.fadd(_load(builder, to, zero), builder.fmul(factor, _load(builder, of, zero)))
        builder.store(total, to).align = 1
        return context.get_dummy_value()

    return types.void(target, types.int64, types.float32, source, types.int64), generate


@intrinsic
def popcount(typing: Any, word: Any) -> Any:
    """Number of bits set in a uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic
def prefetch(typing: Any, array: Any, offset: Any) -> Any:
    """Ask for the cache line that holds ``array.flat[offset]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _pointer(context, builder, signature.args[0], arguments[0], arguments[1], _I8)
        flags = [ir.Constant(_I32, flag) for flag in (0, 3, 1)]  # to read, keep in every cache, data
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), [address, *flags])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@intrinsic
def lowest_bit(typing: Any, word: Any) -> Any:
    """Position of the lowest bit set in a uint64, 64 if none is."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic
def near_rows(
    typing: Any, blocks: Any, offset: Any, query: Any, query_offset: Any, words: Any, bar: Any, distances: Any
) -> Any:
    """Which of 64 codes are within a Hamming distance of ``bar``, as a uint64; also writes the distances, uint16 [64].

    ``blocks`` hold word after word, the words of 64 codes side by side.
    """
    signature = types.uint64(blocks, types.int64, query, types.int64, types.int64, types.int64, distances)
    lanes, narrow = ir.VectorType(_I64, 8), ir.VectorType(_I16, 8)

    def spread(builder: Any, word: Any) -> Any:
        empty = ir.Constant(lanes, ir.Undefined)
        first = builder.insert_element(empty, word, ir.Constant(_I32, 0))
        return builder.shuffle_vector(first, empty, _splat(ir.VectorType(_I32, 8), 0))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block = _pointer(context, builder, signature.args[0], arguments[0], arguments[1], lanes)
        asked = _pointer(context, builder, signature.args[2], arguments[2], arguments[3], _I64)
        target = _pointer(context, builder, signature.args[6], arguments[6], ir.Constant(_I64, 0), narrow)
        totals = [cgutils.alloca_once_value(builder, _splat(lanes, 0)) for _ in range(8)]
        with cgutils.for_range(builder, arguments[4], intp=_I64) as loop:
            word = spread(builder, _load(builder, asked, loop.index))
            start = builder.mul(loop.index, ir.Constant(_I64, 8))
            for group, total in enumerate(totals):
                value = _load(builder, block, builder.add(start, ir.Constant(_I64, group)))
                bits = _call(builder, "llvm.ctpop.v8i64", lanes, [builder.xor(value, word)])
                builder.store(builder.add(builder.load(total), bits), total)
        limit, near = spread(builder, arguments[5]), ir.Constant(_I64, 0)
        for group, total in enumerate(totals):
            value, place = builder.load(total), builder.gep(target, [ir.Constant(_I64, group)])
            builder.store(builder.trunc(value, narrow), place).align = 1
            inside = builder.bitcast(builder.icmp_signed("<=", value, limit), _I8)
            near = builder.or_(near, builder.shl(builder.zext(inside, _I64), ir.Constant(_I64, 8 * group)))
        return near

    return signature, generate
