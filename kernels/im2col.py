"""Convolution by im2col: a chunk of columns that fits into the cache at a time, and NumPy's matrix product.

Every thread lays out its own chunks and multiplies them on its own. (Threads that shared each
chunk, and a product on all threads after it, took 1.2 to 1.6 times as long: they waited for each other, and NumPy's own
threads spun on after the product.) Median gain over the body, float32, batch 32, two threads
(benchmarks/results/kernels_cpu.md):

                            forward   dx    dweight
    AlexNet's conv1           7.4     8.2     6.7
    AlexNet's conv2           2.4     2.1     2.1
    AlexNet's conv3           1.2     1.3     1.1
    AlexNet's conv4           1.4     1.5     1.3

conv3 spends its time in the matrix product, at nine tenths of what NumPy reaches there. Cutting small convolutions into
eight chunks instead of one, so that no thread is idle, took alexnet_mini from 570 to 730 images/s.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from minidl.arrays import NHWC, Array
from minidl.kernels.compiled import compiled
from minidl.kernels.geometry import Geometry, Problem, geometry
from minidl.kernels.threads import num_threads, split, split_products
from minidl.window import Window

COLUMN = 30  # a number that is laid out takes as long as so many multiplications
CHUNKS = 8  # at least so many where there are as many rows, so that all threads have work
FEW = 256  # pixels for each thread: with fewer it is the filters that are cut among them
CHUNK = 4 << 20  # bytes of columns that are laid out, multiplied and forgotten before they leave the cache


def im2col(x: NHWC, window: Window) -> Array:
    """See `minidl.ops.conv2d.im2col`."""
    N, H, W, C = x.shape
    OH, OW = window.output_size(H, W)
    KH, KW = window.kernel
    cols = np.empty((N * OH, OW, KH * KW * C), x.dtype)
    split(N * OH, _gather, x, cols, 0, OH, 0, C, geometry(window))
    return cols.reshape(N, OH, OW, KH, KW, C)


def col2im(cols: Array, x_shape: tuple[int, int, int, int], window: Window) -> NHWC:
    """See `minidl.ops.conv2d.col2im`. One thread writes a row of x, in a fixed order."""
    N, OH, OW, KH, KW, C = cols.shape
    x = np.zeros(x_shape, cols.dtype)
    split(N * x_shape[1], _scatter, cols.reshape(N * OH, OW, KH * KW * C), x, 0, OH, 0, C, geometry(window))
    return x


def conv2d(x: NHWC, weight: Array, bias: Array | None, problem: Problem, relu: bool = False) -> NHWC:
    """See `minidl.ops.conv2d.conv2d`."""
    N, OH, OW, _ = problem.y_shape
    y = np.empty(problem.y_shape, x.dtype)
    step = _rows_per_chunk(N * OH, OW, weight)
    slices = 1
    if FEW * num_threads() > N * OH * OW:
        step = max(1, N * OH)
        slices = -(-num_threads() // problem.groups)
    parts = list(product(range(0, N * OH, step), _groups(x.shape[3], y.shape[3], problem.groups, slices)))
    split_products(len(parts), _forward, x, weight, bias, y, problem.window, relu, parts, step)
    return y


def conv2d_input_gradient(dy: NHWC, weight: Array, problem: Problem) -> NHWC:
    """See `minidl.ops.conv2d.conv2d_input_gradient`. One thread writes an image, in a fixed order."""
    N, OH, OW, _ = dy.shape
    dx = np.zeros(problem.x_shape, dy.dtype)
    step = _rows_per_chunk(N * OH, OW, weight)
    images = max(1, step // OH)
    split_products(-(-N // images), _input_gradient, dy, weight, dx, problem.window, problem.groups, step, images)
    return dx


def conv2d_weight_gradient(x: NHWC, dy: NHWC, problem: Problem) -> Array:
    """See `minidl.ops.conv2d.conv2d_weight_gradient`. Each thread sums a share of the rows, so the last bits
    depend on their number.
    """
    N, OH, OW, _ = dy.shape
    dweight = np.zeros(problem.weight_shape, x.dtype)
    step = _rows_per_chunk(N * OH, OW, dweight)
    chunks = -(-N * OH // step)
    sums = [dweight, *(np.zeros_like(dweight) for _ in range(min(chunks, num_threads()) - 1))]
    split_products(len(sums), _weight_gradient, x, dy, sums, problem.window, problem.groups, step, chunks)
    for other in sums[1:]:
        dweight += other
    return dweight


def cost(problem: Problem) -> float:
    """Multiplications, and what else takes as long."""
    (KH, KW, C, O), (N, OH, OW, _) = problem.weight_shape, problem.y_shape
    return N * OH * OW * KH * KW * C * (O + COLUMN * problem.groups)


def _forward(
    x: NHWC, weight: Array, bias: Array | None, y: NHWC, window: Window, relu: bool, parts: list[Any],
    step: int, start: int, stop: int,
) -> None:  # fmt: skip
    N, OH, OW, O = y.shape
    filters = weight.reshape(-1, O)
    room = np.empty((min(step, N * OH), OW, len(filters)), x.dtype)
    for begin, (first, C, outputs) in parts[start:stop]:
        cols = room[: N * OH - begin]
        pixels = _pixels(y, begin, cols)[:, outputs]
        _gather(x, cols, begin, OH, first, C, geometry(window), 0, len(cols))
        np.matmul(_matrix(cols), filters[:, outputs], out=pixels)
        if bias is not None:
            pixels += bias[outputs]
        if relu:
            np.maximum(pixels, 0, out=pixels)


def _input_gradient(
    dy: NHWC, weight: Array, dx: NHWC, window: Window, groups: int, step: int, images: int, start: int, stop: int
) -> None:
    N, OH, OW, O = dy.shape
    H = dx.shape[1]
    filters = weight.reshape(-1, O)
    for first_image in range(start * images, min(stop * images, N), images):
        last_image = min(first_image + images, N)
        for begin, dcols in _chunks(first_image * OH, last_image * OH, step, OW, filters):
            pixels = _pixels(dy, begin, dcols)
            for first, C, outputs in _groups(dx.shape[3], O, groups):
                np.matmul(pixels[:, outputs], filters[:, outputs].T, out=_matrix(dcols))
                _scatter(dcols, dx, begin, OH, first, C, geometry(window), first_image * H, last_image * H)


def _weight_gradient(
    x: NHWC, dy: NHWC, sums: list[Array], window: Window, groups: int, step: int, chunks: int, start: int, stop: int
) -> None:
    N, OH, OW, O = dy.shape
    for share in range(start, stop):
        dfilters = sums[share].reshape(-1, O)
        room = np.empty((len(dfilters), O // groups), x.dtype)
        begin_share, end_share = (chunks * s // len(sums) * step for s in (share, share + 1))
        for begin, cols in _chunks(begin_share, min(end_share, N * OH), step, OW, dfilters):
            pixels = _pixels(dy, begin, cols)
            for first, C, outputs in _groups(x.shape[3], O, groups):
                _gather(x, cols, begin, OH, first, C, geometry(window), 0, len(cols))
                dfilters[:, outputs] += np.matmul(_matrix(cols).T, pixels[:, outputs], out=room)


def _rows_per_chunk(rows: int, OW: int, weight: Array) -> int:
    """How many rows of output pixels make a chunk: a function of shapes alone, and so are the bits of the result."""
    K = math.prod(weight.shape[:3])
    step: int = min(-(-rows // CHUNKS), CHUNK // (OW * K * weight.itemsize))
    return max(1, step)


def _chunks(begin: int, end: int, step: int, OW: int, filters: Array) -> Iterator[tuple[int, Array]]:
    """The first row of each chunk, and room for its columns (rows, OW, KH·KW·C), the same for all."""
    cols = np.empty((min(step, end - begin), OW, len(filters)), filters.dtype)
    for row in range(begin, end, step):
        yield row, cols[: end - row]


def _pixels(y: NHWC, begin: int, cols: Array) -> Array:
    """The output pixels that belong to a chunk of columns: (rows·OW, O)."""
    N, OH, OW, O = y.shape
    return y.reshape(N * OH, OW, O)[begin : begin + len(cols)].reshape(-1, O)


def _matrix(cols: Array) -> Array:
    return cols.reshape(-1, cols.shape[2])


def _groups(C: int, O: int, groups: int, slices: int = 1) -> Iterator[tuple[int, int, slice]]:
    """For each slice of each group: its first input channel, how many there are, and its output channels."""
    inputs, outputs = C // groups, O // groups
    for g, i in product(range(groups), range(slices)):
        yield g * inputs, inputs, slice(g * outputs + outputs * i // slices, g * outputs + outputs * (i + 1) // slices)


# Both kernels move runs of numbers: whole rows of the window where its pixels lie side by side, else single pixels.
# Of a run that begins at number `at` of an image row, only begin ≤ k < end lies in the image. The indices are flat and
# unsigned: a signed one would be tested for Python's x[-1], which keeps the loops from being vectorised (5×).


@compiled
def _gather(
    x: Array, cols: Array, row: int, OH: int, first: int, C: int, window: Geometry, start: int, stop: int
) -> None:
    """im2col of C channels from the first; cols (rows, OW, KH·KW·C) begins with the given row of output pixels."""
    KH, KW, SH, SW, DH, DW, top, left = window
    _, H, W, pixel = x.shape
    OW = cols.shape[1]
    runs, length = (1, KW * C) if pixel == C and DW == 1 else (KW, C)
    source, target = x.reshape(-1), cols.reshape(-1)
    for r in range(start, stop):
        n, oh = divmod(row + r, OH)
        to = r * OW * KH * KW * C
        for ow in range(OW):
            for i in range(KH):
                h = oh * SH + i * DH - top
                for j in range(runs):
                    at = (ow * SW + j * DW - left) * pixel + first
                    begin = min(max(-at, 0), length)
                    end = max(begin, min(W * pixel - at, length)) if 0 <= h < H else begin
                    at += (n * H + h) * W * pixel
                    for k in range(begin):
                        target[np.uintp(to + k)] = 0
                    for k in range(begin, end):
                        target[np.uintp(to + k)] = source[np.uintp(at + k)]
                    for k in range(end, length):
                        target[np.uintp(to + k)] = 0
                    to += length


@compiled
def _scatter(
    cols: Array, x: Array, row: int, OH: int, first: int, C: int, window: Geometry, start: int, stop: int
) -> None:
    """Add col2im of what `_gather` would have laid out to the rows start … stop of x: each asks who saw it."""
    KH, KW, SH, SW, DH, DW, top, left = window
    _, H, W, pixel = x.shape
    rows, OW, _ = cols.shape
    runs, length = (1, KW * C) if pixel == C and DW == 1 else (KW, C)
    source, target = cols.reshape(-1), x.reshape(-1)
    for image_row in range(start, stop):
        n, h = divmod(image_row, H)
        for i in range(KH):
            oh, rest = divmod(h + top - i * DH, SH)
            r = n * OH + oh - row
            if rest == 0 and 0 <= oh < OH and 0 <= r < rows:
                for ow in range(OW):
                    of = ((r * OW + ow) * KH + i) * KW * C
                    for j in range(runs):
                        at = (ow * SW + j * DW - left) * pixel + first
                        begin, end = max(-at, 0), min(W * pixel - at, length)
                        at += image_row * W * pixel
                        for k in range(begin, end):
                            target[np.uintp(at + k)] += source[np.uintp(of + k)]
                        of += length
