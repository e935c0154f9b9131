"""ONNX Runtime as a contender, for inference: our net as an ONNX graph, node by node."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.arrays import Array
from minidl.bench.task import NetTask, build, images_and_labels
from minidl.bench.work import Contender, Work
from minidl.combine import Sequential
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
    Sigmoid,
    Tanh,
)
from minidl.window import Window

OPSET, IR_VERSION = 17, 8  # old enough for every runtime of the last years
ELEMENTWISE = {ReLU: "Relu", Tanh: "Tanh", Sigmoid: "Sigmoid"}


class OnnxRuntime(Contender):
    """A session with all of the runtime's optimisations of the graph."""

    def net(self, task: NetTask) -> Work:
        """See `Contender.net`.

        Raises: ArgumentError for training, which ONNX Runtime does not do.
        """
        if task.mode != "infer":
            raise ArgumentError("onnxruntime: it only infers; measure it with --mode infer")
        net, shape = build(task.model)
        images, _ = images_and_labels(net, shape, task.batch)
        return Inference(session(to_onnx(net, shape).SerializeToString(), self.threads), images)


class Inference(Work):
    """The logits of a batch."""

    def __init__(self, session: Any, images: Array) -> None:
        self.session, self.images = session, np.ascontiguousarray(np.moveaxis(images, -1, 1))
        super().__init__({"infer": self.infer})

    def infer(self) -> Array:
        """One pass."""
        logits: Array = self.session.run(None, {"x": self.images})[0]
        return logits

    def results(self) -> dict[str, Array]:
        """See `Work.results`."""
        return {"logits": self.infer()}


def session(model: bytes, threads: int) -> Any:
    """A session of ONNX Runtime on so many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def to_onnx(net: Sequential, shape: Shape) -> Any:
    """The inference pass of a net as an ONNX model: x (N, C, H, W) → the net's output.

    Raises: ArgumentError for a layer that is not known here.
    """
    from onnx import TensorProto, helper

    graph = _Graph()
    y = graph.add(net, "x", shape, "")
    H, W, C = shape
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", C, H, W])
    output = helper.make_tensor_value_info(y, TensorProto.FLOAT, ["N", *net.output_shape(shape)])
    made = helper.make_graph(graph.nodes, "minidl", [image], [output], graph.weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


class _Graph:
    """Nodes and weights, as they come together."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.map: Shape | None = None  # that Flatten has met and no linear layer yet

    def add(self, layer: Layer, x: str, shape: Shape, path: str) -> str:
        """The name of the layer's output."""
        match layer:
            case Sequential():
                for name, child in layer.layers.items():
                    x = self.add(child, x, shape, f"{path}.{name}".removeprefix("."))
                    shape = child.output_shape(shape)
                return x
            case Conv2d():
                weight = self.weight(f"{path}.weight", layer.weight.value.transpose(3, 2, 0, 1))
                bias = [self.weight(f"{path}.bias", layer.bias.value)] if layer.bias else []
                _refuse_ceil(layer)
                return self.node("Conv", [x, weight, *bias], path, group=layer.groups, **_window(layer.window))
            case Linear():
                weight = self.weight(f"{path}.weight", self.rows_in_order(layer.weight.value))
                bias = [self.weight(f"{path}.bias", layer.bias.value)] if layer.bias else []
                return self.node("Gemm", [x, weight, *bias], path)
            case Flatten():
                self.map = shape if len(shape) == 3 else None
                return self.node("Flatten", [x], path)
            case LocalResponseNorm() if layer.groups == 1:
                constants = {"alpha": layer.scale * layer.size, "beta": layer.beta, "bias": float(layer.k)}
                return self.node("LRN", [x], path, size=layer.size, **constants)
            case MaxPool2d():
                return self.node("MaxPool", [x], path, **_window(layer.window), **_rounding(layer.window))
            case AvgPool2d() if layer.window.dilation == (1, 1):
                window = _window(layer.window) | _rounding(layer.window)
                del window["dilations"]
                return self.node("AveragePool", [x], path, count_include_pad=int(layer.count_include_pad), **window)
            case Dropout():
                return x
            case ReLU() | Tanh() | Sigmoid():
                return self.node(ELEMENTWISE[type(layer)], [x], path)
        raise ArgumentError(f"onnxruntime: {layer} cannot be exported; measure a net without it")

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node; the name of its output is that of the layer."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def weight(self, name: str, value: Array) -> str:
        """Add an array of weights."""
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def rows_in_order(self, weight: Array) -> Array:
        """The weight of a linear layer; behind a map its rows in the order c, h, w in which ONNX flattens."""
        if self.map is None:
            return weight
        ordered = weight.reshape(*self.map, -1).transpose(2, 0, 1, 3).reshape(weight.shape)
        self.map = None
        return ordered


def _window(window: Window) -> dict[str, Any]:
    (top, bottom), (left, right) = window.padding
    return {
        "kernel_shape": window.kernel,
        "strides": window.stride,
        "pads": (top, left, bottom, right),
        "dilations": window.dilation,
    }


def _rounding(window: Window) -> dict[str, Any]:
    return {"ceil_mode": int(window.rounding == "ceil")}


def _refuse_ceil(layer: Conv2d) -> None:
    if layer.window.rounding == "ceil":
        raise ArgumentError(f"onnxruntime: {layer}: ONNX's convolution rounds down")
