"""Local response normalisation across channels, and its gradient."""

from __future__ import annotations

from minidl.accelerate import accelerated
from minidl.arrays import Array, array_module


@accelerated
def local_response_norm(x: Array, size: int, scale: float, beta: float, k: float, groups: int = 1) -> Array:
    """y_i = x_i · s_i^(−β),    s_i = k + scale · Σ_{j ∈ window(i)} x_j²

    x (…, C) → y (…, C). The window of channel i holds the channels i − ⌊(size−1)/2⌋ … i + ⌈(size−1)/2⌉ that exist;
    with groups, those of the same group.
    """
    y: Array = x * _normaliser(x, size, scale, k, groups) ** -beta
    return y


@accelerated
def local_response_norm_gradient(
    dy: Array, x: Array, size: int, scale: float, beta: float, k: float, groups: int = 1
) -> Array:
    """dx_i = dy_i · s_i^(−β) − 2·β·scale · x_i · Σ_{j : i ∈ window(j)} dy_j · x_j · s_j^(−β−1)

    The first term is y_i seen through its own numerator. The second collects every neighbour j whose normaliser
    s_j holds x_i: its window is that of the forward pass turned around. s is computed again rather than stored.
    s^(−β−1) is taken in two steps, as for a large x it alone would be too small for float32.

    dy and x (…, C) → dx (…, C).
    """
    before, after = (size - 1) // 2, size // 2
    s = _normaliser(x, size, scale, k, groups)
    # i lies in the window of j exactly where j lies in the window turned around, hence after and before swapped.
    through_neighbours = channel_window_sum(dy * x * s**-beta / s, after, before, groups)
    dx: Array = dy * s**-beta - (2 * beta * scale) * x * through_neighbours
    return dx


def _normaliser(x: Array, size: int, scale: float, k: float, groups: int) -> Array:
    return k + channel_window_sum(scale * x * x, (size - 1) // 2, size // 2, groups)


def channel_window_sum(a: Array, before: int, after: int, groups: int = 1) -> Array:
    """total_i = Σ a_j over the channels i − before … i + after that exist in the group of i.

    >>> import numpy as np
    >>> channel_window_sum(np.array([[1, 2, 4, 8]]), before=1, after=0)
    array([[ 1,  3,  6, 12]])
    """
    xp = array_module(a)
    C = a.shape[-1] // groups
    grouped = a.reshape(*a.shape[:-1], groups, C)
    padded = xp.pad(grouped, [(0, 0)] * (grouped.ndim - 1) + [(before, after)])
    total = xp.zeros_like(grouped)
    for offset in range(before + after + 1):
        total += padded[..., offset : offset + C]
    result: Array = total.reshape(a.shape)
    return result
