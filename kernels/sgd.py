"""Stochastic gradient descent on the CPU: one pass over memory instead of one for each operation.

One version, of the same bits as the body. Median gain over it for AlexNet's fc6, float32, two threads
(benchmarks/results/kernels_cpu.md): 6.8×.
"""

from __future__ import annotations

import numpy as np

from minidl.arrays import Array
from minidl.kernels.compiled import compiled
from minidl.kernels.threads import split


def sgd_paper(
    value: Array, grad: Array, velocity: Array, lr: float, momentum: float, weight_decay: float, nesterov: bool
) -> None:
    """See `minidl.ops.sgd.sgd_paper`."""
    real = value.dtype.type
    arrays = value.reshape(-1), grad.reshape(-1), velocity.reshape(-1)
    split(value.size, _paper, *arrays, real(lr), real(momentum), real(weight_decay), nesterov)


def sgd_torch(
    value: Array, grad: Array, velocity: Array, lr: float, momentum: float, weight_decay: float, nesterov: bool
) -> None:
    """See `minidl.ops.sgd.sgd_torch`."""
    real = value.dtype.type
    arrays = value.reshape(-1), grad.reshape(-1), velocity.reshape(-1)
    split(value.size, _torch, *arrays, real(lr), real(momentum), real(weight_decay), nesterov)


@compiled
def _paper(
    value: Array, grad: Array, velocity: Array, lr: float, momentum: float, decay: float, nesterov: bool,
    start: int, stop: int,
) -> None:  # fmt: skip
    for j in range(start, stop):
        i = np.uintp(j)  # unsigned, or the loop would test for Python's x[-1] and not be vectorised
        descent = grad[i] + decay * value[i]
        v = momentum * velocity[i] - lr * descent
        velocity[i] = v
        value[i] += momentum * v - lr * descent if nesterov else v


@compiled
def _torch(
    value: Array, grad: Array, velocity: Array, lr: float, momentum: float, decay: float, nesterov: bool,
    start: int, stop: int,
) -> None:  # fmt: skip
    for j in range(start, stop):
        i = np.uintp(j)  # unsigned, or the loop would test for Python's x[-1] and not be vectorised
        descent = grad[i] + decay * value[i]
        v = momentum * velocity[i] + descent
        velocity[i] = v
        value[i] -= lr * (momentum * v + descent if nesterov else v)
