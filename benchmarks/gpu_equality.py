"""Whether a GPU trains as the CPU does: python benchmarks/gpu_equality.py [--device cuda] [--steps 100] [--seconds N]

alexnet_mini learns the digits on both, from the same weights, with the same batches:

    masks      dropout's are the same, bit by bit
    float64    each loss of a whole training agrees to 1e-9
    float32    each loss agrees to 1e-5, where each step begins with the CPU's weights: rounding errors grow from step
               to step, and would hide what a step does

A loss differs by |a − b| / |b|. Prints the largest differences, and fails where one is too large.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from minidl import Key, models
from minidl.arrays import parse_device, to_device, to_host
from minidl.data import Loader, Preprocessing, load
from minidl.errors import MinidlError
from minidl.initializers import initialize
from minidl.losses import SoftmaxCrossEntropy
from minidl.ops.dropout import dropout
from minidl.optim import SGD
from minidl.precision import working
from minidl.training.step import train_step

SEED, BATCH, LR = Key(0), 32, 0.02
TOLERANCES = {"float64": 1e-9, "float32": 1e-5}


class Training:
    """One side: a net on a device, and its optimiser."""

    def __init__(self, device: str, precision: str) -> None:
        architecture = models.get("alexnet_mini")
        net = architecture.build(num_classes=10, in_channels=1)
        initialize(net, architecture.scheme("he"), SEED.at("init"))
        self.net, self.device, self.precision = net.to(device, precision), device, precision
        self.working, self.loss, self.steps = working(net, precision), SoftmaxCrossEntropy(), 0
        self.optimizer = SGD(net.parameters(), momentum=0.9, weight_decay=5e-4)

    def step(self, images: Any, labels: Any) -> float:
        images = to_device(images.astype(self.precision), self.device)
        key = SEED.at(self.steps)
        loss, _ = train_step(self.working, self.loss, self.optimizer, images, labels, LR, key)
        self.steps += 1
        return float(loss)

    def follow(self, other: Training) -> None:
        """Take over all that another has learned."""
        self.net.load_state_dict(other.net.state_dict())
        self.optimizer.load_state_dict(other.optimizer.state_dict())


def batches(steps: int) -> Iterator[tuple[Any, Any]]:
    digits, size = load("digits"), models.get("alexnet_mini").input_size
    preprocessing = Preprocessing.measured_on(digits.train, height=size, width=size, channels=1)
    loader = Loader(digits.train, preprocessing, BATCH, train=True, key=SEED.at("data"))
    epoch = 0
    while True:
        for batch in loader.epoch(epoch):
            if steps == 0:
                return
            steps -= 1
            yield batch.images, batch.labels
        epoch += 1


def masks_differ(device: str) -> int:
    """In how many elements, for shapes that vectors divide and that they do not."""
    count = 0
    for shape in (2, 4096), (3, 7), (5, 3, 3, 2):
        ones = np.ones(shape, np.float32)
        for step in range(3):
            key = SEED.at(step).at("drop6")
            count += int(
                (to_host(dropout(to_device(ones, device), 0.5, key)) != dropout.reference(ones, 0.5, key)).sum()
            )
    return count


def largest_difference(
    device: str, precision: str, steps: int, seconds: float = math.inf, tell: Callable[[str], None] = print
) -> tuple[float, int]:
    """Of the losses of all steps, and how many there was time for."""
    here, there, largest, end = Training("cpu", precision), Training(device, precision), 0.0, time.monotonic() + seconds
    for number, (images, labels) in enumerate(batches(steps), 1):
        if precision == "float32":
            there.follow(here)
        expected, found = here.step(images, labels), there.step(images, labels)
        difference = abs(found - expected) / abs(expected)
        largest = max(largest, difference)
        if number in (1, steps) or not difference <= TOLERANCES[precision]:
            tell(f"{precision} step {number}: {expected:.12g} on the CPU, {found:.12g} on {device}")
        if not difference <= TOLERANCES[precision] or time.monotonic() > end:
            break
    return largest, number


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N; or cpu, which must agree with itself")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=math.inf, help="after which no step begins")
    options = parser.parse_args(words)
    try:
        device = parse_device(options.device)
    except MinidlError as error:
        print(error)
        return 2
    differ = masks_differ(device)
    print(f"dropout masks: {differ} elements differ")
    passed = differ == 0
    for precision, tolerance in TOLERANCES.items():
        seconds = options.seconds / len(TOLERANCES)
        difference, steps = largest_difference(device, precision, options.steps, seconds)
        print(f"{precision}: losses of {steps} steps differ by {difference:.1e} at most, allowed {tolerance:.0e}")
        passed &= difference <= tolerance
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
