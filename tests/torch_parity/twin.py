"""A layer of ours as PyTorch computes it: the same arrays in PyTorch's layout, the same dropout masks."""

from __future__ import annotations

import numpy as np
import pytest

from minidl.layers import (
    AvgPool2d,
    BatchNorm2d,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    Layer,
    Linear,
    LocalResponseNorm,
    LogSoftmax,
    MaxPool2d,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Sum,
    Tanh,
)
from minidl.ops.dropout import dropout_mask
from minidl.random import Key
from minidl.window import Window

torch = pytest.importorskip("torch", reason="PyTorch is not installed, so nothing is compared with it")
F = torch.nn.functional


# --- between the two layouts ------------------------------------------------------------------------------------


def channels_first(x: np.ndarray) -> torch.Tensor:
    """Our (N, …, C) as PyTorch's (N, C, …)."""
    return torch.tensor(np.moveaxis(x, -1, 1)).contiguous()


def channels_last(x: torch.Tensor) -> np.ndarray:
    return x.detach().movedim(1, -1).numpy()


def to_torch_weight(weight: np.ndarray) -> torch.Tensor:
    """(KH, KW, C, O) as PyTorch's (O, C, KH, KW); (inputs, outputs) as (outputs, inputs). A copy, in our order."""
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[weight.ndim]
    return torch.tensor(weight).permute(axes)


def from_torch_weight(weight: torch.Tensor) -> np.ndarray:
    axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[weight.ndim]
    return weight.detach().numpy().transpose(axes)


# --- the twin ---------------------------------------------------------------------------------------------------


class Twin:
    """A layer or net in PyTorch, with copies of its parameters and buffers.

    The arithmetic is PyTorch's own function wherever it has one for the settings. What it lacks (another padding on
    each side, "ceil" in a convolution, dilation in an average) is composed of functions that it has.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.parameters = {name: to_torch_weight(p.value).requires_grad_() for name, p in layer.parameters().items()}
        self.buffers = {name: torch.tensor(b.value) for name, b in layer.buffers().items()}
        ours, theirs = layer.parameters() | layer.buffers(), self.parameters | self.buffers
        self._tensors = {id(holder): theirs[name] for name, holder in ours.items()}

    def __call__(self, x: torch.Tensor, key: Key, train: bool = True) -> torch.Tensor:
        return self._run(self.layer, x, key, train)

    def backward(self, images: np.ndarray, labels: np.ndarray, key: Key) -> float:
        """The cross entropy of a batch; its gradients are then in the parameters."""
        for parameter in self.parameters.values():
            parameter.grad = None
        loss = F.cross_entropy(self(channels_first(images), key), torch.tensor(labels))
        loss.backward()
        return float(loss.detach())

    def _of(self, holder) -> torch.Tensor | None:
        return self._tensors[id(holder)] if holder else None

    def _run(self, layer: Layer, x: torch.Tensor, key: Key, train: bool) -> torch.Tensor:
        match layer:
            case Sequential():
                for name, child in layer.layers.items():
                    x = self._run(child, x, key.at(name), train)
                return x
            case Sum():
                return torch.stack(self._branches(layer, x, key, train)).sum(0)
            case Concat():
                return torch.cat(self._branches(layer, x, key, train), dim=1)
            case Conv2d():
                return conv2d(x, self._of(layer.weight), self._of(layer.bias), layer.window, layer.groups)
            case Linear():
                return F.linear(x, self._of(layer.weight), self._of(layer.bias))
            case BatchNorm2d():
                mean, var, gamma, beta = map(self._of, (layer.running_mean, layer.running_var, layer.gamma, layer.beta))
                return F.batch_norm(x, mean, var, gamma, beta, train, layer.momentum, layer.eps)
            case Dropout():
                return dropout(x, layer.p, key) if train else x
            case LocalResponseNorm():
                return local_response_norm(x, layer)
            case MaxPool2d():
                return max_pool2d(x, layer.window)
            case AvgPool2d():
                return avg_pool2d(x, layer.window, layer.count_include_pad)
            case GlobalAvgPool2d():
                return F.adaptive_avg_pool2d(x, 1)
            case GlobalMaxPool2d():
                return F.adaptive_max_pool2d(x, 1)
            case Flatten():
                return x.movedim(1, -1).flatten(1)  # h, w, c
            case ReLU():
                return F.relu(x)
            case Sigmoid():
                return torch.sigmoid(x)
            case Tanh():
                return torch.tanh(x)
            case Softmax():
                return F.softmax(x, dim=1)
            case LogSoftmax():
                return F.log_softmax(x, dim=1)
        raise TypeError(f"no twin for {layer}")

    def _branches(self, layer: Sum | Concat, x: torch.Tensor, key: Key, train: bool) -> list[torch.Tensor]:
        return [self._run(branch, x, key.at(name), train) for name, branch in layer.layers.items()]


def conv2d(x: torch.Tensor, weight, bias, window: Window, groups: int) -> torch.Tensor:
    return cut(F.conv2d(padded(x, window), weight, bias, window.stride, 0, window.dilation, groups), x, window)


def max_pool2d(x: torch.Tensor, window: Window) -> torch.Tensor:
    if padding := pooling_padding(window):
        return F.max_pool2d(x, window.kernel, window.stride, padding, window.dilation, window.rounding == "ceil")
    image = padded(x, window, -torch.inf, -torch.inf)
    return cut(F.max_pool2d(image, window.kernel, window.stride, 0, window.dilation), x, window)


def avg_pool2d(x: torch.Tensor, window: Window, count_include_pad: bool) -> torch.Tensor:
    padding = pooling_padding(window)
    if padding and window.dilation == (1, 1):
        return F.avg_pool2d(x, window.kernel, window.stride, padding, window.rounding == "ceil", count_include_pad)
    C = x.shape[1]
    taps = torch.ones((C, 1, *window.kernel), dtype=x.dtype)
    counted = padded(torch.ones_like(x), window, float(count_include_pad))
    total, count = (
        F.conv2d(image, taps, None, window.stride, 0, window.dilation, groups=C)
        for image in (padded(x, window), counted)
    )
    return cut(total, x, window) / cut(count, x, window)


def pooling_padding(window: Window) -> tuple[int, int] | None:
    """The padding as PyTorch's pools take it: equal on both sides, at most half a kernel; None where it is not."""
    (top, bottom), (left, right) = window.padding
    taken = top == bottom <= window.kernel[0] // 2 and left == right <= window.kernel[1] // 2
    return (top, left) if taken else None


