"""Local response normalisation."""

from __future__ import annotations

from minidl.arrays import Array
from minidl.errors import ShapeError, expect_flag, expect_number, expect_positive
from minidl.layer import Layer, Shape, expect_shape
from minidl.ops.local_response_norm import local_response_norm, local_response_norm_gradient
from minidl.random import Key


class LocalResponseNorm(Layer):
    """y_i = x_i / s_i^β,    s_i = k + scale · Σ_{j ∈ window(i)} x_j²

    over the channels i of each pixel, where the window holds the `size` channels around i that exist. Backward:

        dx_i = dy_i · s_i^(−β) − 2·β·scale · x_i · Σ_{j : i ∈ window(j)} dy_j · x_j · s_j^(−β−1)

    Shapes: x (…, C) → y (…, C).
    Cost: about size + 5 FLOP an element.
    Kept for backward: x; s is computed again.
    Range: scale·Σx² must not overflow, which in float32 allows |x| up to 10¹⁹/√scale; beyond, y and dx are 0.
    Raises: ArgumentError for size < 1, k ≤ 0, alpha < 0, groups < 1, or what is not finite; ShapeError where groups do
        not divide C.
    Source: Krizhevsky, Sutskever, Hinton 2012, §3.3, with its constants as defaults.

    alpha, average: the paper and TensorFlow take scale = alpha. Caffe, PyTorch, ONNX and the paper's own code take
        scale = alpha / size: say `average=True` for theirs. PyTorch's LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)
        is the paper's text.
    size: an even size reaches one channel further up than down (ONNX's window).
    groups: normalise within groups of channels, as the paper's two towers do; 1 is what most implementations do.

    >>> LocalResponseNorm()
    LocalResponseNorm(size=5, alpha=0.0001, beta=0.75, k=2)
    """

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 2,
        average: bool = False,
        groups: int = 1,
    ) -> None:
        self.size, self.groups = expect_positive("LocalResponseNorm", size=size, groups=groups)
        self.alpha = expect_number("LocalResponseNorm", "alpha", alpha, within="[0, inf)")
        self.beta = expect_number("LocalResponseNorm", "beta", beta)
        self.k = expect_number("LocalResponseNorm", "k", k, within="(0, inf)")  # so that s > 0
        self.average = expect_flag("LocalResponseNorm", "average", average)
        self.scale = self.alpha / self.size if self.average else self.alpha

    def forward(self, x: Array, *, train: bool = False, key: Key | None = None) -> tuple[Array, Array | None]:
        """See `Layer.forward`."""
        self.check(x)
        y = local_response_norm(x, self.size, self.scale, self.beta, self.k, self.groups)
        return y, x if train else None

    def backward(self, dy: Array, cache: Array, *, input_gradient: bool = True) -> Array | None:
        """See `Layer.backward`."""
        x = self.kept_input(cache)
        self.check_gradient(dy, x.shape, x)
        if not input_gradient:
            return None
        return local_response_norm_gradient(dy, x, self.size, self.scale, self.beta, self.k, self.groups)

    def output_shape(self, shape: Shape) -> Shape:
        """See `Layer.output_shape`."""
        shape = expect_shape(shape)
        if shape[-1] % self.groups:
            raise ShapeError(f"expected channels in {self.groups} equal groups, got {shape[-1]}")
        return shape

    def __repr__(self) -> str:
        extra = ", average=True" if self.average else ""
        extra += f", groups={self.groups}" if self.groups > 1 else ""
        return f"LocalResponseNorm(size={self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}{extra})"
