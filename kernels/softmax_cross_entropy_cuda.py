"""The cross entropy between softmax and labels on the GPU: kernels/softmax_cross_entropy.cu."""

from __future__ import annotations

from minidl.arrays import Array
from minidl.kernels.cuda import Source, empty, empty_like, rows_of, vector

CUDA = Source("softmax_cross_entropy")


def softmax_cross_entropy(logits: Array, labels: Array, weight: Array, label_smoothing: float) -> tuple[Array, Array]:
    """See `minidl.ops.softmax_cross_entropy`."""
    N, C = logits.shape
    losses, log_p = empty((N,), logits.dtype, logits), empty_like(logits)
    V = vector(C, logits, weight, log_p)
    arrays = logits, labels, weight, losses, log_p
    shares = 1 - label_smoothing, label_smoothing / C
    CUDA.launch("softmax_cross_entropy", (logits.dtype, V), *rows_of(C, N, V), *arrays, *shares, N, C)
    return losses, log_p


def softmax_cross_entropy_gradient(
    dlosses: Array, log_p: Array, labels: Array, weight: Array, label_smoothing: float
) -> Array:
    """See `minidl.ops.softmax_cross_entropy`."""
    N, C = log_p.shape
    dlogits = empty_like(log_p)
    V = vector(C, log_p, weight, dlogits)
    arrays = dlosses, log_p, labels, weight, dlogits
    shares = 1 - label_smoothing, label_smoothing / C
    CUDA.launch("softmax_cross_entropy_gradient", (log_p.dtype, V), *rows_of(C, N, V), *arrays, *shares, N, C)
    return dlogits
