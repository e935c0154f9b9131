"""The rate of every schedule, step by step, against PyTorch's schedulers.

A new schedule takes a case in `pace.py` that says it in PyTorch's words, and a line in `SCHEDULES` that draws one.
"""

from __future__ import annotations

import inspect
import math

import pytest
from comparing import TITLE
from helpers import examples, tally
from hypothesis import given
from hypothesis import strategies as st
from pace import pace
from twin import torch

from minidl import schedules
from minidl.schedules import Constant, Cosine, Plateau, Schedule, Step, WarmUp

STEPS = 40

rates, factors = st.floats(1e-4, 1), st.sampled_from([0.1, 0.5, 0.9])
constants = st.builds(Constant, rates)
steps = st.builds(Step, rates, st.integers(1, 20), factors)
cosines = st.builds(Cosine, rates, st.integers(STEPS - 1, 60))  # behind its end PyTorch's rises again
plateaus = st.builds(Plateau, rates, factors, st.integers(1, 4), st.integers(0, 5))
# With a warm-up, PyTorch's lowest rate is no count of drops.
endless = st.builds(Plateau, rates, factors, st.integers(1, 4), st.just(100))

SCHEDULES: dict[str, st.SearchStrategy[Schedule]] = {
    "Constant": constants,
    "Cosine": cosines | st.builds(Cosine, rates, st.integers(STEPS - 1, 60), final_lr=st.floats(0, 1e-4)),
    "Plateau": plateaus,
    "Step": steps,
    "WarmUp": st.builds(WarmUp.before, constants | steps | cosines | endless, st.integers(1, 20)),
}


def test_every_schedule_is_compared():
    defined = {
        name for name, value in vars(schedules).items() if inspect.isclass(value) and issubclass(value, Schedule)
    }
    assert set(SCHEDULES) == defined - {"Schedule"}


@pytest.mark.parametrize("kind", SCHEDULES)
@examples(100)
@given(data=st.data(), errors=st.lists(st.sampled_from([0.5, 0.4, 0.3, math.nan]), min_size=8, max_size=8))
def test_the_rate_of_a_schedule_is_pytorchs(kind, data, errors):
    schedule = data.draw(SCHEDULES[kind])
    assert type(schedule).__name__ == kind
    optimizer = torch.optim.SGD([torch.zeros(1)], schedule.base_lr)
    for step, lr in pace(schedule, optimizer, STEPS, errors):
        theirs = optimizer.param_groups[0]["lr"]
        assert abs(lr - theirs) <= 1e-12 * schedule.base_lr, f"step {step}: {lr}, PyTorch's is {theirs}"
        optimizer.step()
    tally[TITLE][kind] += 1
