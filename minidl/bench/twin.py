"""A net of ours as a net of PyTorch's own modules, with copies of the same weights: what a user of PyTorch would write.

PyTorch must be installed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.arrays import Array
from minidl.errors import ArgumentError
from minidl.layer import Layer, Shape
from minidl.layers import (
    AvgPool2d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
    Sequential,
    Sigmoid,
    Tanh,
)
from minidl.window import Window


class Twin:
    """PyTorch's module, and the way between its tensors and our arrays.

    Flattened, our maps lie in the order h, w, c and PyTorch's in the order c, h, w. So the weights of the linear layer
    behind a `Flatten` are put into the other order, and the twin need not turn its maps in every pass.

    Raises: ArgumentError for a layer, or a setting, that no module of PyTorch has.
    """

    def __init__(self, net: Layer, shape: Shape) -> None:
        self.rows: dict[str, Array] = {}  # by name of a linear layer behind a map: our row for each of its own
        self._map: Shape | None = None
        self.module = self._module(net, shape, "")
        ours = net.parameters()
        for name, parameter in self.module.named_parameters():
            parameter.data = self.to_torch(name, ours[name].value)

    def to_torch(self, name: str, value: Array) -> Any:
        """A parameter in PyTorch's layout: (O, C, KH, KW) of a convolution, (outputs, inputs) of a linear layer."""
        import torch

        if name in self.rows:
            value = value[self.rows[name]]
        axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[value.ndim]
        return torch.from_numpy(np.ascontiguousarray(value.transpose(axes)).copy())

    def to_ours(self, name: str, tensor: Any) -> Array:
        """A parameter, or its gradient, in our layout."""
        value: Array = tensor.detach().cpu().float().numpy()
        value = value.transpose({4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[value.ndim])
        return value[np.argsort(self.rows[name])] if name in self.rows else np.ascontiguousarray(value)

    def gradients(self) -> dict[str, Array]:
        """Those of all parameters, by our names and in our layout."""
        return {name: self.to_ours(name, parameter.grad) for name, parameter in self.module.named_parameters()}

    def _module(self, layer: Layer, shape: Shape, path: str) -> Any:
        from torch import nn

        match layer:
            case Sequential():
                children = nn.Sequential()
                for name, child in layer.layers.items():
                    children.add_module(name, self._module(child, shape, f"{path}{name}."))
                    shape = child.output_shape(shape)
                return children
            case Conv2d():
                padding = _equal_padding(layer)
                return nn.Conv2d(
                    layer.in_channels, layer.out_channels, layer.window.kernel, layer.window.stride, padding,
                    layer.window.dilation, layer.groups, bias=layer.bias is not None,
                )  # fmt: skip
            case Linear():
                if self._map is not None:
                    H, W, C = self._map
                    self.rows[f"{path}weight"] = np.arange(H * W * C).reshape(H, W, C).transpose(2, 0, 1).ravel()
                    self._map = None
                return nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
            case Flatten():
                self._map = shape if len(shape) == 3 else None
                return nn.Flatten()
            case LocalResponseNorm() if layer.groups == 1 and layer.size % 2:
                return nn.LocalResponseNorm(layer.size, layer.scale * layer.size, layer.beta, layer.k)
            case MaxPool2d():
                return _max_pool2d(layer.window)
            case AvgPool2d():
                ceil = layer.window.rounding == "ceil"
                return nn.AvgPool2d(
                    layer.window.kernel, layer.window.stride, _equal_padding(layer), ceil, layer.count_include_pad
                )
            case Dropout():
                return nn.Dropout(layer.p)
            case ReLU():
                return nn.ReLU()
            case Tanh():
                return nn.Tanh()
            case Sigmoid():
                return nn.Sigmoid()
        raise ArgumentError(f"torch: {layer} has no counterpart among PyTorch's modules; measure a net without it")


def _equal_padding(layer: Conv2d | AvgPool2d) -> tuple[int, int]:
    (top, bottom), (left, right) = layer.window.padding
    if top != bottom or left != right or (isinstance(layer, Conv2d) and layer.window.rounding == "ceil"):
        raise ArgumentError(f"torch: {layer}: PyTorch's module knows equal padding only, and rounds down")
    return top, left


def _max_pool2d(window: Window) -> Any:
    from torch import nn

    (top, bottom), (left, right) = window.padding
    ceil = window.rounding == "ceil"
    if top == bottom and left == right:
        return nn.MaxPool2d(window.kernel, window.stride, (top, left), window.dilation, ceil_mode=ceil)
    pad = nn.ConstantPad2d((left, right, top, bottom), -np.inf)
    return nn.Sequential(pad, nn.MaxPool2d(window.kernel, window.stride, 0, window.dilation, ceil_mode=ceil))
