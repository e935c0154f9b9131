"""PyTorch as a contender: eager or compiled, with its maps in one of its two layouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl.arrays import Array
from minidl.bench.clock import TorchClock
from minidl.bench.ours import kept
from minidl.bench.task import (
    DECAY,
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
from minidl.bench.twin import Twin
from minidl.bench.work import Contender, Work
from minidl.layer import Layer, Shape
from minidl.layers import Dropout

try:
    import torch
except ImportError:  # without it the module can be read, but nothing in it used
    torch = None

LAYOUTS = ("contiguous", "channels_last")


class PyTorch(Contender):
    """A net of PyTorch's modules; compiled as a whole, if at all."""

    def __init__(
        self, threads: int, layout: str, compiled: bool = False, device: str = "cpu", precision: str = "float32"
    ) -> None:
        super().__init__(threads, device, precision)
        torch.set_num_threads(threads)
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
        if device != "cpu":
            self.clock = TorchClock(torch.cuda, device)
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
            torch.backends.cudnn.benchmark = True  # shapes stay, so the fastest algorithm is worth looking for
        self.format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        self.compiled = compiled

    def net(self, task: NetTask) -> Work:
        """See `Contender.net`."""
        model, shape = build(task.model)
        images, labels = images_and_labels(model, shape, task.batch)
        kind = Training if task.mode == "train" else Inference
        work: Inference = kind(self, Twin(model, shape), self.tensor(images), self.put(torch.from_numpy(labels)))
        if self.clock.is_gpu:
            pinned = work.images.cpu().pin_memory()
            work.add_transfer(task.mode, lambda: work.images.copy_(pinned, non_blocking=True))
        return work

    def op(self, task: OpTask) -> Work:
        """See `Contender.op`."""
        if task.op == "sgd":
            return Update(self, *build(task.model))
        return Loss(self, task) if task.op == "softmax_cross_entropy" else LayerAlone(self, site(task), task.batch)

    def limits(self, task: LimitTask) -> Work:
        """See `Contender.limits`."""
        a, b = (self.put(torch.from_numpy(noise(seed, task.size, task.size)), self.dtype) for seed in range(2))
        product = torch.empty_like(a)
        source, target = (make(task.numbers, device=self.device) for make in (torch.ones, torch.empty))
        return Work({"sgemm": lambda: torch.mm(a, b, out=product), "copy": lambda: target.copy_(source)})

    def put(self, tensor: Any, dtype: Any = None) -> Any:
        """The tensor on the device."""
        return tensor.to(self.device, dtype)

    def tensor(self, x: Array, dtype: Any = None) -> Any:
        """A copy of our (N, …, C) as (N, C, …), in this layout."""
        tensor = torch.from_numpy(x).movedim(-1, 1)
        return self.put(tensor.clone(memory_format=self.format if x.ndim == 4 else torch.contiguous_format), dtype)

    def place(self, twin: Twin, dtype: Any = None) -> Any:
        """The module of a twin, its weights in this layout."""
        return twin.module.to(self.device, dtype, memory_format=self.format)


def array(tensor: Any) -> Array:
    """A tensor (N, C, …) as our (N, …, C), at least in float32."""
    host = tensor.detach().cpu()
    host = host.float() if host.dtype.itemsize < 4 else host
    result: Array = (host.movedim(1, -1) if host.ndim > 1 else host).numpy()
    return result


class Inference(Work):
    """The logits of a batch."""

    def __init__(self, torch_: PyTorch, twin: Twin, images: Any, labels: Any) -> None:
        self.twin, self.images, self.labels, self.dtype = twin, images, labels, torch_.dtype
        self.module = self.prepared(torch_)
        self.call = torch.compile(self.module) if torch_.compiled else self.module
        self.module.eval()
        super().__init__({"infer": self.infer})

    def prepared(self, torch_: PyTorch) -> Any:
        """The module, in half precision where that is wanted."""
        return torch_.place(self.twin, self.dtype)

    def infer(self) -> Any:
        """One pass, without a trace of it for backward."""
        with torch.inference_mode():
            return self.call(self.images.to(self.dtype))

    def results(self) -> dict[str, Array]:
        """See `Work.results`."""
        return {"logits": array(self.infer().clone())}


class Training(Inference):
    """Forward, loss, backward, update; always the same batch. In half precision by `torch.autocast`, as PyTorch's
    documentation recommends, in float16 with its gradient scaler.
    """

    def __init__(self, torch_: PyTorch, twin: Twin, images: Any, labels: Any) -> None:
        super().__init__(torch_, twin, images, labels)
        self.sgd = sgd(self.module)
        self.kind, self.reads = images.device.type, not torch_.clock.is_gpu
        self.scaler = torch.amp.GradScaler(self.kind, enabled=self.dtype is torch.float16)
        self.runs = {"train": self.step}

    def prepared(self, torch_: PyTorch) -> Any:
        """The module in float32."""
        return torch_.place(self.twin)

    def backward(self) -> tuple[Any, Any]:
        """Logits and loss; the gradients are then in the parameters, in float16 multiplied by the scale."""
        self.sgd.zero_grad()
        with torch.autocast(self.kind, self.dtype, enabled=self.dtype is not torch.float32):
            logits = self.call(self.images)
        loss = torch.nn.functional.cross_entropy(logits.float(), self.labels)
        self.scaler.scale(loss).backward()
        return logits, loss

    def step(self) -> None:
        """One step; on the CPU it reads the loss, as a training that watches for NaN must."""
        self.module.train()
        _, loss = self.backward()
        self.scaler.step(self.sgd)
        self.scaler.update()
        if self.reads:
            loss.item()

    def results(self) -> dict[str, Array]:
        """See `Work.results`: without dropout; in float16 by the first scale with which nothing overflows."""
        self.module.eval()
        overflows = True
        while overflows:
            logits, loss = self.backward()
            self.scaler.unscale_(self.sgd)
            overflows = self.scaler.is_enabled() and not all(p.grad.isfinite().all() for p in self.module.parameters())
            self.scaler.update()
        gradients = {f"gradient of {name}": value for name, value in self.twin.gradients().items()}
        self.sgd.zero_grad()
        return {"logits": array(logits), "loss": array(loss), **gradients}


