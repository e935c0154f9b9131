"""A task as one contender does it: what can be run and timed, and what came out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle

from minidl.arrays import Array
from minidl.bench.clock import Call, Clock, Turn
from minidl.bench.task import HALVES, LimitTask, NetTask, OpTask, Task, least_bytes
from minidl.errors import ArgumentError

# A logit moves smoothly with rounding, a gradient does not: where two numbers of a pooling window, or a number and 0,
# lie closer than the error e of either, another pixel gets the gradient. So happens to a share of about e of them, and
# moves the gradient by √e. Norms against float64, worst parameter, batch 2, in float32: vgg16 1.0e-2, with im2col
# 4.5e-3, PyTorch 4.4e-3; alexnet 1.6e-2, with im2col 5e-5, PyTorch 2.7e-3. Norms against float32, alexnet_mini: in
# bf16 logits 1e-2, gradients 0.29, PyTorch 0.26; in fp16 logits 6e-4, gradients 0.10, PyTorch 0.11.
FLOAT32 = 1e-4
ROUNDING = {"tf32": 2.0**-11, "bf16": 2.0**-9, "fp16": 2.0**-11}  # a number's largest relative error
ROUNDINGS = 16  # of so many the errors may add up, from layer to layer
MOST_COPIES = 256


class Work:
    """What a contender made of a task.

    runs: by name what can be timed, such as "forward" and "backward".
    """

    clock = Clock()

    def __init__(self, runs: Mapping[str, Call]) -> None:
        self.runs = dict(runs)

    def results(self) -> dict[str, Array]:
        """What came out, as arrays in our layout: all contenders' must agree."""
        return {}

    def turn(self, run: str, calls: int) -> Turn:
        """How long one call of a run takes, in the mean of several."""
        return self.clock.turn(self.runs[run], calls)

    def add_transfer(self, run: str, copy: Call) -> None:
        """Have the copying of a batch to a GPU timed, by itself and in front of a run."""
        call = self.runs[run]

        def both() -> None:
            copy()
            call()

        self.runs |= {"transfer": copy, f"{run} with transfer": both}


class InTurn(Work):
    """The same work several times, each on arrays of its own, so that none finds its own in a GPU's cache."""

    def __init__(self, works: Sequence[Work]) -> None:
        self.works = works
        super().__init__({run: self._next(run) for run in works[0].runs})

    def _next(self, run: str) -> Call:
        calls = cycle([work.runs[run] for work in self.works])
        return lambda: next(calls)()

    def results(self) -> dict[str, Array]:
        """See `Work.results`."""
        return self.works[0].results()


class Contender:
    """Somebody who does tasks: our kernels, our reference bodies, or a peer.

    clock: that of the device.
    """

    def __init__(self, threads: int, device: str = "cpu", precision: str = "float32") -> None:
        self.threads, self.device, self.precision = threads, device, precision
        self.clock = Clock()

    def begin(self, task: Task) -> Work:
        """Make everything ready to run.

        Raises: ArgumentError for a task that the contender does not take.
        """
        if isinstance(task, NetTask):
            work = self.net(task)
        elif isinstance(task, OpTask):
            copies = copies_past_cache(least_bytes(task, self.precision), self.clock.cache)
            work = InTurn([self.op(task) for _ in range(copies)]) if copies > 1 else self.op(task)
        else:
            work = self.limits(task)
        work.clock = self.clock
        return work

    def net(self, task: NetTask) -> Work:
        """A whole net."""
        raise ArgumentError(f"{type(self).__name__}: whole nets are not measured with it")

    def op(self, task: OpTask) -> Work:
        """A layer, the loss, or the update."""
        raise ArgumentError(f"{type(self).__name__}: single ops are not measured with it")

    def limits(self, task: LimitTask) -> Work:
        """A matrix product and a copy of memory, by the contender's library."""
        raise ArgumentError(f"{type(self).__name__}: the machine's limits are not measured with it")


def copies_past_cache(number_of_bytes: float, cache: int) -> int:
    """How often arrays must be there so that together they are twice as large as a cache.

    >>> copies_past_cache(20e6, cache=60_000_000), copies_past_cache(20e6, cache=0)
    (6, 1)
    """
    return max(1, min(MOST_COPIES, math.ceil(2 * cache / number_of_bytes)))


def tolerance(task: Task, result: str, precision: str = "float32") -> float:
    """How far apart two results may be, as ‖a − b‖ / ‖b‖.

    The gradients of a whole net need more: a unit at a ReLU's kink, or two equals under a maximum, may fall to either
    side. And of two masks of dropout only the shares can be compared.
    """
    smooth = ROUNDINGS * ROUNDING[precision] if precision in ROUNDING else FLOAT32
    ties = isinstance(task, OpTask) and task.op == "max_pool2d" and precision in HALVES  # which float32 does not see
    if (isinstance(task, NetTask) and result.startswith("gradient of")) or (ties and result == "dx"):
        return 2 * math.sqrt(smooth)
    if result.startswith("share kept"):
        from minidl.bench.task import site

        return 8 / math.sqrt(task.batch * math.prod(site(task).shape)) if isinstance(task, OpTask) else smooth
    return smooth
