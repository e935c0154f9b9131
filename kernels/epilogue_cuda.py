"""What follows a matrix product on the GPU, in one pass over it: kernels/epilogue.cu."""

from __future__ import annotations

from minidl.arrays import Array
from minidl.kernels.cuda import Source, rows, vector

CUDA = Source("epilogue")


def finish(product: Array, bias: Array | None, y: Array, outputs: slice, relu: bool) -> None:
    """y[…, outputs] = product + bias[outputs], or max(that, 0) where relu is set.

    product (N·H·W, C), y (N, H, W, O), of which it may be the memory. C divides O and where outputs begin.
    """
    shape, C, O = _placed(y, outputs)
    V = vector(C, product, y, *([] if bias is None else [bias]))
    numbers = shape[2], C, outputs.start, O
    CUDA.launch("epilogue", (y.dtype, V), *rows(shape, V), product, bias, y, *numbers, relu)


def accumulate(product: Array, sums: Array, outputs: slice) -> None:
    """sums[…, outputs] += product.    product (KH·KW·I, C), sums (KH, KW, I, O) in float32, or float64 for float64."""
    shape, C, O = _placed(sums, outputs)
    CUDA.launch("accumulate", (product.dtype,), *rows(shape, 1), product, sums, shape[2], C, outputs.start, O)


def _placed(whole: Array, channels: slice) -> tuple[tuple[int, int, int, int], int, int]:
    """The shape of some channels of an array, how many they are, and how many it has."""
    C = channels.stop - channels.start
    N, H, W, O = whole.shape
    return (N, H, W, C), C, O
