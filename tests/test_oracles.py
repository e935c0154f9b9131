"""Every layer, loss, optimiser and schedule against its oracle, by plain body and by kernel.

`oracle_cases.py` draws them; `oracles.py` says what is right.
"""

from __future__ import annotations

import ast
import copy
import inspect
import operator
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
from helpers import LAYOUTS, examples, laid_out, layouts, sliding, tally
from hypothesis import given
from hypothesis import strategies as st
from oracle_cases import (
    LAYERS,
    LINEAR,
    LOSSES,
    OPTIMIZERS,
    SCHEDULES,
    Case,
    Rule,
    as_oracles,
    doubles,
    exact,
    reals,
    sizes,
    wholes,
)

import minidl
from minidl import gradcheck, layers, losses, optim, schedules
from minidl.layer import Layer, Parameter
from minidl.layers import Conv2d, Linear
from minidl.ops.channel_sum import channel_dot, channel_sum
from minidl.ops.conv2d import col2im, im2col
from minidl.ops.local_response_norm import channel_window_sum

KERNELS = ("reference", "auto")
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
compared, checked = tally["examples against the oracles"], tally["gradient checks at sampled shapes"]


def assert_close(ours: Any, expected: Any, dtype: str, what: str, condition: float = 1.0) -> None:
    """Equal up to rounding, on the scale of the largest number; and of the dtype and shape that is due."""
    expected = np.asarray(expected)
    tolerance = TOLERANCE[dtype] * max(1.0, condition)
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=1)
    assert ours.dtype == dtype, what
    assert np.shape(ours) == expected.shape, what
    np.testing.assert_allclose(ours, expected, rtol=tolerance, atol=tolerance * largest, err_msg=what)


# --- layers -----------------------------------------------------------------------------------------------------


def minidls(case: Case, dy: np.ndarray, layout: str = "C") -> dict[str, np.ndarray]:
    """y of inference and of training, dx, the parameters' gradients and the buffers, all by name."""
    layer, x = copy.deepcopy(case.layer), laid_out(case.x, layout)
    inferred = layer(x)
    y, cache = layer.forward(x, train=True, key=case.key)
    dx = layer.backward(laid_out(dy, layout), cache)
    gradients = {f"d{name}": parameter.grad for name, parameter in layer.parameters().items()}
    buffers = {name: buffer.value for name, buffer in layer.buffers().items()}
    return {"inference": inferred, "y": y, "dx": dx, **gradients, **buffers}


def the_oracles(case: Case, dy: np.ndarray) -> dict[str, np.ndarray]:
    """The same of the oracle."""
    y = case.forward(exact(case.x))
    dx, gradients = case.backward(exact(dy), exact(case.x))
    inferred = case.inference(exact(case.x)) if case.inference else y
    by_name = {f"d{name}": gradient for name, gradient in gradients.items()}
    return {"inference": inferred, "y": y, "dx": dx, **by_name, **case.buffers}


def output_gradient(case: Case) -> np.ndarray:
    """Random numbers of the shape that the output should have."""
    return case.numbers(*case.forward(exact(case.x)).shape)


@pytest.mark.parametrize("name", LAYERS)
@examples(200)
@given(st.data())
def test_layers_agree_with_their_oracles(name, data):
    case, layout = data.draw(LAYERS[name]()), data.draw(layouts)
    dy = output_gradient(case)
    expected = the_oracles(case, dy)
    for kernels in KERNELS:
        with minidl.settings(kernels=kernels):
            ours = minidls(case, dy, layout)
        assert ours.keys() == expected.keys()
        for what in expected:
            assert_close(ours[what], expected[what], case.numbers.dtype, f"{what} by {kernels}", case.condition)
    compared[name] += 1


@pytest.mark.parametrize("name", LAYERS)
@examples(20)
@given(st.data())
def test_gradients_are_right_at_sampled_shapes_and_in_any_layout(name, data):
    case = data.draw(LAYERS[name](doubles))
    dy = output_gradient(case)
    for kernels in KERNELS:
        with minidl.settings(kernels=kernels):
            report = gradcheck.check(case.layer, case.x.shape, key=case.key)
            assert report.passed, report
            ours = {layout: minidls(case, dy, layout) for layout in LAYOUTS}
        for layout in LAYOUTS:
            for what, plain in ours["C"].items():
                assert_close(ours[layout][what], plain, "float64", f"{what}, {layout}, {kernels}", case.condition)
    checked[name] += 1


# --- adjoints, exact on whole numbers: ⟨f(x), dy⟩ = ⟨x, fᵀ(dy)⟩ --------------------------------------------------


