"""Local response normalisation on the GPU: kernels/local_response_norm.cu."""

from __future__ import annotations

from minidl.arrays import Array
from minidl.kernels.cuda import Source, across, empty_like, vector

CUDA = Source("local_response_norm")


def local_response_norm(x: Array, size: int, scale: float, beta: float, k: float, groups: int = 1) -> Array:
    """See `minidl.ops.local_response_norm`."""
    y = empty_like(x)
    _launch("norm", (x, y), size, scale, beta, k, groups)
    return y


def local_response_norm_gradient(
    dy: Array, x: Array, size: int, scale: float, beta: float, k: float, groups: int = 1
) -> Array:
    """See `minidl.ops.local_response_norm`."""
    dx = empty_like(x)
    _launch("norm_gradient", (dy, x, dx), size, scale, beta, k, groups)
    return dx


def _launch(name: str, arrays: tuple[Array, ...], size: int, scale: float, beta: float, k: float, groups: int) -> None:
    x = arrays[0]
    C = x.shape[-1] // groups
    rows, V = x.size // C, vector(C, *arrays)
    wide, (threads, block_rows) = across(C, V)
    grid, block = (-(-rows // block_rows), wide), (threads, block_rows)
    if (size, beta) == (5, 0.75):
        CUDA.launch(f"alexnet_{name}", (x.dtype, V), grid, block, *arrays, rows, C, scale, k)
    else:
        window = (min(n, C - 1) for n in ((size - 1) // 2, size // 2))  # beyond the row lies nothing
        CUDA.launch(f"local_response_{name}", (x.dtype, V), grid, block, *arrays, rows, C, *window, scale, beta, k)
