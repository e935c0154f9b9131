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

A thread takes a chunk of tiles through all steps, so that they stay near it. Median gain over the body, float32, batch
32, two threads (benchmarks/results/kernels_cpu.md; im2col gains 7.4, 2.4, 1.2 and 1.4 forward):

                            forward   dx    dweight
    AlexNet's conv1          10.2    10.9     8.4
    AlexNet's conv2           5.5     3.7     3.4
    AlexNet's conv3           1.5     1.7     1.9
    AlexNet's conv4           2.2     1.9     1.9
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from minidl.arrays import NHWC, Array, DTypeLike
from minidl.errors import ArgumentError
from minidl.kernels import im2col
from minidl.kernels.compiled import compiled_with, product_with
from minidl.kernels.frozen import once
from minidl.kernels.geometry import Problem
from minidl.kernels.space_to_depth import applies, filters, filters_adjoint, regrouped, squares, squares_adjoint
from minidl.kernels.threads import num_threads, split, split_products
from minidl.kernels.toom_cook import matrices
from minidl.window import Window

LEAST_TAPS, LARGEST_KERNEL = 3, 5  # what "auto" takes; fewer taps cost more than they save
TILES = {1: (1,), 2: (2, 3, 4), 3: (2, 3, 4, 5), 4: (2, 3, 4), 5: (2, 3, 4)}
ERROR_BOUNDS = {1: 1e-6, 2: 1e-6, 3: 2e-6, 4: 2e-6, 5: 1e-5, 6: 2e-5, 7: 4e-5, 8: 5e-5}
# As long as so many multiplications takes a number of a tile; one of U that is made and read; that is only read.
TRANSFORM, FILTER, FROZEN = 60, 100, 30
SMALL = 1 << 22  # multiplications: what could be saved on fewer is not worth a digit
BUFFER = 8 << 20  # bytes of tiles and products that a thread holds at a time, or as many as the filters have
FEW = 64  # tiles for each thread: with fewer it is the filters that are cut among them
BLOCK = 64  # channels that are transformed together, so that their tile stays in the first cache


def tile(algorithm: str, problem: Problem, dtype: np.dtype, frozen: bool = False) -> int:
    """The size of Winograd's tiles, or 0 where im2col is taken.

    frozen: whether the filters have been transformed before.

    Raises: ArgumentError for "winograd" where it does not fit, and for what runs on a GPU alone.
    """
    if algorithm == "implicit":
        raise ArgumentError("conv2d='implicit': it runs on a GPU's tensor cores; on the cpu take 'auto' or 'im2col'")
    lacking = obstacle(problem)
    if algorithm == "winograd" and lacking:
        raise ArgumentError(f"conv2d='winograd': {lacking}, got {problem.window}; take 'auto' or 'im2col'")
    if algorithm == "im2col" or lacking:
        return 0
    m, cost = cheapest(problem, FROZEN if frozen else FILTER)
    if algorithm == "winograd":
        return m
    considered = dtype == np.float32 and problem.taps >= LEAST_TAPS
    usual = im2col.cost(problem)
    return m if considered and cost < usual and usual > SMALL else 0


def obstacle(problem: Problem) -> str | None:
    """What the algorithm asks for and the convolution lacks."""
    window, (KH, KW) = problem.window, problem.window.kernel
    if window.dilation != (1, 1):
        return "expected dilation 1"
    if KH != KW or window.stride[0] != window.stride[1] or problem.taps > LARGEST_KERNEL:
        return f"expected a square kernel of at most {LARGEST_KERNEL} strides"
    if max(map(max, window.padding)) >= KH:
        return "expected less padding than the kernel"
    if window.stride != (1, 1) and not applies(problem):
        return "expected one group and a kernel of at least a stride"
    return None


def cheapest(problem: Problem, filter_cost: float) -> tuple[int, float]:
    """The tile size that costs least, and what it costs: multiplications, and what else takes as long.

    filter_cost: multiplications in whose time a number of U is made and read.
    """
    if problem.window.stride != (1, 1):
        problem = regrouped(problem)
    (r, _, C, O), groups = problem.weight_shape, problem.groups
    costs = {}
    for m in TILES[r]:
        products = C * O + TRANSFORM * (C * groups + O)
        costs[m] = (m + r - 1) ** 2 * (_tiles(problem.y_shape, m) * products + filter_cost * C * O)
    m = min(costs, key=costs.__getitem__)
    return m, costs[m]


