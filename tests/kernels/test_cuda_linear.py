"""The fully connected layer's CUDA kernels, run on the CPU, and what a matrix product takes."""

from __future__ import annotations

import cuda_shim
import numpy as np
import pytest
from helpers import integers, same

from minidl.accelerate import settings
from minidl.errors import ArgumentError
from minidl.kernels import cuda
from minidl.ops.linear import linear, linear_input_gradient, linear_weight_gradient

pytest.importorskip("ml_dtypes", exc_type=ImportError)  # gives NumPy bfloat16


pytestmark = pytest.mark.usefixtures("on_cuda_shim")


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize(("N", "I", "O"), [(1, 1, 1), (3, 5, 7), (2, 30, 1040), (20, 13, 16), (0, 3, 2)])
def test_products_of_integers_are_exact(N, I, O, dtype):
    x, weight, dy, bias = (
        integers(i, *shape, largest=1) for i, shape in enumerate([(N, I), (I, O), (N, O), (O,)])
    )  # fmt: skip
    for op, args in (
        (linear, (x, weight, bias)),
        (linear, (x, weight, bias, True)),
        (linear, (x, weight, None, True)),
        (linear, (x, weight, None)),
        (linear_input_gradient, (dy, weight)),
        (linear_weight_gradient, (x, dy)),
    ):
        narrow = (a.astype(dtype) if isinstance(a, np.ndarray) else a for a in args)
        same(op(*narrow), op.reference(*args).astype(dtype))


A = np.ones((4, 6), "float32")


@pytest.mark.parametrize(
    ("a", "b", "out"),
    [
        (A[:, ::2], A[:3], None),
        (A[:, :3], A[:3], None),
        (A, A.T, np.ones((4, 8), "float32")[:, :4]),
        (A, A.T.astype("float64"), None),
        (A, A.T, np.ones((4, 4))),
        (A[None], A.T, np.ones((1, 4, 4), "float32")),
    ],
)
def test_a_product_that_would_copy_is_refused(a, b, out):
    with pytest.raises(ArgumentError, match="matmul: expected contiguous matrices of one dtype where kernels"):
        cuda.matmul(a, b, out)


def test_arrays_of_the_cpu_need_the_shim():
    with cuda.computed_by(cuda.CuPy()), pytest.raises(ArgumentError, match=r"got ndarray of float32, \(4, 6\) with"):
        cuda.matmul(A, A.T)


def test_a_transposed_operand_is_none():
    same(cuda.matmul(A.T, A), A.T @ A)


def test_products_in_tf32_round_their_factors(normal):
    x, weight = normal(5, 7, dtype="float32"), normal(7, 3, seed=1, dtype="float32")
    with cuda_shim.running():
        exact = linear(x, weight, None)
        with settings(tf32=True):
            rounded = linear(x, weight, None)
    np.testing.assert_array_equal(rounded, cuda_shim.in_tf32(x) @ cuda_shim.in_tf32(weight))
    assert 0 < abs(rounded - exact).max() < 2**-10 * (abs(x) @ abs(weight)).max()
