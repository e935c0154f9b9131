"""Every layer, combiner and loss, at settings where each term of its gradient matters.

This is what `minidl gradcheck` checks and what `tests/test_contract.py` holds to the laws of a layer. A new layer takes
one line here: a name, "Class" or "Class: what is special", and how to make one, and the shape of an input.

LRN's constants, for one, are far from the paper's: with alpha = 1e-4, dropping the whole second term of its gradient
would be an error of less than one percent.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from minidl import gradcheck
from minidl.errors import ArgumentError, UnknownNameError
from minidl.gradcheck import FIRST_KEY, Report
from minidl.layer import Layer, Shape
from minidl.layers import (
    AvgPool2d,
    BatchNorm2d,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    Linear,
    LocalResponseNorm,
    LogSoftmax,
    MaxPool2d,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Sum,
    Tanh,
)
from minidl.losses import Loss, MeanSquaredError, SoftmaxCrossEntropy
from minidl.random import Key

LayerLine: TypeAlias = tuple[Callable[[], Layer], Shape]  # how to make one, shape of x
LossLine: TypeAlias = tuple[Callable[[], Loss], Shape, Any]  # how to make one, shape of the outputs, targets

# fmt: off
LAYERS: dict[str, LayerLine] = {
    "Conv2d": (lambda: Conv2d(3, 4, kernel_size=3), (2, 5, 6, 3)),
    "Conv2d: same size": (lambda: Conv2d(3, 3, kernel_size=3, padding=1), (2, 4, 5, 3)),
    "Conv2d: strides, uneven": (lambda: Conv2d(3, 2, (3, 2), stride=(2, 3), padding=((1, 0), (0, 2))), (2, 6, 7, 3)),
    "Conv2d: dilated": (lambda: Conv2d(2, 3, (2, 3), dilation=(3, 2), padding=1), (2, 6, 5, 2)),
    "Conv2d: two groups": (lambda: Conv2d(4, 6, kernel_size=3, padding=1, groups=2), (2, 4, 4, 4)),
    "Conv2d: a group a channel": (lambda: Conv2d(3, 6, kernel_size=2, groups=3), (2, 4, 3, 3)),
    "Conv2d: ceil": (lambda: Conv2d(2, 3, kernel_size=3, stride=2, rounding="ceil"), (2, 6, 8, 2)),
    "Conv2d: 1×1 without bias": (lambda: Conv2d(4, 3, kernel_size=1, bias=False), (2, 3, 3, 4)),
    "Linear": (lambda: Linear(5, 4), (3, 5)),
    "Linear: square": (lambda: Linear(4, 4), (3, 4)),
    "Linear: without bias": (lambda: Linear(5, 3, bias=False), (3, 5)),
    "ReLU": (ReLU, (2, 4, 3, 3)),
    "Sigmoid": (Sigmoid, (2, 4, 3, 3)),
    "Tanh": (Tanh, (3, 7)),
    "Softmax": (Softmax, (3, 5)),
    "Softmax: of each pixel": (Softmax, (2, 2, 3, 4)),
    "LogSoftmax": (LogSoftmax, (3, 5)),
    "LogSoftmax: of each pixel": (LogSoftmax, (2, 2, 3, 4)),
    "LocalResponseNorm": (lambda: LocalResponseNorm(5, alpha=0.5, beta=0.75, k=0.7), (2, 3, 2, 9)),
    "LocalResponseNorm: even": (lambda: LocalResponseNorm(4, alpha=0.5, beta=1.3, k=0.7), (2, 2, 3, 7)),
    "LocalResponseNorm: average": (lambda: LocalResponseNorm(3, 1.5, 0.6, 0.7, average=True), (2, 3, 2, 6)),
    "LocalResponseNorm: two groups": (lambda: LocalResponseNorm(5, 0.5, 0.75, 0.7, groups=2), (2, 2, 2, 8)),
    "LocalResponseNorm: over all": (lambda: LocalResponseNorm(9, alpha=0.5, beta=0.75, k=0.7), (3, 4)),
    "BatchNorm2d": (lambda: BatchNorm2d(3), (2, 3, 4, 3)),
    "BatchNorm2d: large eps": (lambda: BatchNorm2d(2, eps=0.5, momentum=0.3), (3, 2, 2, 2)),
    "Dropout": (lambda: Dropout(0.4), (3, 17)),
    "Dropout: of pixels": (lambda: Dropout(0.5), (2, 3, 3, 2)),
    "Dropout: none": (lambda: Dropout(0.0), (2, 6)),
    "Flatten": (Flatten, (2, 3, 4, 2)),
    "MaxPool2d": (lambda: MaxPool2d(kernel_size=2), (2, 4, 6, 3)),
    "MaxPool2d: overlapping": (lambda: MaxPool2d(kernel_size=3, stride=2), (2, 7, 7, 2)),
    "MaxPool2d: same size": (lambda: MaxPool2d(kernel_size=3, stride=1, padding=1), (2, 4, 4, 3)),
    "MaxPool2d: uneven": (lambda: MaxPool2d((3, 2), stride=(1, 2), padding=((1, 0), (0, 1))), (2, 5, 4, 3)),
    "MaxPool2d: dilated, ceil": (lambda: MaxPool2d(2, stride=2, dilation=2, rounding="ceil"), (2, 6, 6, 2)),
    "AvgPool2d": (lambda: AvgPool2d(kernel_size=2), (2, 4, 6, 3)),
    "AvgPool2d: overlapping, padded": (lambda: AvgPool2d(kernel_size=3, stride=2, padding=1), (2, 6, 7, 2)),
    "AvgPool2d: padding not counted": (lambda: AvgPool2d(3, 1, padding=1, count_include_pad=False), (2, 4, 4, 2)),
    "AvgPool2d: uneven, ceil": (lambda: AvgPool2d((2, 3), padding=((0, 1), (1, 0)), rounding="ceil"), (2, 5, 6, 2)),
    "AvgPool2d: dilated": (lambda: AvgPool2d(kernel_size=2, stride=1, dilation=(1, 2)), (2, 4, 5, 2)),
    "GlobalAvgPool2d": (GlobalAvgPool2d, (2, 3, 4, 3)),
    "GlobalMaxPool2d": (GlobalMaxPool2d, (2, 3, 4, 3)),
    "Sequential": (lambda: Sequential(conv=Conv2d(2, 3, 3), relu=ReLU(), drop=Dropout(0.3)), (2, 5, 5, 2)),
    "Sequential: empty": (Sequential, (2, 3)),
    "Sequential: the same layer twice": (lambda: (lambda fc: Sequential(fc, Tanh(), fc))(Linear(4, 4)), (3, 4)),
    "Sequential: bias before BatchNorm2d": (lambda: Sequential(Conv2d(2, 3, 2), BatchNorm2d(3), ReLU()), (3, 4, 4, 2)),
    "Sum": (lambda: Sum(body=Linear(4, 4), shortcut=Sequential()), (3, 4)),
    "Sum: residual block": (lambda: _residual(2, 4), (2, 4, 4, 2)),
    "Sum: blocks in a row": (lambda: Sequential(_residual(3, 3), _residual(3, 3)), (2, 4, 4, 3)),
    "Concat": (lambda: Concat(Linear(4, 3), Sequential(), Linear(4, 2)), (3, 4)),
    "Concat: inception block": (lambda: _inception(3), (2, 4, 5, 3)),
    "Concat: of a residual block": (lambda: Concat(Conv2d(3, 2, 1), Sequential(ReLU(), _residual(3, 4))), (2, 4, 4, 3)),
}

LOSSES: dict[str, LossLine] = {
    "SoftmaxCrossEntropy": (SoftmaxCrossEntropy, (4, 3), [2, 0, 1, 1]),
    "SoftmaxCrossEntropy: weight": (lambda: SoftmaxCrossEntropy(weight=[0.5, 2.0, 1.3]), (4, 3), [2, 0, 1, 1]),
    "SoftmaxCrossEntropy: smoothing": (lambda: SoftmaxCrossEntropy(label_smoothing=0.2), (4, 3), [2, 0, 1, 1]),
    "SoftmaxCrossEntropy: ignored": (lambda: SoftmaxCrossEntropy(ignore_index=1), (4, 3), [2, 0, 1, 1]),
    "SoftmaxCrossEntropy: sum": (lambda: SoftmaxCrossEntropy([3, 1, 2], 0.1, 7, reduction="sum"), (3, 3), [2, 7, 1]),
    "SoftmaxCrossEntropy: none": (lambda: SoftmaxCrossEntropy([3, 1, 2], 0.1, 7, reduction="none"), (3, 3), [2, 7, 1]),
    "SoftmaxCrossEntropy: pixels": (lambda: SoftmaxCrossEntropy([3, 1], 0.1, 9), (1, 2, 2, 2), [[[0, 1], [9, 1]]]),
    "MeanSquaredError": (MeanSquaredError, (3, 4), (3, 4)),
    "MeanSquaredError: sum": (lambda: MeanSquaredError(reduction="sum"), (2, 2, 3), (2, 2, 3)),
    "MeanSquaredError: none": (lambda: MeanSquaredError(reduction="none"), (2, 2, 3), (2, 2, 3)),
}
# fmt: on

MODELS = ("alexnet_mini",)  # those that "all" stands for: the others take minutes


@dataclass(frozen=True)
class Case:
    """Something to check: how to make it, and at which inputs (arrays or shapes, as `gradcheck.check` takes them)."""

    name: str
    make: Callable[[], Layer | Loss]
    inputs: tuple[Any, ...]
    effort: Mapping[str, Any] = field(default_factory=dict)  # other than usual, where a forward pass is slow

    def check(self, key: Key = FIRST_KEY, device: str | None = None) -> Report:
        """The gradient check, under the name of this case."""
        report = gradcheck.check(self.make(), *self.inputs, key=key, device=device, **self.effort)
        return replace(report, subject=self.name)

    def plot(self, report: Report, path: Path | str, key: Key = FIRST_KEY, device: str | None = None) -> None:
        """Draw what the check found: see `gradcheck.plot`."""
        gradcheck.plot(report, self.make(), *self.inputs, path=path, key=key, device=device)


def cases(name: str = "all") -> list[Case]:
    """What a name stands for: a layer, a loss, one line of the catalogue, a model at batch 2, or "all".

    Capitals and underscores do not matter: local_response_norm is LocalResponseNorm.

    >>> [case.name for case in cases("softmax")]
    ['Softmax', 'Softmax: of each pixel']

    Raises: UnknownNameError ("did you mean …").
    """
    from minidl import models

    lines = [*LAYERS, *LOSSES]
    wanted = plain(str(name))
    found = [_line(line) for line in lines if wanted in ("all", plain(kind(line)))]
    found = found or [_line(line) for line in lines if wanted == plain(line)]
    found += [_model(m) for m in models.MODELS if wanted == plain(m) or (wanted == "all" and m in MODELS)]
    if not found:
        kinds = dict.fromkeys(kind(line) for line in lines)
        raise UnknownNameError("layer, loss or model", name, ["all", *kinds, *models.MODELS])
    return found


def check_named(name: str = "all", key: Key = FIRST_KEY) -> Iterator[Report]:
    """One gradient check for each of the `cases` that a name stands for, as they come.

    >>> for report in check_named("flatten"):
    ...     print(report.subject, report.passed)
    Flatten True

    Raises: UnknownNameError ("did you mean …").
    """
    return (case.check(key) for case in cases(name))


def own_case(spec: str, shape: Shape | None) -> Case:
    """A layer of the user's own, from "FILE.py:EXPRESSION", such as "mine.py:Scale(3)"; a class is called.

    shape: of x, batch and all.
    Raises: ArgumentError for a file that cannot be run, an expression that is no layer, and a missing shape.
    """
    path, _, expression = spec.rpartition(":")
    if shape is None:
        raise ArgumentError(f"{spec}: a layer of one's own needs the shape of its input, as in --shape 2,5,5,3")
    try:
        made = eval(expression, runpy.run_path(path))
        made = made() if isinstance(made, type) else made
    except Exception as error:
        raise ArgumentError(f"{spec}: {type(error).__name__}: {error}") from error
    if not isinstance(made, Layer):
        raise ArgumentError(f"{spec}: expected a layer, got {made!r}; losses are checked from Python")
    return Case(expression, lambda: made, (shape,))


def kind(line: str) -> str:
    """The class that a line of the catalogue is about.

    >>> kind("Conv2d: dilated")
    'Conv2d'
    """
    return line.partition(":")[0]


def plain(name: str) -> str:
    """A name without capitals and underscores."""
    return name.lower().replace("_", "")


def _line(line: str) -> Case:
    if line in LAYERS:
        make_layer, shape = LAYERS[line]
        return Case(line, make_layer, (shape,))
    make_loss, shape, targets = LOSSES[line]
    return Case(line, make_loss, (shape, targets))


def _model(name: str) -> Case:
    from minidl import models

    model = models.get(name)
    images = (2, model.input_size, model.input_size, model.input_channels)
    return Case(name, model.build, (images,), {"directions": 1, "elements": 1})


def _residual(inputs: int, outputs: int) -> Sum:
    body = Sequential(conv1=Conv2d(inputs, 3, 3, padding=1), relu=ReLU(), conv2=Conv2d(3, outputs, 3, padding=1))
    return Sum(body=body, shortcut=Sequential() if inputs == outputs else Conv2d(inputs, outputs, 1, bias=False))


def _inception(inputs: int) -> Concat:
    return Concat(
        one=Conv2d(inputs, 2, kernel_size=1),
        three=Sequential(reduce=Conv2d(inputs, 2, kernel_size=1), relu=ReLU(), conv=Conv2d(2, 3, 3, padding=1)),
        pool=Sequential(pool=MaxPool2d(3, stride=1, padding=1), project=Conv2d(inputs, 1, kernel_size=1)),
    )
