"""Whole trainings against PyTorch: the same weights, batches and dropout masks, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis
import numpy as np
import pytest
from comparing import assert_gradients_agree, both_dtypes
from kinks import Batch, batch_away_from_kinks
from pace import pace, rescale_momentum
from twin import Twin, from_torch_weight, torch

from minidl.data.digits import load_digits
from minidl.initializers import SCHEMES, initialize
from minidl.layers import Sequential
from minidl.losses import SoftmaxCrossEntropy
from minidl.models import alexnet_mini, lenet5
from minidl.optim import SGD, AdamW, Optimizer
from minidl.random import Key
from minidl.schedules import Constant, Cosine, Plateau, Schedule, Step, WarmUp
from minidl.training.step import train_step

LENGTH = 200 if hypothesis.settings.default.max_examples > 100 else 40  # of most trainings

# --- what is trained --------------------------------------------------------------------------------------------


class Digits:
    """Batches of four out of twelve real digits, enlarged to 32×32; with noise, so that no two pixels are equal."""

    def __init__(self, dtype: str, size: int = 32) -> None:
        self.generator = np.random.default_rng(0)
        self.split, self.dtype, self.size = load_digits().train, dtype, size

    def __call__(self) -> Batch:
        chosen = self.generator.integers(0, 12, 4)
        images = np.stack([self.split.image(int(i)) for i in chosen]).repeat(4, axis=1).repeat(4, axis=2) / 255 - 0.3
        images += 0.1 * self.generator.standard_normal(images.shape)
        return images[:, : self.size, : self.size].astype(self.dtype), self.split.labels[chosen]


def mini(dtype: str = "float64") -> tuple[Sequential, Digits]:
    return initialized(alexnet_mini(in_channels=1), "he", dtype), Digits(dtype)


def smooth() -> tuple[Sequential, Digits]:
    """A small net that has no kinks."""
    return initialized(lenet5(), "glorot", "float64"), Digits("float64", size=28)


def initialized(net: Sequential, scheme: str, dtype: str) -> Sequential:
    initialize(net, SCHEMES[scheme], Key(7))
    return net.to(dtype=dtype)


# Ours and what it alone is told, PyTorch's, what both are told, and a rate that suits them.
Method = tuple[type[Optimizer], dict[str, str], type[torch.optim.Optimizer], dict[str, Any], float]
SGD_SETTINGS = {"momentum": 0.9, "weight_decay": 5e-4}
METHODS: dict[str, Method] = {
    "SGD": (SGD, {"update": "torch"}, torch.optim.SGD, SGD_SETTINGS, 0.005),
    "Nesterov": (SGD, {"update": "torch"}, torch.optim.SGD, {**SGD_SETTINGS, "nesterov": True}, 0.005),
    "paper": (SGD, {"update": "paper"}, torch.optim.SGD, SGD_SETTINGS, 0.005),
    "paper, Nesterov": (SGD, {"update": "paper"}, torch.optim.SGD, {**SGD_SETTINGS, "nesterov": True}, 0.005),
    "AdamW": (AdamW, {}, torch.optim.AdamW, {"betas": (0.9, 0.99), "weight_decay": 0.05}, 0.001),
}

SCHEDULES: dict[str, Callable[[float, int], Schedule]] = {
    "Constant": lambda lr, steps: Constant(lr),
    "Cosine": lambda lr, steps: Cosine(lr, steps),
    "Plateau": lambda lr, steps: Plateau(lr, gamma=0.3, patience=2),
    "Step": lambda lr, steps: Step(lr, steps // 4, gamma=0.5),
    "WarmUp": lambda lr, steps: WarmUp.before(Cosine(lr, steps), steps // 5),
}
ERRORS = (0.9, 0.5, 0.5, 0.6, 0.4, 0.4, 0.5, 0.4)  # what validations find: the plateau drops behind the 4th and the 7th

Factors = Callable[[str], tuple[float, float]]  # on rate and decay, by name of a parameter


def train_beside(
    trained: tuple[Sequential, Digits],
    method: str,
    schedule: str,
    steps: int,
    *,
    rescaled: bool = False,
    multipliers: dict[str, dict[str, float]] | None = None,
    factors: Factors = lambda name: (1.0, 1.0),
) -> np.ndarray:
    """Our loss and PyTorch's, step by step: (steps, 2).

    rescaled: multiply PyTorch's momentum by the old rate over the new one before each step.
    multipliers, factors: the same, in our words and for PyTorch's groups.
    """
    net, draw = trained
    kind, own, their_kind, settings, lr = METHODS[method]
    optimizer, twin = kind(net.parameters(), **settings, **own, **multipliers or {}), Twin(net)
    groups = []
    for name, tensor in twin.parameters.items():
        on_lr, on_decay = factors(name)
        groups.append({"params": tensor, "lr": on_lr * lr, "weight_decay": on_decay * settings["weight_decay"]})
    their_optimizer = their_kind(groups, **settings)

    losses, rates = [], []
    for step, rate in pace(SCHEDULES[schedule](lr, steps), their_optimizer, steps, ERRORS):
        key = Key(7).at(step)
        images, labels = batch_away_from_kinks(net, key, draw)
        if rescaled and rates:
            rescale_momentum(their_optimizer, rates[-1] / rate)
        ours, _ = train_step(net, SoftmaxCrossEntropy(), optimizer, images, labels, rate, key)
        losses.append((ours, twin.backward(images, labels, key)))
        their_optimizer.step()
        rates.append(rate)
    assert schedule == "Constant" or len(set(rates)) > 2, "the rate changes less than twice"
    return np.array(losses)


def largest_gap(losses: np.ndarray) -> float:
    ours, theirs = losses.T
    return np.abs(ours - theirs).max()


# --- in float64, where two right trainings stay together ----------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "schedule", "steps"),
    [("SGD", "Cosine", 200), ("SGD", "Plateau", LENGTH), ("Nesterov", "Step", LENGTH), ("AdamW", "WarmUp", LENGTH)],
)
def test_every_loss_of_a_training_is_pytorchs(method, schedule, steps):
    losses = train_beside(mini(), method, schedule, steps)
    assert largest_gap(losses) <= 1e-9
    if steps == 200:
        assert losses[-20:].mean() < 0.7 * losses[:20].mean()  # it did learn something


changing = pytest.mark.parametrize("schedule", [name for name in SCHEDULES if name != "Constant"])


@changing
@pytest.mark.parametrize("method", ["SGD", "Nesterov", "AdamW"])
def test_every_loss_of_a_small_nets_training_is_pytorchs(method, schedule):
    assert largest_gap(train_beside(smooth(), method, schedule, LENGTH)) <= 1e-9


@changing
@pytest.mark.parametrize("method", ["paper", "paper, Nesterov"])
def test_the_papers_rule_is_pytorchs_with_momentum_rescaled_at_every_change_of_the_rate(method, schedule):
    assert largest_gap(train_beside(smooth(), method, schedule, LENGTH, rescaled=True)) <= 1e-9


@changing
def test_the_papers_rule_and_pytorchs_part_where_the_rate_changes(schedule):
    ours, theirs = train_beside(smooth(), "paper", schedule, LENGTH).T
    assert np.abs(ours - theirs)[0] <= 1e-9
    assert np.abs(ours - theirs).max() > 1e-4


def test_the_papers_rule_is_pytorchs_while_the_rate_is_constant():
    assert largest_gap(train_beside(smooth(), "paper", "Constant", LENGTH)) <= 1e-9


@pytest.mark.parametrize("method", ["SGD", "Nesterov", "AdamW"])
def test_multipliers_are_pytorchs_parameter_groups(method):
    def factors(name: str) -> tuple[float, float]:
        bias = name.endswith(".bias")
        return (0.5 if name.startswith("fc5.") else 2.0 if bias else 1.0), (0.0 if bias else 1.0)

    multipliers = {"lr_multipliers": {"*.bias": 2.0, "fc5.*": 0.5}, "decay_multipliers": {"*.bias": 0.0}}
    alike = train_beside(smooth(), method, "Step", LENGTH, multipliers=multipliers, factors=factors)
    apart = train_beside(smooth(), method, "Step", LENGTH, multipliers=multipliers)
    assert largest_gap(alike) <= 1e-9
    assert largest_gap(apart) > 1e-4


# --- in float32, where they part after some ten steps -------------------------------------------------------------


def test_fifty_steps_in_float32_each_from_pytorchs_weights():
    net, draw = mini("float32")
    twin = Twin(net)
    their_optimizer = torch.optim.SGD(list(twin.parameters.values()), 0.01, 0.9, weight_decay=5e-4)
    for step in range(50):
        key = Key(8).at(step)
        net.load_state_dict({name: from_torch_weight(weight) for name, weight in twin.parameters.items()})
        assert_gradients_agree(net, twin, batch_away_from_kinks(net, key, draw), key, 1e-5, 1e-4)
        their_optimizer.step()


# --- labels that count for nothing ------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("ignored", [[1], [0, 3], [0, 1, 2]], ids=str)
def test_the_gradients_of_a_batch_with_ignored_labels_are_pytorchs(ignored, dtype):
    net, draw = mini(dtype)
    images, labels = batch_away_from_kinks(net, Key(8), draw)
    labels[ignored] = -100
    loss, gradient = (1e-5, 1e-4) if dtype == "float32" else (1e-9, 1e-9)
    assert_gradients_agree(net, Twin(net), (images, labels), Key(8), loss, gradient)
