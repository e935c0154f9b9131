from __future__ import annotations

import math

import pytest

from minidl.schedules import Constant, Cosine, Plateau, Schedule, Step, WarmUp


def test_constant():
    assert [Constant(0.3).lr(step) for step in (0, 1, 10**9)] == [0.3] * 3


def test_step():
    schedule = Step(0.5, step_size=3, gamma=0.2)
    for step in range(12):
        assert schedule.lr(step) == pytest.approx(0.5 * 0.2 ** math.floor(step / 3))
    assert Step(0.5, step_size=3).lr(3) == pytest.approx(0.05)


def test_cosine():
    schedule = Cosine(0.5, steps=8, final_lr=0.1)
    for step in range(9):
        assert schedule.lr(step) == pytest.approx(0.3 + 0.2 * math.cos(math.pi * step / 8))
    assert (schedule.lr(0), schedule.lr(8), schedule.lr(100)) == (0.5, 0.1, 0.1)
    assert Cosine(0.5, steps=8).lr(4) == pytest.approx(0.25)
    assert Cosine(0.5, steps=8).lr(8) == 0


def observe(schedule: Schedule, errors: list[float], every: int = 10) -> Schedule:
    for i, error in enumerate(errors):
        schedule = schedule.observed((i + 1) * every, error)
    return schedule


def test_plateau_drops_after_patience_validations_without_progress():
    schedule = observe(Plateau(1.0, patience=2), [0.5, 0.6, 0.4, 0.4, 0.41, 0.39, 0.5, 0.39, 0.3])
    #                                              best       best  1    2     best  1    2     best
    rates = [schedule.lr(step) for step in range(0, 100, 10)]
    assert rates == pytest.approx([1, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])
    assert schedule.lr(49) == 1
    assert schedule.lr(50) == pytest.approx(0.1)


def test_plateau_counts_anew_after_a_drop():
    schedule = observe(Plateau(1.0, patience=3), [0.5] * 8)
    assert [round(schedule.lr(step), 9) for step in (39, 40, 69, 70)] == [1, 0.1, 0.1, 0.01]


def test_plateau_drops_three_times_at_most():
    schedule = observe(Plateau(1.0, patience=1), [0.5] * 20)
    assert schedule.lr(10**6) == pytest.approx(1e-3)
    assert observe(Plateau(1.0, patience=1, drops=0), [0.5] * 20).lr(10**6) == 1
    assert observe(Plateau(1.0, gamma=0.5, patience=1, drops=5), [0.5] * 20).lr(10**6) == pytest.approx(0.5**5)


def test_plateau_takes_a_nan_for_no_progress():
    assert observe(Plateau(1.0, patience=2), [0.5, math.nan, math.nan]).lr(30) == pytest.approx(0.1)
    assert observe(Plateau(1.0, patience=2), [math.nan, math.nan, 0.5]).lr(30) == pytest.approx(0.1)
    assert observe(Plateau(1.0, patience=2), [math.nan, 0.5, 0.4]).lr(30) == 1


def test_a_schedule_is_a_value():
    schedule = Plateau(1.0, patience=1)
    later = observe(schedule, [0.5, 0.5])
    assert schedule.history == ()
    assert schedule.lr(100) == 1
    assert later.history == ((10, 0.5), (20, 0.5))
    assert Constant(1.0).observed(10, 0.5) == Constant(1.0)
    assert Constant(1.0).history == ()
    with pytest.raises(AttributeError):
        schedule.base_lr = 2.0


@pytest.mark.parametrize(
    "make", [lambda: Plateau(0.3, patience=2), lambda: WarmUp.before(Plateau(0.3, patience=2), 25)]
)
def test_resuming_by_history(make):
    errors = [0.9, 0.8, 0.8, 0.85, 0.7, 0.7, 0.7, 0.7]
    straight = observe(make(), errors)
    resumed = make()
    for step, error in observe(make(), errors[:4]).history:
        resumed = resumed.observed(step, error)
    for i, error in enumerate(errors[4:], start=5):
        resumed = resumed.observed(10 * i, error)
    assert resumed == straight
    assert [resumed.lr(step) for step in range(100)] == [straight.lr(step) for step in range(100)]


def test_warm_up_rises_linearly_and_leads_into_what_follows():
    after = Cosine(0.4, steps=20)
    schedule = WarmUp.before(after, steps=4)
    assert schedule.base_lr == 0.4
    for step in range(20):
        expected = after.lr(step) * ((step + 1) / 4 if step < 4 else 1)
        assert schedule.lr(step) == pytest.approx(expected)
    assert WarmUp.before(Constant(1.0), 4).lr(0) == 0.25
    assert WarmUp.before(Constant(1.0), 1).lr(0) == 1


def test_warm_up_passes_errors_on():
    schedule = observe(WarmUp.before(Plateau(1.0, patience=1), 5), [0.5, 0.5])
    assert isinstance(schedule, WarmUp)
    assert schedule.history == ((10, 0.5), (20, 0.5))
    assert schedule.lr(20) == pytest.approx(0.1)
