"""The training loop.

All randomness follows from the seed, the epoch and the step, and all progress from the step number; so the state of
a training is its arrays, that number, and what has been counted and measured so far. Restored, it goes on to the
same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from minidl.accelerate import settings
from minidl.arrays import Array, to_device
from minidl.data import Dataset, Loader, Preprocessing
from minidl.errors import NonFiniteError
from minidl.layer import Layer
from minidl.losses import SoftmaxCrossEntropy
from minidl.precision import MixedPrecision, working
from minidl.random import Key
from minidl.training.config import Config
from minidl.training.metrics import Tally, evaluate, figures, read, read_every
from minidl.training.report import Reporter
from minidl.training.step import CURE, finite_parameters, may_skip, train_step

LOG_EVERY = 20  # steps between two lines of the log
T = TypeVar("T")


class Stopwatch:
    """How many seconds one has waited for the next of something."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def over(self, items: Iterator[T]) -> Iterator[T]:
        """The items, each waited for."""
        while True:
            begin = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self.seconds += time.perf_counter() - begin
            yield item


class Trainer:
    """Trains a net on a data set.

    net: ends in one output (a logit) for each class of the data set.
    stop: asked after every step; when it says True, `run` returns early, between two steps.
    log: called with what is to be logged: the loss every few steps, and each epoch's figures.
    save: called at the end of every epoch, and every `config.checkpoint_every` steps.
    """

    def __init__(
        self,
        net: Layer,
        dataset: Dataset,
        preprocessing: Preprocessing,
        config: Config,
        *,
        reporter: Reporter | None = None,
        stop: Callable[[], bool] = lambda: False,
        log: Callable[[dict[str, Any]], None] = lambda entry: None,
        save: Callable[[Trainer], None] = lambda trainer: None,
    ) -> None:
        self.net = net.to(config.device, config.dtype)
        self.working = working(self.net, config.precision)  # it computes, over the same parameters
        self.dataset, self.preprocessing, self.config = dataset, preprocessing, config
        self.reporter = reporter or Reporter()
        self.stop, self.log, self.save = stop, log, save

        self.key = Key(config.seed)
        self.train_loader = self._loader(train=True)
        self.test_loader = self._loader(train=False)
        self.loss = SoftmaxCrossEntropy(label_smoothing=config.label_smoothing)
        self.optimizer = config.make_optimizer(net.parameters())
        self.schedule = config.make_schedule(self.steps_per_epoch)

        self.step = 0
        self._tally = Tally()
        self._unread: list[tuple[tuple[int, float, int], Array]] = []  # (step, lr, images) and their figures
        self.history: list[dict[str, Any]] = []

    def _loader(self, train: bool) -> Loader:
        return Loader(
            self.dataset.train if train else self.dataset.test,
            self.preprocessing,
            self.config.batch,
            train=train,
            key=self.key.at("data"),
            dtype=self.config.dtype,
            on_bad_image=self.config.on_bad_image,
            device=self.config.device,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Batches an epoch."""
        return len(self.train_loader)

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.config.epochs * self.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether all epochs are done and tested."""
        return len(self.history) >= self.config.epochs

    @property
    def is_best(self) -> bool:
        """Whether the last epoch reached the highest test top-1 so far."""
        top1 = [row["test_top1"] for row in self.history]
        return bool(top1[-1] > max(top1[:-1], default=-1.0))

    @property
    def tally(self) -> Tally:
        """What the steps of this epoch came to so far."""
        self._read()
        return self._tally

    def run(self) -> None:
        """Train until all epochs are done or `stop` says so.

        Raises: NonFiniteError where the loss becomes NaN or infinite; whatever reading the images raises.
        """
        self.reporter.start(self)
        try:
            with settings(tf32=self.config.precision == "tf32"):
                while not self.finished and not self.stop():
                    self._run_epoch()
        finally:
            self.reporter.stop()

    def _run_epoch(self) -> None:
        # A training stopped between the last step of an epoch and its test begins with no batch, and tests.
        epoch = len(self.history)
        first_batch = self.step - epoch * self.steps_per_epoch
        begin, seen_before = time.perf_counter(), self.tally.count
        batches = self.train_loader.epoch(epoch, first_batch)
        waiting = Stopwatch()
        try:
            for batch in waiting.over(batches):
                self._run_step(epoch * self.steps_per_epoch + batch.index, batch.images, batch.labels)
                if self.stop():
                    self._save()
                    return
                every = self.config.checkpoint_every
                if every and self.step % every == 0 and self.step % self.steps_per_epoch:
                    self._save()
        finally:
            batches.close()
        self._read()
        seconds = time.perf_counter() - begin

        # Reached even if the last batches held no readable image and were skipped.
        self.step = (epoch + 1) * self.steps_per_epoch
        test = evaluate(self.net, self.test_loader.epoch(), self.config.device)
        row = {
            "epoch": epoch + 1,
            "step": self.step,
            "lr": self.schedule.lr(self.step - 1),
            "train_loss": self.tally.loss,
            "train_top1": self.tally.top1,
            "test_loss": test.loss,
            "test_top1": test.top1,
            "test_top5": test.top5,
            "images_per_s": (self.tally.count - seen_before) / seconds,
            "waiting": waiting.seconds / seconds,
            "skipped_images": len(self.train_loader.skipped) + len(self.test_loader.skipped),
        }
        self.history.append(row)
        self.schedule = self.schedule.observed(self.step, 1 - test.top1)
        self._tally = Tally()
        self.log({"event": "epoch", **row})
        self._save()
        self.reporter.epoch(self, row)  # last, as whoever reads may have gone

    def _run_step(self, step: int, images: Array, labels: Array) -> None:
        device, lr = self.config.device, self.schedule.lr(step)
        every = read_every(device)
        try:
            loss, logits = train_step(
                self.working, self.loss, self.optimizer, to_device(images, device), labels, lr, self.key.at(step),
                check=every == 1,
            )  # fmt: skip
        except NonFiniteError as error:
            raise NonFiniteError(f"step {step + 1}, lr {lr:g}: {error}") from None
        self.step = step + 1
        self._unread.append(((self.step, lr, len(labels)), figures(loss, logits, labels)))
        if len(self._unread) >= every:
            self._read()

    def _read(self) -> None:
        """Count, log and report the steps that this has not been done for."""
        for (step, lr, count), (loss, top1_hits, top5_hits) in read(self._unread):
            if not math.isfinite(loss) and not may_skip(self.working):
                raise NonFiniteError(f"step {step}, lr {lr:g}: the loss is {loss}; {CURE}")
            self._tally.take(count, loss, top1_hits, top5_hits)
            if step % LOG_EVERY == 0:
                self.log({"event": "step", "step": step, "loss": loss, "lr": lr})
            self.reporter.step(self, loss, lr)

    def _save(self) -> None:
        self._read()
        # The loss of a step cannot tell whether the update after it went to infinity; the parameters can.
        if not finite_parameters(self.net):
            raise NonFiniteError(
                f"step {self.step}: parameters are no longer finite, so nothing was saved; try a lower learning rate"
            )
        self.save(self)

    def arrays(self) -> dict[str, Array]:
        """All arrays that a checkpoint needs: "net.…" and "optimizer.…"."""
        return {f"net.{name}": array for name, array in self.net.state_dict().items()} | {
            f"optimizer.{name}": array for name, array in self.optimizer.state_dict().items()
        }

    def state(self) -> dict[str, Any]:
        """All that is not an array, ready for JSON."""
        return {
            "step": self.step,
            "tally": self.tally.to_dict(),
            "history": self.history,
            "schedule": self.schedule.history,
            "loss_scale": self.working.state() if isinstance(self.working, MixedPrecision) else {},
        }

    def restore(self, arrays: dict[str, Array], state: dict[str, Any]) -> None:
        """Go back to where `arrays` and `state` were taken.

        Raises: CheckpointError where they belong to another net or optimiser.
        """
        parts: dict[str, dict[str, Array]] = {"net": {}, "optimizer": {}}
        for path, array in arrays.items():
            owner, _, name = path.partition(".")
            parts.setdefault(owner, {})[name] = array
        self.net.load_state_dict(parts["net"])
        self.optimizer.load_state_dict(parts["optimizer"])
        self.step, self.history = state["step"], list(state["history"])
        self._tally = Tally(**state["tally"])
        for step, error in state["schedule"]:
            self.schedule = self.schedule.observed(step, error)
        if isinstance(self.working, MixedPrecision):
            self.working.restore(state["loss_scale"])
