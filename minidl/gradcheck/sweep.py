"""How the error of a gradient check depends on its step, and on the element."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.arrays import Array, device_of, to_device, to_host
from minidl.devices import using
from minidl.errors import ShapeError, UnknownNameError, expect_a
from minidl.gradcheck.compare import FIRST_KEY, relative_error
from minidl.gradcheck.subject import Function, function_of
from minidl.layer import Layer, Parameter
from minidl.losses import Loss
from minidl.random import Key

STEPS_PER_DECADE = 3
SMALLEST_STEPS = {"float32": 1e-7, "float64": 1e-12}  # below which only noise is left
DIRECTIONS = 4
MAP_STEP = 1e-4  # as in `check`
MAP_ELEMENTS = 1024  # of a larger tensor, so many elements are looked at


@dataclass(frozen=True)
class Curve:
    """The relative error of one tensor's gradient for each step ε: the root mean square over a few directions.

    kinks: for each ε, how many decisions (signs, winners) differed between the two sides, on average.
    """

    tensor: str
    dtype: str
    steps: Array
    errors: Array
    kinks: Array


@dataclass(frozen=True)
class ErrorMap:
    """The relative error of each element of one tensor's gradient, in float64; NaN where none was looked at.

    kinks: the elements that cannot be moved by ε = 10⁻⁴ without crossing a kink; they are moved less.
    """

    tensor: str
    errors: Array
    kinks: Array

    @property
    def worst(self) -> tuple[int, ...]:
        """The index of the largest error."""
        return tuple(int(i) for i in np.unravel_index(int(np.nanargmax(self.errors)), self.errors.shape))


@dataclass(frozen=True)
class Sweep:
    """Curves, by tensor and dtype, and maps, by tensor."""

    subject: str
    curves: tuple[Curve, ...]
    maps: tuple[ErrorMap, ...]


def sweep(
    subject: Layer | Loss,
    *inputs: Any,
    key: Key = FIRST_KEY,
    tensors: Sequence[str] | None = None,
    device: str | None = None,
) -> Sweep:
    """Compare backward with central differences for many steps ε, in float32 and in float64.

    What is differentiated is L = Σ r·sin(y), for the output y and one random r. Through the sine a linear layer has a
    curvature too: else its differences would be exact, and its curve would have one arm only. The error falls with

        truncation    ε²·|L‴|/6    on the right, where ε is large
        rounding      u·|L|/ε      on the left, where ε is small,    u = 6·10⁻⁸ in float32, 10⁻¹⁶ in float64

    so that the best step is near ∛u, and the best error near ∛u². A wrong gradient does not care about ε.

    inputs, device: as for `check`. tensors: the names of those to look at; all if not given.
    Raises: what `check` raises; UnknownNameError for a tensor that is not there.
    """
    expect_a(Key, "gradient check", "key", key)
    with using(device or "cpu"):
        return _swept(subject, inputs, key, tensors, device)


def _swept(
    subject: Layer | Loss, inputs: tuple[Any, ...], key: Key, tensors: Sequence[str] | None, device: str | None
) -> Sweep:
    function = function_of(subject, inputs, key, device=device)
    names = list(function.tensors) if tensors is None else list(tensors)
    for name in names:
        if name not in function.tensors:
            raise UnknownNameError(f"tensor of {subject}", name, function.tensors)
    curves = []
    for dtype in SMALLEST_STEPS:
        line = _Readout(function_of(subject, inputs, key, dtype, device), key.at("readout"))
        curves += [_curve(line, name, dtype) for name in names]
    readout = _Readout(function, key.at("readout"))
    return Sweep(function.name, tuple(curves), tuple(_map(readout, name) for name in names))


class _Readout:
    """L = Σ r·sin(y) as a function of the tensors, with its gradients by backward."""

    def __init__(self, function: Function, key: Key) -> None:
        self.function, self.generator = function, key.generator()
        y, cache = function.forward(function.input.value.copy())
        self.r = np.asarray(self.generator.standard_normal(y.shape))
        dy = np.asarray(self.r * np.cos(to_host(y).astype(np.float64)))
        for parameter in function.tensors.values():
            parameter.grad = None
        function.input.grad = function.backward(to_device(dy.astype(y.dtype), device_of(y)), cache)

    def gradient(self, name: str) -> Array:
        """∂L/∂tensor by backward, in float64; 0 where backward gave none."""
        parameter = self.function.tensors[name]
        if parameter.grad is None:
            return np.zeros(parameter.shape)
        if parameter.grad.shape != parameter.shape:
            raise ShapeError(
                f"{self.function.name}: backward gave a gradient of shape {parameter.grad.shape} for {name} "
                f"{parameter.shape}: there is no curve to draw"
            )
        return to_host(parameter.grad).astype(np.float64)

    def quotient(self, parameter: Parameter, v: Array, step: float) -> tuple[float, int]:
        """The central difference of L along v, and how many decisions differ between its two sides.

        By the step that was made: in float32, t + εv is rounded.
        """
        value = parameter.value
        move = to_device(step * v, device_of(value))
        sides = []
        for sign in 1, -1:
            parameter.value = (value + sign * move).astype(value.dtype)
            y, cache = self.function.forward(self.function.input.value.copy())
            sides.append((np.sin(to_host(y).astype(np.float64)), self.function.decisions(cache)))
        parameter.value = value
        (after, decided_after), (before, decided_before) = sides
        flips = sum(int((a != b).sum()) for a, b in zip(decided_after, decided_before, strict=True))
        return float((self.r * (after - before)).sum()) / (2 * step), flips


def _curve(line: _Readout, name: str, dtype: str) -> Curve:
    parameter, gradient = line.function.tensors[name], line.gradient(name)
    decades = -math.log10(SMALLEST_STEPS[dtype])
    steps = np.logspace(0, -decades, round(decades * STEPS_PER_DECADE) + 1)
    directions = line.generator.standard_normal((DIRECTIONS, *parameter.shape))
    errors, kinks = [], []
    for step in steps:
        squares, flips = 0.0, 0
        for v in directions:
            numeric, crossed = line.quotient(parameter, v, step)
            typical = np.linalg.norm(gradient) * np.linalg.norm(v) / math.sqrt(v.size)
            squares += float(relative_error(np.asarray(numeric), np.asarray((gradient * v).sum()), typical)) ** 2
            flips += crossed
        errors.append(math.sqrt(squares / DIRECTIONS))
        kinks.append(flips / DIRECTIONS)
    return Curve(name, dtype, steps, np.array(errors), np.array(kinks))


def _map(line: _Readout, name: str) -> ErrorMap:
    parameter, gradient = line.function.tensors[name], line.gradient(name)
    size = parameter.size
    errors, kinks = np.full(size, np.nan), np.zeros(size, bool)
    typical = np.linalg.norm(gradient) / math.sqrt(size)
    for i in line.generator.permutation(size)[:MAP_ELEMENTS]:
        v = np.zeros(size)
        v[i] = 1
        for step in MAP_STEP, MAP_STEP / 100:
            numeric, flips = line.quotient(parameter, v.reshape(parameter.shape), step)
            if not flips:
                break
            kinks[i] = True
        errors[i] = relative_error(np.asarray(numeric), np.asarray(gradient.flat[i]), typical)
    return ErrorMap(name, errors.reshape(parameter.shape), kinks.reshape(parameter.shape))
