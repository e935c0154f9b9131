from __future__ import annotations

import numpy as np
import pytest

from minidl.errors import ArgumentError, CheckpointError, DTypeError, ShapeError
from minidl.layers import Linear, Parameter, ReLU, Sequential
from minidl.optim import SGD, AdamW, Optimizer

MAKERS = {"paper": lambda p: SGD(p, 0.9, 0.01), "torch": lambda p: SGD(p, 0.9, 0.01, True, "torch"), "adamw": AdamW}
each_optimizer = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def parameters(dtype="float64") -> dict[str, Parameter]:
    generator = np.random.default_rng(0)
    return {
        name: Parameter(generator.standard_normal(shape).astype(dtype))
        for name, shape in [("fc1.weight", (3, 4)), ("fc1.bias", (4,)), ("fc2.weight", (4, 2)), ("fc2.bias", (2,))]
    }


def run(optimizer: Optimizer, steps: range, lr: float = 0.1) -> None:
    """Steps with gradients that depend on the step's number alone."""
    for step in steps:
        generator = np.random.default_rng(step)
        for parameter in optimizer.parameters.values():
            parameter.grad = generator.standard_normal(parameter.shape).astype(parameter.value.dtype)
        optimizer.step(lr)
    optimizer.zero_grad()


def test_the_papers_rule_by_hand_when_the_rate_changes(kernels):
    w, v = 2.0, 0.0
    parameter = Parameter(np.array([w]))
    optimizer = SGD({"w": parameter}, momentum=0.9, weight_decay=5e-4)
    for lr, g in [(0.1, 1.0), (0.1, -2.0), (0.01, 0.5), (0.0, 3.0)]:
        v = 0.9 * v - 5e-4 * lr * w - lr * g
        w = w + v
        parameter.grad = np.array([g])
        optimizer.step(lr)
        np.testing.assert_allclose(parameter.value, w, rtol=1e-14)


def test_the_two_rules_part_when_the_rate_changes():
    results = {}
    for update in ("paper", "torch"):
        parameter = Parameter(np.zeros(1))
        optimizer = SGD({"w": parameter}, momentum=0.5, update=update)
        for lr in (1.0, 0.1):
            parameter.grad = np.ones(1)
            optimizer.step(lr)
        results[update] = parameter.value.item()
    assert results["paper"] == pytest.approx(-1 - (0.5 + 0.1))  # the old step goes on at its old length
    assert results["torch"] == pytest.approx(-1 - 0.1 * 1.5)


@each_optimizer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_change_in_place_and_keep_their_dtype(kernels, make, dtype):
    ours = parameters(dtype)
    arrays = {name: (parameter.value, parameter.value.copy()) for name, parameter in ours.items()}
    run(make(ours), range(1))
    for name, parameter in ours.items():
        array, before = arrays[name]
        assert parameter.value is array
        assert parameter.value.dtype == dtype
        assert not np.array_equal(array, before)


@each_optimizer
def test_gradients_are_left_as_they_are(kernels, make):
    ours = parameters()
    for parameter in ours.values():
        parameter.grad = np.full(parameter.shape, 0.5)
    make(ours).step(0.1)
    assert all((parameter.grad == 0.5).all() for parameter in ours.values())


@each_optimizer
def test_a_parameter_without_gradient_stays(make):
    ours = parameters()
    before = ours["fc1.bias"].value.copy()
    optimizer = make(ours)
    ours["fc2.bias"].grad = np.ones(2)
    optimizer.step(0.1)
    np.testing.assert_array_equal(ours["fc1.bias"].value, before)
    assert not any(name.endswith("fc1.bias") for name in optimizer.state_dict())


def test_a_shared_layer_is_changed_once():
    fc = Linear(2, 2).to(dtype="float64")
    net = Sequential(a=fc, relu=ReLU(), b=fc)
    before = fc.weight.value.copy()
    optimizer = SGD(net.parameters(), momentum=0)
    fc.weight.grad = np.ones((2, 2))
    optimizer.step(0.5)
    np.testing.assert_allclose(fc.weight.value, before - 0.5)


# --- multipliers ------------------------------------------------------------------------------------------------


