"""Convolution as a matrix product: im2col, its adjoint col2im, and the three products of forward and backward.

With cols = im2col(x), one row per output pixel and one column per weight of a filter,

    y       = cols · weight + bias
    dweight = colsᵀ · dy
    dcols   = dy · weightᵀ,    dx = col2im(dcols)

Source: Chellapilla, Puri, Simard 2006, "High performance convolutional neural networks for document processing".
"""

from __future__ import annotations

from collections.abc import Iterator

from minidl.accelerate import accelerated
from minidl.arrays import NHWC, Array, array_module
from minidl.window import Window


@accelerated
def im2col(x: NHWC, window: Window) -> Array:
    """Lay out what the window sees at each position:

        cols[n, oh, ow, i, j, c] = x[n, oh·SH + i·DH − top, ow·SW + j·DW − left, c],    0 outside of x

    x (N, H, W, C) → cols (N, OH, OW, KH, KW, C). As a matrix: N·OH·OW rows of KH·KW·C numbers.
    """
    N, H, W, C = x.shape
    KH, KW = window.kernel
    OH, OW = window.output_size(H, W)
    xp = array_module(x)
    padded = xp.pad(x, ((0, 0), *window.full_padding(H, W), (0, 0)))
    cols: Array = xp.empty((N, OH, OW, KH, KW, C), x.dtype)
    for i, j, rows, columns in window.taps(OH, OW):
        cols[:, :, :, i, j] = padded[:, rows, columns]
    return cols


@accelerated
def col2im(cols: Array, x_shape: tuple[int, int, int, int], window: Window) -> NHWC:
    """The adjoint of im2col: every element of x collects what its copies in cols hold.

        ⟨im2col(x), cols⟩ = ⟨x, col2im(cols)⟩

    cols (N, OH, OW, KH, KW, C) → x (N, H, W, C). It is no inverse: an element that k windows see is summed k times.
    """
    N, H, W, C = x_shape
    OH, OW = window.output_size(H, W)
    (top, bottom), (left, right) = window.full_padding(H, W)
    padded = array_module(cols).zeros((N, top + H + bottom, left + W + right, C), cols.dtype)
    for i, j, rows, columns in window.taps(OH, OW):
        padded[:, rows, columns] += cols[:, :, :, i, j]
    x: NHWC = padded[:, top : top + H, left : left + W].copy()
    return x


@accelerated
def conv2d(x: NHWC, weight: Array, bias: Array | None, window: Window, groups: int = 1, relu: bool = False) -> NHWC:
    """y[n, oh, ow, o] = bias[o] + Σ_{i,j,c} weight[i, j, c, o] · x[n, oh·SH + i·DH − top, ow·SW + j·DW − left, c]

    x (N, H, W, C), weight (KH, KW, C/groups, O), bias (O,) or None → y (N, OH, OW, O), or max(y, 0) where relu is set.
    With groups, output channels of group g see the input channels of group g only. The body lays out its columns by
    `im2col.reference`, as a specification must not depend on a kernel.
    """
    N, H, W, C = x.shape
    OH, OW = window.output_size(H, W)
    O = weight.shape[3]
    y: NHWC = array_module(x).empty((N, OH, OW, O), x.dtype)
    for inputs, outputs in channel_groups(C, O, groups):
        cols = im2col.reference(x[..., inputs], window).reshape(N * OH * OW, weight.size // O)
        filters = weight[..., outputs].reshape(weight.size // O, O // groups)
        y[..., outputs] = (cols @ filters).reshape(N, OH, OW, O // groups)
    if bias is not None:
        y += bias
    return array_module(y).maximum(y, 0, out=y) if relu else y


@accelerated
def conv2d_input_gradient(
    dy: NHWC, weight: Array, x_shape: tuple[int, int, int, int], window: Window, groups: int = 1
) -> NHWC:
    """dx = col2im(dy · weightᵀ).

    dy (N, OH, OW, O), weight (KH, KW, C/groups, O) → dx (N, H, W, C).
    """
    N, H, W, C = x_shape
    _, OH, OW, O = dy.shape
    KH, KW, channels, _ = weight.shape
    dx: NHWC = array_module(dy).empty(x_shape, dy.dtype)
    for inputs, outputs in channel_groups(C, O, groups):
        filters = weight[..., outputs].reshape(KH * KW * channels, -1)
        dcols = dy[..., outputs].reshape(N * OH * OW, O // groups) @ filters.T
        dx[..., inputs] = col2im.reference(dcols.reshape(N, OH, OW, KH, KW, channels), (N, H, W, channels), window)
    return dx


@accelerated
def conv2d_weight_gradient(x: NHWC, dy: NHWC, window: Window, groups: int = 1) -> Array:
    """dweight = im2col(x)ᵀ · dy.

    x (N, H, W, C), dy (N, OH, OW, O) → dweight (KH, KW, C/groups, O).
    """
    N, _, _, C = x.shape
    _, OH, OW, O = dy.shape
    KH, KW = window.kernel
    dweight: Array = array_module(x).empty((KH, KW, C // groups, O), x.dtype)
    for inputs, outputs in channel_groups(C, O, groups):
        cols = im2col.reference(x[..., inputs], window).reshape(N * OH * OW, KH * KW * C // groups)
        product = cols.T @ dy[..., outputs].reshape(N * OH * OW, O // groups)
        dweight[..., outputs] = product.reshape(KH, KW, C // groups, -1)
    return dweight


def channel_groups(C: int, O: int, groups: int) -> Iterator[tuple[slice, slice]]:
    """The input and output channels of each group.

    >>> list(channel_groups(96, 256, 2))
    [(slice(0, 48, None), slice(0, 128, None)), (slice(48, 96, None), slice(128, 256, None))]
    """
    inputs, outputs = C // groups, O // groups
    for g in range(groups):
        yield slice(g * inputs, (g + 1) * inputs), slice(g * outputs, (g + 1) * outputs)
