"""A task as one contender does it: what can be run and timed, and what came out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from minidl.arrays import Array
from minidl.bench.task import LimitTask, NetTask, OpTask, Task
from minidl.errors import ArgumentError

FLOAT32 = 1e-4
# A logit moves smoothly with rounding, a gradient does not: where two numbers of a pooling window, or a number and 0,
# lie closer than the rounding error, another pixel gets the gradient. Norms against float64, worst parameter, batch 2:
# vgg16 1.0e-2, with im2col 4.5e-3, PyTorch 4.4e-3; alexnet 1.6e-2, with im2col 5e-5, PyTorch 2.7e-3.
GRADIENT_OF_A_NET = 2e-2


class Work:
    """What a contender made of a task.

    runs: by name what can be timed, such as "forward" and "backward".
    """

    def __init__(self, runs: Mapping[str, Callable[[], object]]) -> None:
        self.runs = dict(runs)

    def results(self) -> dict[str, Array]:
        """What came out, as arrays in our layout: all contenders' must agree."""
        return {}

    def seconds(self, run: str, calls: int) -> float:
        """How long one call of a run takes, in the mean of several."""
        call = self.runs[run]
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - begin) / calls


class Contender:
    """Somebody who does tasks: our kernels, our reference bodies, or a peer."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def begin(self, task: Task) -> Work:
        """Make everything ready to run.

        Raises: ArgumentError for a task that the contender does not take.
        """
        if isinstance(task, NetTask):
            return self.net(task)
        return self.op(task) if isinstance(task, OpTask) else self.limits(task)

    def net(self, task: NetTask) -> Work:
        """A whole net."""
        raise ArgumentError(f"{type(self).__name__}: whole nets are not measured with it")

    def op(self, task: OpTask) -> Work:
        """A layer, the loss, or the update."""
        raise ArgumentError(f"{type(self).__name__}: single ops are not measured with it")

    def limits(self, task: LimitTask) -> Work:
        """A matrix product and a copy of memory, by the contender's library."""
        raise ArgumentError(f"{type(self).__name__}: the machine's limits are not measured with it")


def tolerance(task: Task, result: str) -> float:
    """How far apart two results may be, as ‖a − b‖ / ‖b‖.

    The gradients of a whole net need more than float32: a unit at a ReLU's kink, or two equals under a maximum, may
    fall to either side. A share s of such units, about the error of their inputs, moves a gradient by √s. And of two
    masks of dropout only the shares can be compared.
    """
    if isinstance(task, NetTask) and result.startswith("gradient of"):
        return GRADIENT_OF_A_NET
    if result.startswith("share kept"):
        from minidl.bench.task import site

        return 8 / math.sqrt(task.batch * math.prod(site(task).shape)) if isinstance(task, OpTask) else FLOAT32
    return FLOAT32
