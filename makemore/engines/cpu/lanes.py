"""Many float32 numbers as one value: a numba type that says what runs in SIMD, instead of hoping that LLVM finds it.

LLVM vectorises long plain loops well, but it loses rows of 27 logits or 200 hidden units in remainder loops, and knows
no register tiles. A value of type Lanes is LLVM's <n x float>: 16 numbers are one register under AVX-512, two under
AVX2, four under NEON. Arithmetic is IEEE float32 in the order in which it is written, except that a product and a sum
may fuse into one rounding; so inf and nan behave, and a result does not depend on where a loop was split.

Three widths: one register (LANES numbers), a tile's row (TILE), and four registers (BLOCK), whose independent chains
hide each other's latency. `load` takes the width from the type of its last argument.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba.extending
from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model

from makemore.draws import M1, M2, WEYL

intrinsic: Any = (
    numba.extending.intrinsic
)  # its declared type has the typing context as an argument of every call

# Whether 32 registers of 16 floats are there; else they hold 8 (AVX2) or 4 (NEON), and tiles must be smaller.
WIDE = bool(llvm.get_host_cpu_features().get("avx512f", False))
LANES = 16
TILE = 32 if WIDE else 16
BLOCK = 64
FUSE = ("contract",)

i32, i64 = ir.IntType(32), ir.IntType(64)


class Lanes(types.Type):
    """The numba type of `width` float32 numbers."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.vector = ir.VectorType(ir.FloatType(), width)
        super().__init__(name=f"Lanes({width})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Lanes) -> None:
        super().__init__(manager, kind, kind.vector)


def integers(width: int, values: Any) -> ir.Constant:
    """A constant vector of int32, or one number in all places."""
    return ir.Constant(
        ir.VectorType(i32, width), values if isinstance(values, list) else [values] * width
    )


def splat(builder: ir.IRBuilder, value: ir.Value, width: int) -> ir.Value:
    """A number in all places of a vector."""
    undefined = ir.Constant(ir.VectorType(value.type, width), ir.Undefined)
    return builder.shuffle_vector(
        builder.insert_element(undefined, value, i32(0)), undefined, integers(width, 0)
    )


def address(
    context: Any, builder: ir.IRBuilder, array_type: Any, array: Any, offset: ir.Value
) -> ir.Value:
    """Of the element `offset` places after an array's first."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [offset])


def load_at(builder: ir.IRBuilder, pointer: ir.Value, width: int) -> ir.Value:
    return builder.load(
        builder.bitcast(pointer, ir.VectorType(ir.FloatType(), width).as_pointer()), align=4
    )


def store_at(builder: ir.IRBuilder, pointer: ir.Value, value: ir.Value) -> None:
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=4)


def _widest(args: Any) -> Lanes | None:
    widths = [arg for arg in args if isinstance(arg, Lanes)]
    return widths[0] if widths and all(arg in (widths[0], types.float32) for arg in args) else None


def _define_operator(function: Callable[..., Any], emit: str) -> None:
    @infer_global(function)
    class Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            kind = _widest(args)
            return None if kind is None else signature(kind, *args)

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        width = sig.return_type.width
        wide = [
            arg if isinstance(kind, Lanes) else splat(builder, arg, width)
            for kind, arg in zip(sig.args, args, strict=True)
        ]
        return getattr(builder, emit)(*wide, flags=FUSE)

    for pair in ((Lanes, Lanes), (Lanes, types.float32), (types.float32, Lanes)):
        lower_builtin(function, *pair)(lower)


for _function, _emit in {
    operator.add: "fadd",
    operator.sub: "fsub",
    operator.mul: "fmul",
    operator.truediv: "fdiv",
}.items():
    _define_operator(_function, _emit)


def _fill(width: int) -> Any:
    @intrinsic
    def fill(typing: Any, value: Any) -> Any:
        return Lanes(width)(types.float32), lambda context, builder, sig, args: splat(
            builder, args[0], width
        )

    return fill


fill, fill_tile, fill_block = _fill(LANES), _fill(TILE), _fill(BLOCK)  # one float32 in all lanes


@intrinsic
def load(typing: Any, array: Any, offset: Any, like: Any) -> Any:
    """Numbers of a contiguous float32 array from `offset` on, as many as `like` has."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return load_at(
            builder, address(context, builder, sig.args[0], *args[:2]), sig.return_type.width
        )

    return like(array, types.intp, like), codegen


