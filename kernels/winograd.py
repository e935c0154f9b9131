"""Winograd's convolution: fewer multiplications for small filters at stride 1.

For m outputs of a filter with r taps, along one axis,

    y = Aᵀ [(G g) ⊙ (Bᵀ d)]

takes m + r − 1 multiplications, one for each of the t = m + r − 1 pixels in d, where the definition takes m·r. In two
dimensions, with all channels, each of the t² products becomes a matrix product over many tiles at once:

    U = G g Gᵀ (t·t, C, O)      V = Bᵀ d B (t·t, tiles, C)      y = Aᵀ (V·U) A

and backwards, as every step is linear, by the transposed matrices:

    dweight = Gᵀ (Vᵀ·W) G       W = A dy Aᵀ (t·t, tiles, O)      dx: the same convolution, with the filter turned around

Sources: Winograd 1980, "Arithmetic complexity of computations"; Lavin and Gray 2015, arXiv 1509.09308.

The price is rounding: the entries of A, B and G differ in size, and what they blow up must cancel. `ERROR_BOUNDS` holds
the largest error in float32, relative to the largest output, for each t. And a tile is computed as a whole: a NaN or an
infinity spoils all outputs of the tiles that see it.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

from minidl.arrays import NHWC, Array, DTypeLike
from minidl.errors import ArgumentError
from minidl.kernels.blas import one_thread_per_product
from minidl.kernels.compiled import compiled
from minidl.kernels.threads import split
from minidl.window import Window

# Where the polynomials behind the algorithm are evaluated, besides at infinity: small numbers and quotients first, as
# their powers fill the matrices.
POINTS = tuple(Fraction(p) for p in ("0", "1", "-1", "1/2", "-1/2", "2", "-2", "1/4", "-4"))
LARGEST_KERNEL = 5
TILES = {1: (1,), 2: (2, 3, 4), 3: (2, 3, 4, 5), 4: (2, 3, 4), 5: (2, 3, 4)}
ERROR_BOUNDS = {1: 1e-6, 2: 1e-6, 3: 2e-6, 4: 2e-6, 5: 1e-5, 6: 2e-5, 7: 4e-5, 8: 5e-5}
TRANSFORM = 90  # a transform of one number takes as long as so many multiplications in a matrix product
BUFFER = 12 << 20  # bytes of tiles and products that are there at a time, so that they stay in the cache,
FILTERS = 2.5  # or as many times the bytes of the filters, which each chunk reads once


@cache
def matrices(m: int, r: int) -> tuple[Array, Array, Array]:
    """Aᵀ (m, t), G (t, r) and Bᵀ (t, t) in float64, t = m + r − 1, by Toom and Cook.

    A product of polynomials is known by its values at t − 1 points and at infinity. G evaluates the filter there, each
    value divided by Π (a_j − a_l); B holds the Lagrange polynomials that lead back; and A evaluates again, since not
    the product is wanted but its transpose, a sliding sum.

    >>> At, G, Bt = matrices(2, 3)
    >>> d, g = np.array([1.0, 2.0, 3.0, 5.0]), np.array([1.0, 10.0, 100.0])
    >>> At @ ((G @ g) * (Bt @ d))
    array([321., 532.])
    """
    t = m + r - 1
    points = POINTS[: t - 1]
    At = [[a**i for a in points] + [Fraction(i == m - 1)] for i in range(m)]
    G = [[a**k / _product(a - b for b in points if b != a) for k in range(r)] for a in points]
    G.append([Fraction(k == r - 1) for k in range(r)])
    Bt = [[*_polynomial([b for b in points if b != a]), Fraction(0)] for a in points]
    Bt.append(_polynomial(points))
    return _floats(At), _floats(G), _floats(Bt)


def _floats(matrix: list[list[Fraction]]) -> Array:
    return np.array([[float(number) for number in row] for row in matrix])


def _product(factors: Any) -> Fraction:
    result = Fraction(1)
    for factor in factors:
        result *= factor
    return result


def _polynomial(roots: Any) -> list[Fraction]:
    """The coefficients of Π (x − root), from that of x⁰ on."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [*(-root * c for c in coefficients), Fraction(0)]
        coefficients = [a + b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients


@cache
def _cast_matrices(m: int, r: int, dtype: DTypeLike) -> tuple[Array, Array, Array]:
    At, G, Bt = (np.ascontiguousarray(matrix, dtype) for matrix in matrices(m, r))
    return At, G, Bt


def tile(
    algorithm: str, dtype: Any, window: Window, size: tuple[int, int], weight: tuple[int, ...], groups: int
) -> int:
    """The size m of the tiles, or 0 where im2col is to be taken: a function of shapes and dtype alone.

    size: height and width of what is computed; weight: the shape of the filters.
    Raises: ArgumentError for "winograd" where it does not fit.
    """
    if algorithm == "im2col":
        return 0
    KH, KW, C, O = weight
    fits = KH == KW <= LARGEST_KERNEL and window.stride == window.dilation == (1, 1)
    fits &= max(map(max, window.padding)) < KH
    if algorithm == "winograd":
        if not fits:
            raise ArgumentError(
                f"conv2d='winograd': expected a square kernel of at most {LARGEST_KERNEL} pixels, stride and dilation "
                f"1, and less padding than the kernel, got {window}; take 'auto' or 'im2col'"
            )
        return _cheapest(KH, size, C * groups, O, groups)[0]
    if not fits or KH < 3 or dtype != np.float32:
        return 0
    m, cost = _cheapest(KH, size, C * groups, O, groups)
    return m if cost < KH * KW * size[0] * size[1] * C * O else 0


def _cheapest(r: int, size: tuple[int, int], C: int, O: int, groups: int) -> tuple[int, float]:
    """The tile size that costs least, and what it costs: multiplications, and what else takes as long."""
    costs = {}
    for m in TILES[r]:
        t, tiles = m + r - 1, -(-size[0] // m) * -(-size[1] // m)
        costs[m] = t * t * tiles * (C * O / groups + TRANSFORM * (C + O))
    m = min(costs, key=costs.__getitem__)
    return m, costs[m]


def conv2d(x: NHWC, weight: Array, bias: Array | None, window: Window, groups: int, m: int) -> NHWC:
    """See `minidl.ops.conv2d.conv2d`; m×m outputs a tile."""
    r, _, C, O = weight.shape
    N, H, W, _ = x.shape
    At, G, Bt = _cast_matrices(m, r, x.dtype)
    y = np.empty((N, *window.output_size(H, W), O), x.dtype)
    U = np.empty((len(Bt) ** 2, C, O), x.dtype)
    split(C, _transform_filters, weight, U, G)
    offset = np.zeros(O, x.dtype) if bias is None else bias
    for first, V, products in _chunks(y.shape, m, U.size, len(Bt), x.shape[3], O, x.dtype):
        split(V.shape[1], _transform_tiles, x, V, Bt, m, _corner(window), y.shape[1:3], first)
        _share(len(U), _multiply, V, U, products, groups)
        split(V.shape[1], _transform_products, products, y, At, offset, first)
    return y


def conv2d_input_gradient(
    dy: NHWC, weight: Array, x_shape: tuple[int, int, int, int], window: Window, groups: int, m: int
) -> NHWC:
    """See `minidl.ops.conv2d.conv2d_input_gradient`: the convolution of dy with the filters turned around."""
    r, _, C, O = weight.shape
    turned = weight[::-1, ::-1].reshape(r, r, C, groups, O // groups)
    turned = np.ascontiguousarray(turned.transpose(0, 1, 4, 3, 2)).reshape(r, r, O // groups, groups * C)
    (top, _), (left, _) = window.padding
    _, H, W, _ = x_shape
    _, OH, OW, _ = dy.shape
    top, left = r - 1 - top, r - 1 - left
    padding = (top, H + r - 1 - OH - top), (left, W + r - 1 - OW - left)
    return conv2d(dy, turned, None, Window((r, r), padding=padding), groups, m)


def conv2d_weight_gradient(x: NHWC, dy: NHWC, window: Window, groups: int, m: int) -> Array:
    """See `minidl.ops.conv2d.conv2d_weight_gradient`. One thread sums a matrix, in a fixed order."""
    r = window.kernel[0]
    C, O = x.shape[3], dy.shape[3]
    At, G, Bt = _cast_matrices(m, r, x.dtype)
    dU = np.zeros((len(Bt) ** 2, C // groups, O), x.dtype)
    for first, V, products in _chunks(dy.shape, m, dU.size, len(Bt), C, O, x.dtype):
        split(V.shape[1], _transform_tiles, x, V, Bt, m, _corner(window), dy.shape[1:3], first)
        split(V.shape[1], _transform_gradients, dy, products, np.ascontiguousarray(At.T), first)
        _share(len(dU), _accumulate, V, products, dU, groups)
    dweight = np.empty((r, r, C // groups, O), x.dtype)
    split(len(dweight[0, 0]), _transform_filters_back, dU, dweight, np.ascontiguousarray(G.T))
    return dweight


def _corner(window: Window) -> tuple[int, int]:
    (top, _), (left, _) = window.padding
    return top, left


def _share(n: int, body: Any, *args: Any) -> None:
    with one_thread_per_product():
        split(n, body, *args, grain=1)


def _chunks(y_shape: tuple[int, ...], m: int, filters: int, t: int, C: int, O: int, dtype: DTypeLike) -> Any:
    """The first tile of each chunk, with room for its tiles and for their products; for so many numbers in filters."""
    N, OH, OW, _ = y_shape
    tiles = N * -(-OH // m) * -(-OW // m)
    room = max(BUFFER // np.dtype(dtype).itemsize, int(FILTERS * filters))
    step = min(tiles, max(1, room // (t * t * (C + O))))
    step = -(-tiles // -(-tiles // step))  # all chunks about as large
    V, products = np.empty((t * t, step, C), dtype), np.empty((t * t, step, O), dtype)
    for first in range(0, tiles, step):
        yield first, V[:, : tiles - first], products[:, : tiles - first]


def _multiply(V: Array, U: Array, products: Array, groups: int, start: int, stop: int) -> None:
    C, O = V.shape[2] // groups, U.shape[2] // groups
    for q in range(start, stop):
        for g in range(groups):
            inputs, outputs = slice(g * C, (g + 1) * C), slice(g * O, (g + 1) * O)
            np.matmul(V[q, :, inputs], U[q, :, outputs], out=products[q, :, outputs])


def _accumulate(V: Array, gradients: Array, dU: Array, groups: int, start: int, stop: int) -> None:
    C, O = V.shape[2] // groups, dU.shape[2] // groups
    for q in range(start, stop):
        for g in range(groups):
            inputs, outputs = slice(g * C, (g + 1) * C), slice(g * O, (g + 1) * O)
            dU[q, :, outputs] += V[q, :, inputs].T @ gradients[q, :, outputs]


@compiled
def _sandwich(M: Array, d: Array, half: Array, out: Array) -> None:
    """out = M d Mᵀ, for each channel: M (I, A), d (A, A, C), out (I, I, C); half (I, A, C) holds M d."""
    I, A = M.shape
    C = d.shape[2]
    for i in range(I):
        for b in range(A):
            to, begun = half[i, b], False
            for a in range(A):
                factor = M[i, a]
                if factor != 0:
                    term = d[a, b]
                    if begun:
                        for c in range(C):
                            to[c] += factor * term[c]
                    else:
                        for c in range(C):
                            to[c] = factor * term[c]
                        begun = True
    for i in range(I):
        for j in range(I):
            to, begun = out[i, j], False
            for b in range(A):
                factor = M[j, b]
                if factor != 0:
                    term = half[i, b]
                    if begun:
                        for c in range(C):
                            to[c] += factor * term[c]
                    else:
                        for c in range(C):
                            to[c] = factor * term[c]
                        begun = True


@compiled
def _load(image: Array, top: int, left: int, tile: Array) -> None:
    """Copy a square of an image, 0 outside."""
    H, W, C = image.shape
    for i in range(len(tile)):
        for j in range(len(tile)):
            to = tile[i, j]
            if 0 <= top + i < H and 0 <= left + j < W:
                pixel = image[top + i, left + j]
                for c in range(C):
                    to[c] = pixel[c]
            else:
                for c in range(C):
                    to[c] = 0


@compiled
def _transform_tiles(
    x: Array, V: Array, Bt: Array, m: int, corner: Any, size: Any, first: int, start: int, stop: int
) -> None:
    t, C = len(Bt), x.shape[3]
    TH, TW = -(-size[0] // m), -(-size[1] // m)
    tile, half, out = np.empty((t, t, C), x.dtype), np.empty((t, t, C), x.dtype), np.empty((t, t, C), x.dtype)
    for p in range(start, stop):
        n, place = divmod(first + p, TH * TW)
        i, j = divmod(place, TW)
        _load(x[n], i * m - corner[0], j * m - corner[1], tile)
        _sandwich(Bt, tile, half, out)
        for a in range(t):
            for b in range(t):
                V[a * t + b, p] = out[a, b]


@compiled
def _transform_gradients(dy: Array, gradients: Array, A: Array, first: int, start: int, stop: int) -> None:
    (t, m), (_, OH, OW, O) = A.shape, dy.shape
    TH, TW = -(-OH // m), -(-OW // m)
    tile, half, out = np.empty((m, m, O), dy.dtype), np.empty((t, m, O), dy.dtype), np.empty((t, t, O), dy.dtype)
    for p in range(start, stop):
        n, place = divmod(first + p, TH * TW)
        i, j = divmod(place, TW)
        _load(dy[n], i * m, j * m, tile)
        _sandwich(A, tile, half, out)
        for a in range(t):
            for b in range(t):
                gradients[a * t + b, p] = out[a, b]


@compiled
def _transform_products(products: Array, y: Array, At: Array, bias: Array, first: int, start: int, stop: int) -> None:
    (m, t), (_, OH, OW, O) = At.shape, y.shape
    TH, TW = -(-OH // m), -(-OW // m)
    tile, half, out = np.empty((t, t, O), y.dtype), np.empty((m, t, O), y.dtype), np.empty((m, m, O), y.dtype)
    for p in range(start, stop):
        n, place = divmod(first + p, TH * TW)
        i, j = divmod(place, TW)
        for a in range(t):
            for b in range(t):
                tile[a, b] = products[a * t + b, p]
        _sandwich(At, tile, half, out)
        for a in range(min(m, OH - i * m)):
            for b in range(min(m, OW - j * m)):
                pixel, value = y[n, i * m + a, j * m + b], out[a, b]
                for o in range(O):
                    pixel[o] = value[o] + bias[o]


@compiled
def _transform_filters(weight: Array, U: Array, G: Array, start: int, stop: int) -> None:
    (t, r), O = G.shape, weight.shape[3]
    half, out = np.empty((t, r, O), U.dtype), np.empty((t, t, O), U.dtype)
    for c in range(start, stop):
        _sandwich(G, weight[:, :, c], half, out)
        for a in range(t):
            for b in range(t):
                U[a * t + b, c] = out[a, b]


@compiled
def _transform_filters_back(dU: Array, dweight: Array, Gt: Array, start: int, stop: int) -> None:
    (r, t), O = Gt.shape, dU.shape[2]
    tile, half = np.empty((t, t, O), dU.dtype), np.empty((r, t, O), dU.dtype)
    out = np.empty((r, r, O), dU.dtype)
    for c in range(start, stop):
        for a in range(t):
            for b in range(t):
                tile[a, b] = dU[a * t + b, c]
        _sandwich(Gt, tile, half, out)
        for a in range(r):
            for b in range(r):
                dweight[a, b, c] = out[a, b]
