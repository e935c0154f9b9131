"""A small pool of threads for kernels that release Python's global lock.

Kernels are compiled without Numba's own threads, which abort the process when two Python threads enter at once
("workqueue") or spin against those of the matrix product ("omp"). Here a kernel runs over a range, and `split` cuts
the range into parts. The caller takes parts too, and whoever is free takes the next: a caller never waits for a part
that nobody has begun, so calls may nest, and may come from many threads at once.

Waking a thread and hearing of its end takes some 70 µs, in which a light kernel handles half a million numbers.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from queue import SimpleQueue
from threading import Lock, Semaphore, Thread
from typing import Any

import numpy as np

from minidl.errors import ArgumentError, expect_integer
from minidl.kernels.blas import one_thread_per_product

GRAIN = 1 << 18  # the fewest numbers that a light kernel gives to a thread


_chosen: int | None = None


def set_num_threads(n: int) -> None:
    """Let kernels use so many threads from now on, in this process.

    Raises: ArgumentError where n is not a positive integer.
    """
    global _chosen
    _chosen = expect_integer("set_num_threads", "n", n)


def num_threads() -> int:
    """How many threads a kernel may use: what `set_num_threads` says, or MINIDL_NUM_THREADS, or else the CPUs that this
    process may run on.

    Raises: ArgumentError where MINIDL_NUM_THREADS is not a positive integer.
    """
    if _chosen is not None:
        return _chosen
    wanted = os.environ.get("MINIDL_NUM_THREADS")
    if wanted:
        if not wanted.isdecimal() or int(wanted) < 1:
            raise ArgumentError(f"MINIDL_NUM_THREADS: expected a positive integer, got {wanted!r}")
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def split(n: int, body: Callable[..., None], *args: Any, grain: int = GRAIN) -> None:
    """Run body(*args, start, stop) over contiguous parts of range(n), at most one part for each thread.

    A part gets at least `grain` numbers of the largest array, so that it is worth a thread.
    Raises: whatever body raises, after all parts have ended.
    """
    size = max((a.size for a in args if isinstance(a, np.ndarray)), default=0)
    parts = min(n, num_threads(), max(1, size // grain))
    if parts > 1:
        _pool.run(_Job(body, args, n, parts), parts - 1)
    elif n:
        body(*args, 0, n)


def split_products(n: int, body: Callable[..., None], *args: Any) -> None:
    """`split` for bodies that compute matrix products: each thread its own, and every part is worth a thread."""
    with one_thread_per_product():
        split(n, body, *args, grain=1)


class _Job:
    """One call of `split`: the parts that nobody has begun, and a count of those that have ended."""

    def __init__(self, body: Callable[..., None], args: tuple[Any, ...], n: int, parts: int) -> None:
        self.body, self.args, self.parts = body, args, parts
        self.open = deque((n * i // parts, n * (i + 1) // parts) for i in range(parts))
        self.context = copy_context()  # NumPy's errstate among others
        self.ended = Semaphore(0)
        self.error: BaseException | None = None

    def work(self) -> None:
        """Take parts until none is left."""
        while True:
            try:
                start, stop = self.open.popleft()
            except IndexError:
                return
            try:
                self.context.copy().run(self.body, *self.args, start, stop)
            except BaseException as error:
                self.error = error
            finally:
                self.ended.release()

    def wait(self) -> None:
        """Return when every part has ended."""
        for _ in range(self.parts):
            self.ended.acquire()
        try:
            if self.error:
                raise self.error
        finally:
            self.args, self.error = (), None  # a queue or a traceback may hold the job: let go of the arrays


class _Pool:
    """Daemon threads, as many as any call has asked for: they never keep the process from ending."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[_Job] = SimpleQueue()
        self.lock = Lock()
        self.size = 0

    def run(self, job: _Job, helpers: int) -> None:
        """Work on the job, with the help of so many threads as are free."""
        with self.lock, suppress(RuntimeError):  # "can't start new thread": the caller does without
            while self.size < helpers:
                Thread(target=self._serve, name="minidl kernel", daemon=True).start()
                self.size += 1
        for _ in range(helpers):
            self.jobs.put(job)
        job.work()
        job.wait()

    def _serve(self) -> None:
        while True:
            self.jobs.get().work()  # no name for the job: it would keep the arrays alive until the next one


_pool = _Pool()


def _start_afresh() -> None:
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):  # a forked child inherits the queue, but none of the threads
    os.register_at_fork(after_in_child=_start_afresh)
