"""Pooling, normalisation and sums over pixels on the GPU against the bodies of their ops: dtypes and odd sizes."""

from __future__ import annotations

import cuda_shim
import ml_dtypes
import numpy as np
import pytest
from helpers import same

from minidl.ops.avg_pool2d import avg_pool2d, avg_pool2d_gradient
from minidl.window import Window

DTYPES = ["float32", "float64", "float16", ml_dtypes.bfloat16]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)


@pytest.fixture(autouse=True)
def shim():
    if problem := cuda_shim.missing():
        pytest.skip(problem)
    with cuda_shim.running():
        yield


def small_integers(*shape, dtype, seed=0):
    return np.random.default_rng(seed).integers(-4, 4, shape, endpoint=True).astype(dtype)


def close(found, expected, dtype):
    """Within a rounding or two of the dtype, where `expected` is float64."""
    assert found.dtype == dtype
    bound = 4 * float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(found.astype("float64"), expected, rtol=bound, atol=bound)


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
