"""Max pooling on the CPU: the taps of a window one after the other, each over all channels at once.

One version. Median gain over the body, float32, batch 32, two threads
(benchmarks/results/kernels_cpu.md): forward 46×, gradient 6.1× at 55×55×96; 29× and 7.6× at 27×27×256.
"""

from __future__ import annotations

import numpy as np

from minidl.arrays import NHWC, Array
from minidl.kernels.compiled import compiled
from minidl.kernels.geometry import Geometry, geometry
from minidl.kernels.threads import split
from minidl.window import Window


def max_pool2d(x: NHWC, window: Window) -> tuple[NHWC, Array]:
    """See `minidl.ops.max_pool2d`."""
    N, H, W, C = x.shape
    OH, OW = window.output_size(H, W)
    KH, KW = window.kernel
    y = np.empty((N, OH, OW, C), x.dtype)
    winners = np.empty((N, OH, OW, C), np.min_scalar_type(KH * KW - 1))
    split(N * OH, _forward, x, y, winners, geometry(window))
    return y, winners


def max_pool2d_gradient(dy: NHWC, winners: Array, x_shape: tuple[int, int, int, int], window: Window) -> NHWC:
    """See `minidl.ops.max_pool2d`. A row of dx is written by one thread, in a fixed order."""
    dx = np.empty(x_shape, dy.dtype)
    split(x_shape[0] * x_shape[1], _backward, dy, winners, dx, geometry(window))
    return dx


@compiled
def _forward(x: Array, y: Array, winners: Array, window: Geometry, start: int, stop: int) -> None:
    KH, KW, SH, SW, DH, DW, top, left = window
    _, H, W, C = x.shape
    _, OH, OW, _ = y.shape
    for row in range(start, stop):
        n, oh = divmod(row, OH)
        for ow in range(OW):
            best, winner = y[n, oh, ow], winners[n, oh, ow]
            found = False
            for i in range(KH):
                h = oh * SH + i * DH - top
                for j in range(KW):
                    w = ow * SW + j * DW - left
                    if 0 <= h < H and 0 <= w < W:
                        tap = winners.dtype.type(i * KW + j)
                        seen = x[n, h, w]
                        if found:
                            for c in range(C):
                                # larger, or the first NaN: all comparisons with a NaN are false
                                better = (not seen[c] <= best[c]) & (best[c] == best[c])
                                best[c] = seen[c] if better else best[c]
                                winner[c] = tap if better else winner[c]
                        else:
                            for c in range(C):
                                best[c] = seen[c]
                                winner[c] = tap
                            found = True
            if not found:
                for c in range(C):
                    best[c] = -np.inf
                    winner[c] = 0


@compiled
def _backward(dy: Array, winners: Array, dx: Array, window: Geometry, start: int, stop: int) -> None:
    # Each row of dx asks which output rows saw it.
    KH, KW, SH, SW, DH, DW, top, left = window
    _, H, W, C = dx.shape
    _, OH, OW, _ = dy.shape
    for row in range(start, stop):
        n, h = divmod(row, H)
        for w in range(W):
            at = dx[n, h, w]
            for c in range(C):
                at[c] = 0
        for i in range(KH):
            oh, rest = divmod(h + top - i * DH, SH)
            if rest == 0 and 0 <= oh < OH:
                for ow in range(OW):
                    given, winner = dy[n, oh, ow], winners[n, oh, ow]
                    for j in range(KW):
                        w = ow * SW + j * DW - left
                        if 0 <= w < W:
                            tap = winners.dtype.type(i * KW + j)
                            at = dx[n, h, w]
                            for c in range(C):
                                at[c] += given[c] if winner[c] == tap else dy.dtype.type(0)
