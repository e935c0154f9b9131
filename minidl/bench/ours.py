"""minidl itself as a contender: with its kernels, or with the reference bodies of its ops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import numpy as np

from minidl import optim
from minidl.arrays import Array, array_module, float_dtype, is_array, is_half, to_device, to_host
from minidl.bench.clock import Call, CuPyClock
from minidl.bench.task import (
    DECAY,
    HALVES,
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
from minidl.inference import inference, lowered
from minidl.layer import Layer
from minidl.layers import Conv2d, Dropout, Linear
from minidl.losses import SoftmaxCrossEntropy
from minidl.ops.conv2d import conv2d_input_gradient, conv2d_weight_gradient
from minidl.ops.linear import linear_input_gradient, linear_weight_gradient
from minidl.precision import PRECISIONS, MixedPrecision, working
from minidl.training.step import train_step


class Ours(Contender):
    """The engine. Where reference bodies are wanted, its processes are told so by `minidl.settings`."""

    def __init__(self, threads: int, device: str = "cpu", precision: str = "float32") -> None:
        super().__init__(threads, device, precision)
        self.dtype = float_dtype(PRECISIONS[precision][1])
        if device != "cpu":
            self.clock = CuPyClock(array_module(self.put(np.zeros(1))), device)

    def put(self, x: Array) -> Array:
        """The array on the device."""
        return to_device(x, self.device)

    def rounded(self, x: Array) -> Array:
        """The array on the device, in the dtype that computes."""
        return self.put(x).astype(self.dtype, copy=False)

    def net(self, task: NetTask) -> Work:
        """See `Contender.net`."""
        work = (Training if task.mode == "train" else Inference)(task, self)
        if isinstance(self.clock, CuPyClock):
            work.add_transfer(task.mode, upload(self.clock.cupy, work.images))
        return work

    def op(self, task: OpTask) -> Work:
        """See `Contender.op`."""
        if task.op == "sgd":
            return Update(task, self)
        return Loss(task, self) if task.op == "softmax_cross_entropy" else LayerAlone(site(task), task.batch, self)

    def limits(self, task: LimitTask) -> Work:
        """See `Contender.limits`."""
        a, b = (self.rounded(noise(seed, task.size, task.size)) for seed in range(2))
        module = array_module(a)
        product = module.empty_like(a)
        source, target = module.ones(task.numbers, "float32"), module.empty(task.numbers, "float32")
        runs: dict[str, Call] = {"sgemm": lambda: module.matmul(a, b, out=product)}
        if self.clock.is_gpu:
            return Work(runs | {"copy": lambda: module.copyto(target, source)})
        threads = ThreadPoolExecutor(self.threads)  # NumPy copies on one thread
        parts = list(zip(np.array_split(target, self.threads), np.array_split(source, self.threads), strict=True))

        def copy() -> None:
            list(threads.map(lambda part: np.copyto(*part), parts))

        return Work(runs | {"copy": copy})


def upload(cupy: Any, images: Any) -> Call:
    """What copies a batch to where it is on the GPU, from memory that the system cannot move."""
    memory = cupy.cuda.alloc_pinned_memory(images.nbytes)
    host = np.frombuffer(memory, images.dtype, images.size).reshape(images.shape)
    host[...] = to_host(images)
    stream = cupy.cuda.get_current_stream()
    return lambda: images.set(host, stream)


def on_host(results: Mapping[str, Any]) -> dict[str, Array]:
    """Results as NumPy has them, and at least in float32."""
    found = {name: to_host(x) if is_array(x) else np.asarray(x) for name, x in results.items()}
    return {name: x.astype(np.float32) if is_half(x) else x for name, x in found.items()}


class Inference(Work):
    """The logits of a batch."""

    def __init__(self, task: NetTask, ours: Ours) -> None:
        net, shape = build(task.model)
        images, self.labels = images_and_labels(net, shape, task.batch)
        self.images, self.dtype = ours.put(images), ours.dtype
        self.model = self.prepared(net.to(ours.device), ours.precision)
        super().__init__({"infer": self.infer})

    def prepared(self, net: Layer, precision: str) -> Layer:
        """The net that is timed."""
        read_only = inference(net)
        return lowered(read_only, self.dtype) if precision in HALVES else read_only

    def infer(self) -> Array:
        """One pass."""
        return self.model(self.images.astype(self.dtype, copy=False))

    def results(self) -> dict[str, Array]:
        """See `Work.results`."""
        return on_host({"logits": self.infer()})


class Training(Inference):
    """Forward, loss, backward, update; always the same batch."""

    def __init__(self, task: NetTask, ours: Ours) -> None:
        super().__init__(task, ours)
        self.reads = not ours.clock.is_gpu
        self.loss = SoftmaxCrossEntropy()
        self.sgd = optim.SGD(self.model.parameters(), MOMENTUM, DECAY)
        self.steps = 0
        self.runs = {"train": self.step}

    def prepared(self, net: Layer, precision: str) -> Layer:
        """The net as `minidl train` runs it."""
        return working(net, precision)

    def step(self) -> None:
        """One step, with masks of its own. Labels are the host's, which checks them; a GPU's loss is left unread."""
        self.steps += 1
        key = KEY.at(self.steps)
        train_step(self.model, self.loss, self.sgd, self.images, self.labels, LR, key, check=self.reads)

    def results(self) -> dict[str, Array]:
        """Logits, loss and all gradients without dropout, whose masks differ from the peers'."""
        with without_dropout(self.model):
            logits, value = self.backward()
            while isinstance(self.model, MixedPrecision) and self.model.overflowed:
                logits, value = self.backward()
        gradients = {f"gradient of {name}": value for name, value in gradients_of(self.model).items()}
        self.model.zero_grad()
        return on_host({"logits": logits, "loss": value, **gradients})

    def backward(self) -> tuple[Array, Array]:
        """Logits and loss; the gradients are then in the parameters, unless they overflow."""
        with np.errstate(all="ignore"):
            logits, cache = self.model.forward(self.images, train=True, key=KEY)
            value, loss_cache = self.loss.forward(logits, self.labels)
            self.model.backward(self.loss.backward(loss_cache), cache, input_gradient=False)
        return logits, value


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

    def __init__(self, place: Site, batch: int, ours: Ours) -> None:
        self.layer, self.input_gradient = place.layer, not place.is_first
        draw_weights(self.layer)
        self.layer.to(ours.device, ours.dtype)
        self.x = ours.rounded(noise(2, batch, *place.shape))
        self.dy = ours.rounded(noise(3, batch, *self.layer.output_shape(place.shape)))
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
        found = on_host({"x": self.x, "y": y, "dy": self.dy} | ({} if dx is None else {"dx": dx}))
        x, dy = found.pop("x"), found.pop("dy")
        if isinstance(self.layer, Dropout):
            backward = kept(dy, found["dx"])
            return kept(x, found["y"]) | {f"{name}, backward": value for name, value in backward.items()}
        return found | on_host({f"d{name}": value for name, value in gradients_of(self.layer).items()})


