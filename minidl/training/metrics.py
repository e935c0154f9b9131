"""What is counted during training and evaluation."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from minidl.arrays import Array, to_device, to_host
from minidl.layer import Layer
from minidl.losses import SoftmaxCrossEntropy


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
        scores, labels = to_host(logits), to_host(labels)
        ranks = rank_of_label(scores, labels)
        self.count += len(labels)
        self.loss_sum += mean_loss * len(labels)
        self.top1_hits += int((ranks < 1).sum())
        self.top5_hits += int((ranks < 5).sum())

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


def rank_of_label(logits: Array, labels: Array) -> Array:
    """How many classes score above each sample's label; of equal scores the lower class counts as above.

    A NaN counts as above everything, so a net that yields NaN is never right.

    >>> rank_of_label(np.array([[1.0, 3.0, 2.0], [5.0, 5.0, 0.0]]), np.array([2, 1]))
    array([1, 1])
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    before = np.arange(logits.shape[1]) < labels[:, None]
    ranks: Array = (~(logits <= own) | ((logits == own) & before)).sum(axis=1)
    return ranks


def evaluate(net: Layer, batches: Any, device: str = "cpu") -> Tally:
    """Loss and accuracies of a net over batches of images and labels."""
    tally, loss = Tally(), SoftmaxCrossEntropy()
    for batch in batches:
        logits = net(to_device(batch.images, device))
        value, _ = loss.forward(logits, to_device(batch.labels, device))
        tally.add(float(value), logits, batch.labels)
    return tally
