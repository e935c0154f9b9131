"""PyTorch's optimisers and schedulers beside ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from twin import torch

from minidl.schedules import Constant, Cosine, Plateau, Schedule, Step, WarmUp

schedulers = torch.optim.lr_scheduler
Scheduler = schedulers.LRScheduler


def pace(
    schedule: Schedule, optimizer: torch.optim.Optimizer, steps: int, errors: Sequence[float]
) -> Iterator[tuple[int, float]]:
    """Each step and our rate, while PyTorch's schedulers change that of its optimiser.

    They move on behind each step. The validation errors come at equal distances, to both sides.
    """
    every = steps // len(errors)
    theirs = counterparts(schedule, optimizer)
    for step in range(steps):
        yield step, schedule.lr(step)
        for scheduler in theirs:
            if not isinstance(scheduler, schedulers.ReduceLROnPlateau):
                scheduler.step()
            elif (step + 1) % every == 0:
                scheduler.step(errors[step // every])
        if (step + 1) % every == 0:
            schedule = schedule.observed(step + 1, errors[step // every])


def counterparts(schedule: Schedule, optimizer: torch.optim.Optimizer) -> list[Scheduler]:
    """The schedulers that together give the rate of a schedule: their factors multiply."""
    match schedule:
        case Constant():
            return []
        case Step(step_size=step_size, gamma=gamma):
            return [schedulers.StepLR(optimizer, step_size, gamma)]
        case Cosine(steps=steps, final_lr=final_lr):
            return [schedulers.CosineAnnealingLR(optimizer, steps, final_lr)]
        case Plateau(base_lr=base_lr, gamma=gamma, patience=patience, drops=drops):
            # PyTorch drops after more than `patience` validations, and until the rate is `min_lr`.
            floor = base_lr * gamma**drops
            return [
                schedulers.ReduceLROnPlateau(
                    optimizer, factor=gamma, patience=patience - 1, threshold=0, min_lr=floor, eps=0
                )
            ]
        case WarmUp(after=after, steps=steps):
            # 1/steps in step 0, and 1 in step steps − 1.
            ramp = schedulers.LinearLR(optimizer, start_factor=1 / steps, total_iters=steps - 1)
            return [ramp, *counterparts(after, optimizer)]
    raise TypeError(f"no counterpart of {schedule}")


def rescale_momentum(optimizer: torch.optim.SGD, factor: float) -> None:
    """Multiply PyTorch's momentum buffers, which makes its update the paper's.

    In the paper's the velocity holds the rate:  v′ = μ·v − lr′·(g + λ·w),  w′ = w + v′.  Put v = −lr·b:

        −lr′·b′ = −μ·lr·b − lr′·(g + λ·w),    that is    b′ = μ·(lr/lr′)·b + g + λ·w,    w′ = w − lr′·b′,

    which is PyTorch's update of a buffer b that was multiplied by lr/lr′, the old rate over the new one. The same
    holds with Nesterov's momentum, since μ·v′ − lr′·(g + λ·w) = −lr′·(μ·b′ + g + λ·w).
    """
    for state in optimizer.state.values():
        if state["momentum_buffer"] is not None:
            state["momentum_buffer"] *= factor
