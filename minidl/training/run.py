"""A whole training run, from settings to a run folder; and what can be done with one that is trained."""

from __future__ import annotations

import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from minidl import models
from minidl.accelerate import num_threads
from minidl.arrays import float_dtype, to_device, to_host
from minidl.combine import Sequential
from minidl.data import Dataset, Loader, Preprocessing, load, read_image
from minidl.devices import device_name, parse_device, using
from minidl.errors import (
    ArgumentError,
    CheckpointError,
    DataError,
    DeviceError,
    DeviceMemoryError,
    FormatError,
    NonFiniteError,
    UnknownNameError,
    expect_a,
    expect_integer,
    expect_path,
)
from minidl.inference import inference
from minidl.initializers import initialize
from minidl.ops.softmax import softmax
from minidl.random import Key
from minidl.summary import summarize
from minidl.training.checkpoint import keep_checkpoint, load_checkpoint, save_checkpoint
from minidl.training.config import Config
from minidl.training.curves import draw_curves
from minidl.training.folder import Log, claimed, make_folder, require_empty
from minidl.training.metrics import Tally, evaluate
from minidl.training.report import Reporter
from minidl.training.trainer import Trainer

DRAW_EVERY = 10.0  # seconds between two drawings of the curves


@dataclass(frozen=True)
class Result:
    """What a training came to. The test figures are those of the last weights, not of the best epoch."""

    folder: Path
    finished: bool
    epochs: int
    steps: int
    test_top1: float
    test_top5: float
    test_loss: float
    train_loss: float
    train_top1: float
    best_test_top1: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return {**asdict(self), "folder": str(self.folder)}


def configure(where: str = "configure", /, **settings: Any) -> Config:
    """A config: the defaults, over them the recipe of the model, over that the settings given.

    >>> configure(model="alexnet", epochs=30).batch, configure(model="alexnet", epochs=30).epochs
    (128, 30)

    Raises: UnknownNameError, ArgumentError for unknown or unusable settings; `where` tells where they come from.
    """
    architecture, _ = models.parse(settings.get("model", Config.model))
    return Config.from_mapping({**architecture.recipe, **settings}, where)


def train(config: Config, out: str | Path | None = None, reporter: Reporter | None = None) -> Result:
    """Train as the settings say, into a new run folder.

    out: the folder; unless given, the next free runs/MODEL-DATA-N.
    Ctrl-C ends the step at hand, saves, and returns a result that is not `finished`.

    Raises: ArgumentError where `out` already holds a run, and for what is no config, path or reporter; whatever the
        settings, the data or the training raise.
    """
    reporter = _checked_reporter(reporter)
    expect_a(Config, "train", "config", config)
    out = None if out is None else expect_path("train", "out", out)
    with using(config.device):  # told before anything is read or written
        return _begin(config, out, reporter)


def _begin(config: Config, out: Path | None, reporter: Reporter) -> Result:
    dataset = _dataset(config, reporter)
    architecture, options = models.parse(config.model)
    options = {"num_classes": len(dataset.class_names), "in_channels": dataset.channels} | options
    net = architecture.build(**options)
    size = architecture.input_size
    _check_outputs(net, (size, size, options["in_channels"]), dataset, config)
    initialize(net, architecture.scheme(config.init), Key(config.seed).at("init"))
    preprocessing = Preprocessing.measured_on(
        dataset.train,
        height=size,
        width=size,
        channels=options["in_channels"],
        mirror=dataset.mirror,
        on_bad_image=config.on_bad_image,
    )
    folder = make_folder(config, out)
    trainer = Trainer(net, dataset, preprocessing, config)
    description = {
        "model": {"name": architecture.name, "options": options},
        "class_names": dataset.class_names,
        "images": dataset.fingerprint(),
        "preprocessing": preprocessing.to_dict(),
        "environment": environment(config.device),
    }
    with claimed(folder):
        require_empty(folder)
        return _run(trainer, folder, description, reporter)


def resume(
    folder: str | Path, epochs: int | None = None, device: str | None = None, reporter: Reporter | None = None
) -> Result:
    """Go on with a run from its last checkpoint, to the bits that it would have reached uninterrupted.

    epochs: train for another number of epochs in all than the run was told to.
    device: go on with another device.

    Raises: CheckpointError where there is no whole checkpoint; DataError where the data is not what it was;
        ArgumentError for fewer epochs than are done, while another process trains in the folder, and for what is no
        path, number, device or reporter.
    """
    reporter = _checked_reporter(reporter)
    folder = expect_path("resume", "folder", folder)
    epochs = None if epochs is None else expect_integer("resume", "epochs", epochs)
    if device is not None:
        parse_device(device)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such run folder; train starts a new run without --resume")
    with claimed(folder):
        run = load_run(folder, device)
        with using(run.config.device):
            return _resume(run, folder, epochs, reporter)


def _checked_reporter(reporter: Reporter | None) -> Reporter:
    if reporter is None:
        return Reporter()
    expect_a(Reporter, "", "reporter", reporter)
    return reporter


