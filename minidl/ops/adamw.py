"""One step of Adam with decoupled weight decay. Optimiser steps are the only ops that write into their arguments."""

from __future__ import annotations

from minidl.accelerate import accelerated
from minidl.arrays import Array, array_module


@accelerated
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
    """value ← value·(1 − lr·weight_decay) − lr · m̂ / (√v̂ + eps)

    with the running means m ← β₁m + (1−β₁)·grad and v ← β₂v + (1−β₂)·grad², and m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ) in
    step t = 1, 2, … undoing their start at 0.
    Source: Loshchilov and Hutter 2019, arXiv 1711.05101, Algorithm 2, with the decay scaled by lr as in PyTorch.
    """
    xp = array_module(value)
    mean *= beta1
    mean += (1 - beta1) * grad
    square *= beta2
    square += (1 - beta2) * grad * grad
    value *= 1 - lr * weight_decay
    root = xp.sqrt(square / (1 - beta2**step))
    value -= lr / (1 - beta1**step) * mean / (root + eps)