@each_optimizer
def test_a_learning_rate_multiplier_of_2_is_twice_the_rate(make):
    plain, multiplied = parameters(), parameters()
    name = type(make(plain)).__name__
    kind = {"SGD": SGD, "AdamW": AdamW}[name]
    with_multiplier = kind(multiplied, weight_decay=0.01, lr_multipliers={"*.bias": 2.0, "fc2.*": 0.5})
    optimizers = {lr: kind(parameters(), weight_decay=0.01) for lr in (0.1, 0.2, 0.05)}
    run(with_multiplier, range(3), 0.1)
    for lr, optimizer in optimizers.items():
        run(optimizer, range(3), lr)
    # The last pattern that matches wins.
    for name, lr in [("fc1.weight", 0.1), ("fc1.bias", 0.2), ("fc2.weight", 0.05), ("fc2.bias", 0.05)]:
        np.testing.assert_allclose(multiplied[name].value, optimizers[lr].parameters[name].value, rtol=1e-13)


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_a_decay_multiplier_of_0_is_no_decay(kind):
    ours, decayed, plain = parameters(), parameters(), parameters()
    run(kind(ours, weight_decay=0.1, decay_multipliers={"*.bias": 0.0}), range(3))
    run(kind(decayed, weight_decay=0.1), range(3))
    run(kind(plain, weight_decay=0.0), range(3))
    for name, parameter in ours.items():
        expected, other = (plain, decayed) if name.endswith("bias") else (decayed, plain)
        np.testing.assert_array_equal(parameter.value, expected[name].value)
        assert not np.array_equal(parameter.value, other[name].value)


# --- state ------------------------------------------------------------------------------------------------------


@each_optimizer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_resumed_optimizer_goes_on_bit_for_bit(make, dtype):
    straight, first = parameters(dtype), parameters(dtype)
    run(make(straight), range(6))
    stopped = make(first)
    run(stopped, range(3))
    state = {name: array.copy() for name, array in stopped.state_dict().items()}
    resumed = make({name: Parameter(parameter.value.copy()) for name, parameter in first.items()})
    resumed.load_state_dict(state)
    assert set(resumed.updates.values()) == {3}
    run(resumed, range(3, 6))
    for name, parameter in straight.items():
        np.testing.assert_array_equal(resumed.parameters[name].value, parameter.value)


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_a_resumed_optimizer_of_a_single_number_goes_on(kind):
    straight, first = {"scale": Parameter(np.array(2.0))}, {"scale": Parameter(np.array(2.0))}
    run(kind(straight), range(4))
    stopped = kind(first)
    run(stopped, range(2))
    resumed = kind(first)
    resumed.load_state_dict(stopped.state_dict())
    run(resumed, range(2, 4))
    np.testing.assert_array_equal(first["scale"].value, straight["scale"].value)


def test_names_of_the_state():
    sgd, adamw = SGD(parameters()), AdamW(parameters())
    for optimizer in (sgd, adamw):
        assert optimizer.state_dict() == {}
        run(optimizer, range(1))
    for optimizer, slots in (sgd, ["updates", "velocity"]), (adamw, ["updates", "mean", "square"]):
        assert set(optimizer.state_dict()) == {f"{slot}.{name}" for slot in slots for name in parameters()}


def test_loaded_state_is_a_copy():
    optimizer = SGD(parameters())
    run(optimizer, range(1))
    state = optimizer.state_dict()
    other = SGD(parameters())
    other.load_state_dict(state)
    assert not np.shares_memory(other.state_dict()["velocity.fc1.bias"], state["velocity.fc1.bias"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("updates.fc2.bias"), "AdamW: the state has no 'updates.fc2.bias'"),
        (lambda state: state.update({"velocity.fc1.bias": np.zeros(4)}), "'velocity.fc1.bias' is no part of its state"),
        (lambda state: state.update({"mean.fc9.bias": np.zeros(4)}), "'mean.fc9.bias' is no part of its state"),
        (
            lambda state: state.update({"mean.fc2.bias": np.zeros(3)}),
            r"mean.fc2.bias has shape \(3,\), expected \(2,\)",
        ),
        (
            lambda state: state.update({"mean.fc2.bias": np.zeros(1)}),
            r"mean.fc2.bias has shape \(1,\), expected \(2,\)",
        ),
        (
            lambda state: state.update({"updates.fc2.bias": np.array([1, 1])}),
            r"updates.fc2.bias has shape \(2,\), expected \(\)",
        ),
        (lambda state: state.pop("square.fc2.bias"), "the state has no 'square.fc2.bias'"),
    ],
)
def test_loading_is_all_or_nothing(change, message):
    optimizer, other = AdamW(parameters()), AdamW(parameters())
    run(optimizer, range(2))
    run(other, range(4))
    before = {name: array.copy() for name, array in other.state_dict().items()}
    state = optimizer.state_dict()
    change(state)
    with pytest.raises(CheckpointError, match=message):
        other.load_state_dict(state)
    assert set(other.state_dict()) == set(before)
    for name, array in other.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


