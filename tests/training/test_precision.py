"""Training in half precision: float32 master weights, loss scaling, and that it learns."""

from __future__ import annotations

import signal
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from minidl import Key
from minidl.combine import Sequential
from minidl.errors import ArgumentError, NonFiniteError, UnknownNameError
from minidl.layers import BatchNorm2d, Conv2d, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool2d, ReLU
from minidl.losses import SoftmaxCrossEntropy
from minidl.optim import SGD
from minidl.precision import LossScale, MixedPrecision, dtype_of, working
from minidl.training import Config, resume, train
from minidl.training.checkpoint import load_checkpoint
from minidl.training.report import Reporter
from minidl.training.step import train_step

HALVES = {"bf16": (ml_dtypes.bfloat16, 2.0**-8), "fp16": (np.float16, 2.0**-11)}
each_half = pytest.mark.parametrize("precision", HALVES)


def net(*more):
    model = Sequential(
        conv1=Conv2d(3, 8, 3, padding=1), relu1=ReLU(), norm1=LocalResponseNorm(5), pool1=MaxPool2d(2, stride=2),
        **dict(more), flat=Flatten(), drop=Dropout(0.25), fc=Linear(128, 5),
    )  # fmt: skip
    rng = np.random.default_rng(5)
    for name, p in model.parameters().items():
        if name.endswith("weight"):
            p.value = rng.standard_normal(p.shape).astype(np.float32) * 0.2
    return model


