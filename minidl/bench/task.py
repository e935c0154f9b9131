"""What is measured: a whole net, one layer of it at the shapes that it has there, its loss, its update.

A task is a small value that travels to the processes that do it. Each builds the same net with the same weights, and
the same batch, so that their results can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from minidl.arrays import Array
from minidl.combine import Container, Sequential
from minidl.errors import UnknownNameError
from minidl.initializers import SCHEMES, initialize, normal
from minidl.layer import Layer, Shape
from minidl.layers import Conv2d, Dropout, Linear, LocalResponseNorm, MaxPool2d, ReLU
from minidl.random import Key

KEY = Key(0)
MODES = ("train", "infer")
LAYERS: dict[str, type[Layer]] = {
    "conv2d": Conv2d,
    "linear": Linear,
    "max_pool2d": MaxPool2d,
    "local_response_norm": LocalResponseNorm,
    "relu": ReLU,
    "dropout": Dropout,
}
OPS = (*LAYERS, "softmax_cross_entropy", "sgd")
GEMM_BOUND = ("conv2d", "linear")
PRECISIONS = ("float32", "tf32", "bf16", "fp16")  # that can be measured
HALVES = ("bf16", "fp16")

LR, MOMENTUM, DECAY = 1e-3, 0.9, 5e-4  # a rate at which no weight runs away, however often the batch is repeated


@dataclass(frozen=True)
class NetTask:
    """Training steps or inference passes of a model on one batch of random images."""

    model: str
    mode: str
    batch: int

    def __str__(self) -> str:
        return f"{self.model}, {self.mode}, batch {self.batch}"


@dataclass(frozen=True)
class OpTask:
    """An op of a model on one batch.

    layer: the dotted path of the layer that it belongs to; "loss" and "update" for those of the net.
    count: how many layers of the net are the same, at the same shape.
    """

    model: str
    op: str
    layer: str
    batch: int
    count: int = 1

    def __str__(self) -> str:
        return f"{self.op} at {self.layer} of {self.model}, batch {self.batch}"


@dataclass(frozen=True)
class LimitTask:
    """What the machine can do: a matrix product, and a copy of memory."""

    size: int = 2048  # of the square matrices
    numbers: int = 1 << 25  # that are copied: more than a cache holds


Task = NetTask | OpTask | LimitTask


@dataclass(frozen=True)
class Site:
    """A layer at its place in a net: its path and the shape of its input, without the batch."""

    path: str
    layer: Layer
    shape: Shape
    is_first: bool = False  # nobody needs the gradient of the images


def describe(model: str) -> tuple[Sequential, Shape]:
    """The net that a name or a call stands for, no weight drawn yet, and the shape of its images.

    Raises: ArgumentError, UnknownNameError for an unknown model, option or value.
    """
    from minidl import models

    architecture, options = models.parse(model)
    size, channels = architecture.input_size, options.get("in_channels", architecture.input_channels)
    return architecture.build(**options), (size, size, channels)


def build(model: str) -> tuple[Sequential, Shape]:
    """The net with its weights, and the shape of its images."""
    net, shape = describe(model)
    draw_weights(net)
    return net, shape


def draw_weights(layer: Layer) -> None:
    """The same weights in every process. Biases are not zero, or one that is forgotten would not be noticed."""
    known = layer.parameters()
    scheme = {"*weight": SCHEMES["he"]["*weight"], "*bias": normal(0.1)}
    initialize(layer, {p: draw for p, draw in scheme.items() if any(n.endswith(p[1:]) for n in known)}, KEY)


def images_and_labels(net: Layer, shape: Shape, batch: int) -> tuple[Array, Array]:
    """A batch of noise: the time does not depend on what the images show."""
    generator = np.random.default_rng(1)
    images = generator.standard_normal((batch, *shape), dtype=np.float32)
    return images, generator.integers(0, net.output_shape(shape)[-1], batch)


def logits_and_labels(task: OpTask) -> tuple[Array, Array]:
    """What arrives at the loss of a net."""
    net, shape = describe(task.model)
    classes = net.output_shape(shape)[-1]
    return noise(4, task.batch, classes), np.random.default_rng(5).integers(0, classes, task.batch)


def noise(seed: int, *shape: int) -> Array:
    """Normally distributed numbers, the same for the same seed."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def sites(layer: Layer, shape: Shape, path: str = "", is_first: bool = True) -> Iterator[Site]:
    """The layers of a net in their order, with the shapes that arrive there."""
    if not isinstance(layer, Container):
        yield Site(path, layer, shape, is_first)
        return
    for name, child in layer.layers.items():
        yield from sites(child, shape, f"{path}.{name}".removeprefix("."), is_first)
        if isinstance(layer, Sequential):
            shape, is_first = child.output_shape(shape), False