@pytest.mark.parametrize("name", LINEAR)
@examples(100)
@given(st.data())
def test_backward_is_exactly_the_adjoint_of_forward(name, data):
    case = data.draw(LINEAR[name])
    case.x *= 144
    dy = 144 * output_gradient(case)
    for kernels in KERNELS:
        with minidl.settings(kernels=kernels):
            ours = minidls(case, dy)
        product = np.sum(ours["y"] * dy)
        assert product == np.sum(case.x * ours["dx"]), kernels
        if isinstance(case.layer, Conv2d | Linear):
            assert product == np.sum(case.layer.weight.value * ours["dweight"]), kernels


@examples(200)
@given(sliding(), st.integers(1, 2), st.integers(1, 3), wholes)
def test_im2col_and_col2im_agree_with_their_oracles_and_are_adjoint(geometry, N, C, make):
    window, H, W = geometry
    x = make(N, H, W, C)
    expected = oracles.im2col(x, as_oracles(window))
    dcols = make(*expected.shape)
    for kernels in KERNELS:
        with minidl.settings(kernels=kernels):
            cols, dx = im2col(x, window), col2im(dcols, x.shape, window)
        np.testing.assert_array_equal(cols, expected, strict=True)
        np.testing.assert_array_equal(dx, oracles.col2im(dcols, x.shape, as_oracles(window)), strict=True)
        assert np.sum(cols * dcols) == np.sum(x * dx)
    compared["im2col and col2im"] += 1


@examples(200)
@given(st.lists(sizes, min_size=1, max_size=4).map(tuple), layouts, reals)
def test_channel_sums_agree_with_their_oracle(shape, layout, make):
    x, y = make(*shape), make(*shape)
    total = oracles.channel_sum(exact(x))
    dot = oracles.channel_sum(oracles.elementwise(operator.mul, exact(x), exact(y)))
    for kernels in KERNELS:
        with minidl.settings(kernels=kernels):
            assert_close(channel_sum(laid_out(x, layout)), total, make.dtype, kernels)
            assert_close(channel_dot(laid_out(x, layout), laid_out(y, layout)), dot, make.dtype, kernels)
    compared["channel sums"] += 1


@given(st.lists(sizes, min_size=1, max_size=4).map(tuple), wholes)
def test_the_adjoint_of_a_channel_sum_is_a_copy_to_every_pixel(shape, make):
    x, dtotal = make(*shape), make(shape[-1])
    for kernels in KERNELS:
        with minidl.settings(kernels=kernels):
            assert np.sum(channel_sum(x) * dtotal) == np.sum(x * np.broadcast_to(dtotal, shape))


@given(st.integers(0, 4), st.integers(0, 4), st.integers(1, 3), sizes, wholes)
def test_the_adjoint_of_a_window_sum_is_the_window_turned_around(before, after, groups, C, make):
    x, dy = make(2, groups * C), make(2, groups * C)
    y, dx = channel_window_sum(x, before, after, groups), channel_window_sum(dy, after, before, groups)
    assert np.sum(y * dy) == np.sum(x * dx)


# --- losses, optimisers, schedules ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
@examples(200)
@given(st.data())
def test_losses_agree_with_their_oracles(name, data):
    make, layout = data.draw(reals), data.draw(layouts)
    loss, outputs, targets, (value, gradient) = data.draw(LOSSES[name](make))
    scale = make(*np.shape(value)) if np.ndim(value) else data.draw(st.sampled_from([1.0, -3.0]))
    channels = (1,) * (gradient.ndim - np.ndim(scale))
    scaled = gradient * np.reshape(scale, np.shape(scale) + channels)
    for kernels in KERNELS:
        with minidl.settings(kernels=kernels):
            ours, cache = loss.forward(laid_out(outputs, layout), targets)
            assert_close(ours, value, make.dtype, f"value by {kernels}")
            assert_close(loss.backward(cache, scale), scaled, make.dtype, f"gradient by {kernels}")
    compared[name] += 1


LR_MULTIPLIERS, DECAY_MULTIPLIERS = {"weight": 1.0, "bias": 2.0}, {"weight": 1.0, "bias": 0.0}
Steps = list[tuple[float, dict[str, np.ndarray]]]  # the learning rate, and the gradients by name


