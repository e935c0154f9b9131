"""How much each kernel gains over the op's own body: python benchmarks/kernels.py [WORD …]

For each op at AlexNet's shapes (float32, batch 32, dropout 128): the two results are compared, then both run in turn,
each after a short pause. Printed are the median times and the median of the ratios taken turn by turn, with their
smallest and largest. Only the ops whose name or shape contains one of the words are run.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minidl import Key
from minidl.accelerate import num_threads, settings
from minidl.ops import (
    avg_pool2d,
    batch_norm2d,
    channel_sum,
    conv2d,
    dropout,
    local_response_norm,
    max_pool2d,
    relu,
    sgd,
)
from minidl.window import Window

N, TURNS = 32, 7
PAUSE = 0.1  # seconds: a thread of NumPy's matrix product spins after its work, and would slow the next call
Case = tuple[str, Any, tuple[Any, ...]]


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    for name, size, C, O, window, groups in [
        ("conv1", 227, 3, 96, Window.of(11, stride=4), 1),
        ("conv2", 27, 96, 256, Window.of(5, padding=2), 2),
        ("conv3", 13, 256, 384, Window.of(3, padding=1), 1),
        ("conv4", 13, 384, 384, Window.of(3, padding=1), 2),
    ]:
        x, weight = normal(N, size, size, C), normal(*window.kernel, C // groups, O)
        dy = normal(N, *window.output_size(size, size), O)
        for algorithm in "im2col", "auto":
            at = f"{name} {algorithm}"
            yield f"{at} forward", conv2d.conv2d, (x, weight, normal(O), window, groups)
            yield f"{at} input gradient", conv2d.conv2d_input_gradient, (dy, weight, x.shape, window, groups)
            yield f"{at} weight gradient", conv2d.conv2d_weight_gradient, (x, dy, window, groups)
    for size, C in (55, 96), (27, 256):
        x, window = normal(N, size, size, C), Window.of(3, stride=2)
        at = f"{size}×{size}×{C}"
        y, winners = max_pool2d.max_pool2d(x, window)
        yield f"max_pool2d {at}", max_pool2d.max_pool2d, (x, window)
        yield f"max_pool2d gradient {at}", max_pool2d.max_pool2d_gradient, (y, winners, x.shape, window)
        yield f"avg_pool2d {at}", avg_pool2d.avg_pool2d, (x, window, True)
        yield f"avg_pool2d gradient {at}", avg_pool2d.avg_pool2d_gradient, (y, x.shape, window, True)
        constants = (5, 1e-4, 0.75, 2.0)
        yield f"lrn {at}", local_response_norm.local_response_norm, (x, *constants)
        yield f"lrn gradient {at}", local_response_norm.local_response_norm_gradient, (normal(*x.shape), x, *constants)
        yield f"relu_gradient {at}", relu.relu_gradient, (normal(*x.shape), x)
        yield f"channel_sum {at}", channel_sum.channel_sum, (x,)
        mean, rest, var = batch_norm2d.batch_statistics(x)
        known, shift = (x, mean, rest, var), normal(C)
        yield f"batch statistics {at}", batch_norm2d.batch_statistics, (x,)
        yield f"batch_norm2d {at}", batch_norm2d.batch_norm2d, (*known, shift, shift)
        gradients = normal(*x.shape), *known
        yield f"batch_norm2d parameters {at}", batch_norm2d.batch_norm2d_parameter_gradients, gradients
        given = *gradients, shift, shift, shift
        yield f"batch_norm2d gradient {at}", batch_norm2d.batch_norm2d_input_gradient, given
    yield "dropout 4096", dropout.dropout, (normal(128, 4096), 0.5, Key(1))
    weight = normal(9216, 4096)
    yield "sgd_paper fc6", sgd.sgd_paper, (weight, weight.copy(), weight.copy(), 1e-9, 0.9, 5e-4, False)


def milliseconds(call: Callable[..., Any], args: tuple[Any, ...]) -> float:
    time.sleep(PAUSE)
    begin = time.perf_counter()
    call(*args)
    return 1000 * (time.perf_counter() - begin)


def main(words: list[str]) -> None:
    print(f"float32, batch {N}, {num_threads()} kernel threads, {TURNS} turns")
    print(f"{'':32} {'body ms':>9} {'kernel ms':>9} {'ratio':>7}   smallest … largest")
    for name, op, args in cases():
        if words and not any(word in name for word in words):
            continue
        with settings(conv2d="im2col" if "im2col" in name else "auto"):
            compare(name, op, args)


def compare(name: str, op: Any, args: tuple[Any, ...]) -> None:
    ours, body = op(*args), op.reference(*args)
    for mine, expected in zip(*((r if isinstance(r, tuple) else (r,)) for r in (ours, body)), strict=True):
        if mine is not None:  # the optimiser's steps return nothing; tests hold their bits equal
            np.testing.assert_allclose(mine, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    pairs = [(milliseconds(op.reference, args), milliseconds(op, args)) for _ in range(TURNS)]
    ratios = [slow / fast for slow, fast in pairs]
    slow, fast = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(ratios)
    print(f"{name:32} {slow:9.2f} {fast:9.2f} {ratio:6.1f}×   {min(ratios):.1f} … {max(ratios):.1f}")


main(sys.argv[1:])
