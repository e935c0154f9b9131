"""Before anything is timed, the contenders' results are held against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minidl.arrays import Array
from minidl.bench.task import Task
from minidl.bench.work import tolerance
from minidl.bench.worker import Worker, ask
from minidl.errors import MinidlError


class DisagreementError(MinidlError, ArithmeticError):
    """Two contenders came to different results, so their times cannot be compared."""


@dataclass
class Check:
    """How a contender came to its results: the seconds of its first pass, compilation included; the largest error of
    its results beside ours; and why it is not to be timed, if its results are wrong.
    """

    seconds: float
    largest_error: float = 0.0
    refused: str = ""


def agree(
    task: Task, ours: Worker, peers: Sequence[Worker], precision: str = "float32", together: bool = False
) -> dict[str, Check]:
    """Hold each result of the peers against ours.

    One variant of a peer may be wrong, and is then refused, where another one agrees with us.

    together: let all compute at once.
    Raises: DisagreementError where no variant of a peer does, naming peer and result.
    """
    checked = ask(lambda worker: worker.check(), [ours, *peers], together)
    names, seconds = checked[ours.contender]
    checks = {ours.contender: Check(seconds)}
    for peer in peers:
        others, seconds = checked[peer.contender]
        checks[peer.contender] = Check(seconds)
        if set(others) != set(names):
            raise DisagreementError(f"{peer.contender}: expected {', '.join(names)}, got {', '.join(others)}")
    for name in names:
        result = ours.result(name)
        if not np.isfinite(result).all():
            raise DisagreementError(f"{name} of {task} is not finite")
        for peer in peers:
            _compare(name, result, peer.result(name), checks[peer.contender], tolerance(task, name, precision))
    kinds = {peer.contender.partition(" ")[0] for peer in peers}
    for kind in sorted(kinds):
        wrong = [checks[peer.contender].refused for peer in peers if peer.contender.partition(" ")[0] == kind]
        if all(wrong):
            raise DisagreementError(f"{task}: beside {kind}, {wrong[0]}")
    return checks


def _compare(name: str, ours: Array, theirs: Array, check: Check, allowed: float) -> None:
    error = relative_error(ours, theirs)
    check.largest_error = max(check.largest_error, error)
    if not error <= allowed and not check.refused:
        distance = f"{error:.1e} from ours, allowed {allowed:.0e}" if np.any(theirs) else "zero, and ours is not"
        check.refused = f"{name} is {distance}"


def relative_error(ours: Array, theirs: Array) -> float:
    """‖ours − theirs‖ / ‖theirs‖; 0 where both are zero, infinite where shapes differ or something is not finite."""
    if np.shape(ours) != np.shape(theirs) or not np.isfinite(theirs).all():
        return float("inf")
    difference, norm = np.linalg.norm(np.ravel(ours - theirs)), np.linalg.norm(np.ravel(theirs))
    return 0.0 if difference == 0 else float(difference / norm) if norm else float("inf")
