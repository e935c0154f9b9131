"""Pooling, normalisation and sums over pixels on the GPU against the bodies of their ops: dtypes and odd sizes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from helpers import same

from minidl.combine import Sequential
from minidl.layers import BatchNorm2d
from minidl.ops.avg_pool2d import avg_pool2d, avg_pool2d_gradient
from minidl.ops.batch_norm2d import (
    batch_norm2d,
    batch_norm2d_input_gradient,
    batch_norm2d_parameter_gradients,
    batch_statistics,
)
from minidl.ops.channel_sum import channel_dot, channel_sum
from minidl.ops.local_response_norm import local_response_norm, local_response_norm_gradient
from minidl.ops.max_pool2d import max_pool2d, max_pool2d_gradient
from minidl.precision import working
from minidl.window import Window

DTYPES = ["float32", "float64", "float16", ml_dtypes.bfloat16]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)


pytestmark = pytest.mark.usefixtures("on_cuda_shim")


def small_integers(*shape, dtype, seed=0):
    return np.random.default_rng(seed).integers(-4, 4, shape, endpoint=True).astype(dtype)


def close(found, expected, dtype, terms=1.0):
    """Within a rounding or two of the dtype, where `expected` is float64: of it, or of the terms that it sums up."""
    assert found.dtype == dtype
    bound = 4 * float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(found.astype("float64"), expected, rtol=bound, atol=bound * terms)


# --- average pooling --------------------------------------------------------------------------------------------------

WINDOWS = {
    "2×2": Window.of(2, stride=2),
    "odd": Window.of((3, 2), stride=(2, 3), padding=((1, 0), (0, 1)), dilation=(1, 2)),
    "overhanging": Window.of(3, stride=2, padding=1, rounding="ceil"),
}


@each_dtype
@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("C", [3, 16])
def test_avg_pool2d(C, window, count_include_pad, dtype):
    x = small_integers(2, 8, 9, C, dtype=dtype)
    y = avg_pool2d(x, window, count_include_pad)
    close(y, avg_pool2d.reference(x.astype("float64"), window, count_include_pad), dtype)
    dy = small_integers(*y.shape, dtype=dtype, seed=1)
    dx = avg_pool2d_gradient(dy, x.shape, window, count_include_pad)
    close(dx, avg_pool2d_gradient.reference(dy.astype("float64"), x.shape, window, count_include_pad), dtype)


def test_the_average_of_padding_alone_is_no_number():
    x, window = np.ones((1, 3, 3, 4), "float32"), Window.of(2, stride=2, padding=((2, 0), (0, 1)))
    y = avg_pool2d(x, window, False)
    with np.errstate(invalid="ignore"):
        same(y, avg_pool2d.reference(x, window, False))
    assert np.isnan(y[0, 0]).all()
    dy = np.ones_like(y)
    with np.errstate(divide="ignore"):
        same(avg_pool2d_gradient(dy, x.shape, window, False), avg_pool2d_gradient.reference(dy, x.shape, window, False))


def test_avg_pool2d_of_an_empty_batch():
    x, window = np.empty((0, 5, 5, 4), "float32"), Window.of(3)
    y = avg_pool2d(x, window)
    assert y.shape == (0, 3, 3, 4)
    assert avg_pool2d_gradient(y, x.shape, window).shape == x.shape


# --- max pooling ------------------------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("window", [*WINDOWS.values(), Window.of(3), Window.of(2, stride=5, dilation=3)], ids=str)
@pytest.mark.parametrize("C", [3, 16])
def test_max_pool2d(C, window, dtype):
    same_as_reference(small_integers(2, 8, 9, C, dtype=dtype), window)


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((1, 3, 20, 257), Window.of(2, padding=1)),  # more channels than a block has threads, in more than one part
        ((1, 18, 18, 8), Window.of(17)),  # winners of two bytes
        ((1, 1, 600, 160), Window.of((1, 3), stride=(1, 2))),  # more pixels in a row than one block takes
    ],
)
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_max_pool2d_of_many(dtype, shape, window):
    same_as_reference(small_integers(*shape, dtype=dtype), window)


def same_as_reference(x, window):
    y, winners = max_pool2d(x, window)
    expected, expected_winners = max_pool2d.reference(x, window)
    same(y, expected)
    same(winners, expected_winners)
    dy = small_integers(*y.shape, dtype=x.dtype, seed=1)
    expected = max_pool2d_gradient.reference(dy, winners, x.shape, window)
    same(max_pool2d_gradient(dy, winners, x.shape, window), expected)


# --- local response normalisation -------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize(
    ("shape", "size", "beta", "groups"),
    [
        ((2, 3, 5, 96), 5, 0.75, 1),
        ((3, 3, 32), 4, 0.75, 2),
        ((7, 15), 3, 0.6, 1),
        ((2, 15), 9, 0.75, 3),
        ((5,), 1, 0.75, 1),
        ((4, 9), 50, 0.75, 1),
        ((3, 521), 5, 0.75, 1),  # longer than a block is wide: neighbours lie across its edge
        ((3, 4104), 5, 0.75, 1),
        ((3, 521), 5, 0.6, 1),
        ((6, 32), 5, 0.75, 4),
        ((4, 2), 5, 0.75, 1),
        ((2, 4112), 6, 0.75, 1),
        ((1, 2, 600), 1000, 0.75, 1),
        ((0, 4, 8), 5, 0.75, 1),
    ],
)  # fmt: skip
def test_local_response_norm(shape, size, beta, groups, dtype):
    x, dy = np.random.default_rng(0).normal(size=(2, *shape)).astype(dtype)
    for op, arrays in (local_response_norm, (x,)), (local_response_norm_gradient, (dy, x)):
        settings = size, 0.25, beta, 2, groups
        close(op(*arrays, *settings), op.reference(*(a.astype("float64") for a in arrays), *settings), dtype)


@pytest.mark.parametrize("C", [96, 97])
def test_local_response_norm_in_the_last_digits(C):
    x, dy = np.random.default_rng(0).normal(size=(2, 3, C)) * 50
    for op, arrays in (local_response_norm, (x,)), (local_response_norm_gradient, (dy, x)):
        np.testing.assert_allclose(op(*arrays, 5, 1e-4, 0.75, 2), op.reference(*arrays, 5, 1e-4, 0.75, 2), rtol=1e-13)


def test_beyond_the_last_channel_nothing_is_sent():
    x, dy = np.ones((2, 2, 16), "float32")
    x[:, [0, 1, -2, -1]] = 0
    settings = 5, 0.25, 0.75, 0.0
    for op, arrays in (local_response_norm, (x,)), (local_response_norm_gradient, (dy, x)):
        expected = op.reference(*arrays, *settings)
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(op(*arrays, *settings), expected, rtol=1e-6, atol=1e-6)


def test_a_window_that_overflows_silences_its_channels():
    x, dy = np.ones((2, 1, 16), "float32")
    x[0, 8] = 1e30
    with np.errstate(over="ignore"):
        for op, arrays in (local_response_norm, (x,)), (local_response_norm_gradient, (dy, x)):
            found, expected = (f(*arrays, 5, 0.25, 0.75, 1.0) for f in (op, op.reference))
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


# --- sums over everything but the channels ----------------------------------------------------------------------------

SHAPES = [
    (2, 5, 7, 96),
    (3, 4, 7),
    (700, 3),
    (16,),
    (2, 1031),
    (1, 4112),
    (0, 3, 8),
]  # one row; rows wider than a block


@each_dtype
@pytest.mark.parametrize("shape", SHAPES)
def test_channel_sums_of_integers(shape, dtype):
    x, y = small_integers(2, *shape, dtype=dtype)
    for op, arrays in (channel_sum, (x,)), (channel_dot, (x, y)):
        total = op(*arrays)
        same(total, op.reference(*(a.astype("float64") for a in arrays)).astype(dtype))


def test_channel_sums_are_in_float64():
    x = np.full((30_000, 1), 0.1, "float32")
    x[0] = 1e7
    same(channel_sum(x), channel_sum.reference(x))
    same(channel_dot(x, np.ones_like(x)), channel_dot.reference(x, np.ones_like(x)))


# --- batch normalisation ----------------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("shape", [(2, 5, 7, 96), (3, 4, 7, 5), (5, 1, 1, 600), (2, 1, 1, 2056), (300, 2, 2, 1)])
def test_batch_norm2d(shape, dtype):
    random = np.random.default_rng(0)
    x, dy = random.normal(0.5, 1, (2, *shape)).astype(dtype)
    gamma, beta, dgamma, dbeta = random.normal(size=(4, shape[-1])).astype(dtype)
    mean, rest, var = batch_statistics(x)
    exact = x.astype("float64")
    wide = np.promote_types(dtype, np.float32)
    close(mean, exact.mean(axis=(0, 1, 2)), wide)
    close(var, exact.var(axis=(0, 1, 2)), wide, terms=10)  # squares of distances from a number 3 deviations off
    np.testing.assert_allclose(mean + rest.astype("float64"), exact.mean(axis=(0, 1, 2)), rtol=1e-11, atol=1e-15)
    inv_std = 1 / np.sqrt(var + wide.type(0.1))
    for op, arrays in [
        (batch_norm2d, (x, mean, rest, inv_std, gamma, beta)),
        (batch_norm2d_input_gradient, (dy, x, mean, rest, inv_std, gamma, dgamma, dbeta)),
    ]:
        close(op(*arrays), op.reference(*(a.astype("float64") for a in arrays)), dtype)
    arrays = dy, x, mean, rest, inv_std
    for found, expected in zip(
        batch_norm2d_parameter_gradients(*arrays),
        batch_norm2d_parameter_gradients.reference(*(a.astype("float64") for a in arrays)),
        strict=True,
    ):
        close(found, expected, dtype, terms=x.size / shape[-1])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_batch_norm2d_in_half_precision(precision):
    """Training and inference, whose running statistics stay in float32."""
    net = Sequential(norm=BatchNorm2d(16, momentum=1.0))
    half = working(net, precision)
    x = np.random.default_rng(0).normal(3, 2, (4, 5, 5, 16)).astype("float32")
    expected, _ = net.forward(x, train=True)
    y, cache = half.forward(x, train=True)
    np.testing.assert_allclose(y, expected, atol=0.03)
    np.testing.assert_allclose(half.forward(x)[0], expected, atol=0.03)
    np.testing.assert_allclose(net.buffers()["norm.running_mean"].value, x.mean(axis=(0, 1, 2)), rtol=1e-3)
    assert half.backward(1e-4 * x, cache).dtype == "float32"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [0.1, -7.3, 1e30])
def test_a_constant_channel_has_no_variance(value, dtype):
    x = np.full((3, 4, 4, 8), value, dtype)
    mean, rest, var = batch_statistics(x)
    same(mean, x[0, 0, 0])
    assert not rest.any()
    assert not var.any()


def test_the_statistics_of_an_outlier():
    """In float32, where the number from which all distances are measured is a million deviations off."""
    x = np.random.default_rng(0).normal(size=(8, 20, 20, 4)).astype("float32")
    x[0, 0, 0] = 1e6
    exact = x.astype("float64")
    mean, rest, var = batch_statistics(x)
    np.testing.assert_allclose(mean.astype("float64") + rest, exact.mean(axis=(0, 1, 2)), rtol=1e-11)
    np.testing.assert_allclose(var, exact.var(axis=(0, 1, 2)), rtol=1e-7)


def test_a_large_mean_and_a_small_deviation():
    """Mean 10⁴ and deviation 10⁻² in float32: the mean in two numbers leaves nothing of it."""
    x = (1e4 + 1e-2 * np.random.default_rng(3).standard_normal((8, 20, 20, 4))).astype("float32")
    exact = x.astype("float64")
    mean, rest, var = batch_statistics(x)
    np.testing.assert_allclose(var, exact.var(axis=(0, 1, 2)), rtol=1e-6)
    ones = np.ones(4, "float32")
    y = batch_norm2d(x, mean, rest, 1 / np.sqrt(var), ones, 0 * ones)
    centred = exact - exact.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(y, centred / exact.std(axis=(0, 1, 2)), atol=1e-5)
