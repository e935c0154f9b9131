"""Learning-rate schedules: values that tell the rate of each step.

A schedule holds no counters. `lr(step)` is a plain function of the step number, so resuming needs nothing but that
number; only `Plateau` also holds the history of validation errors that it answers to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from numbers import Real

from minidl.errors import ArgumentError, expect_a, expect_integer, expect_number, told


@dataclass(frozen=True)
class Schedule:
    """The rate `base_lr`, unchanged, at every step: what the other schedules vary.

    Raises: ArgumentError for rates, factors, numbers of steps and errors that make no sense, such as a negative step.
    """

    base_lr: float

    def __post_init__(self) -> None:
        self._number("base_lr", "[0, inf)")

    def lr(self, step: int) -> float:
        """The learning rate of step 0, 1, 2, …"""
        self._check_step(step)
        return self.base_lr

    def observed(self, step: int, error: float) -> Schedule:
        """The schedule after a validation error was measured before `step`."""
        self._check_step(step)
        if not isinstance(error, Real) or isinstance(error, bool):
            raise ArgumentError(f"{type(self).__name__}: error: expected a number, got {told(error)}")
        return self

    @property
    def history(self) -> tuple[tuple[int, float], ...]:
        """The (step, validation error) pairs that the rate depends on."""
        return ()

    # A NumPy number as a setting becomes a Python one, so that the rate is one too.

    def _number(self, name: str, within: str) -> None:
        object.__setattr__(self, name, expect_number(type(self).__name__, name, getattr(self, name), within))

    def _integer(self, name: str, least: int = 1) -> None:
        object.__setattr__(self, name, expect_integer(type(self).__name__, name, getattr(self, name), least))

    def _check_step(self, step: int) -> None:
        expect_integer(type(self).__name__, "step", step, least=0)


@dataclass(frozen=True)
class Constant(Schedule):
    """lr = base_lr."""


@dataclass(frozen=True)
class Step(Schedule):
    """lr = base_lr · gamma^⌊step / step_size⌋

    >>> [round(Step(0.1, step_size=2).lr(step), 6) for step in range(5)]
    [0.1, 0.1, 0.01, 0.01, 0.001]
    """

    step_size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._integer("step_size")
        self._number("gamma", "[0, 1]")

    def lr(self, step: int) -> float:
        """See `Schedule.lr`."""
        self._check_step(step)
        return self.base_lr * self.gamma ** (step // self.step_size)


@dataclass(frozen=True)
class Cosine(Schedule):
    """lr = final_lr + (base_lr − final_lr) · (1 + cos(π · step/steps)) / 2, and final_lr from `steps` on.

    Source: Loshchilov and Hutter 2017, arXiv 1608.03983, equation 5.
    """

    steps: int
    final_lr: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._integer("steps")
        self._number("final_lr", "[0, inf)")

    def lr(self, step: int) -> float:
        """See `Schedule.lr`."""
        self._check_step(step)
        progress = min(step / self.steps, 1.0)
        return self.final_lr + (self.base_lr - self.final_lr) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Plateau(Schedule):
    """Multiply the rate by gamma whenever `patience` validations in a row brought no new lowest error.

    At most `drops` times. This is what the paper's authors did by hand: "divide the learning rate by 10 when the
    validation error rate stopped improving", three times.
    PyTorch's ReduceLROnPlateau waits for patience + 1, and calls gamma `factor`.
    Source: Krizhevsky, Sutskever, Hinton 2012, §5.

    >>> schedule = Plateau(0.01, patience=2)
    >>> for step, error in [(10, 0.5), (20, 0.4), (30, 0.4), (40, 0.4)]:
    ...     schedule = schedule.observed(step, error)
    >>> schedule.lr(39), schedule.lr(40)
    (0.01, 0.001)
    """

    gamma: float = 0.1
    patience: int = 5
    drops: int = 3
    seen: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("gamma", "[0, 1]")
        self._integer("patience")
        self._integer("drops", least=0)

    def observed(self, step: int, error: float) -> Plateau:
        """See `Schedule.observed`. The steps ascend."""
        super().observed(step, error)
        if self.seen and step < self.seen[-1][0]:
            raise ArgumentError(f"Plateau: step: expected at least {self.seen[-1][0]}, that of the last, got {step}")
        return replace(self, seen=(*self.seen, (step, error)))

    @property
    def history(self) -> tuple[tuple[int, float], ...]:
        """See `Schedule.history`."""
        return self.seen

    def lr(self, step: int) -> float:
        """See `Schedule.lr`."""
        self._check_step(step)
        lowest, waited, dropped = math.inf, 0, 0
        for when, error in self.seen:
            if when > step:
                break
            waited = 0 if error < lowest else waited + 1
            lowest = min(lowest, error)
            if waited == self.patience and dropped < self.drops:
                waited, dropped = 0, dropped + 1
        return self.base_lr * self.gamma**dropped


@dataclass(frozen=True)
class WarmUp(Schedule):
    """lr = after.lr(step) · (step + 1) / steps during the first `steps` steps, then after.lr(step).

    `base_lr` is that of the schedule which follows: build with `WarmUp.before(after, steps)`.
    Source: Goyal et al. 2017, arXiv 1706.02677, §2.2.
    """

    after: Schedule
    steps: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self._integer("steps")
        expect_a(Schedule, "WarmUp", "after", self.after)
        if self.base_lr != self.after.base_lr:
            raise ArgumentError(f"WarmUp: base_lr: expected {self.after.base_lr}, that of after, got {self.base_lr}")

    @classmethod
    def before(cls, after: Schedule, steps: int) -> WarmUp:
        """A warm-up that leads into another schedule."""
        expect_a(Schedule, "WarmUp", "after", after)
        return cls(after.base_lr, after, steps)

    def lr(self, step: int) -> float:
        """See `Schedule.lr`."""
        self._check_step(step)
        return self.after.lr(step) * min((step + 1) / self.steps, 1.0)

    def observed(self, step: int, error: float) -> WarmUp:
        """See `Schedule.observed`."""
        return replace(self, after=self.after.observed(step, error))

    @property
    def history(self) -> tuple[tuple[int, float], ...]:
        """See `Schedule.history`."""
        return self.after.history


SCHEDULES = ("constant", "step", "plateau", "cosine")
