"""minidl itself as a contender: with its kernels, or with the reference bodies of its ops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import numpy as np

from minidl import optim
from minidl.arrays import Array
from minidl.bench.task import (
    DECAY,
    KEY,
    LR,
    MOMENTUM,
    LimitTask,
    NetTask,
    OpTask,
    Site,
    build,
    draw_weights,
    images_and_labels,
    logits_and_labels,
    noise,
    site,
)
from minidl.bench.work import Contender, Work
from minidl.inference import fuse, inference
from minidl.layer import Layer
from minidl.layers import Conv2d, Dropout, Linear
from minidl.losses import SoftmaxCrossEntropy
from minidl.ops.conv2d import conv2d_input_gradient, conv2d_weight_gradient
from minidl.ops.linear import linear_input_gradient, linear_weight_gradient
from minidl.training.step import train_step


class Ours(Contender):
    """The engine. Where reference bodies are wanted, its processes are told so by `minidl.settings`."""

    def net(self, task: NetTask) -> Work:
        """See `Contender.net`."""
        return Training(task) if task.mode == "train" else Inference(task)

    def op(self, task: OpTask) -> Work:
        """See `Contender.op`."""
        if task.op == "sgd":
            return Update(task)
        return Loss(task) if task.op == "softmax_cross_entropy" else LayerAlone(site(task), task.batch)

    def limits(self, task: LimitTask) -> Work:
        """See `Contender.limits`."""
        a, b, product = (noise(seed, task.size, task.size) for seed in range(3))
        source, target = np.ones(task.numbers, np.float32), np.empty(task.numbers, np.float32)
        threads = ThreadPoolExecutor(self.threads)  # NumPy copies on one thread
        parts = list(zip(np.array_split(target, self.threads), np.array_split(source, self.threads), strict=True))

        def copy() -> None:
            list(threads.map(lambda part: np.copyto(*part), parts))

        return Work({"sgemm": lambda: np.matmul(a, b, out=product), "copy": copy})


class Inference(Work):
    """The logits of a batch."""

    def __init__(self, task: NetTask) -> None:
        model, shape = build(task.model)
        self.images, self.labels = images_and_labels(model, shape, task.batch)
        self.model = self.prepared(model)
        super().__init__({"infer": lambda: self.model(self.images)})

    def prepared(self, model: Layer) -> Layer:
        """The net that is timed."""
        return inference(model)

    def results(self) -> dict[str, Array]:
        """See `Work.results`."""
        return {"logits": self.model(self.images)}


class Training(Inference):
    """Forward, loss, backward, update; always the same batch."""

    def __init__(self, task: NetTask) -> None:
        super().__init__(task)
        self.loss = SoftmaxCrossEntropy()
        self.sgd = optim.SGD(self.model.parameters(), MOMENTUM, DECAY)
        self.steps = 0
        self.runs = {"train": self.step}

    def prepared(self, model: Layer) -> Layer:
        """The net as `minidl train` runs it."""
        return fuse(model)

    def step(self) -> None:
        """One step, with masks of its own."""
        self.steps += 1
        key = KEY.at(self.steps)
        train_step(self.model, self.loss, self.sgd, self.images, self.labels, LR, key)

    def results(self) -> dict[str, Array]:
        """Logits, loss and all gradients without dropout, whose masks differ from the peers'."""
        with without_dropout(self.model):
            logits, cache = self.model.forward(self.images, train=True, key=KEY)
            value, loss_cache = self.loss.forward(logits, self.labels)
            self.model.backward(self.loss.backward(loss_cache), cast(list[Any], cache), input_gradient=False)
        gradients = {f"gradient of {name}": value for name, value in gradients_of(self.model).items()}
        self.model.zero_grad()
        return {"logits": logits, "loss": np.asarray(value), **gradients}


def gradients_of(layer: Layer) -> dict[str, Array]:
    """The gradient of each parameter that has one."""
    return {name: p.grad for name, p in layer.parameters().items() if p.grad is not None}


@contextmanager
def without_dropout(net: Layer) -> Iterator[None]:
    """Inside, no dropout layer of a net drops anything."""
    rates = [(layer, layer.p) for layer in dropouts(net)]
    try:
        for layer, _ in rates:
            layer.p = 0.0
        yield
    finally:
        for layer, rate in rates:
            layer.p = rate