@pytest.mark.parametrize("name", OPTIMIZERS)
@examples(200)
@given(st.data())
def test_optimizers_agree_with_their_oracles(name, data):
    make, (settings, rule, slots) = data.draw(reals), data.draw(OPTIMIZERS[name]())
    weight_decay = data.draw(st.sampled_from([0.0, 5e-4, 0.1]))
    lrs = data.draw(st.lists(st.sampled_from([0.0, 1e-3, 0.1, 1.0]), min_size=1, max_size=4))
    first = {"weight": make(2, 3), "bias": make(3)}
    steps = [(lr, {parameter: make(*value.shape) for parameter, value in first.items()}) for lr in lrs]
    if len(steps) > 1 and data.draw(st.booleans()):
        del steps[1][1]["bias"]  # a parameter without a gradient stays, and its step does not count
    expected = {
        parameter: by_rule(rule, slots, parameter, value, steps, weight_decay) for parameter, value in first.items()
    }
    for kernels in KERNELS:
        with minidl.settings(kernels=kernels):
            ours = by_optimizer(getattr(optim, name), first, steps, weight_decay=weight_decay, **settings)
        for parameter in first:
            for array, exact_array in zip(ours[parameter], expected[parameter], strict=True):
                assert_close(array, exact_array, make.dtype, f"{parameter} by {kernels}")
    compared[name] += 1


def by_optimizer(
    kind: type[optim.Optimizer], first: dict[str, np.ndarray], steps: Steps, **settings: Any
) -> dict[str, list[np.ndarray]]:
    """Of each parameter: the value after the steps, and the running arrays."""
    parameters = {name: Parameter(value.copy()) for name, value in first.items()}
    optimizer = kind(parameters, lr_multipliers=LR_MULTIPLIERS, decay_multipliers=DECAY_MULTIPLIERS, **settings)
    for lr, gradients in steps:
        for name, gradient in gradients.items():
            parameters[name].accumulate(gradient.copy())
        optimizer.step(lr)
        optimizer.zero_grad()
    return {name: [parameters[name].value, *optimizer.state[name].values()] for name in parameters}


def by_rule(
    rule: Rule, slots: int, name: str, first: np.ndarray, steps: Steps, weight_decay: float
) -> list[np.ndarray]:
    """The same of one parameter, number by number."""
    given_gradients = [(lr * LR_MULTIPLIERS[name], gradients[name]) for lr, gradients in steps if name in gradients]
    results = [np.zeros(first.shape) for _ in range(1 + slots)]
    for place in oracles.everywhere(first.shape):
        w, running = float(first[place]), [0.0] * slots
        for t, (lr, gradient) in enumerate(given_gradients, start=1):
            w, *running = rule(w, float(gradient[place]), running, t, lr, weight_decay * DECAY_MULTIPLIERS[name])
        for result, number in zip(results, (w, *running), strict=True):
            result[place] = number
    return results


@pytest.mark.parametrize("name", SCHEDULES)
@examples(200)
@given(st.data())
def test_schedules_agree_with_their_oracles(name, data):
    schedule, oracle = data.draw(SCHEDULES[name]())
    for step in range(60):
        np.testing.assert_allclose(schedule.lr(step), oracle(step), rtol=1e-12, atol=1e-15, err_msg=f"step {step}")
    compared[name] += 1


# --- the oracles themselves -------------------------------------------------------------------------------------


def subclasses(module: Any, base: type) -> set[str]:
    """The classes that a module defines under a base."""
    classes = {name: value for name, value in vars(module).items() if inspect.isclass(value)}
    return {name for name, value in classes.items() if issubclass(value, base) and value is not base}


def test_everything_has_an_oracle():
    assert set(LAYERS) == {name for name in layers.__all__ if issubclass(getattr(layers, name), Layer)} - {"Layer"}
    assert set(LOSSES) == subclasses(losses, losses.Loss)
    assert set(OPTIMIZERS) == subclasses(optim, optim.Optimizer)
    assert set(SCHEDULES) == subclasses(schedules, schedules.Schedule)


def test_none_was_compared_less_often_than_asked_for():
    """Hypothesis stops early where it knows no further example."""
    for name, times in compared.items():
        assert times >= examples(200).max_examples, name
    for name, times in checked.items():
        assert times >= examples(20).max_examples, name


def test_the_oracles_import_nothing_of_minidl_and_do_no_array_arithmetic():
    tree = ast.parse(Path(oracles.__file__).read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {"__future__", "collections.abc", "itertools", "math", "numpy", "typing"}
    of_numpy = {node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "np"}
    assert of_numpy == {"ndarray", "zeros"}


# Random123's kat_vectors for philox4x32-10; the last is digits of π.
@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_philox_of_the_oracles_gives_the_known_answers(counter, key, answer):
    words, keys = ([int(word, 16) for word in text.split()] for text in (counter, key))
    assert " ".join(f"{word:08x}" for word in oracles.philox4x32(words, keys)) == answer
