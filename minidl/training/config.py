"""What a training run is told to do: each setting once, with its default and its meaning."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, get_type_hints

from minidl.errors import ArgumentError, DataError, FormatError, UnknownNameError, told
from minidl.layer import Parameter
from minidl.optim import SGD, AdamW, Optimizer
from minidl.precision import PRECISIONS, dtype_of
from minidl.schedules import SCHEDULES, Constant, Cosine, Plateau, Schedule, Step, WarmUp


def _setting(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Config:
    """The settings of a run. The command line's options and the keys of a TOML file are these fields.

    The defaults are plain; `minidl.training.configure` puts the recipe of the model at hand over them.

    Raises: ArgumentError (UnknownNameError for names) for a value that cannot be used.
    """

    model: str = _setting("alexnet_mini", "A model's name, with options if wanted: 'alexnet(groups=1, lrn=False)'.")
    data: str = _setting("digits", "digits, mnist:DIR, cifar10:DIR, folder:DIR, or synthetic.")
    epochs: int = _setting(16, "Passes over the training images.")
    batch: int = _setting(32, "Images per step.")
    lr: float = _setting(0.03, "Learning rate at its highest.")
    schedule: str = _setting("cosine", "constant, step, plateau or cosine.")
    warmup: float = _setting(0.0, "Epochs over which the rate rises from 0.")
    step_epochs: int = _setting(30, "schedule step: epochs between two drops.")
    gamma: float = _setting(0.1, "schedules step and plateau: factor of each drop.")
    patience: int = _setting(5, "schedule plateau: validations without progress before a drop.")
    optimizer: str = _setting("sgd", "sgd (the paper's update), sgd-torch, sgd-nesterov, or adamw.")
    momentum: float = _setting(0.9, "Momentum of sgd.")
    weight_decay: float = _setting(5e-4, "Weight decay.")
    label_smoothing: float = _setting(0.0, "Share of the target spread over all classes.")
    init: str = _setting("he", "he, glorot, or one of the model's own: paper, caffe.")
    seed: int = _setting(0, "Fixes weights, data order, augmentation and dropout.")
    device: str = _setting("cpu", "cpu, cuda or cuda:N.")
    precision: str = _setting("float32", "float32, float64, bf16 or fp16; on a GPU also tf32.")
    on_bad_image: str = _setting("raise", "raise, or skip images that cannot be read, and count them.")
    checkpoint_every: int = _setting(0, "Steps between checkpoints; 0 saves once an epoch.")

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(Config).items():
            value = getattr(self, name)
            numbers: type = {int: Integral, float: Real}.get(kind, type(None))
            if isinstance(value, numbers) and not isinstance(value, bool):
                object.__setattr__(self, name, kind(value))  # one of NumPy's too
            elif type(value) is not kind:
                raise ArgumentError(f"{name}: expected {_ARTICLES[kind]}, got {told(value)}")
            if isinstance(value, str) and not _is_unicode(value):
                raise ArgumentError(f"{name}: {value!r} is not valid Unicode; rename it, or use a UTF-8 locale")
        for name, least in ("epochs", 1), ("batch", 1), ("checkpoint_every", 0), ("step_epochs", 1), ("patience", 1):
            if getattr(self, name) < least:
                raise ArgumentError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        for name in ("lr", "warmup", "weight_decay", "gamma"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ArgumentError(f"{name}: expected a number ≥ 0, got {getattr(self, name)}")
        if self.warmup > self.epochs:
            raise ArgumentError(f"warmup: expected at most the {self.epochs} epochs of the run, got {self.warmup}")
        if not 0 <= self.momentum < 1:
            raise ArgumentError(f"momentum: expected a number of at least 0 and below 1, got {self.momentum}")
        if not 0 <= self.label_smoothing <= 1:
            raise ArgumentError(f"label_smoothing: expected a number from 0 to 1, got {self.label_smoothing}")
        choices: dict[str, tuple[str, ...]] = {
            "schedule": SCHEDULES, "optimizer": OPTIMIZER_NAMES, "precision": tuple(PRECISIONS),
            "on_bad_image": ("raise", "skip"),
        }  # fmt: skip
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise UnknownNameError(name, getattr(self, name), known)
        if self.precision == "tf32" and self.device == "cpu":
            raise ArgumentError("precision: tf32 is a mode of a GPU's matrix products; use float32 on the cpu")

    @property
    def dtype(self) -> str:
        """Of the images, the weights and the optimiser."""
        return dtype_of(self.precision)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str) -> Config:
        """A config from names and values; what is not named keeps its default.

        Raises: UnknownNameError ("did you mean …") for a name that is no setting; ArgumentError for a bad value, and
            for what is no mapping.
        """
        if not isinstance(values, Mapping):
            raise ArgumentError(f"values: expected names and values, got {told(values)} in {where}")
        known = [setting.name for setting in fields(cls)]
        for name in values:
            if name not in known:
                raise UnknownNameError(f"setting in {where}", name, known)
        return cls(**values)

    def to_toml(self) -> str:
        """The settings as a TOML file that `read_toml` reads back.

        >>> print(Config(epochs=3).to_toml().splitlines()[2])
        epochs = 3
        """
        # JSON's strings, numbers and booleans are also TOML's.
        return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in asdict(self).items())

    def make_optimizer(self, parameters: Mapping[str, Parameter]) -> Optimizer:
        """The optimiser that the settings name."""
        if self.optimizer == "adamw":
            return AdamW(parameters, weight_decay=self.weight_decay)
        update: Literal["paper", "torch"] = "paper" if self.optimizer == "sgd" else "torch"
        return SGD(parameters, self.momentum, self.weight_decay, self.optimizer == "sgd-nesterov", update)

    def make_schedule(self, steps_per_epoch: int) -> Schedule:
        """The schedule that the settings name, in steps."""
        schedule: Schedule
        match self.schedule:
            case "constant":
                schedule = Constant(self.lr)
            case "step":
                schedule = Step(self.lr, self.step_epochs * steps_per_epoch, self.gamma)
            case "plateau":
                schedule = Plateau(self.lr, self.gamma, self.patience)
            case _:
                schedule = Cosine(self.lr, self.epochs * steps_per_epoch)
        warmup_steps = round(self.warmup * steps_per_epoch)
        return WarmUp.before(schedule, warmup_steps) if warmup_steps else schedule


def read_toml(path: Path) -> dict[str, Any]:
    """The names and values of a TOML file.

    Raises: DataError where the file cannot be read, FormatError where it is no TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise DataError(f"config {path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"config {path}: not a TOML file: {error}") from error


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # it stands for bytes that could not be decoded
        return False
    return True


OPTIMIZER_NAMES = ("sgd", "sgd-torch", "sgd-nesterov", "adamw")
_ARTICLES: dict[type, str] = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
