"""Turn by turn: each contender runs once, then each again, so that a machine that slows down slows all of them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minidl.bench.clock import Turn
from minidl.bench.worker import Worker

PAUSE = 0.05  # seconds before each turn: threads of a matrix product spin on after it, and would slow the next one
TURN = 0.2  # seconds that a turn should last at least, so that short runs are repeated in it
MOST_CALLS = 1000


@dataclass(frozen=True)
class Times:
    """What the turns of one contender took: seconds a call, each the mean of the calls of a turn.

    first: seconds of the first call, compilation included where the comparison of results left any to do.
    """

    turns: tuple[Turn, ...]
    calls: int
    first: float

    @property
    def seconds(self) -> tuple[float, ...]:
        """By the clock of the device."""
        return tuple(turn.seconds for turn in self.turns)

    @property
    def median(self) -> float:
        """The turn in the middle."""
        return statistics.median(self.seconds)

    @property
    def minimum(self) -> float:
        """The fastest turn."""
        return min(self.seconds)

    @property
    def quartiles(self) -> list[float]:
        """Between them lies half of the turns."""
        return quartiles(self.seconds)

    @property
    def launch_share(self) -> float | None:
        """How much of a call's time the host needs to queue it: near 1, the GPU waits for the host."""
        shares = [turn.launch / turn.wall for turn in self.turns if turn.launch is not None]
        return statistics.median(shares) if shares else None

    def to_dict(self) -> dict[str, Any]:
        """The times as JSON can hold them."""
        return {
            "median_s": self.median,
            "minimum_s": self.minimum,
            "quartiles_s": self.quartiles,
            "first_call_s": self.first,
            "calls_per_turn": self.calls,
            "wall_s": statistics.median(turn.wall for turn in self.turns),
            "launch_share": self.launch_share,
        }


def quartiles(values: Sequence[float]) -> list[float]:
    """The first and the third.

    >>> quartiles([1.0, 2.0, 3.0, 4.0, 5.0])
    [2.0, 4.0]
    """
    if len(values) < 2:
        return [values[0], values[0]]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return [first, third]


def ratios(ours: Times, theirs: Times) -> dict[str, Any]:
    """How many times as long theirs took as ours, turn by turn."""
    by_turn = [slow / fast for slow, fast in zip(theirs.seconds, ours.seconds, strict=True)]
    return {
        "ratio": statistics.median(by_turn),
        "ratio_minimum": min(by_turn),
        "ratio_maximum": max(by_turn),
        "ratio_quartiles": quartiles(by_turn),
    }


def warm_up(worker: Worker, run: str, turn: float) -> tuple[float, int]:
    """Seconds of the first call, and how many calls fill a turn."""
    first = worker.turn(run).wall
    worker.turn(run)
    again = worker.turn(run).wall
    return first, max(1, min(MOST_CALLS, math.ceil(turn / max(again, 1e-9))))


def take_turns(workers: Sequence[Worker], run: str, repeats: int, turn: float = TURN) -> dict[str, Times]:
    """The times of each contender, after warming up."""
    warm = {worker.contender: warm_up(worker, run, turn) for worker in workers}
    for worker in workers:
        worker.reset_peak()
    turns: dict[str, list[Turn]] = {worker.contender: [] for worker in workers}
    for _ in range(repeats):
        for worker in workers:
            time.sleep(PAUSE)
            turns[worker.contender].append(worker.turn(run, warm[worker.contender][1]))
    return {name: Times(tuple(taken), warm[name][1], warm[name][0]) for name, taken in turns.items()}
