"""Average pooling and its gradient."""

from __future__ import annotations

from typing import Any

from minidl.accelerate import accelerated
from minidl.arrays import NHWC, Array, array_module
from minidl.window import Window


@accelerated
def avg_pool2d(x: NHWC, window: Window, count_include_pad: bool = True) -> NHWC:
    """y[n, oh, ow, c] = 1/count[oh, ow] · Σ_{i,j} x[n, oh·SH + i·DH − top, ow·SW + j·DW − left, c]

    x (N, H, W, C) → y (N, OH, OW, C). For the count see `tap_counts`.
    """
    N, H, W, C = x.shape
    OH, OW = window.output_size(H, W)
    xp = array_module(x)
    padded = xp.pad(x, ((0, 0), *window.full_padding(H, W), (0, 0)))
    total = xp.zeros((N, OH, OW, C), x.dtype)
    for _, _, rows, columns in window.taps(OH, OW):
        total += padded[:, rows, columns]
    y: NHWC = total / tap_counts(xp, H, W, window, count_include_pad).astype(x.dtype)
    return y


@accelerated
def avg_pool2d_gradient(
    dy: NHWC, x_shape: tuple[int, int, int, int], window: Window, count_include_pad: bool = True
) -> NHWC:
    """dx[n, h, w, c] = Σ dy[n, oh, ow, c] / count[oh, ow] over the windows that see (h, w).

    dy (N, OH, OW, C) → dx (N, H, W, C).
    """
    N, H, W, C = x_shape
    OH, OW = window.output_size(H, W)
    xp = array_module(dy)
    share = dy / tap_counts(xp, H, W, window, count_include_pad).astype(dy.dtype)
    (top, bottom), (left, right) = window.full_padding(H, W)
    padded = xp.zeros((N, top + H + bottom, left + W + right, C), dy.dtype)
    for _, _, rows, columns in window.taps(OH, OW):
        padded[:, rows, columns] += share
    dx: NHWC = padded[:, top : top + H, left : left + W].copy()
    return dx


def tap_counts(xp: Any, H: int, W: int, window: Window, count_include_pad: bool) -> Array:
    """How many taps of each window lie in the image, or with `count_include_pad` in the padded image: (OH, OW, 1).

    What hangs over the padding because of `rounding="ceil"` never counts (PyTorch's rule).
    """
    rows, columns = window.tap_counts(H, W, count_include_pad)
    counts: Array = xp.asarray(rows)[:, None, None] * xp.asarray(columns)[None, :, None]
    return counts
