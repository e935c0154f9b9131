"""What several test files share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import hypothesis
import numpy as np
import pytest

import minidl

# No deadline, as the first call of a kernel compiles it; and the same examples in every run.
hypothesis.settings.register_profile("minidl", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("minidl")


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