def kept(x: Array, y: Array) -> dict[str, Array]:
    """What two draws of dropout have in common: the factor on what is kept, and how much that is."""
    kept = y != 0
    return {"factor": (x * y).sum() / (x * x)[kept].sum(), "share kept": kept.mean()}


class Loss(Work):
    """Softmax and cross entropy of the net's logits."""

    def __init__(self, task: OpTask, ours: Ours) -> None:
        logits, self.labels = logits_and_labels(task)
        self.logits = ours.put(logits)
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
        return on_host({"loss": self.forward()[0], "dlogits": self.backward()})


class Update(Work):
    """One step of SGD with momentum and weight decay on all parameters of the net, with gradients of noise."""

    def __init__(self, task: OpTask, ours: Ours) -> None:
        self.model, _ = build(task.model)
        self.model.to(ours.device)
        for seed, parameter in enumerate(self.model.parameters().values()):
            parameter.accumulate(ours.put(noise(seed, *parameter.shape)))
        self.sgd = optim.SGD(self.model.parameters(), MOMENTUM, DECAY)
        super().__init__({"update": lambda: self.sgd.step(LR)})

    def results(self) -> dict[str, Array]:
        """What two steps make of the parameters: in the second the velocity counts. Only good before any other."""
        self.sgd.step(LR)
        self.sgd.step(LR)
        return on_host({name: parameter.value.copy() for name, parameter in self.model.parameters().items()})