# --- the convolution and its gradients ------------------------------------------------------------------------------


def conv2d(x: NHWC, weight: Array, bias: Array | None, problem: Problem, m: int, relu: bool = False) -> NHWC:
    """See `minidl.ops.conv2d.conv2d`; m×m outputs a tile."""
    if problem.window.stride != (1, 1):
        weight = once(weight, "regrouped", lambda: filters(weight, problem))
        return conv2d(squares(x, problem, im2col.im2col), weight, bias, regrouped(problem), m, relu)
    y = np.empty(problem.y_shape, x.dtype)
    U = once(weight, m, lambda: _transformed(np.require(weight, requirements="W"), m))
    _convolve(x, np.split(U, problem.groups, axis=2), bias, y, _corner(problem.window), m, relu)
    return y


def conv2d_input_gradient(dy: NHWC, weight: Array, problem: Problem, m: int) -> NHWC:
    """See `minidl.ops.conv2d.conv2d_input_gradient`: the convolution of dy with the filters turned around."""
    if problem.window.stride != (1, 1):
        dx = conv2d_input_gradient(dy, filters(weight, problem), regrouped(problem), m)
        return squares_adjoint(dx, problem, im2col.col2im)
    dx = np.empty(problem.x_shape, dy.dtype)
    turned = np.ascontiguousarray(weight[::-1, ::-1])
    U = [U.transpose(0, 2, 1) for U in np.split(_transformed(turned, m), problem.groups, axis=2)]
    top, left = _corner(problem.window)
    _convolve(dy, U, None, dx, (len(weight) - 1 - top, len(weight) - 1 - left), m, False)
    return dx


