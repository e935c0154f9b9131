"""What is counted during training and evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from minidl.arrays import Array, array_module, device_of, to_device, to_host
from minidl.layer import Layer
from minidl.losses import SoftmaxCrossEntropy

T = TypeVar("T")
READ_EVERY = 20  # steps between two readings from a GPU


@dataclass
class Tally:
    """Running sums over the samples seen: of their loss, and of those whose label is the best guess, or in the best
    five. Of no samples, the means are NaN.
    """

    count: int = 0
    loss_sum: float = 0.0
    top1_hits: int = 0
    top5_hits: int = 0

    def add(self, mean_loss: float, logits: Array, labels: Array) -> None:
        """Count a batch."""
        self.take(len(labels), *to_host(figures(mean_loss, logits, labels)).tolist())

    def take(self, count: int, mean_loss: float, top1_hits: float, top5_hits: float) -> None:
        """Count a batch of so many images, by its `figures`."""
        self.count += count
        self.loss_sum += mean_loss * count
        self.top1_hits += int(top1_hits)
        self.top5_hits += int(top5_hits)

    @property
    def loss(self) -> float:
        """Mean loss, in nats."""
        return self.loss_sum / self.count if self.count else math.nan

    @property
    def top1(self) -> float:
        """Share of samples whose label is the best guess, in [0, 1]."""
        return self.top1_hits / self.count if self.count else math.nan

    @property
    def top5(self) -> float:
        """Share of samples whose label is among the five best guesses, in [0, 1]."""
        return self.top5_hits / self.count if self.count else math.nan

    def to_dict(self) -> dict[str, Any]:
        """The running sums, for a checkpoint."""
        return asdict(self)


def figures(mean_loss: Any, logits: Array, labels: Array) -> Array:
    """A batch's mean loss, how many of its labels are the best guess, and how many are in the best five: (3,), where
    the logits are, so that nobody waits for them before they are read.
    """
    xp = array_module(logits)
    ranks = rank_of_label(logits, to_device(labels, device_of(logits)))
    row: Array = xp.stack([xp.asarray(mean_loss, xp.float64), (ranks < 1).sum(), (ranks < 5).sum()])
    return row


def read(unread: list[tuple[T, Array]]) -> Iterator[tuple[T, list[float]]]:
    """Figures as numbers, each with what stands beside it, in one transfer for all; the list is empty then."""
    rows = list(unread)
    unread.clear()
    if rows:
        together = to_host(array_module(rows[0][1]).stack([row for _, row in rows])).tolist()
        yield from zip((beside for beside, _ in rows), together, strict=True)


def read_every(device: str) -> int:
    """After how many steps figures are read: a reading waits for all that a GPU has been told to do."""
    return 1 if device == "cpu" else READ_EVERY


def rank_of_label(logits: Array, labels: Array) -> Array:
    """How many classes score above each sample's label; of equal scores the lower class counts as above.

    A NaN counts as above everything, so a net that yields NaN is never right.

    >>> import numpy as np
    >>> rank_of_label(np.array([[1.0, 3.0, 2.0], [5.0, 5.0, 0.0]]), np.array([2, 1]))
    array([1, 1])
    """
    xp = array_module(logits)
    own = xp.take_along_axis(logits, labels[:, None], axis=1)
    before = xp.arange(logits.shape[1]) < labels[:, None]
    ranks: Array = (~(logits <= own) | ((logits == own) & before)).sum(axis=1)
    return ranks


def evaluate(net: Layer, batches: Any, device: str = "cpu") -> Tally:
    """Loss and accuracies of a net over batches of images and labels."""
    tally, loss = Tally(), SoftmaxCrossEntropy()
    unread: list[tuple[int, Array]] = []

    def count_all() -> None:
        for count, row in read(unread):
            tally.take(count, *row)

    for batch in batches:
        logits = net(to_device(batch.images, device))
        value, _ = loss.forward(logits, batch.labels)
        unread.append((len(batch.labels), figures(value, logits, batch.labels)))
        if len(unread) >= read_every(device):
            count_all()
    count_all()
    return tally
