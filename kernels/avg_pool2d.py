"""Average pooling on the CPU: the taps of a window one after the other, each over all channels at once.

One version. Median gain over the body, float32, batch 32, two threads
(benchmarks/results/kernels_cpu.md): forward 3.9×, gradient 5.3× at 55×55×96; 4.6× and 3.4× at 27×27×256.
"""

from __future__ import annotations

import numpy as np

from minidl.arrays import NHWC, Array
from minidl.kernels.compiled import compiled
from minidl.kernels.geometry import Geometry, geometry
from minidl.kernels.threads import split
from minidl.window import Window


def avg_pool2d(x: NHWC, window: Window, count_include_pad: bool = True) -> NHWC:
    """See `minidl.ops.avg_pool2d`."""
    N, H, W, C = x.shape
    OH, OW = window.output_size(H, W)
    y = np.empty((N, OH, OW, C), x.dtype)
    split(N * OH, _forward, x, _counts(x, H, W, window, count_include_pad), y, geometry(window))
    return y


def avg_pool2d_gradient(
    dy: NHWC, x_shape: tuple[int, int, int, int], window: Window, count_include_pad: bool = True
) -> NHWC:
    """See `minidl.ops.avg_pool2d`. One thread writes a row of dx, in a fixed order."""
    N, H, W, _ = x_shape
    dx = np.empty(x_shape, dy.dtype)
    split(N * H, _backward, dy, _counts(dy, H, W, window, count_include_pad), dx, geometry(window))
    return dx


def _counts(x: Array, H: int, W: int, window: Window, count_include_pad: bool) -> Array:
    rows, columns = window.tap_counts(H, W, count_include_pad)
    return np.outer(rows, columns).astype(x.dtype)


@compiled
def _forward(x: Array, counts: Array, y: Array, window: Geometry, start: int, stop: int) -> None:
    KH, KW, SH, SW, DH, DW, top, left = window
    _, H, W, C = x.shape
    _, OH, OW, _ = y.shape
    for row in range(start, stop):
        n, oh = divmod(row, OH)
        for ow in range(OW):
            total, count = y[n, oh, ow], counts[oh, ow]
            for c in range(C):
                total[c] = 0
            for i in range(KH):
                h = oh * SH + i * DH - top
                for j in range(KW):
                    w = ow * SW + j * DW - left
                    if 0 <= h < H and 0 <= w < W:
                        seen = x[n, h, w]
                        for c in range(C):
                            total[c] += seen[c]
            for c in range(C):
                total[c] /= count


@compiled
def _backward(dy: Array, counts: Array, dx: Array, window: Geometry, start: int, stop: int) -> None:
    # Each row of dx asks which output rows saw it.
    KH, KW, SH, SW, DH, DW, top, left = window
    _, H, W, C = dx.shape
    _, OH, OW, _ = dy.shape
    for row in range(start, stop):
        n, h = divmod(row, H)
        for w in range(W):
            total = dx[n, h, w]
            for c in range(C):
                total[c] = 0
        for i in range(KH):
            oh, rest = divmod(h + top - i * DH, SH)
            if rest == 0 and 0 <= oh < OH:
                for ow in range(OW):
                    given, count = dy[n, oh, ow], counts[oh, ow]
                    for j in range(KW):
                        w = ow * SW + j * DW - left
                        if 0 <= w < W:
                            total = dx[n, h, w]
                            for c in range(C):
                                total[c] += given[c] / count
