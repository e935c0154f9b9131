"""One step of stochastic gradient descent. Optimiser steps are the only ops that write into their arguments."""

from __future__ import annotations

from minidl.accelerate import accelerated
from minidl.arrays import Array


@accelerated
def sgd_paper(
    value: Array, grad: Array, velocity: Array, lr: float, momentum: float, weight_decay: float, nesterov: bool
) -> None:
    """velocity ← momentum·velocity − lr·(grad + weight_decay·value),    value ← value + velocity

    With Nesterov's momentum, value ← value + momentum·velocity − lr·(grad + weight_decay·value) instead.
    Source: Krizhevsky, Sutskever, Hinton 2012, §5.
    """
    descent = grad + weight_decay * value
    velocity *= momentum
    velocity -= lr * descent
    value += momentum * velocity - lr * descent if nesterov else velocity


@accelerated
def sgd_torch(
    value: Array, grad: Array, velocity: Array, lr: float, momentum: float, weight_decay: float, nesterov: bool
) -> None:
    """velocity ← momentum·velocity + grad + weight_decay·value,    value ← value − lr·velocity

    With Nesterov's momentum, value ← value − lr·(momentum·velocity + grad + weight_decay·value) instead.
    Source: PyTorch's torch.optim.SGD, with dampening 0.
    """
    descent = grad + weight_decay * value
    velocity *= momentum
    velocity += descent
    value -= lr * (momentum * velocity + descent if nesterov else velocity)
