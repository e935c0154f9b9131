"""Every fault that can be planted stands in its file, is found by the gradient check, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from minidl import catalogue, faults
from minidl.errors import ArgumentError, UnknownNameError

ROOT = Path(__file__).resolve().parents[1]
each_fault = pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: f"{fault.subject}-{fault.name}")


@each_fault
def test_a_fault_changes_one_place(fault):
    assert (ROOT / fault.file).read_text(encoding="utf-8").count(fault.correct) == 1
    assert fault.says


@each_fault
def test_a_fault_is_found_and_goes_away(fault):
    with faults.planted(fault):
        planted = list(catalogue.check_named(fault.subject))
    assert not all(report.passed for report in planted)
    assert all(report.passed for report in catalogue.check_named(fault.subject))


@each_fault
def test_a_fault_strikes_nothing_else(fault):
    others = {"Linear": "ReLU", "ReLU": "Tanh"}.get(fault.subject, "Linear")
    with faults.planted(fault):
        assert all(report.passed for report in catalogue.check_named(others))


def test_a_fault_goes_away_after_an_error():
    with pytest.raises(ZeroDivisionError), faults.planted(faults.named("ReLU", "gate")):
        raise ZeroDivisionError
    assert all(report.passed for report in catalogue.check_named("relu"))


def test_names():
    assert faults.named("localresponsenorm", "neighbours").subject == "LocalResponseNorm"
    with pytest.raises(UnknownNameError, match="unknown fault of Conv2d 'overlp': did you mean 'overlap'"):
        faults.named("conv2d", "overlp")
    with pytest.raises(ArgumentError, match="no fault to plant in Flatten, only in Conv2d, Linear"):
        faults.named("Flatten", "gate")
    assert len({(fault.subject, fault.name) for fault in faults.FAULTS}) == len(faults.FAULTS)


def test_a_fault_that_fits_nowhere():
    fault = faults.Fault("typo", "ReLU", "minidl/ops/relu.py", "no such line", "pass", "nothing")
    with pytest.raises(ArgumentError, match="does not stand in minidl/ops/relu"), faults.planted(fault):
        pass
