"""Batch normalisation."""

from __future__ import annotations

import numpy as np

from minidl.arrays import NHWC, Array, array_module, is_array
from minidl.errors import ShapeError, expect_integer, expect_number
from minidl.layer import Buffer, Layer, Parameter, Shape, expect_rank
from minidl.ops.batch_norm2d import (
    batch_norm2d,
    batch_norm2d_input_gradient,
    batch_norm2d_parameter_gradients,
    batch_statistics,
)
from minidl.random import Key


class BatchNorm2d(Layer):
    """y = gamma · x̂ + beta,    x̂ = (x − mean) · inv_std,    inv_std = 1 / √(var + eps), per channel

    In training, mean and var are those of the batch over N, H and W (m = N·H·W numbers a channel, var over m), and
    the running ones follow: running ← (1 − momentum)·running + momentum·batch, with var·m/(m−1) for the variance. At
    inference the running ones serve. Backward, since mean and var depend on x too:

        dbeta = Σ dy        dgamma = Σ dy·x̂        dx = gamma·inv_std · (dy − dbeta/m − x̂·dgamma/m)

    Shapes: x (N, H, W, C) → y of the same shape; gamma, beta, running_mean, running_var (C,).
    Kept for backward: x, mean and inv_std; x̂ is computed again. The mean is kept as two numbers, mean + rest: in one it
        would be off by 10⁻⁷ of itself, which is much where the deviation is small beside the mean, and in a constant
        channel would be all that is left.
    Raises: ArgumentError for num_features < 1, eps ≤ 0 or momentum outside [0, 1]; ShapeError for wrong channels, and
        in training for m = 1, which has no variance.
    Source: Ioffe and Szegedy 2015, arXiv 1502.03167, Algorithm 1; PyTorch's conventions.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        self.num_features = num_features = expect_integer("BatchNorm2d", "num_features", num_features)
        self.eps = expect_number("BatchNorm2d", "eps", eps, within="(0, inf)")
        self.momentum = expect_number("BatchNorm2d", "momentum", momentum, within="[0, 1]")
        self.gamma = Parameter(np.ones(num_features, np.float32))
        self.beta = Parameter(np.zeros(num_features, np.float32))
        self.running_mean = Buffer(np.zeros(num_features, np.float32))
        self.running_var = Buffer(np.ones(num_features, np.float32))

    def forward(
        self, x: NHWC, *, train: bool = False, key: Key | None = None
    ) -> tuple[NHWC, tuple[NHWC, Array, Array, Array] | None]:
        """See `Layer.forward`."""
        self.check(x)
        if not train:
            mean = self.running_mean.value
            return self._normalised(x, mean, array_module(x).zeros_like(mean), self.running_var.value)[0], None
        m = x.size // x.shape[-1]
        if m == 1:
            raise ShapeError(f"{self}: expected more than one value a channel to normalise over, got {x.shape} in x")
        mean, rest, var = batch_statistics(x)
        self._follow(self.running_mean, mean + rest)
        self._follow(self.running_var, var * var.dtype.type(m / (m - 1)))
        y, inv_std = self._normalised(x, mean, rest, var)
        return y, (x, mean, rest, inv_std)

    def _normalised(self, x: NHWC, mean: Array, rest: Array, var: Array) -> tuple[NHWC, Array]:
        inv_std = 1 / array_module(var).sqrt(var + var.dtype.type(self.eps))
        return batch_norm2d(x, mean, rest, inv_std, self.gamma.value, self.beta.value), inv_std

    def backward(
        self, dy: NHWC, cache: tuple[NHWC, Array, Array, Array], *, input_gradient: bool = True
    ) -> NHWC | None:
        """See `Layer.backward`."""
        x, mean, rest, inv_std = self.kept(cache, is_array, is_array, is_array, is_array)
        self.check(x, "the cache")
        self.check_gradient(dy, x.shape, x)
        dgamma, dbeta = batch_norm2d_parameter_gradients(dy, x, mean, rest, inv_std)
        self.gamma.accumulate(dgamma)
        self.beta.accumulate(dbeta)
        if not input_gradient:
            return None
        return batch_norm2d_input_gradient(dy, x, mean, rest, inv_std, self.gamma.value, dgamma, dbeta)

    def _follow(self, running: Buffer, batch: Array) -> None:
        momentum = running.value.dtype.type(self.momentum)
        running.value = (1 - momentum) * running.value + momentum * batch.astype(momentum.dtype)

    def output_shape(self, shape: Shape) -> Shape:
        """See `Layer.output_shape`."""
        C = expect_rank(shape, "H, W, C")[2]
        if self.num_features != C:
            raise ShapeError(f"expected {self.num_features} channels, got {C}")
        return shape

    def __repr__(self) -> str:
        return f"BatchNorm2d({self.num_features})"