# --- bad arguments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lr", [-0.1, float("nan"), float("inf")])
def test_a_bad_learning_rate_changes_nothing(lr):
    ours = parameters()
    optimizer = SGD(ours)
    run(optimizer, range(1))
    before = {name: parameter.value.copy() for name, parameter in ours.items()}
    for parameter in ours.values():
        parameter.grad = np.ones(parameter.shape)
    with pytest.raises(ArgumentError, match=r"SGD: lr: expected a number in \[0, inf\), got"):
        optimizer.step(lr)
    assert set(optimizer.updates.values()) <= {1}
    for name, parameter in ours.items():
        np.testing.assert_array_equal(parameter.value, before[name])


@pytest.mark.parametrize(
    ("grad", "message"),
    [
        (np.ones(3), r"the gradient of fc1.bias: expected shape \(2,\), got \(3,\)"),
        (np.ones((2, 1)), r"expected shape \(2,\), got \(2, 1\)"),
        (np.ones(1), r"expected shape \(2,\), got \(1,\)"),
        (np.ones(2, np.float32), "expected float64, got float32"),
        ([1.0, 2.0], r"expected shape \(2,\), got list"),
    ],
)
def test_gradients_that_do_not_fit(grad, message):
    fits, parameter = Parameter(np.ones(3)), Parameter(np.ones(2))
    fits.grad, parameter.grad = np.ones(3), grad
    with pytest.raises((ShapeError, DTypeError), match=message):
        SGD({"fits": fits, "fc1.bias": parameter}).step(0.1)
    np.testing.assert_array_equal(parameter.value, np.ones(2))
    np.testing.assert_array_equal(fits.value, np.ones(3))


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_a_parameter_under_two_names(names):
    twin = Parameter(np.ones(2))
    with pytest.raises(ArgumentError, match=f"'{names[0]}' and '{names[1]}' are one parameter"):
        SGD(dict.fromkeys(names, twin))


@pytest.mark.parametrize(("before", "after"), [("float32", "float64"), ("float64", "float32")])
def test_a_parameter_that_was_moved_after_its_velocity_was_made(before, after):
    fc = Linear(2, 2).to(dtype=before)
    optimizer = SGD(fc.parameters())
    run(optimizer, range(1))
    fc.to(dtype=after)
    message = rf"^SGD: the velocity of weight is {before} on cpu but the parameter is {after} on cpu; call net.to\(…\)"
    with pytest.raises(ArgumentError, match=message):
        run(optimizer, range(1))


@pytest.mark.parametrize("betas", [(0.9,), (0.9, 0.99, 0.999)])
def test_betas_are_two(betas):
    with pytest.raises(ArgumentError, match="AdamW: betas: expected two numbers"):
        AdamW(parameters(), betas=betas)


def test_adamw_decays_by_a_hundredth_of_the_rate_unless_told():
    parameter = Parameter(np.ones(2))
    parameter.grad = np.zeros(2)
    AdamW({"w": parameter}).step(0.5)
    np.testing.assert_allclose(parameter.value, 1 - 0.5 * 0.01, rtol=1e-14)


def test_adamw_counts_the_updates_of_each_parameter():
    late, always = Parameter(np.ones(2)), Parameter(np.ones(2))
    optimizer = AdamW({"late": late, "always": always}, weight_decay=0)
    for step in range(5):
        always.grad = np.ones(2)
        late.grad = np.ones(2) if step == 4 else None
        optimizer.step(0.1)
    np.testing.assert_allclose(late.value, 0.9, rtol=1e-7)  # a first step has the length of the rate
