"""A contender in a process of its own, so that its memory is its own, and its threads rest while another's turn lasts.

The parent writes (method, arguments) to the standard input of the worker, and reads (answer, error) from a pipe that
was its standard output; what libraries print goes to standard error.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeVar

import minidl
from minidl.arrays import Array
from minidl.bench.clock import Turn
from minidl.bench.machine import peak_rss, reset_peak_rss
from minidl.bench.task import Task
from minidl.bench.work import Work
from minidl.errors import MinidlError

# How libraries are told the number of threads, before they are imported.
VARIABLES = ("MINIDL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


T = TypeVar("T")


class WorkerError(MinidlError, RuntimeError):
    """A contender's process failed."""


class Worker:
    """A contender's process, as its parent sees it. Leaving the `with` block ends it.

    Raises: WorkerError naming the contender where the process fails or dies.
    """

    def __init__(self, contender: str, threads: int, device: str = "cpu", precision: str = "float32") -> None:
        self.contender = contender
        program = "from minidl.bench.worker import main; main()"
        here = str(Path(minidl.__file__).parents[1])
        path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, contender, str(threads), device, precision],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ
            | dict.fromkeys(VARIABLES, str(threads))
            | {"PYTHONPATH": path, "CUPY_TF32": str(int(precision == "tf32"))},
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()

    def begin(self, task: Task) -> tuple[list[str], float]:
        """Make ready for a task, forgetting the one before: what can be run, and the seconds that it took."""
        answer: tuple[list[str], float] = self._ask("begin", task)
        return answer

    def check(self) -> tuple[list[str], float]:
        """Compute the task's results, which `result` then gives one by one: their names, and the seconds it took."""
        answer: tuple[list[str], float] = self._ask("check")
        return answer

    def result(self, name: str) -> Array:
        """One of the results, which the worker then forgets."""
        answer: Array = self._ask("result", name)
        return answer

    def turn(self, run: str, calls: int = 1) -> Turn:
        """How long one call of a run takes, in the mean of several."""
        answer: Turn = self._ask("turn", run, calls)
        return answer

    def reset_peak(self) -> bool:
        """Let the peak of memory begin anew; whether that can be done here."""
        answer: bool = self._ask("reset_peak")
        return answer

    def peak(self) -> int:
        """The most memory that the process held, in bytes."""
        answer: int = self._ask("peak")
        return answer

    def device_peak(self) -> int | None:
        """The most memory that it took of a GPU; None without one."""
        answer: int | None = self._ask("device_peak")
        return answer

    def gpu(self) -> dict[str, Any]:
        """The GPU that it computes on; nothing without one."""
        answer: dict[str, Any] = self._ask("gpu")
        return answer

    def _ask(self, method: str, *arguments: Any) -> Any:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            _write(process.stdin, (method, arguments))
            answer, error = pickle.load(process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            code = process.wait()
            likely = "; killed, probably for lack of memory" if code in (-signal.SIGTERM, -9) else ""
            raise WorkerError(f"{self.contender}: its process ended in {method!r} with code {code}{likely}") from None
        if error is not None:
            raise WorkerError(f"{self.contender}: {error}")
        return answer


def ask(question: Callable[[Worker], T], workers: Sequence[Worker], together: bool) -> dict[str, T]:
    """What each answers, by contender: one after the other, or all at the same time."""
    with ThreadPoolExecutor(len(workers) if together else 1) as threads:
        return dict(zip((worker.contender for worker in workers), threads.map(question, workers), strict=True))


class Server:
    """The worker's side: the methods that `Worker` asks for."""

    def __init__(self, contender: str, threads: int, device: str, precision: str) -> None:
        from minidl.bench.contenders import make

        self.contender = make(contender, threads, device, precision)
        self.work = Work({})
        self.results: dict[str, Array] = {}

    def begin(self, task: Task) -> tuple[list[str], float]:
        """See `Worker.begin`."""
        self.work, self.results = Work({}), {}
        gc.collect()
        begin = time.perf_counter()
        self.work = self.contender.begin(task)
        return list(self.work.runs), time.perf_counter() - begin

    def check(self) -> tuple[list[str], float]:
        """See `Worker.check`."""
        begin = time.perf_counter()
        self.results = self.work.results()
        return list(self.results), time.perf_counter() - begin

    def result(self, name: str) -> Array:
        """See `Worker.result`."""
        return self.results.pop(name)

    def turn(self, run: str, calls: int) -> Turn:
        """See `Worker.turn`."""
        gc.collect()
        return self.work.turn(run, calls)

    def reset_peak(self) -> bool:
        """See `Worker.reset_peak`."""
        self.results = {}
        gc.collect()
        self.contender.clock.reset_peak()
        return reset_peak_rss()

    def peak(self) -> int:
        """See `Worker.peak`."""
        return peak_rss()

    def device_peak(self) -> int | None:
        """See `Worker.device_peak`."""
        return self.contender.clock.peak()

    def gpu(self) -> dict[str, Any]:
        """See `Worker.gpu`."""
        return self.contender.clock.describe()


def _write(stream: IO[bytes], value: Any) -> None:
    pickle.dump(value, stream, protocol=pickle.HIGHEST_PROTOCOL)
    stream.flush()


def serve(contender: str, threads: int, device: str, precision: str, requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until the parent is gone."""
    from minidl import settings

    with settings(kernels="reference" if contender == "reference" else "auto", tf32=precision == "tf32"):
        server: Server | None = None
        while True:
            try:
                method, arguments = pickle.load(requests)
            except EOFError:
                return
            try:
                server = server or Server(contender, threads, device, precision)
                _write(answers, (getattr(server, method)(*arguments), None))
            except BrokenPipeError:
                return
            except MinidlError as error:
                _write(answers, (None, str(error)))
            except Exception as error:
                _write(answers, (None, f"{type(error).__name__}: {error}"))


def main() -> None:
    """The process: its arguments are the contender and the number of threads."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears of it, and ends this process
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    contender, threads, device, precision = sys.argv[1:]
    serve(contender, int(threads), device, precision, sys.stdin.buffer, answers)
