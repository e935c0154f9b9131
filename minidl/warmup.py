"""Compile every kernel ahead, so that no later run has to wait for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidl import accelerate, losses, optim
from minidl.catalogue import LAYERS
from minidl.layer import Parameter
from minidl.random import Key


def warm_up(tell: Callable[[str], None] = lambda news: None) -> None:
    """Run every layer of the catalogue, the loss and the optimisers once, in both dtypes, and compile what convolution
    may choose from. What has been compiled before is only loaded.

    tell: hears what comes next.
    """
    for dtype in "float32", "float64":
        tell(f"layers, {dtype}")
        for make, shape in LAYERS.values():
            layer = make().to(dtype=dtype)
            y, cache = layer.forward(np.zeros(shape, dtype), train=True, key=Key(0))
            layer.backward(np.zeros_like(y), cache)
        loss = losses.SoftmaxCrossEntropy()
        loss.backward(loss.forward(np.zeros((2, 3), dtype), np.array([0, 1]))[1])
        for update in "paper", "torch":
            parameter = Parameter(np.zeros(1, dtype))
            parameter.accumulate(np.zeros(1, dtype))
            optim.SGD({"weight": parameter}, momentum=0.9, update=update).step(0.1)
    tell("convolution by Winograd's algorithm, float32")
    accelerate.compile_convolutions()
