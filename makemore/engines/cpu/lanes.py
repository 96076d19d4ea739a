"""SIMD vectors of float32 numbers as a numba type, and the operations on them.

LLVM vectorises long plain loops well. But it computes much of a row of 27 logits or 200 hidden
units in scalar remainder loops, and it does not build register tiles. So vectors are explicit here.
A value of type Lanes is LLVM's <n x float>: 16 numbers are one register with AVX-512, two registers
with AVX2, four with NEON. Arithmetic is IEEE float32 in the written order, except that a product
and a sum may fuse into one rounding. So inf and nan behave as usual, and a result does not depend
on how a loop is split.

There are three widths: one register (LANES numbers), the row of a tile (TILE), and four registers
(BLOCK), whose independent operations hide each other's latency. `load` and similar functions take
the width from the type of their last argument.
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

# Any, because the declared type would require the typing context as an argument of every call.
intrinsic: Any = numba.extending.intrinsic

# Whether the CPU has 32 registers of 16 floats. Otherwise registers hold 8 (AVX2) or 4 (NEON), and
# tiles must be smaller.
WIDE = bool(llvm.get_host_cpu_features().get("avx512f", False))
LANES = 16
TILE = 32 if WIDE else 16
BLOCK = 64
FUSE = ("contract",)

i32 = ir.IntType(32)
i64 = ir.IntType(64)


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
    """Return a constant vector of int32: a list of values, or one value in all places."""
    if not isinstance(values, list):
        values = [values] * width
    return ir.Constant(ir.VectorType(i32, width), values)


def splat(builder: ir.IRBuilder, value: ir.Value, width: int) -> ir.Value:
    """Return a vector with a number in all places."""
    undefined = ir.Constant(ir.VectorType(value.type, width), ir.Undefined)
    first = builder.insert_element(undefined, value, i32(0))
    return builder.shuffle_vector(first, undefined, integers(width, 0))


def address(
    context: Any, builder: ir.IRBuilder, array_type: Any, array: Any, offset: ir.Value
) -> ir.Value:
    """Return the address of the element `offset` places after an array's first one."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [offset])


def load_at(builder: ir.IRBuilder, pointer: ir.Value, width: int) -> ir.Value:
    """Load `width` numbers from an address."""
    vector = ir.VectorType(ir.FloatType(), width)
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=4)


def store_at(builder: ir.IRBuilder, pointer: ir.Value, value: ir.Value) -> None:
    """Store a vector at an address."""
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=4)


def _result_type(args: Any) -> Lanes | None:
    """Return the Lanes type of an operator's result, or None if it is not defined for the args."""
    widths = [arg for arg in args if isinstance(arg, Lanes)]
    return widths[0] if widths and all(arg in (widths[0], types.float32) for arg in args) else None


def _define_operator(function: Callable[..., Any], emit: str) -> None:
    """Define a Python operator for Lanes with Lanes or float32, by an IRBuilder method."""

    @infer_global(function)
    class Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            kind = _result_type(args)
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


# Return a vector with one float32 in all lanes.
fill = _fill(LANES)
fill_tile = _fill(TILE)
fill_block = _fill(BLOCK)


@intrinsic
def load(typing: Any, array: Any, offset: Any, like: Any) -> Any:
    """Load numbers of a contiguous float32 array from `offset` on, as many as `like` has."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        pointer = address(context, builder, sig.args[0], *args[:2])
        return load_at(builder, pointer, sig.return_type.width)

    return like(array, types.intp, like), codegen


@intrinsic
def store(typing: Any, array: Any, offset: Any, value: Any) -> Any:
    """Store numbers in a contiguous float32 array from `offset` on."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        store_at(builder, address(context, builder, sig.args[0], *args[:2]), args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


def _bound(comparison: str) -> Any:
    @intrinsic
    def bound(typing: Any, x: Any, limit: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
            x, limit = args
            if not isinstance(sig.args[1], Lanes):
                limit = splat(builder, limit, sig.args[0].width)
            return builder.select(builder.fcmp_ordered(comparison, x, limit), limit, x)

        return x(x, limit), codegen

    return bound


# The larger and the smaller of two numbers; nan where the first one is nan.
at_least = _bound("<")
at_most = _bound(">")


@intrinsic
def first_lanes(typing: Any, x: Any, n: Any, other: Any) -> Any:
    """Return the first n lanes of x, and the float32 `other` in the remaining lanes."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        width = sig.return_type.width
        bound = splat(builder, builder.trunc(args[1], i32), width)
        inside = builder.icmp_signed("<", integers(width, list(range(width))), bound)
        return builder.select(inside, args[0], splat(builder, args[2], width))

    return x(x, types.intp, types.float32), codegen


@intrinsic
def power_of_two(typing: Any, x: Any) -> Any:
    """Return 2**n for x = 1.5 * 2**23 + n and -126 <= n <= 127: n is in the low bits of x."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        width = sig.return_type.width
        bits = builder.bitcast(args[0], ir.VectorType(i32, width))
        exponent = builder.shl(bits, integers(width, 23))
        biased = builder.add(exponent, integers(width, 127 << 23))
        return builder.bitcast(biased, sig.return_type.vector)

    return x(x), codegen


@intrinsic
def drawn_keep(typing: Any, key: Any, index: Any, threshold: Any, scale: Any, like: Any) -> Any:
    """Return `draws.dropout_keep` of the draws from `index` on.

    That is `scale` where a draw is at least the threshold, and 0 elsewhere.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        key, index, threshold, scale, _ = args
        n = sig.return_type.width
        x = builder.add(splat(builder, builder.trunc(index, i32), n), integers(n, list(range(n))))
        x = builder.add(builder.mul(x, integers(n, WEYL)), splat(builder, key, n))
        for shift, factor in ((16, M1), (15, M2), (16, 1)):
            x = builder.xor(x, builder.lshr(x, integers(n, shift)))
            x = builder.mul(x, integers(n, factor))
        keep = builder.icmp_unsigned(">=", x, splat(builder, threshold, n))
        zero = ir.Constant(sig.return_type.vector, [0.0] * n)
        return builder.select(keep, splat(builder, scale, n), zero)

    return like(types.uint32, types.intp, types.uint32, types.float32, like), codegen


def _reduction(combine: Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]) -> Any:
    @intrinsic
    def reduce(typing: Any, x: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
            value = args[0]
            width = sig.args[0].width
            while width > 1:  # combine the lower half with the upper half
                width //= 2
                lower = integers(width, list(range(width)))
                upper = integers(width, list(range(width, 2 * width)))
                low = builder.shuffle_vector(value, value, lower)
                high = builder.shuffle_vector(value, value, upper)
                value = combine(builder, low, high)
            return builder.extract_element(value, i32(0))

        return types.float32(x), codegen

    return reduce


# Reduce a vector to one number: the sum and the maximum of its lanes.
total = _reduction(lambda builder, a, b: builder.fadd(a, b))
largest = _reduction(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), b, a))
