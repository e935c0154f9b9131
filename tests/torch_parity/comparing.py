"""How close is close enough."""

from __future__ import annotations

import numpy as np
import pytest
from kinks import Batch
from twin import Twin, from_torch_weight

from minidl.layers import Sequential
from minidl.losses import SoftmaxCrossEntropy
from minidl.random import Key

TITLE = "examples against PyTorch"
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}

both_dtypes = pytest.mark.parametrize("dtype", TOLERANCE)


def relative_error(ours: np.ndarray, theirs: np.ndarray, least: float = 0.0) -> float:
    """‖ours − theirs‖ / ‖theirs‖, or over `least` where that is more. Two tensors of zeros agree."""
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    difference, norm = np.linalg.norm((ours - theirs).ravel()), np.linalg.norm(theirs.ravel())
    return 0.0 if difference == 0 else float(difference / max(norm, least))


def assert_close(ours: np.ndarray, theirs: np.ndarray, what: str) -> None:
    """Within the rounding of arithmetic on numbers around 1, of which less may be left where they cancel."""
    error, tolerance = relative_error(ours, theirs, least=1.0), TOLERANCE[ours.dtype.name]
    assert error <= tolerance, f"{what}: {error:.1e} from PyTorch's, expected at most {tolerance:.0e}"


def assert_gradients_agree(
    net: Sequential, twin: Twin, batch: Batch, key: Key, loss_tolerance: float, gradient_tolerance: float
) -> None:
    """The loss of a batch, and every parameter's gradient."""
    images, labels = batch
    loss = SoftmaxCrossEntropy()
    net.zero_grad()
    logits, cache = net.forward(images, train=True, key=key)
    ours, loss_cache = loss.forward(logits, labels)
    net.backward(loss.backward(loss_cache), cache, input_gradient=False)
    theirs = twin.backward(images, labels, key)
    assert abs(float(ours) - theirs) <= loss_tolerance * abs(theirs)
    for name, parameter in net.parameters().items():
        error = relative_error(parameter.grad, from_torch_weight(twin.parameters[name].grad))
        assert error <= gradient_tolerance, f"{name}: {error:.1e}"