def batch(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((6, 8, 8, 3)).astype(np.float32), rng.integers(0, 5, 6)


@each_half
def test_a_step_is_close_to_that_of_float32(precision):
    _, unit = HALVES[precision]
    steps = {}
    for name in "float32", precision:
        model = net()
        sgd = SGD(model.parameters())
        begin = {key: p.value.copy() for key, p in model.parameters().items()}
        loss, logits = train_step(working(model, name), SoftmaxCrossEntropy(), sgd, *batch(), 0.1, Key(1))
        assert logits.dtype == np.float32
        steps[name] = loss, {key: p.value - begin[key] for key, p in model.parameters().items()}
        assert all(p.value.dtype == np.float32 for p in model.parameters().values())
        assert all(b.value.dtype == np.float32 for b in model.buffers().values())
    (loss, full), (low_loss, low) = steps.values()
    assert low_loss != loss
    assert low_loss == pytest.approx(loss, rel=4 * unit)
    for key in full:
        error = np.linalg.norm(low[key] - full[key]) / np.linalg.norm(full[key])
        assert error < 60 * unit, key  # winners of the pool that are equal in half precision, mostly


@each_half
def test_batch_norm_follows_in_float32(precision):
    _, unit = HALVES[precision]
    images, labels = batch()
    seen = {}
    for name in "float32", precision:
        model = net(("bn", BatchNorm2d(8)))
        low = working(model, name)
        if name == "fp16":
            low.scale = LossScale(256.0)  # with which no step is skipped
        for step in range(3):
            train_step(low, SoftmaxCrossEntropy(), SGD(model.parameters()), images, labels, 1e-3, Key(step))
        seen[name] = {key: buffer.value for key, buffer in model.buffers().items()}, low(images)
    for key, value in seen["float32"][0].items():
        assert seen[precision][0][key].dtype == np.float32
        np.testing.assert_allclose(seen[precision][0][key], value, rtol=16 * unit, atol=unit)
    np.testing.assert_allclose(seen[precision][1], seen["float32"][1], atol=40 * unit)


@each_half
def test_steps_too_small_for_a_half_add_up(precision):
    dtype, unit = HALVES[precision]
    model = Sequential(fc=Linear(2, 2, bias=False))
    weight = model.layers["fc"].weight
    weight.value[...] = 1
    low, sgd = working(model, precision), SGD(model.parameters(), momentum=0)
    x = np.ones((1, 2), np.float32)  # the gradient of each weight is ±1/2
    for _ in range(3):
        train_step(low, SoftmaxCrossEntropy(), sgd, x, np.zeros(1, int), unit / 8, Key(0))
    assert (weight.value.astype(dtype) == 1).all()
    for _ in range(30):
        train_step(low, SoftmaxCrossEntropy(), sgd, x, np.zeros(1, int), unit / 8, Key(0))
    np.testing.assert_allclose(weight.value - 1, [[33 * unit / 16, -33 * unit / 16]] * 2, rtol=0.1)
    assert (weight.value.astype(dtype) != 1).all()


def test_small_gradients_survive_by_the_loss_scale():
    """A gradient of 2⁻³⁰ is 0 in float16; multiplied by 2¹⁶ it is not."""
    x, dy = np.ones((1, 2), np.float32), np.full((1, 3), 2.0**-30, np.float32)
    for scale, expected in (None, 0.0), (LossScale(), 2.0**-30):
        model = Sequential(fc=Linear(2, 3))
        low = MixedPrecision(model, "float16", scale)
        _, cache = low.forward(x, train=True)
        low.backward(dy, cache)
        np.testing.assert_array_equal(model.layers["fc"].weight.grad, np.full((2, 3), expected, np.float32))


def test_an_overflow_skips_the_step_and_halves_the_scale():
    model = net()
    sgd = SGD(model.parameters())
    low = working(model, "fp16")
    images, labels = batch()
    train_step(low, SoftmaxCrossEntropy(), sgd, images, labels, 0.1, Key(0))
    assert low.scale == LossScale(65536.0, good_steps=1)
    before = {name: p.value.copy() for name, p in model.parameters().items()}
    velocity = {name: slots["velocity"].copy() for name, slots in sgd.state.items()}
    low.scale = LossScale(2.0**40)
    train_step(low, SoftmaxCrossEntropy(), sgd, images, labels, 0.1, Key(1))
    assert low.overflowed
    assert low.scale == LossScale(2.0**39)
    for name, p in model.parameters().items():
        np.testing.assert_array_equal(p.value, before[name])
        np.testing.assert_array_equal(sgd.state[name]["velocity"], velocity[name])
        assert p.grad is None
    low.scale = LossScale(1024.0)
    train_step(low, SoftmaxCrossEntropy(), sgd, images, labels, 0.1, Key(1))
    assert not low.overflowed
    assert (model.layers["fc"].weight.value != before["fc.weight"]).any()


def test_what_no_scale_can_cure_is_told():
    model = net()
    low = working(model, "fp16")
    images, labels = batch()
    images[0, 0, 0, 0] = np.inf
    sgd = SGD(model.parameters())
    for _ in range(17):
        train_step(low, SoftmaxCrossEntropy(), sgd, images, labels, 0.1, Key(0))
    assert low.scale.value == 0.5
    with pytest.raises(NonFiniteError, match="the images themselves"):
        train_step(low, SoftmaxCrossEntropy(), sgd, images, labels, 0.1, Key(0))


def test_the_scale_rises_again():
    scale = LossScale(4.0, patience=3)
    for _ in range(6):
        scale = scale.after(overflowed=False)
    assert scale == LossScale(16.0, patience=3)


@each_half
def test_it_learns_and_resumes_to_the_same_bits(precision, tmp_path):
    config = Config(model="lenet5", data="digits", epochs=2, batch=64, lr=0.1, init="glorot", precision=precision)
    whole = train(config, tmp_path / "whole")
    plain = train(replace(config, precision="float32"), tmp_path / "plain")
    assert plain.best_test_top1 > 0.8
    assert whole.best_test_top1 > plain.best_test_top1 - 0.05
    arrays, state = load_checkpoint(tmp_path / "whole" / "last.safetensors")
    assert all(array.dtype == np.float32 for name, array in arrays.items() if "updates" not in name)
    assert bool(state["loss_scale"]) == (precision == "fp16")

    class Stop(Reporter):
        def step(self, trainer, loss, lr):
            if trainer.step == 7:
                signal.raise_signal(signal.SIGINT)

    stopped = train(config, tmp_path / "parts", Stop())
    assert not stopped.finished
    assert resume(tmp_path / "parts").finished
    again, _ = load_checkpoint(tmp_path / "parts" / "last.safetensors")
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array)


def test_bad_precisions():
    with pytest.raises(UnknownNameError, match="unknown precision 'half'"):
        dtype_of("half")
    with pytest.raises(UnknownNameError, match="unknown precision 'float16'"):
        Config(precision="float16")
    with pytest.raises(
        ArgumentError, match="precision: tf32 is a mode of a GPU's matrix products; use float32 on the cpu"
    ):
        Config(precision="tf32")
    with pytest.raises(ArgumentError, match=r"state: expected that of another precision, got \{\}"):
        working(net(), "fp16").restore({})


def test_a_net_of_halves_takes_its_own_weights():
    model, other = net().to(dtype="bfloat16"), net().to(dtype="bfloat16")
    other.layers["fc"].weight.value[...] = 0
    other.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(other.layers["fc"].weight.value, model.layers["fc"].weight.value)
