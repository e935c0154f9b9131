"""How precisely a net is trained: float32, faster and coarser, or finer.

| name     | activations, gradients | products of matrices           | weights, loss, optimiser |
|----------|------------------------|--------------------------------|--------------------------|
| float64  | float64                | float64                        | float64                  |
| float32  | float32                | float32                        | float32                  |
| tf32     | float32                | of 11 bits each, summed as float32, on a GPU | float32    |
| bf16     | bfloat16               | summed as float32              | float32                  |
| fp16     | float16                | summed as float32              | float32                  |

Source: Micikevicius et al. 2018, "Mixed precision training", arXiv 1710.03740: master weights and loss scaling.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from minidl.arrays import Array, array_module, float_dtype
from minidl.errors import ArgumentError, UnknownNameError, told
from minidl.inference import fuse, lowered
from minidl.layer import Buffer, Layer, Parameter, Shape
from minidl.random import Key

PRECISIONS = {  # dtype of the net's own arrays, and of the copy that computes
    "float32": ("float32", "float32"),
    "float64": ("float64", "float64"),
    "tf32": ("float32", "float32"),
    "bf16": ("float32", "bfloat16"),
    "fp16": ("float32", "float16"),
}


def dtype_of(precision: str) -> str:
    """The dtype of weights, loss and optimiser.

    >>> dtype_of("bf16"), dtype_of("float64")
    ('float32', 'float64')

    Raises: UnknownNameError.
    """
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    return PRECISIONS[precision][0]


def working(net: Layer, precision: str) -> Layer:
    """The net that computes the steps of a training: over the same parameters, or in half precision over copies.

    Raises: UnknownNameError.
    """
    dtype, low = dtype_of(precision), PRECISIONS[precision][1]
    if dtype == low:
        return fuse(net)
    return MixedPrecision(net, low, LossScale() if low == "float16" else None)


@dataclass(frozen=True)
class LossScale:
    """The factor that lifts gradients over what float16 rounds to 0 (2⁻²⁵).

    After an overflow it is halved, and after so many steps without one, doubled.
    """

    value: float = 65536.0
    good_steps: int = 0
    patience: int = 2000

    def after(self, overflowed: bool) -> LossScale:
        """The factor of the next step.

        >>> LossScale(8.0).after(overflowed=True).value
        4.0
        >>> LossScale(8.0, good_steps=1999).after(overflowed=False)
        LossScale(value=16.0, good_steps=0, patience=2000)
        """
        if overflowed:
            return replace(self, value=self.value / 2, good_steps=0)
        if self.good_steps + 1 < self.patience:
            return replace(self, good_steps=self.good_steps + 1)
        return replace(self, value=self.value * 2, good_steps=0)


class MixedPrecision(Layer):
    """A net in half precision whose parameters are another net's in float32.

        forward    copies the weights to half precision, computes, and gives the outputs in float32
        backward   takes dy in float32, multiplies it by the loss scale, computes in half precision, and adds the
                   gradients, divided by the scale, to those of the float32 parameters

    overflowed: whether the last backward pass met an infinity or NaN. Then no parameter has got a gradient, and the
        loss scale is halved.

    Source: Micikevicius et al. 2018, arXiv 1710.03740, §3.1 and 3.2.
    """

    def __init__(self, net: Layer, dtype: str, scale: LossScale | None = None) -> None:
        self.net = lowered(net, dtype)
        self.dtype = float_dtype(dtype)
        self.scale = scale
        self.overflowed = False
        self._masters, self._buffers = net.parameters(), net.buffers()
        self._copies = self.net.parameters()

    def parameters(self) -> dict[str, Parameter]:
        """The float32 parameters, by the names of the net."""
        return dict(self._masters)

    def buffers(self) -> dict[str, Buffer]:
        """The buffers, which both share."""
        return dict(self._buffers)

    def forward(self, x: Array, *, train: bool = False, key: Key | None = None) -> tuple[Array, Any]:
        """See `Layer.forward`."""
        for name, copy in self._copies.items():
            copy.value[...] = self._masters[name].value
        y, cache = self.net.forward(x.astype(self.dtype), train=train, key=key)
        return y.astype("float32"), cache

    def backward(self, dy: Array, cache: Any, *, input_gradient: bool = True) -> Array | None:
        """See `Layer.backward`."""
        scale = self.scale.value if self.scale else 1.0
        self.net.zero_grad()
        scaled = _divided(dy, 1 / scale).astype(self.dtype)
        dx = self.net.backward(scaled, cache, input_gradient=input_gradient)
        gradients = {
            name: _divided(copy.grad.astype("float32"), scale)
            for name, copy in self._copies.items()
            if copy.grad is not None
        }
        self.net.zero_grad()
        if self.scale:
            self.overflowed = not _finite(list(gradients.values()))
            self.scale = self.scale.after(self.overflowed)
        if not self.overflowed:
            for name, grad in gradients.items():
                self._masters[name].accumulate(grad)
        return None if dx is None else _divided(dx.astype("float32"), scale)

    @property
    def may_skip(self) -> bool:
        """Whether a lower loss scale may still cure a loss that is not finite."""
        return self.scale is not None and self.scale.value >= 1

    def output_shape(self, shape: Shape) -> Shape:
        """See `Layer.output_shape`."""
        return self.net.output_shape(shape)

    def state(self) -> dict[str, Any]:
        """The loss scale, ready for JSON; empty without one."""
        return {"value": self.scale.value, "good_steps": self.scale.good_steps} if self.scale else {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with the loss scale that `state` gave.

        Raises: ArgumentError for another state.
        """
        if bool(state) != bool(self.scale):
            raise ArgumentError(f"MixedPrecision: state: expected that of another precision, got {told(state)}")
        if self.scale:
            self.scale = replace(self.scale, **state)


def _divided(x: Array, scale: float) -> Array:
    return x if scale == 1 else x * x.dtype.type(1 / scale)


def _finite(gradients: list[Array]) -> bool:
    xp = array_module(gradients[0])
    return bool(xp.stack([xp.isfinite(grad).all() for grad in gradients]).all())  # a GPU is waited for once
