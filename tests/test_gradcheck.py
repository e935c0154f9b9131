"""The gradient check finds planted faults, names their place, and is not fooled by kinks, zeros or rounding."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import pytest

from minidl import Key, gradcheck
from minidl.arrays import Array
from minidl.combine import Sequential, Sum
from minidl.errors import ArgumentError, DTypeError
from minidl.layer import Layer, Parameter
from minidl.layers import BatchNorm2d, Conv2d, Dropout, Linear, LocalResponseNorm, MaxPool2d, ReLU, Tanh
from minidl.losses import Loss, MeanSquaredError, SoftmaxCrossEntropy

MODES = ["directional", "full"]


def failing(report: gradcheck.Report) -> list[str]:
    return [tensor.name for tensor in report.tensors if tensor.error > report.tolerance]


def note(report: gradcheck.Report, name: str) -> str:
    return next(tensor.note for tensor in report.tensors if tensor.name == name)


class Planted(Linear):
    """A linear layer with one fault, by name."""

    def __init__(self, fault: str, inputs: int = 5, outputs: int = 4) -> None:
        super().__init__(inputs, outputs)
        self.fault = fault

    def forward(self, x: Array, *, train: bool = False, key: Any = None) -> tuple[Array, Any]:
        y, cache = super().forward(x, train=train, key=key)
        if self.fault == "forward writes into x":
            x[0, 0] = 7
        if self.fault == "forward draws from NumPy":
            y = y + np.random.default_rng().standard_normal(y.shape)
        if self.fault == "forward gives NaN":
            y[0, 0] = np.nan
        if self.fault == "forward gives float32":
            y = y.astype(np.float32)
        return y if self.fault == "forward forgets the cache" else (y, cache)

    def backward(self, dy: Array, cache: Array, *, input_gradient: bool = True) -> Array | None:
        x, weight = cache, self.weight.value
        dweight, dbias, dx = x.T @ dy, dy.sum(axis=0), dy @ weight.T
        match self.fault:
            case "one wrong sign":
                dweight[3, 1] *= -1
            case "dx of one element":
                dx[1, 2] += 1
            case "wrong sign":
                dbias = -dbias
            case "scaled":
                dweight = dweight / len(x)
            case "transposed":
                dx = dy @ weight.reshape(weight.shape[::-1])
            case "one row missing":
                dweight[2] = 0
            case "small":
                dweight *= 1 + 1e-5
            case "dweight of another shape":
                dweight = dweight.T
            case "dx of another shape":
                dx = dx[:, :-1]
            case "dx in float32":
                dx = dx.astype(np.float32)
            case "backward writes into dy":
                dy *= 2
            case "backward keeps dy":
                dbias = dy[0]
        if self.fault == "overwrites":
            self.weight.grad = dweight
        else:
            self.weight.accumulate(dweight)
        if self.fault != "no bias gradient":
            self.bias.accumulate(dbias)
        return None if self.fault == "no dx" else dx


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("fault", "tensor", "index", "says"),
    [
        ("one wrong sign", "weight", (3, 1), "wrong at 1 of"),
        ("dx of one element", "x", (1, 2), "wrong at 1 of"),
        ("wrong sign", "bias", None, "wrong sign"),
        ("scaled", "weight", None, "0.333333 times the true value"),
        ("transposed", "x", None, "wrong at"),
        ("one row missing", "weight", (2, None), "says 0: a term is missing"),
        ("small", "weight", None, "1.00001 times the true value"),
        ("dweight of another shape", "weight", None, "a parameter of shape (5, 4) got a gradient of shape (4, 5)"),
        ("dx of another shape", "x", None, "backward gave a gradient of shape (3, 4), expected shape (3, 5)"),
        ("dx in float32", "x", None, "backward gave a gradient of float32, expected float64"),
        ("no dx", "x", None, "backward returned None"),
        ("no bias gradient", "bias", None, "got no gradient: backward must call self.bias.accumulate"),
    ],
)
def test_planted_faults(fault, tensor, index, says, mode):
    report = gradcheck.check(Planted(fault), (3, 5), mode=mode)
    assert not report.passed
    assert says in note(report, tensor)
    assert says in str(report)
    if fault != "dweight of another shape":  # there, backward does not come to its end
        assert failing(report) == [tensor]
    if index is not None:
        assert report.worst.tensor == tensor
        assert all(i is None or i == j for i, j in zip(index, report.worst.index, strict=True))
        assert report.worst.absolute_error > 1e-3


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("forward writes into x", "forward or backward wrote into x"),
        ("forward draws from NumPy", "another y for the same x and key"),
        ("forward gives NaN", "forward gave NaN or infinity"),
        ("backward writes into dy", "backward wrote into dy"),
        ("overwrites", "did not give weight twice its gradient"),
    ],
)
def test_planted_bad_manners(fault, says):
    report = gradcheck.check(Planted(fault), (3, 5))
    assert not report.passed
    assert any(says in text for text in report.faults)
    assert says in str(report)


def test_a_kept_dy_is_found():
    report = gradcheck.check(Planted("backward keeps dy"), (1, 5))  # right, but the next += would write into dy
    assert any("twice" in text or "wrote into dy" in text for text in report.faults)


def test_what_is_no_layer_at_all():
    with pytest.raises(ArgumentError, match="expected forward to return two things"):
        gradcheck.check(Planted("forward forgets the cache"), (3, 5))
    with pytest.raises(DTypeError, match="expected forward to give float64 for a float64 input, got float32"):
        gradcheck.check(Planted("forward gives float32"), (3, 5))
    with pytest.raises(ArgumentError, match=r"a class needs to be called"):
        gradcheck.check(Linear, (3, 5))
    with pytest.raises(ArgumentError, match="expected one input"):
        gradcheck.check(Linear(5, 4), (3, 5), (3, 4))
    with pytest.raises(ArgumentError, match="expected two inputs"):
        gradcheck.check(MeanSquaredError(), (3, 5))


def test_one_wrong_element_among_many_is_found_by_halving():
    report = gradcheck.check(Planted("one wrong sign", 60, 50), (4, 60))
    assert report.worst.tensor == "weight"
    assert report.worst.index == (3, 1)
    assert report.worst.numeric == pytest.approx(-report.worst.analytic)


class BadLRN(LocalResponseNorm):
    """Without the sum over the neighbours: each channel knows only its own normaliser."""

    def backward(self, dy: Array, cache: Array, *, input_gradient: bool = True) -> Array | None:
        x = cache
        return dy * self(x) / x  # y = x·s^(−β)


@pytest.mark.parametrize("mode", MODES)
def test_lrn_without_its_cross_channel_term(mode):
    assert not gradcheck.check(BadLRN(5, 0.5, 0.75, 0.7), (2, 2, 3, 7), mode=mode).passed
    report = gradcheck.check(BadLRN(5), (2, 2, 3, 7), mode=mode)
    assert 1e-5 < report.error < 1e-1  # at the paper's constants the same fault is small, and is found


class BatchNormWithoutGamma(BatchNorm2d):
    def backward(self, dy: Array, cache: Any, *, input_gradient: bool = True) -> Array | None:
        dx = super().backward(dy, cache)
        return dx / self.gamma.value


def test_a_scale_of_one_hides_nothing():
    report = gradcheck.check(BatchNormWithoutGamma(3), (2, 3, 3, 3))
    assert failing(report) == ["x"]


class MeanOfBatch(BatchNorm2d):
    """The mean taken for a constant: the commonest slip in batch normalisation."""

    def backward(self, dy: Array, cache: Any, *, input_gradient: bool = True) -> Array | None:
        super().backward(dy, cache)
        return dy * self.gamma.value * cache[3]


def test_a_mean_taken_for_a_constant():
    assert failing(gradcheck.check(MeanOfBatch(3), (2, 3, 3, 3))) == ["x"]


def test_a_fault_deep_in_a_net_has_a_path():
    net = Sequential(fc1=Linear(4, 5), act=Tanh(), block=Sum(body=Sequential(bad=Planted("scaled", 5, 5)), id=ReLU()))
    assert failing(gradcheck.check(net, (3, 4))) == ["block.body.bad.weight"]


class Halved(SoftmaxCrossEntropy):
    def backward(self, cache: Any, scale: Any = 1.0) -> Array:
        return super().backward(cache, scale) / 2


@pytest.mark.parametrize("mode", MODES)
def test_losses(mode):
    assert gradcheck.check(SoftmaxCrossEntropy(), (4, 3), [0, 2, 1, -100], mode=mode).passed
    outputs = np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)
    assert gradcheck.check(MeanSquaredError("none"), outputs, outputs + 1, mode=mode).passed
    report = gradcheck.check(Halved(), (3, 4), [0, 3, 1], mode=mode)
    assert failing(report) == ["outputs"]
    assert "0.5 times the true value" in str(report)


class LossInPython(Loss):
    """A loss as a user would write it, of plain numbers."""

    def forward(self, outputs: Array, targets: Array) -> tuple[Any, Any]:
        return float(((outputs - targets) ** 3).sum()), outputs - targets

    def backward(self, cache: Array, scale: Any = 1.0) -> Array:
        return scale * 3 * cache**2


def test_a_loss_of_ones_own():
    assert gradcheck.check(LossInPython(), (3, 4), (3, 4)).passed


# --- kinks ---------------------------------------------------------------------------------------------------------


class Kink(Layer):
    """|x|, which reports its signs or does not."""

    def __init__(self, reports: bool, scale: float = 1.0) -> None:
        self.reports, self.scale = reports, scale

    def forward(self, x: Array, *, train: bool = False, key: Any = None) -> tuple[Array, Any]:
        return abs(x), x

    def backward(self, dy: Array, cache: Array, *, input_gradient: bool = True) -> Array | None:
        return dy * np.sign(cache) * self.scale

    def decisions(self, cache: Array) -> list[Array]:
        return [cache > 0] if self.reports else []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reports", [True, False])
def test_kinks_are_stepped_around(reports, mode):
    x = np.random.default_rng(0).standard_normal((20, 20))
    x.flat[::7] = 3e-7  # far within ε of the kink
    report = gradcheck.check(Kink(reports), x, mode=mode)
    assert report.passed, report
    assert report.tensors[0].step < 1e-6
    assert not gradcheck.check(Kink(reports, scale=1.00001), x, mode=mode).passed


@pytest.mark.parametrize("mode", MODES)
def test_on_a_kink_the_check_fails(mode):
    report = gradcheck.check(Kink(reports=True), np.zeros((2, 3)), mode=mode)
    assert not report.passed
    assert "crosses a kink" in str(report)
    assert report.to_dict()["error"] is None
    tied = np.ones((1, 2, 2, 1))
    assert "crosses a kink" in str(gradcheck.check(MaxPool2d(2), tied, mode=mode))


def test_many_kinks_at_once():
    x = np.random.default_rng(0).standard_normal((100, 1000))
    report = gradcheck.check(Sequential(ReLU(), Tanh()), x)
    assert report.passed, report


def test_the_smallest_step_is_accurate_enough():
    x = np.random.default_rng(0).standard_normal((4, 5))
    report = gradcheck.check(Sequential(Linear(5, 30), Tanh(), Linear(30, 4), Tanh()), x, eps=gradcheck.SMALLEST_STEP)
    assert report.passed, report


# --- zeros and rounding ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_gradient_of_zero_passes(mode):
    net = Sequential(conv=Conv2d(2, 3, 3), norm=BatchNorm2d(3), relu=ReLU())
    report = gradcheck.check(net, np.random.default_rng(1).standard_normal((2, 5, 5, 2)) + 100, mode=mode)
    assert report.passed, report
    assert "no influence" in note(report, "conv.bias")
    assert note(report, "conv.weight") == ""


class InventsAGradient(Linear):
    """The bias in front of the softmax of one logit moves nothing; it gets a gradient all the same."""

    def backward(self, dy: Array, cache: Array, *, input_gradient: bool = True) -> Array | None:
        dx = super().backward(dy, cache)
        self.bias.accumulate(np.full_like(self.bias.value, 1e-6))
        return dx


def test_an_invented_gradient_fails():
    net = Sequential(fc=InventsAGradient(4, 3), norm=MinusMean())
    assert failing(gradcheck.check(net, (3, 4))) == ["fc.bias"]


class MinusMean(Layer):
    def forward(self, x: Array, *, train: bool = False, key: Any = None) -> tuple[Array, Any]:
        return x - x.mean(axis=0), None

    def backward(self, dy: Array, cache: None, *, input_gradient: bool = True) -> Array | None:
        return dy - dy.mean(axis=0)


def test_a_parameter_that_nothing_uses_passes():
    class Unused(ReLU):
        def __init__(self) -> None:
            self.weight = Parameter(np.ones(3, np.float32))

    assert gradcheck.check(Unused(), (3, 4)).passed


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_scale_does_not_matter(scale):
    x = np.random.default_rng(0).standard_normal((3, 5))
    layer = Linear(5, 4)
    layer.weight.value = layer.weight.value * np.float32(scale)
    assert gradcheck.check(layer, x).passed
    bad = Planted("one wrong sign")
    bad.weight.value = bad.weight.value * np.float32(scale)
    assert failing(gradcheck.check(bad, x)) == ["weight"]


# --- the rest -------------------------------------------------------------------------------------------------------


def test_the_subject_is_left_alone():
    net = Sequential(conv=Conv2d(2, 3, 3), norm=BatchNorm2d(3), drop=Dropout(0.5))
    net.forward(np.ones((1, 4, 4, 2), np.float32) * np.arange(2, dtype=np.float32), train=True, key=Key(1))
    net.parameters()["conv.bias"].grad = np.ones(3, np.float32)
    before = copy.deepcopy(net.state_dict())
    x = np.random.default_rng(0).standard_normal((2, 4, 4, 2)).astype(np.float32)
    x.flags.writeable = False
    assert gradcheck.check(net, x).passed
    for name, value in net.state_dict().items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, before[name])
    np.testing.assert_array_equal(net.parameters()["conv.bias"].grad, 1)
    assert net.parameters()["conv.weight"].grad is None
    untouched = Linear(5, 4)
    gradcheck.check(untouched, (2, 5))
    assert not untouched.weight.is_drawn


def test_the_same_key_gives_the_same_report():
    net = Sequential(fc=Linear(4, 6), drop=Dropout(0.5))
    assert gradcheck.check(net, (3, 4), key=Key(5)) == gradcheck.check(net, (3, 4), key=Key(5))
    assert gradcheck.check(net, (3, 4), key=Key(5)) != gradcheck.check(net, (3, 4), key=Key(6))


def test_dropout_keeps_its_mask():
    class Forgets(Dropout):
        def backward(self, dy: Array, cache: Any, *, input_gradient: bool = True) -> Array | None:
            key, shape = cache
            return super().backward(dy, (key.at("another"), shape))

    assert gradcheck.check(Dropout(0.5), (3, 20)).passed
    assert not gradcheck.check(Forgets(0.5), (3, 20)).passed


def test_a_jacobian_that_is_too_large():
    with pytest.raises(ArgumentError, match="too many to compare in full; use mode='directional'"):
        gradcheck.check(Linear(300, 200), (4, 300), mode="full")


def test_report_as_text_and_json():
    report = gradcheck.check(Linear(5, 4), (3, 5))
    lines = str(report).splitlines()
    assert lines[0].startswith("Linear(5→4): gradient check passed, largest error ")
    assert [line.split()[0] for line in lines[1:]] == ["tensor", "x", "weight", "bias"]
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["passed"] is True
    assert plain["tensors"][1]["name"] == "weight"
    worst = plain["tensors"][1]["worst"]
    assert worst["absolute_error"] == abs(worst["numeric"] - worst["analytic"])
    full = gradcheck.check(Planted("one wrong sign"), (3, 5), mode="full")
    assert full.worst.output is not None
    assert f"∂y{list(full.worst.output)}/∂weight[3, 1]" in str(full)
    assert "weight[3, 1]: backward" in str(full.worst)
    assert gradcheck.check(Planted("no dx"), (3, 5)).error == math.inf


def test_full_compares_every_element():
    report = gradcheck.check(Linear(5, 4), (3, 5), mode="full")
    assert [tensor.comparisons for tensor in report.tensors] == [12 * 15, 12 * 20, 12 * 4]
