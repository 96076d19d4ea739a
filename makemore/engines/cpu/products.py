"""Products and transposes of small float32 matrices, in register tiles.

A product of 32 x 200 and 200 x 27 takes 1.7 us here. A general BLAS spends as long again on packing, on dispatch and on
columns that do not fill its tiles. These functions read operands where they stand. Each element of a product is one
chain of fused multiply-adds in the order of the inner index, whatever tile it falls into: results do not depend on the
tile that suits a processor, and no library's threads matter.
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

# Rows of a tile: its sums must fit the registers, and be enough to hide the latency of a multiply-add.
ROWS = 8 if WIDE else 6


def _make_tile(rows: int) -> Any:
    @intrinsic
    def tile(typing: Any, c: Any, c_at: Any, c_row: Any, a: Any, a_at: Any, a_row: Any, a_column: Any,
             b: Any, b_at: Any, b_row: Any, inner: Any, like: Any) -> Any:  # fmt: skip
        """c (rows, width) = a (rows, inner) @ b (inner, width): each from an offset, with strides; width as `like`."""
        n = types.intp
        return types.void(c, n, n, a, n, n, n, b, n, n, n, like), codegen

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        c, c_at, c_row, a, a_at, a_row, a_column, b, b_at, b_row, inner, _ = args
        c_first = address(context, builder, sig.args[0], c, c_at)
        a_first = address(context, builder, sig.args[3], a, a_at)
        b_first = address(context, builder, sig.args[7], b, b_at)
        width = sig.args[11].width
        before, loop, after = (
            builder.block,
            builder.append_basic_block("inner"),
            builder.append_basic_block("done"),
        )
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(i64)
        sums = [builder.phi(sig.args[11].vector) for _ in range(rows)]
        right = load_at(builder, builder.gep(b_first, [builder.mul(k, b_row)]), width)
        left = builder.gep(a_first, [builder.mul(k, a_column)])
        new = []
        for m in range(rows):
            number = builder.load(builder.gep(left, [builder.mul(i64(m), a_row)]))
            product = builder.fmul(splat(builder, number, width), right, flags=FUSE)
            new.append(builder.fadd(product, sums[m], flags=FUSE))
        following = builder.add(k, i64(1))
        k.add_incoming(i64(0), before)
        k.add_incoming(following, loop)
        for m in range(rows):
            sums[m].add_incoming(ir.Constant(sig.args[11].vector, [0.0] * width), before)
            sums[m].add_incoming(new[m], loop)
        builder.cbranch(builder.icmp_signed("<", following, inner), loop, after)
        builder.position_at_end(after)
        for m in range(rows):
            store_at(builder, builder.gep(c_first, [builder.mul(i64(m), c_row)]), new[m])
        return context.get_dummy_value()

    return tile


_tile, _tile4, _tile2, _tile1 = (_make_tile(rows) for rows in (ROWS, 4, 2, 1))


@inlined
def _columns(c: np.ndarray, a: np.ndarray, b: np.ndarray, j: int, like: Any) -> None:
    """The columns of a product from j on, as many as `like` has."""
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
    """c (M, N) = a (M.., K..) @ b (K, N), K at least 1 and N a multiple of LANES; `a` may be a transposed view."""
    N = c.shape[1]
    for j in range(0, N - TILE + 1, TILE):
        _columns(c, a, b, j, fill_tile(np.float32(0)))
    if N % TILE > 0:
        _columns(c, a, b, N - N % TILE, fill(np.float32(0)))


@intrinsic
def _transpose_block(
    typing: Any, c: Any, c_at: Any, c_row: Any, a: Any, a_at: Any, a_row: Any, last: Any
) -> Any:
    """c (LANES, LANES) = a (LANES, LANES).T; rows of `a` after its row number `last` are read as that row."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        c, c_at, c_row, a, a_at, a_row, last = args
        rows = []
        for m in range(LANES):
            row = builder.select(builder.icmp_signed("<", i64(m), last), i64(m), last)
            offset = builder.add(a_at, builder.mul(row, a_row))
            rows.append(load_at(builder, address(context, builder, sig.args[3], a, offset), LANES))
        low = integers(LANES, [k // 2 + LANES * (k % 2) for k in range(LANES)])
        high = integers(LANES, [k // 2 + LANES * (k % 2) for k in range(LANES, 2 * LANES)])
        for _ in range(
            4
        ):  # interleaving the first half of the rows with the second, log2(16) times, transposes
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
    """c (N, M+) = a (M, N).T, N a multiple of LANES, M+ the next from M on; the last M+ - M columns repeat column M."""
    M, N = a.shape
    c_row, a_row = c.strides[0] // 4, a.strides[0] // 4
    for i in range(0, M, LANES):
        for j in range(0, N, LANES):
            _transpose_block(c, j * c_row + i, c_row, a, i * a_row + j, a_row, M - 1 - i)


# Rows of `a` and of `b` of a tile of dot products.
DOTS = 4 if WIDE else 2


@intrinsic
def _dot_tile(typing: Any, c: Any, c_at: Any, c_row: Any, a: Any, a_at: Any, a_row: Any, a_last: Any,
              b: Any, b_at: Any, b_row: Any, b_last: Any, inner: Any) -> Any:  # fmt: skip
    """c (DOTS, DOTS) = a (DOTS, inner) @ b (DOTS, inner).T; rows after a's or b's last are read as that row."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        c, c_at, c_row, a, a_at, a_row, a_last, b, b_at, b_row, b_last, inner = args

        def rows_of(kind: Any, array: Any, first: Any, stride: Any, last: Any) -> list[ir.Value]:
            numbers = [
                builder.select(builder.icmp_signed("<", i64(m), last), i64(m), last)
                for m in range(DOTS)
            ]
            offsets = [builder.add(first, builder.mul(number, stride)) for number in numbers]
            return [address(context, builder, kind, array, offset) for offset in offsets]

        left, right = (
            rows_of(sig.args[3], a, a_at, a_row, a_last),
            rows_of(sig.args[7], b, b_at, b_row, b_last),
        )
        vector = ir.VectorType(ir.FloatType(), LANES)
        before, loop, after = (
            builder.block,
            builder.append_basic_block("inner"),
            builder.append_basic_block("done"),
        )
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(i64)
        sums = [builder.phi(vector) for _ in range(DOTS * DOTS)]
        xs, ys = (
            [load_at(builder, builder.gep(row, [k]), LANES) for row in rows]
            for rows in (left, right)
        )
        products = [builder.fmul(x, y, flags=FUSE) for x in xs for y in ys]
        new = [
            builder.fadd(product, old, flags=FUSE)
            for product, old in zip(products, sums, strict=True)
        ]
        following = builder.add(k, i64(LANES))
        k.add_incoming(i64(0), before)
        k.add_incoming(following, loop)
        for old, value in zip(sums, new, strict=True):
            old.add_incoming(ir.Constant(vector, [0.0] * LANES), before)
            old.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, inner), loop, after)
        builder.position_at_end(after)
        new += [ir.Constant(vector, [0.0] * LANES)] * (LANES - len(new))
        even, odd = (integers(LANES, list(range(first, 2 * LANES, 2))) for first in (0, 1))
        while (
            len(new) > 1
        ):  # sums of neighbours, of two vectors at a time: in the end lane i is the sum of vector i
            pairs = zip(new[::2], new[1::2], strict=True)
            new = [
                builder.fadd(builder.shuffle_vector(*p, even), builder.shuffle_vector(*p, odd))
                for p in pairs
            ]
        for m in range(DOTS):
            row = builder.shuffle_vector(
                new[0], new[0], integers(DOTS, list(range(m * DOTS, (m + 1) * DOTS)))
            )
            offset = builder.add(c_at, builder.mul(i64(m), c_row))
            store_at(builder, address(context, builder, sig.args[0], c, offset), row)
        return context.get_dummy_value()

    n = types.intp
    return types.void(c, n, n, a, n, n, n, b, n, n, n, n), codegen


@inlined
def matmul_transposed(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """c (M.., N..) = a (M, K) @ b (N, K).T, K a multiple of LANES; c has room for M and N rounded up by DOTS - 1."""
    M, K = a.shape
    N = b.shape[0]
    c_row, a_row, b_row = c.strides[0] // 4, a.strides[0] // 4, b.strides[0] // 4
    for i in range(0, M, DOTS):
        for j in range(0, N, DOTS):
            _dot_tile(
                c, i * c_row + j, c_row, a, i * a_row, a_row, M - 1 - i, b, j * b_row, b_row, N - 1 - j, K
            )  # fmt: skip
