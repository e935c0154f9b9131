"""Max pooling and its gradient."""

from __future__ import annotations

import numpy as np

from minidl.accelerate import accelerated
from minidl.arrays import NHWC, Array, array_module
from minidl.window import Window


@accelerated
def max_pool2d(x: NHWC, window: Window) -> tuple[NHWC, Array]:
    """y[n, oh, ow, c] = max over the taps (i, j) inside x of x[n, oh·SH + i·DH − top, ow·SW + j·DW − left, c]

    x (N, H, W, C) → y (N, OH, OW, C) and winners (N, OH, OW, C), where winner = i·KW + j names the tap that won:
    the first in row-major order among equals, a NaN before everything. Padding never wins.
    """
    N, H, W, C = x.shape
    OH, OW = window.output_size(H, W)
    KW = window.kernel[1]
    xp = array_module(x)
    padding = window.full_padding(H, W)
    padded = xp.pad(x, ((0, 0), *padding, (0, 0)))
    inside = xp.pad(xp.ones((H, W, 1), bool), (*padding, (0, 0)))

    dtype = winner_dtype(window)
    y = xp.full((N, OH, OW, C), -xp.inf, x.dtype)
    winners = xp.zeros((N, OH, OW, C), dtype)
    found = xp.zeros((N, OH, OW, C), bool)
    for i, j, rows, columns in window.taps(OH, OW):
        candidate = padded[:, rows, columns]
        better = ~found | (candidate > y) | (xp.isnan(candidate) & ~xp.isnan(y))
        better &= inside[rows, columns]
        y = xp.where(better, candidate, y)
        winners = xp.where(better, dtype(i * KW + j), winners)
        found |= better
    return y, winners


@accelerated
def max_pool2d_gradient(dy: NHWC, winners: Array, x_shape: tuple[int, int, int, int], window: Window) -> NHWC:
    """dx[n, h, w, c] = Σ dy over the windows that (h, w) won.

    dy and winners (N, OH, OW, C) → dx (N, H, W, C).
    """
    N, H, W, C = x_shape
    OH, OW = window.output_size(H, W)
    KW = window.kernel[1]
    xp = array_module(dy)
    (top, bottom), (left, right) = window.full_padding(H, W)
    padded = xp.zeros((N, top + H + bottom, left + W + right, C), dy.dtype)
    for i, j, rows, columns in window.taps(OH, OW):
        padded[:, rows, columns] += xp.where(winners == i * KW + j, dy, dy.dtype.type(0))
    dx: NHWC = padded[:, top : top + H, left : left + W].copy()
    return dx


def winner_dtype(window: Window) -> type:
    """The smallest unsigned integer that can name every tap.

    >>> winner_dtype(Window.of(3)).__name__, winner_dtype(Window.of(17)).__name__
    ('uint8', 'uint16')
    """
    return np.min_scalar_type(window.kernel[0] * window.kernel[1] - 1).type
