"""Compile every kernel ahead, so that no later run has to wait for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidl import accelerate, losses, optim
from minidl.arrays import Array, to_device
from minidl.catalogue import LAYERS
from minidl.devices import using
from minidl.layer import Parameter
from minidl.random import Key


def warm_up(tell: Callable[[str], None] = lambda news: None, device: str = "cpu") -> None:
    """Run every layer of the catalogue, the loss and the optimisers once, in both dtypes, and compile what convolution
    may choose from. What has been compiled before is only loaded.

    tell: hears what comes next.
    Raises: ArgumentError, DeviceError for a device that cannot be.
    """
    with using(device):
        _run_all(tell, device)
    if device == "cpu":
        tell("convolution by Winograd's algorithm, float32")
        accelerate.compile_convolutions()


def _run_all(tell: Callable[[str], None], device: str) -> None:
    def zeros(dtype: str, *shape: int) -> Array:
        return to_device(np.zeros(shape, dtype), device)

    for dtype in "float32", "float64":
        tell(f"layers, {dtype}")
        for make, shape in LAYERS.values():
            layer = make().to(device, dtype)
            y, cache = layer.forward(zeros(dtype, *shape), train=True, key=Key(0))
            layer.backward(zeros(dtype, *y.shape), cache)
        loss = losses.SoftmaxCrossEntropy()
        loss.backward(loss.forward(zeros(dtype, 2, 3), np.array([0, 1]))[1])
        for update in "paper", "torch":
            parameter = Parameter(zeros(dtype, 1))
            parameter.accumulate(zeros(dtype, 1))
            optim.SGD({"weight": parameter}, momentum=0.9, update=update).step(0.1)
