"""Every loss against PyTorch: its value, and the gradient of the outputs.

A new loss takes a case in `in_pytorch` and a line in `LOSSES` that draws one.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from comparing import TITLE, assert_close
from helpers import dtypes, examples, seeds, tally
from hypothesis import assume, given
from hypothesis import strategies as st
from twin import F, channels_first, channels_last, torch

import minidl
from minidl import losses
from minidl.losses import Loss, MeanSquaredError, SoftmaxCrossEntropy

reductions = st.sampled_from(["mean", "sum", "none"])
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)  # without the classes
classes = st.integers(1, 6)


def targets(loss: Loss, shape: tuple[int, ...], generator: np.random.Generator, dtype: str) -> np.ndarray:
    """Numbers; or labels, of which a third is ignored."""
    if isinstance(loss, MeanSquaredError):
        return generator.standard_normal(shape).astype(dtype)
    labels = generator.integers(0, shape[-1], shape[:-1])
    return np.where(generator.random(labels.shape) < 1 / 3, loss.ignore_index, labels)


@st.composite
def cross_entropies(draw: st.DrawFn) -> tuple[Loss, tuple[int, ...]]:
    C = draw(classes)
    weights = st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=C, max_size=C)
    settings = {
        "weight": draw(st.none() | weights),
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 1.0])),
        "ignore_index": draw(st.sampled_from([-100, 0, 2])),
        "reduction": draw(reductions),
    }
    return built(SoftmaxCrossEntropy, **settings), (*draw(shapes), C)


@st.composite
def squared_errors(draw: st.DrawFn) -> tuple[Loss, tuple[int, ...]]:
    return built(MeanSquaredError, reduction=draw(reductions)), (*draw(shapes), draw(classes))


def built(kind: type[Loss], **arguments: Any) -> Loss:
    """A loss that holds what it was asked for, as `in_pytorch` reads its attributes."""
    loss = kind(**arguments)
    for name, value in arguments.items():
        np.testing.assert_array_equal(getattr(loss, name), value, err_msg=name)
    return loss


LOSSES = {"MeanSquaredError": squared_errors(), "SoftmaxCrossEntropy": cross_entropies()}


def test_every_loss_is_compared():
    defined = {name for name, value in vars(losses).items() if inspect.isclass(value) and issubclass(value, Loss)}
    assert set(LOSSES) == defined - {"Loss"}


def in_pytorch(loss: Loss, outputs: torch.Tensor, target: np.ndarray) -> torch.Tensor:
    match loss:
        case MeanSquaredError():
            return F.mse_loss(outputs.movedim(1, -1), torch.tensor(target), reduction=loss.reduction)
        case SoftmaxCrossEntropy():
            weight = None if loss.weight is None else torch.tensor(loss.weight, dtype=outputs.dtype)
            return F.cross_entropy(
                outputs,
                torch.tensor(target),
                weight,
                ignore_index=loss.ignore_index,
                label_smoothing=loss.label_smoothing,
                reduction=loss.reduction,
            )
    raise TypeError(f"no twin for {loss}")


@pytest.mark.parametrize("kind", LOSSES)
@examples(200)
@given(data=st.data(), dtype=dtypes, seed=seeds)
def test_a_loss_is_pytorchs(kind, data, dtype, seed):
    loss, shape = data.draw(LOSSES[kind])
    assert type(loss).__name__ == kind
    generator = np.random.default_rng(seed)
    outputs = generator.uniform(-3, 3, shape).astype(dtype)
    target = targets(loss, shape, generator, dtype)

    theirs = channels_first(outputs).requires_grad_()
    expected = in_pytorch(loss, theirs, target)
    assume(expected.isfinite().all())  # a mean over no labels is NaN in PyTorch and 0 here
    scale = generator.standard_normal(expected.shape).astype(dtype)
    expected.backward(torch.tensor(scale))

    for kernels in ("reference", "auto"):
        with minidl.settings(kernels=kernels):
            value, cache = loss.forward(outputs, target)
            doutputs = loss.backward(cache, scale)
        assert_close(np.asarray(value), expected.detach().numpy(), f"the value by {kernels}")
        assert_close(doutputs, channels_last(theirs.grad), f"doutputs by {kernels}")
    tally[TITLE][kind] += 1
