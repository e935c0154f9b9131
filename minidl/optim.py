"""Optimisers: how a step changes the parameters, given their gradients and a learning rate.

optimizer = SGD(net.parameters(), momentum=0.9, weight_decay=5e-4)
…backward…
optimizer.step(lr=0.01)
optimizer.zero_grad()
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from minidl.arrays import Array, array_module, device_of, is_array, require_device, to_device, to_host
from minidl.errors import (
    ArgumentError,
    CheckpointError,
    DTypeError,
    ShapeError,
    UnknownNameError,
    expect_a,
    expect_flag,
    expect_number,
    told,
)
from minidl.layer import Parameter
from minidl.ops.adamw import adamw
from minidl.ops.sgd import sgd_paper, sgd_torch
from minidl.patterns import by_pattern


class Optimizer:
    """Changes parameters step by step; keeps running arrays for each.

    parameters: by name, as `net.parameters()` gives them.
    lr_multipliers, decay_multipliers: factors on learning rate and weight decay by pattern of parameter name, the last
        match winning: {"*.bias": 2.0} as in Krizhevsky's own code, decay {"*.bias": 0.0}.
    Raises: ArgumentError for parameters that are not names and parameters, or hold one twice; for a weight decay or a
        factor that is negative or not finite; and for a pattern that matches no parameter.
    """

    slots: tuple[str, ...] = ()

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        weight_decay: float,
        lr_multipliers: Mapping[str, float] | None,
        decay_multipliers: Mapping[str, float] | None,
    ) -> None:
        if not isinstance(parameters, Mapping):
            raise ArgumentError(
                f"{type(self).__name__}: parameters: expected names and parameters, as net.parameters() gives them, "
                f"got {type(parameters).__name__}"
            )
        if not parameters:
            raise ArgumentError(f"{type(self).__name__}: parameters: expected at least one, got none")
        for name, parameter in parameters.items():
            expect_a(Parameter, type(self).__name__, f"parameters: {name!r}", parameter)
        self.parameters = dict(parameters)
        self._refuse_twins()
        self.weight_decay = expect_number(type(self).__name__, "weight_decay", weight_decay, within="[0, inf)")
        self.lr_multipliers = self._multipliers("lr_multipliers", lr_multipliers or {})
        self.decay_multipliers = self._multipliers("decay_multipliers", decay_multipliers or {})
        self.state: dict[str, dict[str, Array]] = {}
        self.updates: dict[str, int] = {}

    def step(self, lr: float) -> None:
        """Change every parameter that has a gradient. On an error nothing has changed.

        Raises: ArgumentError for a learning rate that is negative or not finite, where no parameter has a gradient,
            and for parameters that were moved since their running arrays were made; ShapeError, DTypeError,
            DeviceError for a gradient that does not fit.
        """
        lr = expect_number(type(self).__name__, "lr", lr, within="[0, inf)")
        ready = {}
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                self._check(name, parameter.value, parameter.grad)
                ready[name] = parameter.value, parameter.grad, self._slots(name)
        if not ready:
            raise ArgumentError(f"{type(self).__name__}: no parameter has a gradient; run backward before the step")
        for name, (value, grad, slots) in ready.items():
            decay = self.weight_decay * self.decay_multipliers[name]
            self.updates[name] = self.updates.get(name, 0) + 1
            self._update(name, value, grad, slots, lr * self.lr_multipliers[name], decay)

    def _refuse_twins(self) -> None:
        first: dict[int, str] = {}
        for name, parameter in self.parameters.items():
            twin = first.setdefault(id(parameter), name)
            if twin != name:
                raise ArgumentError(
                    f"{type(self).__name__}: parameters: {twin!r} and {name!r} are one parameter, which would be "
                    "changed twice a step; name it once, as net.parameters() does"
                )

    def _check(self, name: str, value: Array, grad: Array) -> None:
        if not is_array(grad) or grad.shape != value.shape:
            got = grad.shape if is_array(grad) else type(grad).__name__
            raise ShapeError(f"{type(self).__name__}: the gradient of {name}: expected shape {value.shape}, got {got}")
        if grad.dtype != value.dtype:
            raise DTypeError(f"{type(self).__name__}: the gradient of {name}: expected {value.dtype}, got {grad.dtype}")
        require_device(f"{type(self).__name__}: the gradient of {name}", grad, value)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def state_dict(self) -> dict[str, Array]:
        """What a resumed training needs: the running arrays as "slot.parameter", and as "updates.parameter" how often
        each parameter was changed.
        """
        arrays = {f"{slot}.{name}": a for name, slots in self.state.items() for slot, a in slots.items()}
        return arrays | {f"updates.{name}": np.array(count) for name, count in self.updates.items()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Take over what `state_dict` gave. On an error nothing has changed.

        Raises: CheckpointError naming what does not fit; ArgumentError for what is no mapping.
        """
        if not isinstance(state, Mapping):
            raise ArgumentError(f"{type(self).__name__}: state: expected arrays by name, got {told(state)}")
        loaded: dict[str, dict[str, Array]] = {}
        updates: dict[str, int] = {}
        for path, array in state.items():
            slot, _, name = str(path).partition(".")
            if name not in self.parameters or slot not in ("updates", *self.slots):
                raise CheckpointError(f"{type(self).__name__}: {path!r} is no part of its state")
            if not is_array(array) or array.dtype.kind not in ("iu" if slot == "updates" else "f"):
                raise CheckpointError(f"{type(self).__name__}: {path} is {told(array)}, which does not fit")
            value = self.parameters[name].value
            expected = () if slot == "updates" else value.shape
            if array.shape != expected:
                raise CheckpointError(f"{type(self).__name__}: {path} has shape {array.shape}, expected {expected}")
            if slot == "updates":
                updates[name] = int(array)
                continue
            copy = to_host(array).astype(value.dtype, copy=True)
            loaded.setdefault(name, {})[slot] = to_device(copy, device_of(value))
        for name in loaded.keys() | updates.keys():
            for slot in ("updates", *self.slots):
                if f"{slot}.{name}" not in state:
                    raise CheckpointError(f"{type(self).__name__}: the state has no '{slot}.{name}'")
        self.state, self.updates = loaded, updates

    def _slots(self, name: str) -> dict[str, Array]:
        value = self.parameters[name].value
        if name not in self.state:
            self.state[name] = {slot: array_module(value).zeros(value.shape, value.dtype) for slot in self.slots}
        for slot, array in self.state[name].items():
            if (array.dtype, device_of(array)) != (value.dtype, device_of(value)):
                raise ArgumentError(
                    f"{type(self).__name__}: the {slot} of {name} is {array.dtype} on {device_of(array)} but the "
                    f"parameter is {value.dtype} on {device_of(value)}; call net.to(…) before the optimizer is made"
                )
        return self.state[name]

    def _update(self, name: str, value: Array, grad: Array, slots: dict[str, Array], lr: float, decay: float) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not define _update")

    def _multipliers(self, argument: str, table: Mapping[str, float]) -> dict[str, float]:
        owner = f"{type(self).__name__}: {argument}"
        factors = {
            name: expect_number(owner, name, factor, within="[0, inf)")
            for name, factor in by_pattern(owner, table, self.parameters).items()
        }
        return dict.fromkeys(self.parameters, 1.0) | factors