def site(task: OpTask) -> Site:
    """The layer that a task is about; it has no weights yet."""
    return next(site for site in sites(*describe(task.model)) if site.path == task.layer)


def op_tasks(op: str, model: str, batch: int) -> list[OpTask]:
    """An op wherever the model has it, layers that are alike once; "all" stands for all ops.

    Raises: UnknownNameError for an op that is not measured; ArgumentError for an unknown model.
    """
    if op not in (*OPS, "all"):
        raise UnknownNameError("op", op, [*OPS, "all"])
    net, shape = describe(model)
    found: dict[tuple[str, Shape, bool], OpTask] = {}
    for place in sites(net, shape):
        for name, kind in LAYERS.items():
            if isinstance(place.layer, kind) and op in (name, "all"):
                alike = (str(place.layer), place.shape, place.is_first)
                task = found.get(alike, OpTask(model, name, place.path, batch, count=0))
                found[alike] = replace(task, count=task.count + 1)
    others = [OpTask(model, "softmax_cross_entropy", "loss", batch), OpTask(model, "sgd", "update", batch)]
    return [*found.values(), *(task for task in others if op in (task.op, "all"))]


# --- what a task costs ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What one run of an op cannot avoid: arithmetic, and numbers that it must read or write once."""

    flop: float
    bytes: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flop + other.flop, self.bytes + other.bytes)


def least_bytes(task: OpTask, precision: str = "float32") -> float:
    """What the run of an op that moves least must move."""
    return min(cost.bytes for cost in costs(task, precision).values())


def costs(task: OpTask, precision: str = "float32") -> dict[str, Cost]:
    """The cost of each run of an op: "forward", "backward", "both", or of SGD "update".

    Comparisons, roots and powers count as one operation each. What an implementation keeps for its own use, such as
    the places of the maxima, is not counted. In half precision a layer's numbers have two bytes; the loss and the
    update are computed in float32.
    """
    known = _costs(task)
    if precision in HALVES and task.op in LAYERS:
        return {run: Cost(cost.flop, cost.bytes / 2) for run, cost in known.items()}
    return known


def _costs(task: OpTask) -> dict[str, Cost]:
    """In float32."""
    net, shape = describe(task.model)
    if task.op == "sgd":
        size = sum(parameter.size for parameter in net.parameters().values())
        return {"update": Cost(6 * size, 4 * 5 * size)}  # reads value, gradient, velocity; writes value, velocity
    if task.op == "softmax_cross_entropy":
        logits = task.batch * net.output_shape(shape)[-1]
        return _both(forward=Cost(4 * logits, 4 * logits), backward=Cost(3 * logits, 4 * 2 * logits))
    place = site(task)
    x = task.batch * math.prod(place.shape)
    y = task.batch * math.prod(place.layer.output_shape(place.shape))
    if task.op in GEMM_BOUND:
        return _product_costs(place, 2 * task.batch * place.layer.macs(place.shape), x, y)
    forward, backward = _operations(place.layer)
    # Only pooling has fewer outputs than inputs: it computes by output. ReLU and LRN go back by what they have seen.
    seen = x if task.op in ("relu", "local_response_norm") else 0
    return _both(forward=Cost(forward * y, 4 * (x + y)), backward=Cost(backward * y, 4 * (y + x + seen)))


def _product_costs(place: Site, flop: int, x: int, y: int) -> dict[str, Cost]:
    weight = sum(parameter.size for parameter in place.layer.parameters().values())
    product = Cost(flop, 4 * (x + weight + y))
    if place.is_first:
        return _both(forward=product, backward=product)
    return {
        **_both(forward=product, backward=product + product),
        "input gradient": product,
        "weight gradient": product,
    }


def _both(forward: Cost, backward: Cost) -> dict[str, Cost]:
    return {"forward": forward, "backward": backward, "both": forward + backward}


def _operations(layer: Layer) -> tuple[int, int]:
    """Operations for each output, forward and backward."""
    if isinstance(layer, LocalResponseNorm):
        return layer.size + 5, 2 * layer.size + 10
    if isinstance(layer, MaxPool2d):
        return math.prod(layer.window.kernel), 1
    return 1, 1
