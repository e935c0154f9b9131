"""Every optimiser against PyTorch: random gradients, some missing, through both, while the rate changes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from comparing import TITLE, TOLERANCE, relative_error
from helpers import dtypes, examples, seeds, tally
from hypothesis import given
from hypothesis import strategies as st
from pace import rescale_momentum
from twin import from_torch_weight, to_torch_weight, torch

import minidl
from minidl.layer import Parameter
from minidl.optim import SGD, AdamW, Optimizer

SHAPES = {"conv.weight": (2, 2, 3, 4), "conv.bias": (4,), "fc.weight": (5, 4), "fc.bias": (4,)}

rates = st.lists(st.sampled_from([0.1, 0.03, 0.01]), min_size=1, max_size=12)
multipliers = st.fixed_dictionaries({name: st.sampled_from([0.0, 0.5, 1.0, 2.0]) for name in SHAPES})
decays = st.sampled_from([0.0, 0.05, 0.3])
momenta = st.sampled_from([(0.0, False), (0.9, False), (0.9, True), (0.5, True)])

sgds = st.builds(lambda m, decay: {"momentum": m[0], "nesterov": m[1], "weight_decay": decay}, momenta, decays)
adamws = st.fixed_dictionaries(
    {
        "betas": st.tuples(st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.0, 0.8, 0.999])),
        "eps": st.sampled_from([1e-8, 1e-2]),
        "weight_decay": decays,
    }
)

Rule = tuple[type[Optimizer], dict[str, str], type[torch.optim.Optimizer], st.SearchStrategy[dict[str, Any]]]
RULES: dict[str, Rule] = {
    "SGD": (SGD, {"update": "torch"}, torch.optim.SGD, sgds),
    "SGD of the paper": (SGD, {"update": "paper"}, torch.optim.SGD, sgds),
    "AdamW": (AdamW, {}, torch.optim.AdamW, adamws),
}


def test_every_optimizer_is_compared():
    defined = {kind for kind in Optimizer.__subclasses__() if kind.__module__ == "minidl.optim"}
    assert {kind for kind, *_ in RULES.values()} == defined


@pytest.mark.parametrize("rule", RULES)
@examples(100)
@given(data=st.data(), rates=rates, lr=multipliers, decay=multipliers, dtype=dtypes, seed=seeds)
def test_the_steps_of_an_optimizer_are_pytorchs(rule, data, rates, lr, decay, dtype, seed):
    """PyTorch has a group for each parameter, with what our multipliers make of the settings."""
    kind, own, their_kind, strategy = RULES[rule]
    settings = data.draw(strategy)
    for kernels in ("reference", "auto"):
        generator = np.random.default_rng(seed)
        parameters = {name: Parameter(generator.standard_normal(shape).astype(dtype)) for name, shape in SHAPES.items()}
        groups = [
            {
                "params": to_torch_weight(p.value),
                "weight_decay": settings["weight_decay"] * decay[name],
                "lr_multiplier": lr[name],
            }
            for name, p in parameters.items()
        ]
        optimizer = kind(parameters, **settings, **own, lr_multipliers=lr, decay_multipliers=decay)
        theirs = their_kind(groups, **{"lr": 1.0} | settings)
        with minidl.settings(kernels=kernels):
            assert_steps_agree(optimizer, theirs, rates, generator)
    tally[TITLE][rule] += 1


def assert_steps_agree(ours: Optimizer, theirs: torch.optim.Optimizer, rates: list[float], generator) -> None:
    pairs = [(name, p, group) for (name, p), group in zip(ours.parameters.items(), theirs.param_groups, strict=True)]
    for last, lr in pairwise([rates[0], *rates]):
        if isinstance(ours, SGD) and ours.update == "paper":
            rescale_momentum(theirs, last / lr)
        for name, parameter, group in pairs:
            grad = generator.standard_normal(parameter.shape).astype(parameter.value.dtype)
            missing = name.endswith("bias") and generator.random() < 0.3
            parameter.grad, group["params"][0].grad = (None, None) if missing else (grad, to_torch_weight(grad))
            group["lr"] = lr * group["lr_multiplier"]
        ours.step(lr)
        theirs.step()
        for name, parameter, group in pairs:
            error = relative_error(parameter.value, from_torch_weight(group["params"][0]))
            assert error <= TOLERANCE[parameter.value.dtype.name], name