class SGD(Optimizer):
    """Stochastic gradient descent with momentum and weight decay, with λ = weight_decay and μ = momentum:

        update="paper":    v ← μ·v − lr·(g + λ·w),    w ← w + v          Krizhevsky et al. 2012, §5
        update="torch":    v ← μ·v + g + λ·w,         w ← w − lr·v       PyTorch, ONNX

    The paper's velocity contains the learning rate, PyTorch's does not; they agree while the rate is constant and part
    when it changes: the paper's steps then die away at the old rate.

    nesterov: look ahead along the velocity (Sutskever, Martens, Dahl, Hinton 2013, in PyTorch's form).
    Raises: ArgumentError for momentum outside [0, 1), negative weight decay, or Nesterov without momentum.
    """

    slots = ("velocity",)

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        update: Literal["paper", "torch"] = "paper",
        lr_multipliers: Mapping[str, float] | None = None,
        decay_multipliers: Mapping[str, float] | None = None,
    ) -> None:
        momentum, nesterov = (
            expect_number("SGD", "momentum", momentum, "[0, 1)"),
            expect_flag("SGD", "nesterov", nesterov),
        )
        if nesterov and momentum == 0:
            raise ArgumentError("SGD: nesterov: expected momentum > 0 with it, got 0")
        if update not in ("paper", "torch"):
            raise UnknownNameError("update rule of SGD", update, ["paper", "torch"])
        super().__init__(parameters, weight_decay, lr_multipliers, decay_multipliers)
        self.momentum, self.nesterov, self.update = momentum, nesterov, update

    def _update(self, name: str, value: Array, grad: Array, slots: dict[str, Array], lr: float, decay: float) -> None:
        rule = sgd_paper if self.update == "paper" else sgd_torch
        rule(value, grad, slots["velocity"], lr, self.momentum, decay, self.nesterov)


class AdamW(Optimizer):
    """Adam with decoupled weight decay:

        m ← β₁m + (1−β₁)g,    v ← β₂v + (1−β₂)g²,    w ← w·(1 − lr·λ) − lr · m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + eps)

    Raises: ArgumentError for betas outside [0, 1), eps ≤ 0 or negative weight decay.
    Source: Loshchilov and Hutter 2019, arXiv 1711.05101, Algorithm 2, as in PyTorch.
    """

    slots = ("mean", "square")

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        lr_multipliers: Mapping[str, float] | None = None,
        decay_multipliers: Mapping[str, float] | None = None,
    ) -> None:
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ArgumentError(f"AdamW: betas: expected two numbers, got {told(betas)}")
        first, second = (expect_number("AdamW", "betas", beta, within="[0, 1)") for beta in betas)
        self.betas = first, second
        self.eps = expect_number("AdamW", "eps", eps, within="(0, inf)")
        super().__init__(parameters, weight_decay, lr_multipliers, decay_multipliers)

    def _update(self, name: str, value: Array, grad: Array, slots: dict[str, Array], lr: float, decay: float) -> None:
        adamw(value, grad, slots["mean"], slots["square"], self.updates[name], lr, *self.betas, self.eps, decay)
