"""What a person sees of a training: a progress bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from minidl.training.trainer import Trainer

PLAIN_LINE_EVERY = 30.0  # seconds between two lines within an epoch where there is no terminal


class Reporter:
    """Hears of everything that happens in a training, and says nothing."""

    def start(self, trainer: Trainer) -> None:
        """Training begins, or goes on."""

    def step(self, trainer: Trainer, loss: float, lr: float) -> None:
        """A step was made, and its loss is known: on a GPU that is so for several steps at once."""

    def epoch(self, trainer: Trainer, row: dict[str, Any]) -> None:
        """An epoch is done and tested; `row` is its line in the history."""

    def note(self, text: str) -> None:
        """Something that the user should know."""

    def stop(self) -> None:
        """Training ends, for whatever reason."""


class ConsoleReporter(Reporter):
    """Speaks through a rich console."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._begin = self._last_line = 0.0
        self._first_step = 0
        self._seen = 0

    def start(self, trainer: Trainer) -> None:
        """See `Reporter.start`."""
        self._begin = self._last_line = time.perf_counter()
        self._first_step, self._seen = trainer.step, 0
        if self.console.is_terminal:
            self._start_bar(trainer)

    def _start_bar(self, trainer: Trainer) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TextColumn("eta"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self.console,
        )
        self._progress.start()
        # Kernels compile inside the first step of a machine's first run; later runs find them on the disk.
        self._task = self._progress.add_task(
            "first step (kernels compile once)", total=trainer.total_steps, completed=trainer.step, figures=""
        )

    def step(self, trainer: Trainer, loss: float, lr: float) -> None:
        """See `Reporter.step`."""
        self._seen += trainer.config.batch
        epoch = (trainer.step - 1) // trainer.steps_per_epoch + 1
        figures = f"loss {trainer.tally.loss:.3f}  top-1 {trainer.tally.top1:6.1%}  {self._rate():,.0f} images/s"
        if self._progress is not None and self._task is not None:
            self._progress.update(
                self._task,
                completed=trainer.step,
                description=f"epoch {epoch:2}/{trainer.config.epochs}",
                figures=figures,
            )
        elif time.perf_counter() - self._last_line > PLAIN_LINE_EVERY:
            self._last_line = time.perf_counter()
            batch = trainer.step - (epoch - 1) * trainer.steps_per_epoch
            self._print(f"epoch {epoch:2}  step {batch}/{trainer.steps_per_epoch}  {figures}  eta {self._eta(trainer)}")

    def epoch(self, trainer: Trainer, row: dict[str, Any]) -> None:
        """See `Reporter.epoch`."""
        self._last_line = time.perf_counter()
        skipped = f"  {row['skipped_images']} bad images skipped" if row["skipped_images"] else ""
        self._print(
            f"epoch {row['epoch']:2}/{trainer.config.epochs}  "
            f"train: loss {row['train_loss']:.3f} top-1 {row['train_top1']:6.1%}  "
            f"test: loss {row['test_loss']:.3f} top-1 {row['test_top1']:6.1%} top-5 {row['test_top5']:6.1%}  "
            f"{row['images_per_s']:,.0f} images/s, {row['waiting']:.0%} waiting for data  "
            f"eta {self._eta(trainer)}{skipped}"
        )

    def note(self, text: str) -> None:
        """See `Reporter.note`."""
        self._print(text)

    def stop(self) -> None:
        """See `Reporter.stop`."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def _rate(self) -> float:
        return self._seen / (time.perf_counter() - self._begin)

    def _eta(self, trainer: Trainer) -> str:
        done = trainer.step - self._first_step
        left = (trainer.total_steps - trainer.step) * (time.perf_counter() - self._begin) / max(done, 1)
        minutes, seconds = divmod(round(left), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