def padded(x: torch.Tensor, window: Window, value: float = 0.0, beyond: float = 0.0) -> torch.Tensor:
    """The image with its padding; for "ceil" longer by a stride less one, since ⌈n/s⌉ = ⌊(n + s − 1)/s⌋."""
    (top, bottom), (left, right) = window.padding
    x = F.pad(x, (left, right, top, bottom), value=value)
    SH, SW = window.stride
    return F.pad(x, (0, SW - 1, 0, SH - 1), value=beyond) if window.rounding == "ceil" else x


def cut(y: torch.Tensor, x: torch.Tensor, window: Window) -> torch.Tensor:
    """Less the positions that `padded` added beyond those of "ceil"."""
    if window.rounding == "floor":
        return y
    OH, OW = window.output_size(*x.shape[2:])
    return y[:, :, :OH, :OW]


def dropout(x: torch.Tensor, p: float, key: Key) -> torch.Tensor:
    """With the mask that our dropout draws, which depends on the place of an element in (N, …, C)."""
    mask = dropout_mask(np.empty(x.movedim(1, -1).shape, np.float32), p, key)
    return x * channels_first(mask) / (1 - p)


def local_response_norm(x: torch.Tensor, layer: LocalResponseNorm) -> torch.Tensor:
    """PyTorch divides alpha by the size, always; and its window of even size reaches further down, ours further up."""
    alpha = layer.alpha if layer.average else layer.alpha * layer.size

    def normalise(tower: torch.Tensor) -> torch.Tensor:
        pixels = tower.flatten(2) if tower.ndim > 2 else tower[..., None]
        if layer.size % 2:
            y = F.local_response_norm(pixels, layer.size, alpha, layer.beta, layer.k)
        else:
            y = F.local_response_norm(pixels.flip(1), layer.size, alpha, layer.beta, layer.k).flip(1)
        return y.reshape(tower.shape)

    return torch.cat([normalise(tower) for tower in x.chunk(layer.groups, dim=1)], dim=1)
