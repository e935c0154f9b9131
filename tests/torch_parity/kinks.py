"""Where a gradient jumps: ReLU at 0, and a pool whose two largest numbers are equal.

Near such a kink our rounding may take one side and PyTorch's the other, and both are right. So what is compared stays
away from kinks: a batch that comes near one is drawn again. In a net of 13.5 million units, as VGG-16 is, every batch
does; there the channels that do get new weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from minidl.layers import Layer, MaxPool2d, ReLU, Sequential
from minidl.random import Key
from minidl.window import Window

NEAR = 1e-6

Batch = tuple[np.ndarray, np.ndarray]


def batch_away_from_kinks(net: Sequential, key: Key, draw: Callable[[], Batch]) -> Batch:
    for _ in range(50):
        images, labels = draw()
        if not any(channels.size for channels in near_kinks(net, images, key)):
            return images, labels
    raise AssertionError("fifty batches in a row have a unit near a kink")


def move_weights_off_kinks(net: Sequential, images: np.ndarray, key: Key, near: float = NEAR) -> None:
    """Layer by layer, draw new weights for the channels that have a unit near a kink."""
    generator, x = key.generator(), images
    for block in blocks(net):
        weight = next(iter(block.layers.values())).weight.value
        while found := sorted({c for channels in near_kinks(block, x, key, near) for c in channels}):
            weight[..., found] = weight.std() * generator.standard_normal((*weight.shape[:-1], len(found)))
        x = block.forward(x, train=True, key=key)[0]


def blocks(net: Sequential) -> Iterator[Sequential]:
    """The net in parts that begin with a layer with weights."""
    names = list(net.layers)
    starts = [i for i, name in enumerate(names) if net[name].parameters()]
    for start, stop in zip(starts, [*starts[1:], len(names)], strict=True):
        yield Sequential(**{name: net[name] for name in names[start:stop]})


def near_kinks(net: Sequential, x: np.ndarray, key: Key, near: float = NEAR) -> Iterator[np.ndarray]:
    """For each layer with kinks, the channels with a unit near one."""
    for name, layer in net.layers.items():
        if (distances := kink_distances(layer, x)) is not None:
            yield np.flatnonzero(distances.reshape(-1, x.shape[-1]).min(axis=0) < near)
        x = layer.forward(x, train=True, key=key.at(name))[0]


def kink_distances(layer: Layer, x: np.ndarray) -> np.ndarray | None:
    """For each unit, how far it is from a kink; None for a layer that has none."""
    match layer:
        case ReLU():
            return np.abs(x)
        case MaxPool2d(window=window):
            first, second = two_largest(x, window)
            # A window of zeros does not count: the ReLU before it is off, so no gradient passes whichever of them wins.
            return np.where(first > 0, first - second, np.inf)
    return None


def two_largest(x: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """The largest and the second largest number in each window, for a window without padding."""
    OH, OW = window.output_size(*x.shape[1:3])
    assert window.full_padding(*x.shape[1:3]) == ((0, 0), (0, 0))
    first = second = np.array(-np.inf, x.dtype)
    for _, _, rows, columns in window.taps(OH, OW):
        tap = x[:, rows, columns]
        second = np.maximum(second, np.minimum(first, tap))
        first = np.maximum(first, tap)
    return first, second
