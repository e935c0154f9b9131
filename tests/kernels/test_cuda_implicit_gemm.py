"""Convolution on tensor cores, run on the CPU by the shim, whose `mma` and `ldmatrix` act lane by lane."""

from __future__ import annotations

import numpy as np
import pytest

from minidl.accelerate import settings
from minidl.kernels import implicit_gemm
from minidl.kernels.geometry import Problem
from minidl.ops.conv2d import conv2d, conv2d_input_gradient, conv2d_weight_gradient
from minidl.window import Window

ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed", exc_type=ImportError)
pytestmark = pytest.mark.usefixtures("on_cuda_shim")

DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32}
UNEVEN = Window.of((3, 2), stride=(2, 3), padding=((1, 0), (2, 1)), dilation=(1, 2))
# x, O, groups, window; each with edges of tiles and of channels, and several steps along K
CASES = {
    "16 bytes at a time": ((2, 9, 8, 24), 80, 1, Window.of(3, padding=1)),
    "two tiles of input channels": ((1, 5, 5, 72), 16, 1, Window.of(1)),
    "groups": ((2, 9, 7, 32), 48, 2, UNEVEN),
    "number by number": ((2, 9, 7, 10), 14, 2, UNEVEN),
    "11×11, stride 4": ((1, 31, 27, 3), 5, 1, Window.of(11, stride=4)),
    "regrouped": ((2, 22, 27, 3), 8, 1, Window.of(11, stride=4, padding=((2, 0), (1, 3)))),
    "dilation and stride share a factor": (
        (1, 13, 12, 8),
        16,
        1,
        Window.of(3, stride=(4, 2), dilation=(2, 4), padding=3),
    ),
    "a stride beyond kernel and image": ((3, 5, 2, 8), 8, 1, Window.of((2, 1), stride=(3, 4))),
}


def rounded(x, dtype):
    """x as the tensor cores see it, in float64."""
    if dtype == np.float32:
        x = ((x.view(np.uint32) + 0x1000) & np.uint32(0xFFFFE000)).view(np.float32)
    return x.astype(np.float64)


def agrees(y, op, first, second, *args, terms, bias=None):
    """y is op(first, second), each of its sums of so many products made in float32, then rounded to y's dtype."""
    a, b = rounded(first, y.dtype), rounded(second, y.dtype)
    expected, size = op(a, b, *args), op(abs(a), abs(b), *args)
    smallest = float(ml_dtypes.finfo(y.dtype).smallest_subnormal)
    bound = terms * 2.0**-24 * size + float(ml_dtypes.finfo(y.dtype).eps) / 2 * 1.001 * abs(expected) + smallest
    assert y.shape == expected.shape
    assert (abs(y.astype(np.float64) - expected) <= bound).all()


def check(x_shape, O, groups, window, dtype, normal):
    N, H, W, C = x_shape
    x, weight = normal(*x_shape).astype(dtype), normal(*window.kernel, C // groups, O, seed=1).astype(dtype)
    dy = normal(N, *window.output_size(H, W), O, seed=2).astype(dtype)
    taps = len(weight) * len(weight[0])
    details = window, groups
    with settings(conv2d="implicit", tf32=True):
        y = conv2d(x, weight, None, *details)
        dx = conv2d_input_gradient(dy, weight, x.shape, *details)
        dweight = conv2d_weight_gradient(x, dy, *details)
    assert y.dtype == dx.dtype == dweight.dtype == dtype
    agrees(y, lambda x, w: conv2d.reference(x, w, None, *details), x, weight, terms=taps * C)
    agrees(dx, lambda dy, w: conv2d_input_gradient.reference(dy, w, x.shape, *details), dy, weight, terms=taps * O)
    agrees(dweight, lambda x, dy: conv2d_weight_gradient.reference(x, dy, *details), x, dy, terms=dy.size // O)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_small_tiles(case, dtype, normal, monkeypatch):
    monkeypatch.setattr(implicit_gemm, "LEAST_STEPS", 1)  # so that blocks share the positions
    check(*CASES[case], DTYPES[dtype], normal)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("C", "O"), [(72, 136), (71, 131)])
def test_large_tiles(C, O, dtype, normal, monkeypatch):
    monkeypatch.setattr(implicit_gemm, "FULL", 1)
    check((1, 12, 13, C), O, 1, Window.of((1, 2)), DTYPES[dtype], normal)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("O", [16, 9])
def test_bias_and_relu(O, dtype, normal):
    x, weight, bias = (normal(*shape, seed=O).astype(DTYPES[dtype]) for shape in [(1, 4, 5, 8), (1, 1, 8, O), (O,)])
    window = Window.of(1)
    with settings(conv2d="implicit", tf32=True):
        y = conv2d(x, weight, bias, window, relu=True)
    expected = conv2d.reference(*(rounded(a, a.dtype) for a in (x, weight)), bias.astype(float), window, relu=True)
    assert (y >= 0).all()
    np.testing.assert_allclose(y.astype(float), expected, rtol=float(ml_dtypes.finfo(y.dtype).eps), atol=1e-5)


def test_nans_and_infinities_stay_where_they_belong(normal):
    x, weight = normal(1, 9, 9, 8, dtype="float16"), normal(3, 3, 8, 8, seed=1, dtype="float16")
    x[0, 4, 4, 0], x[0, 8, 8, 3] = np.nan, np.inf
    window = Window.of(3)
    with settings(conv2d="implicit", tf32=True):
        y = conv2d(x, weight, None, window, relu=True)
    with np.errstate(invalid="ignore"):
        expected = conv2d.reference(x.astype(float), weight.astype(float), None, window, relu=True)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(y), np.isinf(expected))


def test_an_empty_batch():
    x, weight, window = np.empty((0, 5, 5, 8), np.float16), np.ones((3, 3, 8, 16), np.float16), Window.of(3)
    with settings(conv2d="implicit", tf32=True):
        y = conv2d(x, weight, None, window)
        assert y.shape == (0, 3, 3, 16)
        assert conv2d_input_gradient(y, weight, x.shape, window).shape == x.shape
        dweight = conv2d_weight_gradient(x, y, window)
    np.testing.assert_array_equal(dweight, np.zeros_like(weight))


def test_what_does_not_fit():
    window = Window.of(3)
    problem = Problem((2, 9, 9, 8), (3, 3, 8, 8), window, 1)
    assert implicit_gemm.obstacle(np.float16, problem) is None
    assert implicit_gemm.obstacle(ml_dtypes.bfloat16, problem) is None
    assert implicit_gemm.obstacle(np.float32, problem, tf32=True) is None
    assert "got float32" in implicit_gemm.obstacle(np.float32, problem)
    assert "got float64" in implicit_gemm.obstacle(np.float64, problem, tf32=True)
    huge = Problem((1 << 20, 64, 64, 8), (3, 3, 8, 8), window, 1)
    assert "pixels" in implicit_gemm.obstacle(np.float16, huge)
    strides = Problem((1, 300, 300, 8), (3, 3, 8, 8), Window.of(3, stride=290), 1)
    assert "strides" in implicit_gemm.obstacle(np.float16, strides)
