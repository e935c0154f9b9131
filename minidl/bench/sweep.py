"""Several measurements at once: a list of batches, a list of thread counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minidl.bench.measure import REPEATS, Listener, measure_net, measure_ops, silent
from minidl.errors import ArgumentError

Figures = dict[str, Any]


def sweep(
    model: str,
    mode: str = "train",
    ops: Sequence[str] = (),
    batches: Sequence[int] = (64,),
    threads: Sequence[int | None] = (None,),
    peers: Sequence[str] = (),
    repeats: int = REPEATS,
    device: str = "cpu",
    precision: str = "float32",
    tell: Listener = silent,
) -> list[Figures]:
    """`measure_net`, or with ops `measure_ops`, for each batch at each number of threads.

    Raises: what they raise.
    """
    found = []
    for count in threads:
        for batch in batches:
            if ops:
                found.append(measure_ops(ops, model, batch, peers, count, repeats, device, precision, tell))
            else:
                found.append(measure_net(model, mode, batch, peers, count, repeats, device, precision, tell))
    return found


def counts(name: str, text: str) -> list[int]:
    """[1, 8, 64] of "1,8,64".

    >>> counts("batch", "0,8")
    Traceback (most recent call last):
    minidl.errors.ArgumentError: batch: expected positive integers with commas between, as in 1,8,64; got '0,8'

    Raises: ArgumentError for anything else.
    """
    parts = [part.strip() for part in text.split(",")]
    if all(part.isdecimal() and int(part) > 0 for part in parts):
        return [int(part) for part in parts]
    raise ArgumentError(f"{name}: expected positive integers with commas between, as in 1,8,64; got {text!r}")
