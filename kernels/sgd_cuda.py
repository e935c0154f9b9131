"""Stochastic gradient descent on the GPU: kernels/sgd.cu. In float32 and float64, the bits of the body."""

from __future__ import annotations

from minidl.arrays import Array
from minidl.kernels.cuda import THREADS, Source, blocks, vector

CUDA = Source("sgd")


def sgd_paper(
    value: Array, grad: Array, velocity: Array, lr: float, momentum: float, weight_decay: float, nesterov: bool
) -> None:
    """See `minidl.ops.sgd.sgd_paper`."""
    _step("sgd_paper", value, grad, velocity, lr, momentum, weight_decay, nesterov)


def sgd_torch(
    value: Array, grad: Array, velocity: Array, lr: float, momentum: float, weight_decay: float, nesterov: bool
) -> None:
    """See `minidl.ops.sgd.sgd_torch`."""
    _step("sgd_torch", value, grad, velocity, lr, momentum, weight_decay, nesterov)


def _step(kernel: str, value: Array, grad: Array, velocity: Array, *numbers: float) -> None:
    V = vector(value.size, value, grad, velocity)
    n = value.size // V
    CUDA.launch(kernel, (value.dtype, V), blocks(n), THREADS, value, grad, velocity, *numbers, n)