def _resume(run: LoadedRun, folder: Path, epochs: int | None, reporter: Reporter) -> Result:
    config = run.config if epochs is None else replace(run.config, epochs=epochs)
    done = len(run.state["history"])
    if config.epochs < done:
        raise ArgumentError(f"epochs: the run has done {done} already, got {config.epochs}")
    if epochs is not None and epochs != run.config.epochs:
        reporter.note(f"trains for {epochs} epochs instead of {run.config.epochs}: the bits will differ")
    now = environment(config.device)
    for name, then in run.state["environment"].items():
        if now.get(name) != then:
            reporter.note(f"{name} was {then} and is {now.get(name)}: the bits may differ from an uninterrupted run")
    dataset = _dataset(config, reporter)
    now_images, then_images = dataset.fingerprint(), run.state["images"]
    if run.class_names != dataset.class_names or now_images != then_images:
        raise DataError(
            f"{config.data}: expected the images that the run began with ({then_images} in {len(run.class_names)} "
            f"classes), got others ({now_images} in {len(dataset.class_names)}); restore them, or start a new run"
        )
    trainer = Trainer(run.net, dataset, run.preprocessing, config)
    try:
        trainer.restore(run.arrays, run.state)
        description = {
            name: run.state[name] for name in ("model", "class_names", "images", "preprocessing", "environment")
        }
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{run.path}: damaged, or written by another version of minidl ({error!r})") from error
    Log(folder / "log.jsonl").cut(trainer.step)
    reporter.note(f"resumes {folder} at step {trainer.step} of {trainer.total_steps}")
    return _run(trainer, folder, description, reporter)


def _run(trainer: Trainer, folder: Path, description: dict[str, Any], reporter: Reporter) -> Result:
    begin, drawn = time.perf_counter(), time.perf_counter()

    def save(trainer: Trainer) -> None:
        nonlocal drawn
        state = {**description, "config": asdict(trainer.config), **trainer.state()}
        last = folder / "last.safetensors"
        save_checkpoint(last, trainer.arrays(), state)
        if trainer.history and trainer.step == trainer.history[-1]["step"] and trainer.is_best:
            keep_checkpoint(last, "best.safetensors")
        if time.perf_counter() - drawn > DRAW_EVERY:
            drawn = time.perf_counter()
            draw()

    def draw() -> None:
        if trainer.history:
            title = f"{trainer.config.model} on {trainer.config.data}, seed {trainer.config.seed}"
            try:
                draw_curves(trainer.history, title, folder / "curves.png")
            except Exception as error:  # no picture is worth a training run
                reporter.note(f"curves.png could not be drawn: {error}")

    trainer.reporter, trainer.log, trainer.save = reporter, Log(folder / "log.jsonl").write, save
    if not (folder / "last.safetensors").exists():
        save(trainer)  # from here on the folder can be resumed, whatever happens
        (folder / "config.toml").write_text(trainer.config.to_toml(), encoding="utf-8")
    with _interruptible() as interrupted:
        trainer.stop = interrupted
        try:
            with using(trainer.config.device):
                trainer.run()
        except NonFiniteError as error:
            raise NonFiniteError(f"{error}; the last good checkpoint is {folder / 'last.safetensors'}") from None
        except DeviceMemoryError as error:
            last = folder / "last.safetensors"
            raise DeviceError(f"{error}; {_smaller(trainer, error)}; the last good checkpoint is {last}") from error
        except (DataError, FormatError):
            save(trainer)
            reporter.note(f"saved after step {trainer.step}; once it is mended: minidl train --resume {folder}")
            raise
    draw()
    row = trainer.history[-1] if trainer.history else {}
    return Result(
        folder=folder,
        finished=trainer.finished,
        epochs=len(trainer.history),
        steps=trainer.step,
        **{
            name: row.get(name, float("nan"))
            for name in ("test_top1", "test_top5", "test_loss", "train_loss", "train_top1")
        },
        best_test_top1=max((r["test_top1"] for r in trainer.history), default=float("nan")),
        seconds=time.perf_counter() - begin,
    )


