"""The fully connected layer on the CPU: NumPy's matrix product, cut among our own threads.

One version. The product itself gains little; but a thread of NumPy's own would go on spinning after it, and take the
processor from the kernel that comes next: alexnet_mini trained at 570 instead of 480 images/s with this alone.
"""

from __future__ import annotations

import numpy as np

from minidl.arrays import Array
from minidl.kernels.blas import one_thread_per_product
from minidl.kernels.threads import num_threads, split_products

FEW = 4  # images
SMALL = 1 << 22  # multiply-accumulates that are done before another thread has woken up


def linear(x: Array, weight: Array, bias: Array | None, relu: bool = False) -> Array:
    """See `minidl.ops.linear.linear`."""
    y = _sum_of_products(x, weight) if len(x) <= FEW and weight.size > SMALL else _product(x, weight)
    if bias is not None:
        y += bias
    return np.maximum(y, 0, out=y) if relu else y


def linear_input_gradient(dy: Array, weight: Array) -> Array:
    """See `minidl.ops.linear.linear_input_gradient`."""
    return _product(dy, weight.T)


def linear_weight_gradient(x: Array, dy: Array) -> Array:
    """See `minidl.ops.linear.linear_weight_gradient`."""
    return _product(x.T, dy)


def _product(a: Array, b: Array) -> Array:
    """a · b, each thread computing some of its rows, or of its columns where there are more of them."""
    M, K = a.shape
    N = b.shape[1]
    out = np.empty((M, N), a.dtype)
    if M * K * N <= SMALL:
        with one_thread_per_product():
            np.matmul(a, b, out=out)
    elif M >= N:
        split_products(M, _rows, a, b, out)
    else:
        split_products(N, _columns, a, b, out)
    return out


def _sum_of_products(x: Array, weight: Array) -> Array:
    """x · weight for few rows of x: it takes as long as reading the weights, of which each thread reads whole rows."""
    threads = num_threads()
    sums = np.empty((threads, len(x), weight.shape[1]), x.dtype)
    split_products(threads, _share, x, weight, sums)
    y: Array = sums.sum(axis=0)
    return y


def _share(x: Array, weight: Array, sums: Array, start: int, stop: int) -> None:
    for i in range(start, stop):
        begin, end = (len(weight) * share // len(sums) for share in (i, i + 1))
        np.matmul(x[:, begin:end], weight[begin:end], out=sums[i])


def _rows(a: Array, b: Array, out: Array, start: int, stop: int) -> None:
    np.matmul(a[start:stop], b, out=out[start:stop])


def _columns(a: Array, b: Array, out: Array, start: int, stop: int) -> None:
    np.matmul(a, b[:, start:stop], out=out[:, start:stop])
