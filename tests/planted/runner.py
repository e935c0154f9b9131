"""Which test notices when a file of minidl is changed?

A trial is one file with other content, and the tests that should fail with it. Nothing on disk is touched: a child
process is forked for each trial, and imports the changed text in place of the file. What all children need, NumPy,
Numba and pytest, is imported once before the first fork; minidl is not, and no thread runs.

As a program it reads trials from standard input and writes their outcomes to standard output, each as JSON.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

REPOSITORY = Path(__file__).resolve().parents[2]
WORKERS = 2
SHARED = ("numpy", "numba", "hypothesis", "pytest", "safetensors.numpy", "matplotlib.pyplot", "rich", "typer")
MEMORY = 8 << 30  # bytes of addresses for a child, as a fault may ask for any number of them
OPTIONS = [
    "-x", "-q", "--tb=short", "-p", "no:cacheprovider", "--ignore=tests/planted/test_planted.py",
    "--assert=plain", "-W", "ignore:Module already imported so cannot be rewritten",
]  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """The content that `file` shall have, a path from the repository's root; and pytest's arguments to run with it."""

    name: str
    file: str
    source: str
    tests: Sequence[str]
    seconds: float = 60


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    verdict: "caught" by the test `node`; "survived" where all tests passed; "crashed" where the process died;
        "timeout"; "broken" where no test could run.
    """

    name: str
    verdict: Literal["caught", "survived", "crashed", "timeout", "broken"]
    node: str = ""
    says: str = ""
    seconds: float = 0


def run(trials: Iterable[Trial], workers: int = WORKERS) -> Iterator[Outcome]:
    """The outcomes, as they come."""
    _import_what_is_shared()
    waiting, running = deque(trials), list[_Child]()
    with tempfile.TemporaryDirectory(prefix="planted") as folder:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    running.append(_Child(waiting.popleft(), Path(tempfile.mkdtemp(dir=folder))))
                time.sleep(0.005)
                for child in list(running):
                    outcome = child.outcome()
                    if outcome:
                        running.remove(child)
                        yield outcome
        finally:
            for child in running:
                child.kill()


def module_name(file: str) -> str:
    """The module that a file of the repository is imported as.

    >>> module_name("minidl/ops/relu.py"), module_name("kernels/relu.py")
    ('minidl.ops.relu', 'minidl.kernels.relu')
    """
    parts = Path(file).with_suffix("").parts
    return ".".join(parts if parts[0] == "minidl" else ("minidl", *parts))


class _Child:
    """A forked process that tries one trial, and the folder in which it leaves its outcome."""

    def __init__(self, trial: Trial, folder: Path) -> None:
        self.trial, self.folder = trial, folder
        self.begin = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            _try(trial, folder)

    def outcome(self) -> Outcome | None:
        """The outcome, or None while the child runs."""
        seconds = time.monotonic() - self.begin
        pid, _ = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            if seconds < self.trial.seconds:
                return None
            self.kill()
            return Outcome(self.trial.name, "timeout", seconds=seconds)
        written = self.folder / "outcome.json"
        told = json.loads(written.read_text(encoding="utf-8")) if written.exists() else {"verdict": "crashed"}
        if told["verdict"] in ("crashed", "broken"):
            told["says"] = (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace")[-2000:]
        return Outcome(self.trial.name, **told, seconds=seconds)

    def kill(self) -> None:
        """End the child and whatever it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _import_what_is_shared() -> None:
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # or NumPy would start threads, which a fork does not take along
    for name in SHARED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    assert "minidl" not in sys.modules, "a child must import minidl itself, or it gets the unchanged file"


def _try(trial: Trial, folder: Path) -> None:
    """Be the child: run pytest with the changed file, write down what it says, and end."""
    try:
        os.setsid()
        _limit_memory()
        for descriptor, path in (0, os.devnull), (1, folder / "log.txt"):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), descriptor)
        os.dup2(1, 2)
        # The changed file gets a place of its own, beside which Numba keeps its kernels: never among the real ones.
        changed = folder / Path(trial.file).name
        changed.write_text(trial.source, encoding="utf-8")
        sys.meta_path.insert(0, _Instead(module_name(trial.file), changed))
        told = _run_pytest([*trial.tests, f"--basetemp={folder / 'tmp'}"])
        (folder / "outcome.json").write_text(json.dumps(told), encoding="utf-8")
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(0)


def _limit_memory() -> None:
    import resource  # which Windows lacks, as it does fork

    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


class _Instead(importlib.abc.MetaPathFinder):
    """Imports one module from another file."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        return importlib.util.spec_from_file_location(fullname, self.path) if fullname == self.name else None


def _run_pytest(arguments: Sequence[str]) -> dict[str, str]:
    """Run tests up to the first that fails; the verdict, its id and its words."""
    import pytest

    os.chdir(REPOSITORY)
    sys.path[0] = str(REPOSITORY)
    os.environ["PY_IGNORE_IMPORTMISMATCH"] = "1"  # pytest minds that a module comes from another file
    first = _FirstFailure()
    code = pytest.main([*OPTIONS, *arguments], plugins=[first])
    verdict = "caught" if first.node else "survived" if code == pytest.ExitCode.OK else "broken"
    return {"verdict": verdict, "node": first.node, "says": first.says}


class _FirstFailure:
    """A plugin that remembers the first failure, and keeps Hypothesis from making its example smaller."""

    def __init__(self) -> None:
        self.node = self.says = ""

    def pytest_sessionstart(self) -> None:
        from hypothesis import Phase, settings

        settings.register_profile(
            "first failure",
            settings(settings.default, phases=[Phase.explicit, Phase.generate], report_multiple_bugs=False),
        )
        settings.load_profile("first failure")

    def pytest_runtest_logreport(self, report: Any) -> None:
        self._remember(report)

    def pytest_collectreport(self, report: Any) -> None:
        self._remember(report)

    def _remember(self, report: Any) -> None:
        if report.failed and not self.node:
            self.node = report.nodeid
            crash = getattr(report.longrepr, "reprcrash", None)
            self.says = (crash.message if crash else str(report.longrepr)).strip()[:300]


if __name__ == "__main__":
    sys.path[0] = str(REPOSITORY)
    for each in run([Trial(**trial) for trial in json.load(sys.stdin)]):
        print(json.dumps(asdict(each)), flush=True)