def _smaller(trainer: Trainer, error: DeviceMemoryError) -> str:
    """What to do about a batch that was too large."""
    how, config = trainer.preprocessing, trainer.config
    summary = summarize(trainer.net, (how.height, how.width, how.channels))
    estimate = summary.largest_batch(
        error.held + error.free, slots=len(trainer.optimizer.slots), itemsize=float_dtype(config.dtype).itemsize
    )
    batch = min(estimate, config.batch // 2)
    return f"a new run with --batch {batch} should fit" if batch else "not even one image fits; try a smaller model"


@dataclass(frozen=True)
class LoadedRun:
    """A trained net with what it needs to be used: class names and preprocessing."""

    path: Path
    net: Sequential
    config: Config
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    arrays: dict[str, Any]
    state: dict[str, Any]

    def predict(self, image: str | Path, top: int = 5) -> list[tuple[str, float]]:
        """The likeliest classes of an image file, with their probabilities.

        Raises: DataError or FormatError for a file that cannot be read as an image; ArgumentError for what is no path,
            or no number of classes.
        """
        top = expect_integer("predict", "top", top)
        pixels = read_image(image, self.preprocessing.channels, shorter_side=self.preprocessing.resize)
        x = self.preprocessing.apply(pixels, dtype=self.config.dtype)[None]
        with using(self.config.device):
            probabilities = to_host(softmax(self.net(to_device(x, self.config.device))))[0]
        order = np.argsort(-probabilities, kind="stable")[:top]
        return [(self.class_names[i], float(probabilities[i])) for i in order]

    def evaluate(
        self, data: str | None = None, split: str = "test", on_bad_image: str | None = None
    ) -> tuple[Tally, dict[str, str]]:
        """Loss and accuracies on a split of a data set (the run's own unless given); and the bad images skipped.

        Images are prepared as for testing, also those of the training split.

        Raises: DataError where the data set's classes are not those of the run; UnknownNameError for a split other
            than "test" and "train"; what `load` raises.
        """
        if split not in ("test", "train"):
            raise UnknownNameError("split", split, ("test", "train"))
        dataset = load(data or self.config.data)
        if dataset.class_names != self.class_names:
            missing = sorted(set(dataset.class_names) - set(self.class_names))
            unlike = f"it has {', '.join(missing[:5])}, which the run does not know" if missing else "some are missing"
            raise DataError(
                f"{dataset.spec}: expected the {len(self.class_names)} classes that the run was trained on "
                f"({', '.join(self.class_names[:5])}, …), got {len(dataset.class_names)}: {unlike}"
            )
        loader = Loader(
            dataset.train if split == "train" else dataset.test,
            self.preprocessing, self.config.batch, train=False, dtype=self.config.dtype,
            on_bad_image=on_bad_image or self.config.on_bad_image, device=self.config.device,
        )  # fmt: skip
        with using(self.config.device):
            tally = evaluate(inference(self.net), loader.epoch(), self.config.device)
        if not tally.count:
            raise DataError(f"{dataset.spec}: no image of the {split} split could be read, so nothing was measured")
        return tally, loader.skipped


def load_run(path: str | Path, device: str | None = None) -> LoadedRun:
    """The net of a run folder (its last checkpoint) or of one checkpoint file.

    Raises: CheckpointError where it is missing, damaged, or holds another model than it says; ArgumentError,
        DeviceError for what is no path, or a device that cannot be.
    """
    path = expect_path("load_run", "path", path)
    if device is not None:
        parse_device(device)
    if path.is_dir():
        path = path / "last.safetensors"
        if not path.exists():
            raise CheckpointError(f"{path.parent}: holds no checkpoint (last.safetensors)")
    arrays, state = load_checkpoint(path)
    try:
        config = Config.from_mapping(state["config"], str(path))
        config = config if device is None else replace(config, device=device)
        architecture = models.get(state["model"]["name"])
        net = architecture.build(**state["model"]["options"])
        preprocessing = Preprocessing.from_dict(state["preprocessing"])
        class_names = tuple(state["class_names"])
        if net.output_shape((architecture.input_size,) * 2 + (preprocessing.channels,)) != (len(class_names),):
            raise CheckpointError(f"{path}: the checkpoint has {len(class_names)} class names, not one for each output")
    except KeyError as error:
        raise CheckpointError(f"{path}: the checkpoint lacks {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged, or written by another version of minidl ({error})") from error
    weights = {name.removeprefix("net."): array for name, array in arrays.items() if name.startswith("net.")}
    try:
        net.load_state_dict(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    with using(config.device):
        net.to(config.device, config.dtype)
    return LoadedRun(path, net, config, class_names, preprocessing, arrays, state)


def environment(device: str) -> dict[str, str]:
    """What the bits of a run depend on besides its settings."""
    from threadpoolctl import threadpool_info

    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "absent"

    blas = {
        f"{pool['internal_api']} ×{pool['num_threads']}" for pool in threadpool_info() if pool["user_api"] == "blas"
    }
    return {
        "Python": platform.python_version(),
        "minidl": installed("minidl"),
        "NumPy": np.__version__,
        "Numba": installed("numba"),
        "the processor": platform.machine(),
        "the device": device_name(device),
        "the number of kernel threads": str(num_threads()),
        "the matrix product": ", ".join(sorted(blas)) or "unknown",
    }


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Within: the first Ctrl-C only sets what the yielded function tells; a second one interrupts as usual."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def handle(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, before)
        asked.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _dataset(config: Config, reporter: Reporter) -> Dataset:
    dataset = load(config.data)
    for note in dataset.notes:
        reporter.note(note)
    return dataset


def _check_outputs(net: Sequential, shape: tuple[int, int, int], dataset: Dataset, config: Config) -> None:
    outputs = net.output_shape(shape)
    if outputs != (len(dataset.class_names),):
        raise ArgumentError(
            f"model {config.model}: expected one output for each of the {len(dataset.class_names)} classes of "
            f"{config.data}, got {outputs}; leave num_classes out"
        )
