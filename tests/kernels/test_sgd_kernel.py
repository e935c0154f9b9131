"""The optimiser's kernel gives the bits of its body."""

import numpy as np
import pytest

from minidl import settings
from minidl.layer import Parameter
from minidl.ops.sgd import sgd_paper, sgd_torch
from minidl.optim import SGD


@pytest.mark.parametrize("op", [sgd_paper, sgd_torch], ids=["paper", "torch"])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 5), (600_001,)])
def test_same_bits(op, nesterov, dtype, shape):
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal(shape).astype(dtype) for _ in range(3)]
    ours, theirs = [a.copy() for a in arrays], [a.copy() for a in arrays]
    op(*ours, 0.01, 0.9, 5e-4, nesterov)
    op.reference(*theirs, 0.01, 0.9, 5e-4, nesterov)
    for mine, expected, before in zip(ours, theirs, arrays, strict=True):
        np.testing.assert_array_equal(mine, expected)
        assert np.array_equal(expected, before) == (before is arrays[1]), "all but the gradient change"


def test_a_value_in_fortran_order_is_still_updated():
    parameter = Parameter(np.ones((3, 4), np.float32).T)
    parameter.value = np.asfortranarray(np.ones((4, 3), np.float32))
    optimizer = SGD({"weight": parameter}, momentum=0)
    parameter.accumulate(np.ones((4, 3), np.float32))
    with settings(kernels="numba"):
        optimizer.step(0.5)
    np.testing.assert_array_equal(parameter.value, np.full((4, 3), 0.5, np.float32))
