"""What every test gets: how many examples are drawn, fixtures, and the counts at the end of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import cuda_shim
import fake_cupy
import hypothesis
import numpy as np
import pytest
from helpers import tally

import minidl
from minidl.arrays import parse_device
from minidl.errors import DeviceError

if TYPE_CHECKING:
    from minidl.kernels.geometry import Problem

# Examples a test, unless it asks for another share: see `helpers.examples`. "minidl" draws the same in every run,
# "thorough" others each time. No deadline, and no complaint about slow ones, as the first call of a kernel compiles it.
PROFILES = {"minidl": 100, "thorough": 2500}
for name, max_examples in PROFILES.items():
    hypothesis.settings.register_profile(
        name,
        max_examples=max_examples,
        derandomize=name == "minidl",
        deadline=None,
        database=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
chosen = os.environ.get("HYPOTHESIS_PROFILE", "minidl")
if chosen not in PROFILES:
    raise pytest.UsageError(f"HYPOTHESIS_PROFILE: expected one of {', '.join(PROFILES)}, got {chosen!r}")
hypothesis.settings.load_profile(chosen)


def pytest_addoption(parser: pytest.Parser) -> None:
    """--conv2d ALGORITHM: compute every convolution by it where it fits, whatever the shapes and the dtype."""
    parser.addoption(
        "--conv2d", choices=("auto", "im2col", "winograd"), default="auto", help="the algorithm of all convolutions"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Put the algorithm in the place of "auto"."""
    algorithm = config.getoption("--conv2d")
    if algorithm == "auto":
        return
    from minidl.kernels import winograd

    choose = winograd.tile

    def forced(asked: str, problem: Problem, *details: Any) -> int:
        fits = algorithm == "im2col" or not winograd.obstacle(problem)
        return choose(algorithm if asked == "auto" and fits else asked, problem, *details)

    winograd.tile = forced


@pytest.fixture(params=["cpu", "reference", "cuda-shim", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kernels of the CPU; the ops' own bodies; the kernels of the GPU, run on the CPU (see tests/cuda_shim); a GPU.

    The value is where a test's arrays and layers belong: "cpu" or "cuda:0". From there on everything follows the
    arrays, and is compared on the host: see `helpers.host`.
    """
    if request.param == "cuda":
        try:
            yield parse_device("cuda")
        except DeviceError as error:
            pytest.skip(str(error))
    elif request.param == "cuda-shim":
        if problem := cuda_shim.missing():
            pytest.skip(problem)
        with cuda_shim.running():
            yield "cpu"
    else:
        with minidl.settings(kernels="auto" if request.param == "cpu" else "reference"):
            yield "cpu"


@pytest.fixture
def stand_in() -> Iterator[ModuleType]:
    """What stands in for CuPy, computing by the ops' own bodies (see tests/fake_cupy.py)."""
    with fake_cupy.installed() as cupy:
        yield cupy


@pytest.fixture(scope="module", params=["cuda-shim"])
def on_cuda_shim() -> Iterator[None]:
    """For a whole file: the kernels of the GPU, run on the CPU."""
    if problem := cuda_shim.missing():
        pytest.skip(problem)
    with cuda_shim.running():
        yield


@pytest.fixture(params=["reference", "auto"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test twice: by the ops' own bodies, and by the kernels that stand in for them."""
    with minidl.settings(kernels=request.param):
        yield request.param


@pytest.fixture
def normal() -> Callable[..., np.ndarray]:
    """Normally distributed numbers of a shape, the same for the same arguments."""

    def make(*shape: int, seed: int = 0, dtype: str = "float64") -> np.ndarray:
        return np.random.default_rng(seed).standard_normal(shape).astype(dtype)

    return make


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many examples ran, of each subject."""
    for title, counts in tally.items():
        if counts:
            terminalreporter.section(f"{title}: {counts.total():,}")
        for count in sorted(set(counts.values())):
            subjects = [subject for subject in counts if counts[subject] == count]
            terminalreporter.line(f"{count:,}{' of each' * (len(subjects) > 1)}: {', '.join(subjects)}")
