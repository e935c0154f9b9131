"""The catalogue holds every layer and loss, and what it holds passes."""

from __future__ import annotations

import inspect

import pytest

from minidl import catalogue, layers, losses
from minidl.errors import UnknownNameError
from minidl.layer import Layer


def kinds(lines):
    return {line.partition(":")[0] for line in lines}


def test_every_layer_has_a_line():
    exported = {name for name in layers.__all__ if issubclass(getattr(layers, name), Layer)} - {"Layer"}
    assert exported == kinds(catalogue.LAYERS)
    for line, (make, _) in catalogue.LAYERS.items():
        contained = {type(make()).__name__} | {type(child).__name__ for child in make().children().values()}
        assert line.partition(":")[0] in contained, line


def test_every_loss_has_a_line():
    defined = {
        name
        for name, value in vars(losses).items()
        if inspect.isclass(value) and issubclass(value, losses.Loss) and value is not losses.Loss
    }
    assert defined == kinds(catalogue.LOSSES)


def test_everything_passes():
    reports = list(catalogue.check_named())
    assert [report.subject for report in reports] == [*catalogue.LAYERS, *catalogue.LOSSES, "alexnet_mini"]
    for report in reports:
        assert report.passed, report
        assert report.tolerance <= 1e-6


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("ReLU", ["ReLU"]),
        ("relu", ["ReLU"]),
        ("softmax", ["Softmax", "Softmax: of each pixel"]),
        ("meansquarederror", ["MeanSquaredError", "MeanSquaredError: sum", "MeanSquaredError: none"]),
        ("lenet5", ["lenet5"]),
    ],
)
def test_names(name, lines):
    reports = list(catalogue.check_named(name))
    assert [report.subject for report in reports] == lines
    assert all(report.passed for report in reports), reports


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="unknown layer, loss or model 'Conv2': did you mean 'Conv2d'"):
        catalogue.check_named("Conv2")
    with pytest.raises(UnknownNameError, match="did you mean 'alexnet_mini'"):
        catalogue.check_named("alexnet_mimi")
