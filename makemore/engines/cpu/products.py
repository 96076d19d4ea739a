"""Products and transposes of small float32 matrices, computed in register tiles.

A product of 32 x 200 and 200 x 27 takes 1.7 us here. A general BLAS takes twice as long, because of
packing, dispatch and columns that do not fill its tiles. These functions read operands in place.
Each element of a product is one chain of fused multiply-adds in the order of the inner index, in
every tile. So results do not depend on the tile size of a processor or on a library's threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from makemore.engines.cpu.compile import inlined
from makemore.engines.cpu.lanes import (
    FUSE,
    LANES,
    TILE,
    WIDE,
    address,
    fill,
    fill_tile,
    i64,
    integers,
    intrinsic,
    load_at,
    splat,
    store_at,
)

# Rows of a tile. Its sums must fit into the registers, and there must be enough of them to hide the
# latency of a multiply-add.
ROWS = 8 if WIDE else 6


class _Loop:
    """A loop of generated code over k = 0, step, 2 * step, ... while k < end.

    Emit the body between the constructor and `finish`.
    """

    def __init__(self, builder: ir.IRBuilder) -> None:
        self._builder = builder
        self._before = builder.block
        self._body = builder.append_basic_block("inner")
        self._after = builder.append_basic_block("done")
        builder.branch(self._body)
        builder.position_at_end(self._body)
        self.k = builder.phi(i64)

    def finish(self, step: int, end: ir.Value, sums: list[Any], new: list[Any]) -> None:
        """End the body: `sums` are 0 in the first pass and have the values of `new` in the next."""
        builder = self._builder
        following = builder.add(self.k, i64(step))
        self.k.add_incoming(i64(0), self._before)
        self.k.add_incoming(following, self._body)
        for old, value in zip(sums, new, strict=True):
            zero = ir.Constant(value.type, [0.0] * value.type.count)
            old.add_incoming(zero, self._before)
            old.add_incoming(value, self._body)
        builder.cbranch(builder.icmp_signed("<", following, end), self._body, self._after)
        builder.position_at_end(self._after)


def _make_tile(rows: int) -> Any:
    """Make the function that computes a tile with this number of rows."""

    @intrinsic
    def tile(
        typing: Any, c: Any, c_at: Any, c_row: Any, a: Any, a_at: Any, a_row: Any, a_column: Any,
        b: Any, b_at: Any, b_row: Any, inner: Any, like: Any,
    ) -> Any:  # fmt: skip
        """c (rows, width) = a (rows, inner) @ b (inner, width), with the width of `like`.

        Each matrix is given by an array, the offset of its first element, and its strides.
        """
        n = types.intp
        return types.void(c, n, n, a, n, n, n, b, n, n, n, like), codegen

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        c, c_at, c_row, a, a_at, a_row, a_column, b, b_at, b_row, inner, _ = args
        c_first = address(context, builder, sig.args[0], c, c_at)
        a_first = address(context, builder, sig.args[3], a, a_at)
        b_first = address(context, builder, sig.args[7], b, b_at)
        width = sig.args[11].width

        loop = _Loop(builder)
        sums = [builder.phi(sig.args[11].vector) for _ in range(rows)]
        right = load_at(builder, builder.gep(b_first, [builder.mul(loop.k, b_row)]), width)
        left = builder.gep(a_first, [builder.mul(loop.k, a_column)])
        new = []
        for m in range(rows):
            number = builder.load(builder.gep(left, [builder.mul(i64(m), a_row)]))
            product = builder.fmul(splat(builder, number, width), right, flags=FUSE)
            new.append(builder.fadd(product, sums[m], flags=FUSE))
        loop.finish(1, inner, sums, new)

        for m in range(rows):
            store_at(builder, builder.gep(c_first, [builder.mul(i64(m), c_row)]), new[m])
        return context.get_dummy_value()

    return tile


_tile = _make_tile(ROWS)
_tile4 = _make_tile(4)
_tile2 = _make_tile(2)
_tile1 = _make_tile(1)


@inlined
def _columns(c: np.ndarray, a: np.ndarray, b: np.ndarray, j: int, like: Any) -> None:
    """Compute the columns of a product from j on, as many as `like` has."""
    M, K = c.shape[0], b.shape[0]
    c_row, b_row = c.strides[0] // 4, b.strides[0] // 4
    a_row, a_column = a.strides[0] // 4, a.strides[1] // 4
    i = 0
    while i + ROWS <= M:
        _tile(c, i * c_row + j, c_row, a, i * a_row, a_row, a_column, b, j, b_row, K, like)
        i += ROWS
    while i + 4 <= M:
        _tile4(c, i * c_row + j, c_row, a, i * a_row, a_row, a_column, b, j, b_row, K, like)
        i += 4
    if i + 2 <= M:
        _tile2(c, i * c_row + j, c_row, a, i * a_row, a_row, a_column, b, j, b_row, K, like)
        i += 2
    if i < M:
        _tile1(c, i * c_row + j, c_row, a, i * a_row, a_row, a_column, b, j, b_row, K, like)


@inlined
def matmul(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """c (M, N) = a (M+, K+) @ b (K, N).

    K is at least 1, and N a multiple of LANES. `a` may have unused rows and columns at the end, and
    may be a transposed view.
    """
    N = c.shape[1]
    for j in range(0, N - TILE + 1, TILE):
        _columns(c, a, b, j, fill_tile(np.float32(0)))
    if N % TILE > 0:
        _columns(c, a, b, N - N % TILE, fill(np.float32(0)))


@intrinsic
def _transpose_block(
    typing: Any, c: Any, c_at: Any, c_row: Any, a: Any, a_at: Any, a_row: Any, last: Any
) -> Any:
    """c (LANES, LANES) = a (LANES, LANES).T; row `last` of a replaces all rows after it."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        c, c_at, c_row, a, a_at, a_row, last = args
        rows = []
        for m in range(LANES):
            row = builder.select(builder.icmp_signed("<", i64(m), last), i64(m), last)
            offset = builder.add(a_at, builder.mul(row, a_row))
            rows.append(load_at(builder, address(context, builder, sig.args[3], a, offset), LANES))
        low = integers(LANES, [k // 2 + LANES * (k % 2) for k in range(LANES)])
        high = integers(LANES, [k // 2 + LANES * (k % 2) for k in range(LANES, 2 * LANES)])
        # Interleaving the first half of the rows with the second half log2(16) times transposes.
        for _ in range(4):
            pairs = zip(rows[: LANES // 2], rows[LANES // 2 :], strict=True)
            rows = [builder.shuffle_vector(*pair, mask) for pair in pairs for mask in (low, high)]
        for m in range(LANES):
            offset = builder.add(c_at, builder.mul(i64(m), c_row))
            store_at(builder, address(context, builder, sig.args[0], c, offset), rows[m])
        return context.get_dummy_value()

    n = types.intp
    return types.void(c, n, n, a, n, n, n), codegen


@inlined
def transpose(c: np.ndarray, a: np.ndarray) -> None:
    """c (N, M+) = a (M, N).T; N is a multiple of LANES, and M+ is M rounded up to one.

    The columns of c from M on repeat column M - 1.
    """
    M, N = a.shape
    c_row, a_row = c.strides[0] // 4, a.strides[0] // 4
    for i in range(0, M, LANES):
        for j in range(0, N, LANES):
            _transpose_block(c, j * c_row + i, c_row, a, i * a_row + j, a_row, M - 1 - i)


# Rows of a and rows of b in a tile of dot products.
DOTS = 4 if WIDE else 2


def _row_addresses(
    builder: ir.IRBuilder, first: ir.Value, offset: ir.Value, stride: ir.Value, last: ir.Value
) -> list[ir.Value]:
    """Return the addresses of DOTS rows of a matrix; row `last` replaces all rows after it."""
    numbers = [
        builder.select(builder.icmp_signed("<", i64(m), last), i64(m), last) for m in range(DOTS)
    ]
    offsets = [builder.add(offset, builder.mul(number, stride)) for number in numbers]
    return [builder.gep(first, [offset]) for offset in offsets]


def _vector_sums(builder: ir.IRBuilder, vectors: list[ir.Value]) -> ir.Value:
    """Return a vector whose lane i is the sum of the lanes of vector i; there are LANES vectors.

    Adds neighbouring lanes of two vectors at a time, until one vector is left.
    """
    even = integers(LANES, list(range(0, 2 * LANES, 2)))
    odd = integers(LANES, list(range(1, 2 * LANES, 2)))
    while len(vectors) > 1:
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [
            builder.fadd(builder.shuffle_vector(*pair, even), builder.shuffle_vector(*pair, odd))
            for pair in pairs
        ]
    return vectors[0]


@intrinsic
def _dot_tile(
    typing: Any, c: Any, c_at: Any, c_row: Any, a: Any, a_at: Any, a_row: Any, a_last: Any,
    b: Any, b_at: Any, b_row: Any, b_last: Any, inner: Any,
) -> Any:  # fmt: skip
    """c (DOTS, DOTS) = a (DOTS, inner) @ b (DOTS, inner).T.

    Row `a_last` of a replaces all rows after it, and so does row `b_last` of b.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        c, c_at, c_row, a, a_at, a_row, a_last, b, b_at, b_row, b_last, inner = args
        a_first = address(context, builder, sig.args[3], a, i64(0))
        b_first = address(context, builder, sig.args[7], b, i64(0))
        left = _row_addresses(builder, a_first, a_at, a_row, a_last)
        right = _row_addresses(builder, b_first, b_at, b_row, b_last)
        vector = ir.VectorType(ir.FloatType(), LANES)

        loop = _Loop(builder)
        sums = [builder.phi(vector) for _ in range(DOTS * DOTS)]
        xs = [load_at(builder, builder.gep(row, [loop.k]), LANES) for row in left]
        ys = [load_at(builder, builder.gep(row, [loop.k]), LANES) for row in right]
        products = [builder.fmul(x, y, flags=FUSE) for x in xs for y in ys]
        new = [
            builder.fadd(product, old, flags=FUSE)
            for product, old in zip(products, sums, strict=True)
        ]
        loop.finish(LANES, inner, sums, new)

        padding = [ir.Constant(vector, [0.0] * LANES)] * (LANES - len(new))
        dots = _vector_sums(builder, new + padding)
        for m in range(DOTS):
            lanes = integers(DOTS, list(range(m * DOTS, (m + 1) * DOTS)))
            row = builder.shuffle_vector(dots, dots, lanes)
            offset = builder.add(c_at, builder.mul(i64(m), c_row))
            store_at(builder, address(context, builder, sig.args[0], c, offset), row)
        return context.get_dummy_value()

    n = types.intp
    return types.void(c, n, n, a, n, n, n, b, n, n, n, n), codegen


@inlined
def matmul_transposed(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """c (M+, N+) = a (M, K) @ b (N, K).T, with K a multiple of LANES.

    Writes whole tiles: c needs DOTS - 1 more rows and columns than M and N.
    """
    M, K = a.shape
    N = b.shape[0]
    c_row, a_row, b_row = c.strides[0] // 4, a.strides[0] // 4, b.strides[0] // 4
    for i in range(0, M, DOTS):
        for j in range(0, N, DOTS):
            _dot_tile(
                c, i * c_row + j, c_row, a, i * a_row, a_row, M - 1 - i,
                b, j * b_row, b_row, N - 1 - j, K,
            )  # fmt: skip