def sgd(module: Any) -> Any:
    """PyTorch's fastest: one pass over each parameter."""
    return torch.optim.SGD(module.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=DECAY, fused=True)


class LayerAlone(Work):
    """One layer, forward and backward; and where it has weights, each of its two gradients by itself."""

    def __init__(self, torch_: PyTorch, place: Site, batch: int) -> None:
        draw_weights(place.layer)
        self.layer = place.layer
        self.twin = Twin(place.layer, place.shape)
        self.module = torch_.place(self.twin, torch_.dtype)
        self.x = torch_.tensor(noise(2, batch, *place.shape), torch_.dtype).requires_grad_(not place.is_first)
        self.dy = torch_.tensor(noise(3, batch, *place.layer.output_shape(place.shape)), torch_.dtype)
        self.weights = dict(self.module.named_parameters())
        self.wanted = [*self.weights.values()] if place.is_first else [self.x, *self.weights.values()]
        self.y = self.forward()
        super().__init__({"forward": self.forward, "backward": self.backward, "both": self.both, **self.gradients()})

    def forward(self) -> Any:
        """As in training."""
        return self.module(self.x)

    def backward(self) -> Any:
        """The gradients of the weights, and that of the input where the net needs it."""
        return torch.autograd.grad(self.y, self.wanted, self.dy, retain_graph=True)

    def both(self) -> None:
        """Forward and backward."""
        torch.autograd.grad(self.forward(), self.wanted, self.dy)

    def gradients(self) -> dict[str, Callable[[], object]]:
        """The gradients of a layer with weights, one by one."""
        if not self.weights or not self.x.requires_grad:
            return {}
        weight = self.weights["weight"]
        return {
            "input gradient": lambda: torch.autograd.grad(self.y, self.x, self.dy, retain_graph=True),
            "weight gradient": lambda: torch.autograd.grad(self.y, weight, self.dy, retain_graph=True),
        }

    def results(self) -> dict[str, Array]:
        """See `Work.results`."""
        y = array(self.y)
        gradients = dict(zip((["dx"] if self.x.requires_grad else []) + [*self.weights], self.backward(), strict=True))
        dx = {"dx": array(gradients.pop("dx"))} if self.x.requires_grad else {}
        if isinstance(self.layer, Dropout):
            backward = kept(array(self.dy), dx["dx"])
            return kept(array(self.x), y) | {f"{name}, backward": value for name, value in backward.items()}
        return {"y": y, **dx, **{f"d{name}": self.twin.to_ours(name, value) for name, value in gradients.items()}}


class Loss(Work):
    """Softmax and cross entropy of the net's logits."""

    def __init__(self, torch_: PyTorch, task: OpTask) -> None:
        self.logits, self.labels = (torch_.put(torch.from_numpy(x)) for x in logits_and_labels(task))
        self.logits.requires_grad_()
        self.loss = self.forward()
        super().__init__({"forward": self.forward, "backward": self.backward, "both": self.both})

    def forward(self) -> Any:
        """The mean loss."""
        return torch.nn.functional.cross_entropy(self.logits, self.labels)

    def backward(self) -> Any:
        """The gradient of the logits."""
        return torch.autograd.grad(self.loss, self.logits, retain_graph=True)[0]

    def both(self) -> None:
        """Forward and backward."""
        torch.autograd.grad(self.forward(), self.logits)

    def results(self) -> dict[str, Array]:
        """See `Work.results`."""
        return {"loss": array(self.loss), "dlogits": array(self.backward())}


class Update(Work):
    """One step of SGD with momentum and weight decay on all parameters of the net, with gradients of noise."""

    def __init__(self, torch_: PyTorch, net: Layer, shape: Shape) -> None:
        self.twin = Twin(net, shape)
        self.module = torch_.place(self.twin)
        for seed, (name, parameter) in enumerate(self.module.named_parameters()):
            ours = noise(seed, *net.parameters()[name].shape)
            parameter.grad = torch.empty_like(parameter).copy_(self.twin.to_torch(name, ours))
        self.sgd = sgd(self.module)
        super().__init__({"update": self.sgd.step})

    def results(self) -> dict[str, Array]:
        """See `Work.results`: the parameters after two steps."""
        self.sgd.step()
        self.sgd.step()
        return {name: self.twin.to_ours(name, p.data).copy() for name, p in self.module.named_parameters()}
