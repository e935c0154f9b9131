"""Softmax and the cross entropy on the GPU against the bodies of their ops: dtypes, rows of any length, infinities."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from minidl.ops.softmax import log_softmax, log_softmax_gradient, softmax, softmax_gradient
from minidl.ops.softmax_cross_entropy import softmax_cross_entropy, softmax_cross_entropy_gradient

DTYPES = ["float32", "float64", "float16", ml_dtypes.bfloat16]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
# a row for a warp, for a block, and longer than its threads take at once; of groups of 16 bytes, and not
SHAPES = [(5, 1), (6, 7), (9, 10), (2, 3, 64), (3, 1000), (2, 1001), (2, 9000), (1000,), (0, 7)]


pytestmark = pytest.mark.usefixtures("on_cuda_shim")


def normal(*shape, dtype, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def close(found, expected, dtype):
    """Within a few roundings of the dtype, where `expected` is float64."""
    assert found.dtype == dtype
    bound = 8 * float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(found.astype("float64"), expected, rtol=bound, atol=bound)


def wide(*arrays):
    return [a.astype("float64") for a in arrays]


@each_dtype
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("ops", [(softmax, softmax_gradient), (log_softmax, log_softmax_gradient)])
def test_softmax(ops, shape, dtype):
    op, gradient = ops
    x, dy = normal(*shape, dtype=dtype) * 3, normal(*shape, dtype=dtype, seed=1)
    y = op(x)
    close(y, op.reference(*wide(x)), dtype)
    close(gradient(dy, y), gradient.reference(*wide(dy, y)), dtype)


@each_dtype
@pytest.mark.parametrize(("N", "C"), [(1, 1), (7, 3), (5, 64), (3, 1000), (2, 1001), (0, 10)])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
def test_softmax_cross_entropy(N, C, label_smoothing, dtype):
    rng = np.random.default_rng(2)
    logits, dlosses = normal(N, C, dtype=dtype) * 3, normal(N, dtype=dtype, seed=1)
    labels = rng.integers(-1, C, N)
    weight = (rng.random(C) * (rng.random(C) < 0.8)).astype(dtype)
    losses, log_p = softmax_cross_entropy(logits, labels, weight, label_smoothing)
    expected = softmax_cross_entropy.reference(*wide(logits), labels, *wide(weight), label_smoothing)
    close(losses, expected[0], dtype)
    close(log_p, expected[1], dtype)
    dlogits = softmax_cross_entropy_gradient(dlosses, log_p, labels, weight, label_smoothing)
    arrays = *wide(dlosses, log_p), labels, *wide(weight)
    close(dlogits, softmax_cross_entropy_gradient.reference(*arrays, label_smoothing), dtype)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [[1, 1, 1, 1], [0, 1, 2, 0]])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_classes_that_are_ruled_out(dtype, weight, label_smoothing):
    logits = np.tile(np.array([-np.inf, 1, 2, -1e4], dtype), (5, 1))
    labels, weight = np.array([0, 1, 2, 3, -1]), np.array(weight, dtype)
    op, gradient = softmax_cross_entropy, softmax_cross_entropy_gradient
    losses, log_p = op(logits, labels, weight, label_smoothing)
    for found, expected in zip((losses, log_p), op.reference(logits, labels, weight, label_smoothing), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert losses[-1] == 0
    arguments = np.ones(5, dtype), log_p, labels, weight, label_smoothing
    np.testing.assert_allclose(gradient(*arguments), gradient.reference(*arguments), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("row", [[-np.inf, -np.inf], [np.inf, 0], [np.nan, 0], [0, np.nan]])
def test_what_has_no_probabilities_is_nan(row):
    x = np.array([row], "float32")
    losses, log_p = softmax_cross_entropy(x, np.array([0]), np.ones(2, "float32"), 0.0)
    for y in softmax(x), log_softmax(x), losses, log_p:
        assert np.isnan(y).any()


def test_arrays_that_begin_anywhere():
    x = normal(3 * 64 + 1, dtype="float32")[1:].reshape(3, 64)
    np.testing.assert_allclose(softmax(x), softmax.reference(x), rtol=1e-6)
