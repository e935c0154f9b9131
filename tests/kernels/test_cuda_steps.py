"""Dropout, the optimisers' steps and crops on the GPU against the bodies of their ops: the same bits."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from helpers import same

from minidl.ops.adamw import adamw
from minidl.ops.crop import crop
from minidl.ops.dropout import dropout
from minidl.ops.sgd import sgd_paper, sgd_torch
from minidl.random import Key, philox

HALVES = ["float16", ml_dtypes.bfloat16]
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64", *HALVES], ids=lambda dtype: np.dtype(dtype).name)


pytestmark = pytest.mark.usefixtures("on_cuda_shim")


# --- dropout ----------------------------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("shape", [(3, 2, 16), (5, 7), (2, 4106), (4,), (2, 1, 1, 6), (0, 8), (3, 0)], ids=str)
@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 0.999])
def test_dropout(shape, p, dtype):
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    key = Key(0x123456789ABCDEF0, 2**32 - 5)
    same(dropout(x, p, key), dropout.reference(x, p, key))


def test_dropout_drops_a_nan():
    x = np.full((2, 64), np.nan, "float32")
    y = dropout(x, 0.5, Key(1))
    same(y, dropout.reference(x, 0.5, Key(1)))
    assert (y == 0).any()


def test_dropout_keeps_a_word_that_equals_the_bound():
    word = philox((0, 0, 0, 0), Key(1).words)[0]
    assert dropout(np.ones((1, 1)), word / 2**32, Key(1)) > 0
    assert dropout(np.ones((1, 1)), (word + 1) / 2**32, Key(1)) == 0


# --- steps ------------------------------------------------------------------------------------------------------------

STEPS = {
    "sgd_paper": (sgd_paper, 3, (0.01, 0.9, 5e-4, False)),
    "sgd_paper, nesterov": (sgd_paper, 3, (0.01, 0.9, 5e-4, True)),
    "sgd_torch": (sgd_torch, 3, (0.01, 0.9, 5e-4, False)),
    "sgd_torch, nesterov": (sgd_torch, 3, (0.01, 0.9, 5e-4, True)),
    "adamw, first": (adamw, 4, (1, 1e-3, 0.9, 0.999, 1e-8, 0.01)),
    "adamw, later": (adamw, 4, (77, 1e-3, 0.9, 0.999, 1e-8, 0.01)),
}
each_step = pytest.mark.parametrize(("op", "count", "settings"), STEPS.values(), ids=STEPS)
each_shape = pytest.mark.parametrize("shape", [(16, 24), (3, 5), (1,), (0,)], ids=str)


def before(count, shape, dtype):
    """Value, gradient, and what the optimiser keeps: the square of AdamW, the last, is positive."""
    arrays = np.random.default_rng(3).normal(size=(count, *shape))
    arrays[3:] **= 2
    return arrays.astype(dtype)


@each_step
@each_shape
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_step_gives_the_bits_of_its_body(op, count, settings, shape, dtype):
    ours, theirs = before(count, shape, dtype), before(count, shape, dtype)
    op(*ours, *settings)
    op.reference(*theirs, *settings)
    same(ours, theirs)


@each_step
@each_shape
@pytest.mark.parametrize("dtype", HALVES)
def test_a_step_in_half_precision_rounds_once(op, count, settings, shape, dtype):
    ours = before(count, shape, dtype)
    theirs = ours.astype("float32")
    op(*ours, *settings)
    op.reference(*theirs, *settings)
    same(ours, theirs.astype(dtype))


def test_a_step_of_arrays_that_begin_anywhere():
    ours, theirs = before(3, (65,), "float32"), before(3, (65,), "float32")
    sgd_paper(*ours[:, 1:], 0.01, 0.9, 5e-4, False)
    sgd_paper.reference(*theirs[:, 1:], 0.01, 0.9, 5e-4, False)
    same(ours, theirs)


# --- crops ------------------------------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize(
    ("shape", "size"),
    [((3, 9, 8, 3), (5, 8)), ((2, 6, 7, 3), (6, 7)), ((4, 5, 5, 1), (2, 3)), ((1, 4, 400, 3), (3, 399)),
     ((0, 5, 5, 3), (4, 4)), ((2, 3, 4, 8), (1, 1)), ((2, 19, 100, 3), (18, 99))],
)  # fmt: skip
def test_crop(shape, size, dtype):
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, shape).astype("uint8")
    offsets = rng.integers(0, np.array(shape[1:3]) - size, (shape[0], 2), endpoint=True)
    mirrored = np.arange(shape[0]) % 2 == 0
    mean, std = (100 * rng.random((2, shape[3])) + 20).astype(dtype)
    arrays = images, offsets, mirrored
    y = crop(*arrays, mean, std, size)
    exact = "float64" if dtype == "float64" else "float32"
    same(y, crop.reference(*arrays, mean.astype(exact), std.astype(exact), size).astype(dtype))
