"""Batch normalisation: its statistics, the normalisation, and the gradients."""

from __future__ import annotations

from minidl.accelerate import accelerated
from minidl.arrays import NHWC, Array
from minidl.ops.channel_sum import channel_dot, channel_sum


@accelerated
def batch_statistics(x: NHWC) -> tuple[Array, Array, Array]:
    """mean + rest = 1/m · Σ x,    var = 1/m · Σ (x − mean − rest)²,    for each channel's m = N·H·W numbers

    x (N, H, W, C) → mean, rest, var (C,), of float32 where x is in half precision. The mean is two numbers: what the
    first is off by, the second holds.
    """
    m = x.dtype.type(x.size // x.shape[-1])
    mean = channel_sum(x) / m
    centred = x - mean
    rest = channel_sum(centred) / m
    centred -= rest
    return mean, rest, channel_dot(centred, centred) / m


batch_statistics.rounds = False


@accelerated
def batch_norm2d(x: NHWC, mean: Array, rest: Array, inv_std: Array, gamma: Array, beta: Array) -> NHWC:
    """y = (x − mean − rest) · gamma·inv_std + beta.    x (N, H, W, C), the others (C,) → y as x."""
    y = x - mean
    y -= rest
    y *= gamma * inv_std
    y += beta
    return y


@accelerated
def batch_norm2d_parameter_gradients(
    dy: NHWC, x: NHWC, mean: Array, rest: Array, inv_std: Array
) -> tuple[Array, Array]:
    """dgamma = Σ dy·x̂,    dbeta = Σ dy,    x̂ = (x − mean − rest) · inv_std

    dy and x (N, H, W, C), the others (C,) → dgamma, dbeta (C,), summed as in `channel_sum`.
    """
    return channel_dot(dy, _normalised(x, mean, rest, inv_std)), channel_sum(dy)


@accelerated
def batch_norm2d_input_gradient(
    dy: NHWC, x: NHWC, mean: Array, rest: Array, inv_std: Array, gamma: Array, dgamma: Array, dbeta: Array
) -> NHWC:
    """dx = gamma·inv_std · (dy − dbeta/m − x̂·dgamma/m),    x̂ = (x − mean − rest) · inv_std,    m = N·H·W

    dy and x (N, H, W, C), the others (C,) → dx as x.
    """
    m = x.dtype.type(x.size // x.shape[-1])
    dx: NHWC = dy - dbeta / m
    dx -= _normalised(x, mean, rest, inv_std) * (dgamma / m)
    dx *= gamma * inv_std
    return dx


def _normalised(x: NHWC, mean: Array, rest: Array, inv_std: Array) -> NHWC:
    normalised = x - mean
    normalised -= rest
    normalised *= inv_std
    return normalised