@intrinsic
def store(typing: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write numbers into a contiguous float32 array from `offset` on."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        store_at(builder, address(context, builder, sig.args[0], *args[:2]), args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


def _bound(comparison: str) -> Any:
    @intrinsic
    def bound(typing: Any, x: Any, limit: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
            limit = (
                args[1]
                if isinstance(sig.args[1], Lanes)
                else splat(builder, args[1], sig.args[0].width)
            )
            return builder.select(builder.fcmp_ordered(comparison, args[0], limit), limit, args[0])

        return x(x, limit), codegen

    return bound


at_least, at_most = (
    _bound("<"),
    _bound(">"),
)  # the larger, the smaller of two; nan where the first is nan


@intrinsic
def first_lanes(typing: Any, x: Any, n: Any, other: Any) -> Any:
    """The first n lanes of x, and a float32 in the others."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        width = sig.return_type.width
        bound = splat(builder, builder.trunc(args[1], i32), width)
        inside = builder.icmp_signed("<", integers(width, list(range(width))), bound)
        return builder.select(inside, args[0], splat(builder, args[2], width))

    return x(x, types.intp, types.float32), codegen


@intrinsic
def power_of_two(typing: Any, x: Any) -> Any:
    """2**n, where x = 1.5 * 2**23 + n: the low bits of x's mantissa are n, for -126 <= n <= 127."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        width = sig.return_type.width
        exponent = builder.shl(
            builder.bitcast(args[0], ir.VectorType(i32, width)), integers(width, 23)
        )
        return builder.bitcast(
            builder.add(exponent, integers(width, 127 << 23)), sig.return_type.vector
        )

    return x(x), codegen


@intrinsic
def drawn_keep(typing: Any, key: Any, index: Any, threshold: Any, kept: Any, like: Any) -> Any:
    """`draws.dropout_keep` of the draws from `index` on: `kept` where a draw is at least the threshold, else 0."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        key, index, threshold, kept, _ = args
        n = sig.return_type.width
        x = builder.add(splat(builder, builder.trunc(index, i32), n), integers(n, list(range(n))))
        x = builder.add(builder.mul(x, integers(n, WEYL)), splat(builder, key, n))
        for shift, factor in ((16, M1), (15, M2), (16, 1)):
            x = builder.xor(x, builder.lshr(x, integers(n, shift)))
            x = builder.mul(x, integers(n, factor))
        zero = ir.Constant(sig.return_type.vector, [0.0] * n)
        return builder.select(
            builder.icmp_unsigned(">=", x, splat(builder, threshold, n)),
            splat(builder, kept, n),
            zero,
        )

    return like(types.uint32, types.intp, types.uint32, types.float32, like), codegen


def _reduction(combine: Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]) -> Any:
    @intrinsic
    def reduce(typing: Any, x: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
            value, width = args[0], sig.args[0].width
            while width > 1:  # the lower half with the upper half
                width //= 2
                low = builder.shuffle_vector(value, value, integers(width, list(range(width))))
                high = builder.shuffle_vector(
                    value, value, integers(width, list(range(width, 2 * width)))
                )
                value = combine(builder, low, high)
            return builder.extract_element(value, i32(0))

        return types.float32(x), codegen

    return reduce


total = _reduction(lambda builder, a, b: builder.fadd(a, b))
largest = _reduction(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), b, a))