def dropouts(layer: Layer) -> Iterator[Dropout]:
    """The dropout layers of a net."""
    if isinstance(layer, Dropout):
        yield layer
    for child in layer.children().values():
        yield from dropouts(child)


class LayerAlone(Work):
    """One layer, forward and backward; and where it has weights, each of its two gradients by itself."""

    def __init__(self, place: Site, batch: int) -> None:
        self.layer, self.input_gradient = place.layer, not place.is_first
        draw_weights(self.layer)
        self.x = noise(2, batch, *place.shape)
        self.dy = noise(3, batch, *self.layer.output_shape(place.shape))
        self.cache = self.forward()[1]
        super().__init__({"forward": self.forward, "backward": self.backward, "both": self.both, **self.gradients()})

    def forward(self) -> tuple[Array, Any]:
        """As in training."""
        return self.layer.forward(self.x, train=True, key=KEY)

    def backward(self) -> Array | None:
        """The gradients of the weights, and that of the input where the net needs it."""
        return self._backward(self.cache)

    def both(self) -> None:
        """Forward and backward."""
        self._backward(self.forward()[1])

    def _backward(self, cache: Any) -> Array | None:
        self.layer.zero_grad()
        return self.layer.backward(self.dy, cache, input_gradient=self.input_gradient)

    def gradients(self) -> dict[str, Callable[[], object]]:
        """The gradients of a layer with weights, one by one."""
        layer, x, dy = self.layer, self.x, self.dy
        if not self.input_gradient:
            return {}
        if isinstance(layer, Conv2d):
            weight, window, groups = layer.weight.value, layer.window, layer.groups
            shape = cast(tuple[int, int, int, int], x.shape)
            return {
                "input gradient": lambda: conv2d_input_gradient(dy, weight, shape, window, groups),
                "weight gradient": lambda: conv2d_weight_gradient(x, dy, window, groups),
            }
        if isinstance(layer, Linear):
            weight = layer.weight.value
            return {
                "input gradient": lambda: linear_input_gradient(dy, weight),
                "weight gradient": lambda: linear_weight_gradient(x, dy),
            }
        return {}

    def results(self) -> dict[str, Array]:
        """See `Work.results`."""
        y, dx = self.forward()[0], self.backward()
        if isinstance(self.layer, Dropout) and dx is not None:
            return kept(self.x, y) | {f"{name}, backward": value for name, value in kept(self.dy, dx).items()}
        input_gradient = {} if dx is None else {"dx": dx}
        return {"y": y, **input_gradient, **{f"d{name}": value for name, value in gradients_of(self.layer).items()}}


def kept(x: Array, y: Array) -> dict[str, Array]:
    """What two draws of dropout have in common: the factor on what is kept, and how much that is."""
    kept = y != 0
    return {"factor": (x * y).sum() / (x * x)[kept].sum(), "share kept": kept.mean()}


class Loss(Work):
    """Softmax and cross entropy of the net's logits."""

    def __init__(self, task: OpTask) -> None:
        self.logits, self.labels = logits_and_labels(task)
        self.loss = SoftmaxCrossEntropy()
        self.cache = self.forward()[1]
        super().__init__({"forward": self.forward, "backward": self.backward, "both": self.both})

    def forward(self) -> tuple[Array, Any]:
        """The mean loss."""
        return self.loss.forward(self.logits, self.labels)

    def backward(self) -> Array:
        """The gradient of the logits."""
        return self.loss.backward(self.cache)

    def both(self) -> None:
        """Forward and backward."""
        self.loss.backward(self.forward()[1])

    def results(self) -> dict[str, Array]:
        """See `Work.results`."""
        return {"loss": np.asarray(self.forward()[0]), "dlogits": self.backward()}


class Update(Work):
    """One step of SGD with momentum and weight decay on all parameters of the net, with gradients of noise."""

    def __init__(self, task: OpTask) -> None:
        self.model, _ = build(task.model)
        for seed, parameter in enumerate(self.model.parameters().values()):
            parameter.accumulate(noise(seed, *parameter.shape))
        self.sgd = optim.SGD(self.model.parameters(), MOMENTUM, DECAY)
        super().__init__({"update": lambda: self.sgd.step(LR)})

    def results(self) -> dict[str, Array]:
        """What two steps make of the parameters: in the second the velocity counts. Only good before any other."""
        self.sgd.step(LR)
        self.sgd.step(LR)
        return {name: parameter.value.copy() for name, parameter in self.model.parameters().items()}