def conv2d_weight_gradient(x: NHWC, dy: NHWC, problem: Problem, m: int) -> Array:
    """See `minidl.ops.conv2d.conv2d_weight_gradient`. Where there are more threads than groups each sums a share of the
    tiles, so the last bits depend on their number.
    """
    if problem.window.stride != (1, 1):
        seen = squares(x, problem, im2col.im2col)
        return filters_adjoint(conv2d_weight_gradient(seen, dy, regrouped(problem), m), problem)
    (r, _, C, O), groups = problem.weight_shape, problem.groups
    t, tiles = m + r - 1, _tiles(dy.shape, m)
    shares = min(-(-num_threads() // groups), -(-tiles // FEW))
    dU = np.empty((shares, t * t, C, O), x.dtype)
    split_products(shares * groups, _sum_of_products, x, dy, dU, groups, _corner(problem.window), m, r, tiles)
    dweight = np.empty(problem.weight_shape, x.dtype)
    split(C * O, _transform_sums, dU.reshape(shares, t * t, C * O), dweight.reshape(r * r, C * O), m, r)
    return dweight


def _corner(window: Window) -> tuple[int, int]:
    (top, _), (left, _) = window.padding
    return top, left


def _tiles(y_shape: tuple[int, ...], m: int) -> int:
    N, OH, OW, _ = y_shape
    return N * -(-OH // m) * -(-OW // m)


def _transformed(weight: Array, m: int) -> Array:
    """U (t·t, C, O) = G g Gᵀ."""
    r, _, C, O = weight.shape
    t = m + r - 1
    U = np.empty((t * t, C, O), weight.dtype)
    split(C * O, _kernels(m, r, weight.dtype).filters, weight.reshape(-1), U.reshape(-1), r, t, C * O)
    return U


def _convolve(
    x: NHWC, U: list[Array], bias: Array | None, y: NHWC, corner: tuple[int, int], m: int, relu: bool
) -> None:
    """y = Aᵀ (V·U) A + bias, rectified if wished, given the matrices U of each group."""
    T, C, O = U[0].shape
    t, tiles, threads = math.isqrt(T), _tiles(y.shape, m), num_threads()
    few = tiles < FEW * threads
    slices = min(O, threads) if few else 1
    step = _tiles_per_chunk(tiles, t, C, O // slices, 1 if few else threads, x.dtype, BUFFER)
    offset = np.zeros(y.shape[3], y.dtype) if bias is None else np.require(bias, requirements="W")
    items = len(U) * slices * -(-tiles // step)
    split_products(items, _chunks_of_outputs, x, U, offset, y, corner, m, t, step, tiles, slices, relu)


def _tiles_per_chunk(tiles: int, t: int, C: int, O: int, threads: int, dtype: DTypeLike, buffer: int) -> int:
    """How many tiles make a chunk: all about as many, and as many chunks for each thread."""
    room = max(1, buffer // np.dtype(dtype).itemsize, t * t * C * O)
    chunks = -(-tiles * t * t * (C + O) // room)
    return -(-tiles // (-(-chunks // threads) * threads))


def _chunks_of_outputs(
    x: NHWC, U: list[Array], bias: Array, y: NHWC, corner: Any, m: int, t: int, step: int, tiles: int, slices: int,
    relu: bool, start: int, stop: int,
) -> None:  # fmt: skip
    """Items of (group, slice of its filters, chunk of tiles), in this order."""
    kernels, (T, C, O) = _kernels(m, t - m + 1, x.dtype), U[0].shape
    for item in range(start, stop):
        rest, chunk = divmod(item, -(-tiles // step))
        g, part = divmod(rest, slices)
        begin, end = O * part // slices, O * (part + 1) // slices
        first, count = chunk * step, min(step, tiles - chunk * step)
        V, products = np.empty((T, count, C), x.dtype), np.empty((T, count, end - begin), x.dtype)
        kernels.tiles(x, V.reshape(-1), g * C, C, *corner, m, t, *y.shape[1:3], first, count)
        np.matmul(V, U[g][:, :, begin:end], out=products)
        kernels.outputs(products.reshape(-1), bias, y, relu, g * O + begin, end - begin, m, t, first, count)


def _sum_of_products(
    x: NHWC, dy: NHWC, dU: Array, groups: int, corner: Any, m: int, r: int, tiles: int, start: int, stop: int
) -> None:
    """dU = Vᵀ·W for items of (group, share of the tiles)."""
    shares, T, C, O = dU.shape
    kernels, O = _kernels(m, r, x.dtype), O // groups
    for item in range(start, stop):
        g, share = divmod(item, shares)
        begin, end = tiles * share // shares, tiles * (share + 1) // shares
        step = _tiles_per_chunk(end - begin, m + r - 1, C, O, 1, x.dtype, 2 * BUFFER)
        total, product = dU[share, :, :, g * O : (g + 1) * O], np.empty((C, O), x.dtype)
        for first in range(begin, end, step):
            count = min(step, end - first)
            V, W = np.empty((T, count, C), x.dtype), np.empty((T, count, O), x.dtype)
            kernels.tiles(x, V.reshape(-1), g * C, C, *corner, m, m + r - 1, *dy.shape[1:3], first, count)
            kernels.gradients(dy, W.reshape(-1), g * O, O, 0, 0, m, m, *dy.shape[1:3], first, count)
            if first == begin:
                np.matmul(V.transpose(0, 2, 1), W, out=total)
            else:
                for q in range(T):
                    total[q] += np.matmul(V[q].T, W[q], out=product)


def _transform_sums(dU: Array, dweight: Array, m: int, r: int, start: int, stop: int) -> None:
    """dweight = Gᵀ dU G, of the shares' sum."""
    total = dU[0]
    for other in dU[1:]:
        total[:, start:stop] += other[:, start:stop]
    t = m + r - 1
    _kernels(m, r, dU.dtype).sums(total.reshape(-1), dweight.reshape(-1), t, r, total.shape[1], start, stop)


def compile_all() -> None:
    """Compile the transforms for every size of tile that "auto" may take, which it does in float32."""
    for r in range(LEAST_TAPS, LARGEST_KERNEL + 1):
        x, weight = np.zeros((1, r, r, 1), np.float32), np.zeros((r, r, 1, 1), np.float32)
        problem = Problem(x.shape, weight.shape, Window.of(r), 1)
        for m in TILES[r]:
            y = conv2d(x, weight, None, problem, m)
            conv2d_input_gradient(y, weight, problem, m)
            conv2d_weight_gradient(x, y, problem, m)


# --- the transforms, to be compiled for the matrix that `multiply` stands for ---------------------------------------


class _Kernels:
    """The transforms of F(m×m, r×r), compiled for one dtype."""

    def __init__(self, m: int, r: int, dtype: DTypeLike) -> None:
        At, G, Bt = matrices(m, r)

        def compiled_for(matrix: Array, template: Any) -> Any:
            return compiled_with(product_with(matrix), template, dtype)

        self.tiles = compiled_for(Bt, _transform_tiles)
        self.gradients = compiled_for(At.T, _transform_tiles)
        self.outputs = compiled_for(At, _transform_products)
        self.filters = compiled_for(G, _transform_columns)
        self.sums = compiled_for(G.T, _transform_columns)


@cache
def _kernels(m: int, r: int, dtype: DTypeLike) -> _Kernels:
    return _Kernels(m, r, dtype)


def multiply(source: Array, at: int, step: int, target: Array, to: int, row: int, n: int) -> None:
    """The product of a matrix M with n columns, for which `compiled_with` puts in code of its own:

    target[to + i·row + c] = Σ_k M[i, k] · source[at + k·step + c]
    """
    raise NotImplementedError


def _transform_tiles(
    x: Array, V: Array, channel: int, C: int, top: int, left: int, m: int, size: int, OH: int, OW: int,
    first: int, count: int,
) -> None:  # fmt: skip
    """V (T, count, C) = M d Mᵀ, for tiles d of size × size pixels, m apart, and C channels from the given one on."""
    _, H, W, pixel = x.shape
    rows, columns = -(-OH // m), -(-OW // m)
    T = len(V) // (count * C)
    t = int(np.sqrt(T))
    image = x.reshape(-1)
    tile, half = np.zeros(size * size * BLOCK, x.dtype), np.empty(t * size * BLOCK, x.dtype)
    for p in range(count):
        n, place = divmod(first + p, rows * columns)
        i, j = divmod(place, columns)
        h, w = i * m - top, j * m - left
        inside = h >= 0 and w >= 0 and h + size <= H and w + size <= W
        for begin in range(channel, channel + C, BLOCK):
            L = min(BLOCK, channel + C - begin)
            if inside:
                at = ((n * H + h) * W + w) * pixel + begin
                for b in range(size):
                    multiply(image, at + b * pixel, W * pixel, half, b * L, size * L, L)
            else:
                for a in range(size):
                    for b in range(size):
                        to = (a * size + b) * L
                        if 0 <= h + a < H and 0 <= w + b < W:
                            at = ((n * H + h + a) * W + w + b) * pixel + begin
                            for c in range(L):
                                tile[np.uintp(to + c)] = image[np.uintp(at + c)]
                        else:
                            for c in range(L):
                                tile[np.uintp(to + c)] = 0
                for b in range(size):
                    multiply(tile, b * L, size * L, half, b * L, size * L, L)
            for a in range(t):
                multiply(half, a * size * L, L, V, (a * t * count + p) * C + begin - channel, count * C, L)


def _transform_products(
    products: Array, bias: Array, y: Array, relu: bool, channel: int, O: int, m: int, t: int, first: int, count: int
) -> None:
    """y = M products Mᵀ + bias, rectified if wished, for O channels from the given one on; products (t·t, count, O)."""
    _, OH, OW, pixel = y.shape
    rows, columns = -(-OH // m), -(-OW // m)
    image, zero = y.reshape(-1), y.dtype.type(0)
    half, out = np.empty(m * t * BLOCK, y.dtype), np.empty(m * m * BLOCK, y.dtype)
    for p in range(count):
        n, place = divmod(first + p, rows * columns)
        i, j = divmod(place, columns)
        for begin in range(0, O, BLOCK):
            L = min(BLOCK, O - begin)
            for b in range(t):
                multiply(products, (b * count + p) * O + begin, t * count * O, half, b * L, t * L, L)
            for a in range(m):
                multiply(half, a * t * L, L, out, a * m * L, L, L)
            for a in range(min(m, OH - i * m)):
                for b in range(min(m, OW - j * m)):
                    at, to = (a * m + b) * L, ((n * OH + i * m + a) * OW + j * m + b) * pixel + channel + begin
                    for o in range(L):
                        value = out[np.uintp(at + o)] + bias[np.uintp(channel + begin + o)]
                        image[np.uintp(to + o)] = zero if relu and value < zero else value


def _transform_columns(source: Array, target: Array, size: int, t: int, columns: int, start: int, stop: int) -> None:
    """target (t·t, columns) = M s Mᵀ for each column s (size·size) of the source, from start to stop."""
    half = np.empty(t * size * BLOCK, target.dtype)
    for begin in range(start, stop, BLOCK):
        L = min(BLOCK, stop - begin)
        for b in range(size):
            multiply(source, b * columns + begin, size * columns, half, b * L, size * L, L)
        for a in range(t):
            multiply(half, a * size * L, L, target, a * t * columns + begin, columns, L)
