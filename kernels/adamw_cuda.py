"""AdamW on the GPU: kernels/adamw.cu. In float32 and float64, the bits of the body."""

from __future__ import annotations

from minidl.arrays import Array
from minidl.kernels.cuda import THREADS, Source, blocks, vector

CUDA = Source("adamw")


def adamw(
    value: Array,
    grad: Array,
    mean: Array,
    square: Array,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """See `minidl.ops.adamw`."""
    arrays = value, grad, mean, square
    V = vector(value.size, *arrays)
    n = value.size // V
    betas = beta1, 1 - beta1, beta2, 1 - beta2
    factors = 1 - lr * weight_decay, lr / (1 - beta1**step), 1 - beta2**step
    CUDA.launch("adamw", (value.dtype, V), blocks(n), THREADS, *arrays, *betas, *factors, eps, n)
