"""ONNX's own test cases: graphs with inputs and expected outputs, made by people who never saw this engine.

The adapter turns each operator of ONNX into a layer or an op of ours. It alone knows ONNX's layout, (N, C, …) with one
to three axes of space, and whatever else ONNX says in another way.
"""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tally

from minidl import models, settings
from minidl.layers import (
    AvgPool2d,
    BatchNorm2d,
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
    Parameter,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from minidl.losses import SoftmaxCrossEntropy
from minidl.ops.conv2d import col2im, conv2d_input_gradient, im2col
from minidl.ops.max_pool2d import max_pool2d_gradient, winner_dtype
from minidl.optim import SGD
from minidl.random import Key
from minidl.window import Window

onnx = pytest.importorskip("onnx", reason="ONNX is not installed, so none of its cases is run")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import onnx.backend.test.case.node as node_cases
    from onnx import numpy_helper
    from onnx.backend.test.loader import DATA_DIR, load_model_tests
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

Arrays = Sequence[np.ndarray]


# --- the adapter: layout ----------------------------------------------------------------------------------------
#
# Our layers slide over two axes. Over a third, D, they slide separately: an image of H×W first, then an "image" of
# D×(H·W) with a window of KD×1. What has fewer axes gets axes of 1 in front, over which a window of one tap slides.


def channels_last(x: np.ndarray) -> np.ndarray:
    """(N, C, [D, [H,]] W) → (N, D, H, W, C)."""
    N, C, *sizes = x.shape
    return np.moveaxis(x, 1, -1).reshape(N, *in_three(sizes), C)


def channels_first(y: np.ndarray, rank: int) -> np.ndarray:
    """(N, D, H, W, C) → (N, C, …) with the last `rank` of D, H and W."""
    return np.moveaxis(y.reshape(len(y), *y.shape[4 - rank :]), -1, 1)


def in_three(sizes: Sequence[int]) -> tuple[int, ...]:
    """One to three sizes as (D, H, W)."""
    return (*[1] * (3 - len(sizes)), *sizes)


def along(layer: Layer, x: np.ndarray, axis: int) -> np.ndarray:
    """A layer that works along its last axis, along another one."""
    return np.moveaxis(layer(np.moveaxis(x, axis, -1)), -1, axis)


def windows(
    sizes: Sequence[int],
    kernel_shape: Sequence[int],
    strides: Sequence[int] = (),
    pads: Sequence[int] = (),
    dilations: Sequence[int] = (),
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of our window over (H, W), and of the one over (D, H·W)."""
    rank = len(sizes)
    strides, dilations, pads = strides or [1] * rank, dilations or [1] * rank, pads or [0] * 2 * rank
    padding = list(zip(pads[:rank], pads[rank:], strict=True))
    if auto_pad.startswith("SAME"):  # ⌈n/s⌉ positions
        n, k, s, d = map(np.array, (sizes, kernel_shape, strides, dilations))
        padding = [halves(total, auto_pad) for total in (-(-n // s) - 1) * s + (k - 1) * d + 1 - n]
    one = 1, 1, (0, 0), 1  # the window of one tap
    depth, *plane = [one] * (3 - rank) + list(zip(kernel_shape, strides, padding, dilations, strict=True))
    return over_two_axes(plane, ceil_mode), over_two_axes([depth, one], ceil_mode)


def over_two_axes(axes: Sequence[tuple], ceil_mode: int) -> dict[str, Any]:
    kernel_size, stride, padding, dilation = zip(*axes, strict=True)
    return {
        "kernel_size": kernel_size,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "rounding": "ceil" if ceil_mode else "floor",
    }


def halves(total: int, auto_pad: str) -> tuple[int, int]:
    """Padding before and after, one of which gets the odd one; none where the total is negative."""
    small, large = max(total, 0) // 2, (max(total, 0) + 1) // 2
    return (small, large) if auto_pad == "SAME_UPPER" else (large, small)


def depth_into_channels(x: np.ndarray, depth: Window, groups: int) -> np.ndarray:
    """(N, D, H, W, C) → (N·OD, H, W, groups·KD·C/groups): a slab of KD planes as one plane of KD times the channels."""
    N, D, H, W, C = x.shape
    KD = depth.kernel[0]
    cols = im2col(x.reshape(N, D, H * W, C), depth).reshape(-1, H, W, KD, groups, C // groups)
    return cols.swapaxes(3, 4).reshape(-1, H, W, KD * C)


def channels_into_depth(slabs: np.ndarray, shape: tuple[int, ...], depth: Window, groups: int) -> np.ndarray:
    """The adjoint of `depth_into_channels`, back to an image of the shape (N, D, H, W, C)."""
    N, D, H, W, C = shape
    KD = depth.kernel[0]
    cols = slabs.reshape(N, -1, H * W, groups, KD, C // groups).swapaxes(3, 4)
    return col2im(cols.reshape(N, -1, H * W, KD, 1, C), (N, D, H * W, C), depth).reshape(shape)


def weight_of_slabs(weight: np.ndarray) -> np.ndarray:
    """(O, C/groups, [KD, [KH,]] KW) → (KH, KW, KD·C/groups, O)."""
    O, C, *kernel = weight.shape
    KD, KH, KW = in_three(kernel)
    return weight.reshape(O, C, KD, KH, KW).transpose(3, 4, 2, 1, 0).reshape(KH, KW, KD * C, O)


# --- the adapter: operators -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operator:
    """What stands for an operator of ONNX: the name of ours, and the translation.

    kind: "forward", "backward" (ours goes backward where ONNX's goes forward), "part" of a graph, not met alone as ONNX
        means it, or "layout", which only rearranges.
    """

    ours: str
    kind: str
    translate: Callable[..., Any]


OPERATORS: dict[str, Operator] = {}


def stands_for(op_type: str, ours: str, kind: str = "forward") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a translation: the operator's inputs, then its attributes with ONNX's defaults → its outputs."""

    def register(translate: Callable[..., Any]) -> Callable[..., Any]:
        OPERATORS[op_type] = Operator(ours, kind, translate)
        return translate

    return register


@stands_for("Conv", "Conv2d")
def conv(x, weight, bias=None, *, group=1, kernel_shape=(), **geometry):
    plane, depth = windows(x.shape[2:], weight.shape[2:], **geometry)
    slabs, weight = depth_into_channels(channels_last(x), Window.of(**depth), group), weight_of_slabs(weight)
    layer = Conv2d(slabs.shape[-1], weight.shape[-1], **plane, groups=group, bias=bias is not None)
    layer.weight.value = weight
    if bias is not None:
        layer.bias.value = bias
    y = layer(slabs)
    return channels_first(y.reshape(len(x), -1, *y.shape[1:]), x.ndim - 2)


@stands_for("MaxPool", "MaxPool2d")
def max_pool(x, *, storage_order=0, **geometry):
    """The maxima, and where in x they stand."""
    plane, depth = windows(x.shape[2:], **geometry)
    image = channels_last(x.astype(np.result_type(x, np.float32)))
    N, D, H, W, C = image.shape
    y, h, w = max_and_place(image.reshape(N * D, H, W, C), plane)
    OH, OW = y.shape[1:3]
    y, h, w = (array.reshape(N, D, OH * OW, C) for array in (y, h, w))
    y, d, _ = max_and_place(y, depth)
    h, w = (np.take_along_axis(array, d, axis=1) for array in (h, w))
    channel = np.arange(N)[:, None, None, None] * C + np.arange(C)
    place = np.ravel_multi_index((d, h, w), (D, H, W), order="CF"[storage_order]) + channel * D * H * W
    return tuple(channels_first(array.reshape(N, -1, OH, OW, C), x.ndim - 2) for array in (y.astype(x.dtype), place))


def max_and_place(x: np.ndarray, arguments: dict[str, Any]) -> tuple[np.ndarray, ...]:
    """The pooled x, and the rows and columns of the winners."""
    layer = MaxPool2d(**arguments)
    y, (winners, _) = layer.forward(x, train=True)
    window, positions = layer.window, np.indices(y.shape)[1:3]
    taps = np.divmod(winners.astype(np.int64), window.kernel[1])
    rows, columns = (
        positions[axis] * window.stride[axis] + taps[axis] * window.dilation[axis] - window.padding[axis][0]
        for axis in (0, 1)
    )
    return y, rows, columns


@stands_for("AveragePool", "AvgPool2d")
def average_pool(x, *, count_include_pad=0, **geometry):
    plane, depth = windows(x.shape[2:], **geometry)
    N, D, H, W, C = channels_last(x).shape
    y = AvgPool2d(**plane, count_include_pad=bool(count_include_pad))(channels_last(x).reshape(N * D, H, W, C))
    OH, OW = y.shape[1:3]
    y = AvgPool2d(**depth, count_include_pad=bool(count_include_pad))(y.reshape(N, D, OH * OW, C))
    return channels_first(y.reshape(N, -1, OH, OW, C), x.ndim - 2)


@stands_for("GlobalAveragePool", "GlobalAvgPool2d")
def global_average_pool(x):
    return along(GlobalAvgPool2d(), x, 1)


@stands_for("GlobalMaxPool", "GlobalMaxPool2d")
def global_max_pool(x):
    return along(GlobalMaxPool2d(), x, 1)


@stands_for("LRN", "LocalResponseNorm")
def lrn(x, *, size, alpha=1e-4, beta=0.75, bias=1.0):
    return along(LocalResponseNorm(size, alpha, beta, bias, average=True), x, 1)


@stands_for("BatchNormalization", "BatchNorm2d")
def batch_normalization(x, scale, bias, mean, var, *, epsilon=1e-5, momentum=0.9, training_mode=0, is_test=1):
    N, D, H, W, C = channels_last(x).shape
    layer = BatchNorm2d(C, epsilon, 1 - momentum)
    layer.gamma.value, layer.beta.value, layer.running_mean.value, layer.running_var.value = scale, bias, mean, var
    y, _ = layer.forward(channels_last(x).reshape(N, D * H, W, C), train=bool(training_mode))
    old, m = momentum * var, N * D * H * W
    biased = old + (layer.running_var.value - old) * np.float32((m - 1) / m)  # ours follows var·m/(m−1)
    return channels_first(y.reshape(N, D, H, W, C), x.ndim - 2), layer.running_mean.value, biased


@stands_for("Relu", "ReLU")
def relu(x):
    return ReLU()(x[None])[0]


@stands_for("Sigmoid", "Sigmoid")
def sigmoid(x):
    return Sigmoid()(x[None])[0]


@stands_for("Tanh", "Tanh")
def tanh(x):
    return Tanh()(x[None])[0]


@stands_for("Softmax", "Softmax")
def softmax(x, *, axis=-1):
    return along(Softmax(), x, axis)


@stands_for("LogSoftmax", "LogSoftmax")
def log_softmax(x, *, axis=-1):
    return along(LogSoftmax(), x, axis)


@stands_for("Flatten", "Flatten")
def flatten(x, *, axis=1):
    axis %= x.ndim
    return Flatten()(x.reshape(-1 if axis else 1, *x.shape[axis:]))


@stands_for("Gemm", "Linear")
def gemm(a, b, c=None, *, alpha=1.0, beta=1.0, transA=0, transB=0, broadcast=0):
    """Where each sample has a bias of its own, each is a batch of its own."""
    x, weight = a.T if transA else a, alpha * (b.T if transB else b)
    if c is None:
        return linear(x, weight)
    c = np.atleast_2d(beta * c)
    biases, batches = np.broadcast_to(c, (len(c), weight.shape[1])), np.split(x, len(c)) if len(c) > 1 else [x]
    return np.concatenate([linear(batch, weight, bias) for batch, bias in zip(batches, biases, strict=True)])


@stands_for("MatMul", "Linear", "part")
def linear(x, weight, bias=None):
    layer = Linear(*weight.shape, bias=bias is not None)
    layer.weight.value = weight
    if bias is not None:
        layer.bias.value = bias
    return layer(x)


@stands_for("Dropout", "Dropout")
def dropout(x, p=0.5, training=False, *, ratio=0.5, seed=0):
    """What becomes of a kept element is for the layer to say; which are kept, for NumPy's generator, as in ONNX."""
    layer, batch = Dropout(float(p)), x[None]
    if not training:
        return layer(batch)[0], np.ones(x.shape, bool)
    draws = np.concatenate([layer.forward(batch, train=True, key=Key(i))[0] for i in range(64)])
    kept = np.take_along_axis(draws, (draws != 0).argmax(axis=0)[None], axis=0)[0]
    assert ((draws == 0) | (draws == kept)).all() and (draws == 0).any() == (p > 0)
    mask = np.random.RandomState(seed).uniform(size=x.shape) >= p
    return np.where(mask, kept, 0), mask


@stands_for("SoftmaxCrossEntropyLoss", "SoftmaxCrossEntropy")
def softmax_cross_entropy(scores, labels, weight=None, *, reduction="mean", ignore_index=-100):
    loss = SoftmaxCrossEntropy(weight=weight, ignore_index=ignore_index, reduction=reduction)
    return loss.forward(np.moveaxis(scores, 1, -1), labels)[0], log_softmax(scores, axis=1)


@stands_for("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropy")
def negative_log_likelihood(x, labels, weight=None, *, reduction="mean", ignore_index=-100):
    """The cross entropy without its softmax, for softmax changes nothing where the e^x of all classes add up to 1.

    So lower each x by s, until they add up to less, and let one more class take the rest. The loss is linear in log p,
    hence it has grown by s times what it is where each log p is −1.
    """
    x = np.moveaxis(x, 1, -1).astype(np.float64)
    s = np.log(2 * np.exp(x).sum(axis=-1).max())
    rest = np.log1p(-np.exp(x - s).sum(axis=-1, keepdims=True))
    log_p, equal = np.concatenate([x - s, rest], axis=-1), np.zeros((*labels.shape, x.shape[-1] + 1))
    loss = SoftmaxCrossEntropy(None if weight is None else [*weight, 0], 0.0, ignore_index, reduction)
    grown = s * loss.forward(equal, labels)[0] / np.log(equal.shape[-1])
    return np.float32(loss.forward(log_p, labels)[0] - grown)


@stands_for("Col2Im", "col2im", "backward")
def column_to_image(cols, image_shape, block_shape, **geometry):
    plane, depth = (Window.of(**arguments) for arguments in windows(image_shape, block_shape, **geometry))
    N, (D, H, W), (KD, KH, KW) = len(cols), in_three(image_shape), in_three(block_shape)
    OH, OW = plane.output_size(H, W)
    cols = cols.reshape(N, -1, KD, KH, KW, depth.output_size(D, 1)[0], OH, OW).transpose(0, 5, 6, 7, 3, 4, 2, 1)
    C = cols.shape[-1]
    slabs = col2im(cols.reshape(-1, OH, OW, KH, KW, KD * C), (cols.shape[1] * N, H, W, KD * C), plane)
    return channels_first(channels_into_depth(slabs, (N, D, H, W, C), depth, 1), len(image_shape))


@stands_for("ConvTranspose", "conv2d_input_gradient", "backward")
def conv_transpose(
    dy, weight, bias=None, *, group=1, strides=(), pads=(), dilations=(), output_padding=(), output_shape=(),
    kernel_shape=(), auto_pad="NOTSET",
):  # fmt: skip
    """The input gradient of a convolution whose output gradient is given."""
    rank = dy.ndim - 2
    strides, dilations, pads = strides or [1] * rank, dilations or [1] * rank, pads or [0] * 2 * rank
    n, k, s, d = map(np.array, (dy.shape[2:], weight.shape[2:], strides, dilations))
    reach = (n - 1) * s + (k - 1) * d + 1 + np.array(output_padding or 0)
    sizes = reach - pads[:rank] - pads[rank:]
    if output_shape or auto_pad.startswith("SAME"):
        sizes = np.array(output_shape or n * s)
        pads = np.transpose([halves(total, auto_pad) for total in reach - sizes]).ravel().tolist()

    plane, depth = (Window.of(**arguments) for arguments in windows(sizes, weight.shape[2:], strides, pads, dilations))
    N, (D, H, W), C = len(dy), in_three(sizes), weight.shape[1] * group
    planes = channels_last(dy).reshape(-1, *channels_last(dy).shape[2:])
    slabs = (len(planes), H, W, C * depth.kernel[0])
    dslabs = conv2d_input_gradient(planes, weight_of_slabs(weight), slabs, plane, group)
    dx = channels_into_depth(dslabs, (N, D, H, W, C), depth, group)
    return channels_first(dx if bias is None else dx + bias, rank)


@stands_for("MaxUnpool", "max_pool2d_gradient", "backward")
def max_unpool(dy, places, output_shape=None, *, kernel_shape, strides):
    """The gradient of max pooling. The places count in the smallest image that the windows fill."""
    window = Window.of(kernel_shape, strides)
    N, C, OH, OW = dy.shape
    H, W = ((n - 1) * s + k for n, s, k in zip((OH, OW), strides, kernel_shape, strict=True))
    h, w = np.divmod(places % (H * W), W)
    taps = (h - np.arange(OH)[:, None] * strides[0]) * kernel_shape[1] + w - np.arange(OW) * strides[1]
    if output_shape is not None:
        H, W = output_shape[2:].tolist()
    dy, winners = (np.moveaxis(array, 1, -1) for array in (dy, taps.astype(winner_dtype(window))))
    return np.moveaxis(max_pool2d_gradient(dy, winners, (N, H, W, C), window), -1, 1)


@stands_for("Momentum", "SGD", "backward")
def momentum_update(lr, step, *arrays, alpha, beta, norm_coefficient, mode):
    """ONNX lets a gradient count beta-fold after the first step; weight decay is part of the gradient."""
    count = len(arrays) // 3
    values, grads, velocities = arrays[:count], arrays[count : 2 * count], arrays[2 * count :]
    factor = beta if step > 0 else 1.0
    parameters = {str(i): Parameter(value.copy()) for i, value in enumerate(values)}
    for parameter, grad in zip(parameters.values(), grads, strict=True):
        parameter.grad = factor * grad
    sgd = SGD(parameters, alpha, factor * norm_coefficient, nesterov=mode == "nesterov", update="torch")
    state = {f"velocity.{i}": velocity for i, velocity in enumerate(velocities)}
    sgd.load_state_dict(state | {f"updates.{i}": step for i in parameters})
    sgd.step(float(lr))
    return *(parameter.value for parameter in parameters.values()), *(sgd.state[i]["velocity"] for i in parameters)


@stands_for("Unsqueeze", "", "layout")
def unsqueeze(x, *, axes):
    return np.expand_dims(x, axes)


@stands_for("Squeeze", "", "layout")
def squeeze(x, *, axes):
    return np.squeeze(x, tuple(axes))


@stands_for("Transpose", "", "layout")
def transpose(x, *, perm):
    return x.transpose(perm)


@stands_for("Constant", "", "layout")
def given(*, value):
    return numpy_helper.to_array(value)


def run(model: Any, inputs: Arrays) -> list[np.ndarray]:
    """The outputs of a graph of operators."""
    graph = model.graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer} | {"": None}
    values |= zip((entry.name for entry in graph.input if entry.name not in values), inputs, strict=True)
    for node in graph.node:
        outputs = OPERATORS[node.op_type].translate(*(values[name] for name in node.input), **attributes(node))
        values |= zip(node.output, outputs if isinstance(outputs, tuple) else (outputs,), strict=False)
    return [values[entry.name] for entry in graph.output]


def attributes(node: Any) -> dict[str, Any]:
    """An operator's attributes by name. ONNX keeps 1e-4 in float32: the shortest number that rounds to it is meant."""
    found = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    plain = {bytes: bytes.decode, float: lambda value: float(str(np.float32(value)))}
    return {name: plain.get(type(value), lambda same: same)(value) for name, value in found.items()}


# --- the cases --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A model of ONNX and what it should do, with the tolerance that ONNX states."""

    name: str
    model: Any
    data: Callable[[], Sequence[tuple[Arrays, Arrays]]]
    rtol: float
    atol: float

    @property
    def operator(self) -> Operator:
        """The first of ours; the others, if any, are of the same layer or only rearrange."""
        return next(found for op_type in self.op_types() if (found := OPERATORS[op_type]).ours)

    def op_types(self) -> list[str]:
        return [node.op_type for node in self.model.graph.node]

    def is_ours(self) -> bool:
        types = self.op_types()
        return OPERATORS.keys() >= set(types) and any(OPERATORS[op_type].ours for op_type in types)


def load_node_cases() -> Iterator[Case]:
    """The cases of single operators. ONNX makes those of an operator when the module named after it is imported."""
    names = [op_type.lower() for op_type in OPERATORS]
    for module in pkgutil.iter_modules(node_cases.__path__):
        if any(name.startswith(module.name.replace("_", "")) for name in names):
            importlib.import_module(f"{node_cases.__name__}.{module.name}")
    for case in node_cases._NodeTestCases:
        if not case.name.endswith("_expanded"):  # an operator as a graph of smaller ones, with the same numbers
            yield Case(case.name, case.model, lambda case=case: case.data_sets, case.rtol, case.atol)


def load_pytorch_cases() -> Iterator[Case]:
    """What PyTorch's modules were exported as, with what they computed."""
    for kind in ("pytorch-converted", "pytorch-operator"):
        for case in sorted(load_model_tests(kind=kind), key=lambda case: case.name):
            folder = Path(case.model_dir)
            yield Case(case.name, onnx.load(folder / "model.onnx"), lambda f=folder: read(f), case.rtol, case.atol)


def read(folder: Path) -> list[tuple[Arrays, Arrays]]:
    """The inputs and outputs that lie beside a model, as sets."""

    def tensors(data_set: Path, name: str) -> list[np.ndarray]:
        count = len(list(data_set.glob(f"{name}_*.pb")))
        return [numpy_helper.to_array(onnx.load_tensor(data_set / f"{name}_{i}.pb")) for i in range(count)]

    return [(tensors(data_set, "input"), tensors(data_set, "output")) for data_set in folder.glob("test_data_set_*")]


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    NODE_CASES = [case for case in load_node_cases() if case.is_ours()]
    PYTORCH_CASES = [case for case in load_pytorch_cases() if case.is_ours()]


def by_layer(cases: Sequence[Case]) -> Any:
    names = [f"{case.operator.ours}-{case.name}" for case in cases]
    return pytest.mark.parametrize("case", cases, ids=names)


def of_kind(kind: str) -> list[Case]:
    return [case for case in NODE_CASES if case.operator.kind == kind]


# --- the tests --------------------------------------------------------------------------------------------------

LEAST = {
    "Conv": 6, "MaxPool": 13, "AveragePool": 13, "GlobalAveragePool": 2, "GlobalMaxPool": 2, "LRN": 2, "Relu": 1,
    "Softmax": 7, "LogSoftmax": 7, "Gemm": 11, "Flatten": 9, "Dropout": 12, "SoftmaxCrossEntropyLoss": 16,
    "NegativeLogLikelihoodLoss": 2, "Col2Im": 4, "ConvTranspose": 9, "MaxUnpool": 2, "Momentum": 3,
}  # fmt: skip
ROUNDED = {"test_averagepool_2d_ceil_last_window_starts_on_pad"}  # its outputs are printed with four digits


def test_the_cases_are_found():
    found = Counter(op_type for case in NODE_CASES for op_type in case.op_types())
    assert {op_type: count for op_type, count in LEAST.items() if found[op_type] < count} == {}
    assert len(PYTORCH_CASES) >= 24


@by_layer(of_kind("forward"))
def test_forward(kernels, case):
    assert_outputs(case)
    count("forward", kernels)


@by_layer(of_kind("backward"))
def test_backward(kernels, case):
    assert_outputs(case)
    count("backward", kernels)


@by_layer([case for case in NODE_CASES if case.op_types() == ["MaxPool"] and len(case.model.graph.output) == 2])
def test_gradients_go_to_the_maxima_that_onnx_found(kernels, case):
    [((x,), (_, places))] = case.data()
    geometry = attributes(case.model.graph.node[0])
    column_major = geometry.pop("storage_order", 0)
    layer = MaxPool2d(**windows(x.shape[2:], **geometry)[0])
    _, cache = layer.forward(np.moveaxis(x, 1, -1), train=True)
    dy = np.arange(1, 1 + places.size, dtype=x.dtype).reshape(places.shape)
    dx = np.moveaxis(layer.backward(np.moveaxis(dy, 1, -1), cache), -1, 1)

    expected = np.zeros(x.size, x.dtype)
    np.add.at(expected, places.ravel(), dy.ravel())
    if column_major:
        dx = dx.swapaxes(2, 3)
    np.testing.assert_array_equal(dx.ravel(), expected)
    count("backward", kernels)


@by_layer(PYTORCH_CASES)
def test_what_pytorch_made(kernels, case):
    assert_outputs(case)
    count("PyTorch-made", kernels)


def assert_outputs(case: Case) -> None:
    """Compare a hundred times as closely as ONNX asks, which sees even what LRN does at α = 1e-4."""
    rtol = case.rtol if case.name in ROUNDED else case.rtol / 100
    assert case.data()
    for inputs, expected in case.data():
        for found, output in zip(run(case.model, inputs), expected, strict=True):
            assert found.shape == output.shape and found.dtype == output.dtype
            np.testing.assert_allclose(found, output, rtol=rtol, atol=case.atol)


def count(subject: str, kernels: str) -> None:
    """Count a case once, though it runs by the ops' bodies and by the kernels."""
    tally["ONNX"][subject] += kernels == "auto"


# --- the models -------------------------------------------------------------------------------------------------
#
# The zoo's AlexNet and VGG come without their weights: each is a constant of a stored shape.

LAYERS: dict[str, Callable[..., Layer]] = {  # of the shapes of an operator's inputs, and its attributes
    "Conv": lambda x, weight, bias, group=1, **geometry: Conv2d(
        x[1], weight[0], **windows(x[2:], **geometry)[0], groups=group
    ),
    "Relu": lambda x: ReLU(),
    "LRN": lambda x, size, alpha, beta, bias: LocalResponseNorm(size, alpha, beta, bias, average=True),
    "MaxPool": lambda x, **geometry: MaxPool2d(**windows(x[2:], **geometry)[0]),
    "Reshape": lambda x, shape: Flatten(),
    "Gemm": lambda x, weight, bias, transB: Linear(x[1], weight[0]),
    "Dropout": lambda x, ratio: Dropout(ratio),
    "Softmax": lambda x: Softmax(),
}
AXES = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}  # (O, C, KH, KW) → (KH, KW, C, O); (outputs, inputs) → (inputs, outputs)


class Zoo:
    """A model of ONNX's zoo."""

    def __init__(self, name: str) -> None:
        self.model = onnx.shape_inference.infer_shapes(onnx.load(Path(DATA_DIR, "light", f"light_{name}.onnx")))
        graph = self.model.graph
        self.shapes = {
            entry.name: tuple(axis.dim_value for axis in entry.type.tensor_type.shape.dim)
            for entry in (*graph.input, *graph.value_info, *graph.output)
        }
        self.nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
        weighted = (node for node in self.nodes if node.op_type in ("Conv", "Gemm"))
        self.weights = [name for node in weighted for name in node.input[1:]]

    def layers(self) -> Iterator[tuple[Layer, tuple[int, ...]]]:
        """Each operator as a layer of ours, and the shape of its output."""
        for node in self.nodes:
            shapes = (self.shapes[name] for name in node.input)
            yield LAYERS[node.op_type](*shapes, **attributes(node)), self.shapes[node.output[0]]

    def logits(self, x: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
        """What ONNX's own reference computes from x and the weights, up to the last softmax."""
        graph = onnx.GraphProto()
        graph.input.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in ("data_0", *weights))
        graph.initializer.extend(t for t in self.model.graph.initializer if t.name not in weights)
        graph.node.extend(self.nodes[:-1])
        graph.output.extend([onnx.helper.make_tensor_value_info(self.nodes[-1].input[0], 1, None)])
        model = onnx.helper.make_model(graph, opset_imports=self.model.opset_import)
        return ReferenceEvaluator(model, new_ops=[LRN]).run(None, {"data_0": x} | weights)[0]


class LRN(OpRun):
    """ONNX's specification of the operator; the reference's own mistakes the samples for the channels."""

    def _run(self, x, alpha, beta, bias, size):
        below, C = (size - 1) // 2, x.shape[1]
        squares = np.pad(x * x, ((0, 0), (below, size - 1 - below), (0, 0), (0, 0)))
        return (x / (bias + alpha / size * sum(squares[:, i : i + C] for i in range(size))) ** beta,)


@pytest.mark.parametrize("name", ["bvlc_alexnet", "vgg19"])
def test_a_model_is_that_of_the_zoo(name):
    zoo, net, shape = Zoo(name), models.get(name).build(), (224, 224, 3)
    for layer, (expected, output) in zip([*net.layers.values(), Softmax()], zoo.layers(), strict=True):
        shape = layer.output_shape(shape)
        assert type(layer) is type(expected) and arguments(layer) == arguments(expected)
        assert (1, shape[-1], *shape[:-1]) == output

    weights = {name.replace("_w_0", ".weight").replace("_b_0", ".bias"): zoo.shapes[name] for name in zoo.weights}
    expected = {name: tuple(shape[axis] for axis in AXES[len(shape)]) for name, shape in weights.items()}
    assert {name: parameter.shape for name, parameter in net.parameters().items()} == expected
    count("structures", "auto")


def arguments(layer: Layer) -> dict[str, Any]:
    """All settings of a layer."""
    return {name: value for name, value in vars(layer).items() if not isinstance(value, Parameter)}


def test_alexnet_computes_what_onnx_computes():
    zoo, net, draw = Zoo("bvlc_alexnet"), models.bvlc_alexnet(), np.random.default_rng(0).standard_normal
    weights = {}
    for name, parameter in zip(zoo.weights, net.parameters().values(), strict=True):
        shape = zoo.shapes[name]
        weights[name] = draw(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        parameter.value = weights[name].transpose(AXES[len(shape)])
    # The first linear layer reads its 6×6×256 inputs in the order h, w, c.
    net["fc6"].weight.value = weights["fc6_w_0"].reshape(-1, 256, 6, 6).transpose(2, 3, 1, 0).reshape(9216, -1)

    x = 100 * draw((1, 3, 224, 224), np.float32)  # pixels: large enough for LRN to matter
    expected = zoo.logits(x, weights)
    for kernels in ("reference", "auto"):
        with settings(kernels=kernels):
            np.testing.assert_allclose(net(np.moveaxis(x, 1, -1)), expected, atol=1e-5 * np.abs(expected).max())
