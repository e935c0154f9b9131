"""The check itself: derivatives by backward, held against derivatives by differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from minidl.arrays import Array, array_module, device_of, is_array, to_device
from minidl.devices import using
from minidl.errors import (
    ArgumentError,
    DTypeError,
    ShapeError,
    UnknownNameError,
    expect_a,
    expect_number,
    expect_positive,
)
from minidl.gradcheck.report import Element, Mode, Report, TensorReport
from minidl.gradcheck.subject import Function, function_of
from minidl.layer import Layer, Parameter
from minidl.losses import Loss
from minidl.random import Key

Draw: TypeAlias = Callable[[], tuple[Array, int | None]]  # a direction v, and its coordinate where it has but one

SMALLEST_STEP = 1e-8  # rounding, about 1e-16·|f|/ε, is then 1e-8·|f|: still well below the tolerance
REDRAWS = 3  # so many directions are tried before the step is made smaller, where kinks are in the way
FEW_ELEMENTS = 200  # in a tensor found wrong, so many elements are all looked at
LARGEST_JACOBIAN = 2_000_000  # elements
FIRST_KEY = Key(0)


def check(
    subject: Layer | Loss,
    *inputs: Any,
    mode: Mode = "directional",
    key: Key = FIRST_KEY,
    directions: int = 3,
    elements: int = 4,
    eps: float = 1e-4,
    tolerance: float = 1e-6,
    device: str | None = None,
) -> Report:
    """Compare backward with central differences of forward, for the input and for every parameter.

    inputs: x for a layer or net; outputs and targets for a loss. A tuple of integers is a shape, (N, …), for which
        standard normal numbers are drawn.
    mode: "directional" compares ∂⟨r, y⟩/∂t along random directions v and at single elements, for one random r: two
        forward passes a comparison, whatever the size. "full" compares every element of the Jacobian ∂y/∂t: backward
        is called with each unit vector, forward moved along each coordinate.
    key: of everything random, and what forward gets in each call, so that a dropout mask stays the same.
    directions, elements: how many random directions, and how many single elements, of each tensor.
    device: where both sides are computed; unless given, where x is, or for a shape where the subject is.

    The relative error of a comparison along v, of n elements with the gradient g, is

        |numeric − analytic| / max(|numeric|, |analytic|, ‖g‖·‖v‖/√n)

    where the last term, the size that the derivative has on average, keeps a chance near-zero from looking like an
    error. A difference that is no larger than the rounding noise of the forward pass counts as none: so a gradient may
    be zero, as that of a bias in front of BatchNorm2d is.

    The subject is copied and computes in float64; it is left untouched. Parameters that hold one number throughout, as
    scales of 1 and shifts of 0 do at first, are moved apart on the copy: at 1, nobody sees a forgotten factor.

    Kinks. Between t + εv and t − εv no decision that the layers report (`Layer.decisions`: signs, winners) may differ.
    Else v is drawn anew, then ε is divided by 10, down to 1e-8; no direction is skipped, and where nothing helps the
    check fails. But a layer may have kinks that it does not report. So a comparison that fails is made again along the
    same v with smaller ε, and counts as failed when it fails with all of them. That is sound: the derivative is the
    limit for small ε, and a wrong gradient disagrees at every ε but for a coincidence of one in a million. To draw
    new v until one passes would not be sound: it would choose the directions in which a fault is small.

    Raises: ArgumentError, UnknownNameError for arguments that cannot be used, and for a Jacobian that is too large;
        DeviceError for a device that cannot be; DTypeError for a forward pass that does not keep float64; and what
        forward raises.

    >>> from minidl.layers import Conv2d
    >>> check(Conv2d(3, 4, kernel_size=3), (2, 5, 5, 3)).passed
    True
    """
    if mode not in ("directional", "full"):
        raise UnknownNameError("mode of a gradient check", str(mode), ["directional", "full"])
    directions, elements = expect_positive("gradient check", directions=directions, elements=elements)
    eps = expect_number("gradient check", "eps", eps, f"[{SMALLEST_STEP:g}, inf)")  # below, rounding prevails
    tolerance = expect_number("gradient check", "tolerance", tolerance, "(0, inf)")
    expect_a(Key, "gradient check", "key", key)
    with using(device or "cpu"):
        function = function_of(subject, inputs, key, device=device)
        comparison = _Comparison(function, mode, eps, tolerance, key.at("directions").generator())
        reports = tuple(comparison.report(tensor, directions, elements) for tensor in comparison.tensors)
    return Report(str(subject), mode, tolerance, reports, tuple(comparison.faults))


@dataclass
class _Tensor:
    """A tensor with its analytic gradient: a matrix of one row for each row of the Jacobian that is looked at."""

    name: str
    parameter: Parameter
    rows: list[Array] = field(default_factory=list)
    fault: str = ""
    untouched: bool = True  # no backward pass left a gradient

    @property
    def gradient(self) -> Array:
        """(rows, n)."""
        if len(self.rows) > 1:
            self.rows = [array_module(self.rows[0]).concatenate(self.rows)]
        return self.rows[0]


@dataclass(frozen=True)
class _Compared:
    """Derivatives along one v, one for each row of the Jacobian that is looked at."""

    analytic: Array
    numeric: Array
    error: Array
    step: float
    coordinate: int | None


class _Comparison:
    """Rows of the Jacobian ∂y/∂t, by backward and by differences.

    In full mode these are all rows, and in directional mode one random combination of them, r.
    """

    def __init__(
        self, function: Function, mode: Mode, eps: float, tolerance: float, generator: np.random.Generator
    ) -> None:
        self.function, self.full, self.eps, self.tolerance = function, mode == "full", eps, tolerance
        self.generator = generator
        self.tensors = [_Tensor(name, parameter) for name, parameter in function.tensors.items()]
        self.faults: list[str] = []

        y, _ = self._forward()
        self._check_output(y)
        if self.full:
            self._refuse_if_too_large(y.size)
        self.r = self._normal(y)
        self.noise = self._rounding_noise(y)
        self._check_manners()
        for dy in self._cotangents():
            self._add_row(dy)

    def _cotangents(self) -> Iterator[Array]:
        if not self.full:
            yield self.r
            return
        for o in range(self.r.size):
            unit = array_module(self.r).zeros_like(self.r)
            unit.reshape(-1)[o] = 1
            yield unit

    def _project(self, dy: Array) -> Array:
        """The looked-at rows of a change of the output."""
        projected: Array = dy.reshape(-1) if self.full else (self.r * dy).sum().reshape(1)
        return projected

    def _forward(self) -> tuple[Array, Any]:
        """Of a copy, so that a subject that writes into its input spoils nothing else."""
        return self.function.forward(self.function.input.value.copy())

    # --- the analytic side, and what can be wrong with it ---

    def _add_row(self, dy: Array) -> None:
        for tensor in self.tensors:
            tensor.parameter.grad = None
        try:
            dx = self.function.backward(dy.copy(), self._forward()[1])
        except ShapeError as error:  # Parameter.accumulate refuses a gradient of another shape
            self._fault(f"backward stopped: {error}")
            for tensor in self.tensors:
                named = f"of shape {tensor.parameter.shape} got" in str(error)
                tensor.fault = str(error) if named else "backward did not come to its end"
            return
        for tensor in self.tensors:
            is_input = tensor.parameter is self.function.input
            gradient = dx if is_input else tensor.parameter.grad
            expected = tensor.parameter.value
            if gradient is None and is_input:
                tensor.fault = "backward returned None instead of the gradient of the input"
            elif gradient is not None and (not is_array(gradient) or gradient.shape != expected.shape):
                got = f"shape {gradient.shape}" if is_array(gradient) else f"a {type(gradient).__name__}"
                tensor.fault = f"backward gave a gradient of {got}, expected shape {expected.shape}"
            elif gradient is not None and gradient.dtype != expected.dtype:
                tensor.fault = f"backward gave a gradient of {gradient.dtype}, expected {expected.dtype}"
            else:
                tensor.untouched &= gradient is None
                row = array_module(expected).zeros_like(expected) if gradient is None else gradient
                tensor.rows.append(row.reshape(1, -1).copy())

    def _fault(self, text: str) -> None:
        if text not in self.faults:
            self.faults.append(text)

    def _check_output(self, y: Array) -> None:
        if not is_array(y) or y.dtype != np.float64:
            got = y.dtype if is_array(y) else type(y).__name__
            raise DTypeError(f"{self.function.name}: expected forward to give float64 for a float64 input, got {got}")
        if not array_module(y).isfinite(y).all():
            self._fault("forward gave NaN or infinity")
        elif (y != self._forward()[0]).any():
            self._fault("forward gave another y for the same x and key: random numbers must come from the key")

    def _refuse_if_too_large(self, outputs: int) -> None:
        n = sum(tensor.parameter.size for tensor in self.tensors)
        if outputs * n > LARGEST_JACOBIAN:
            raise ArgumentError(
                f"{self.function.name}: the Jacobian of {outputs} outputs by {n} numbers has more than "
                f"{LARGEST_JACOBIAN} elements, too many to compare in full; use mode='directional', or smaller inputs"
            )

    def _check_manners(self) -> None:
        """Neither x nor dy is written into; and backward twice gives twice the gradients."""
        function = self.function
        x, dy = function.input.value.copy(), self.r.copy()
        parameters = {name: p for name, p in function.tensors.items() if p is not function.input}
        try:
            function.backward(dy, function.forward(x)[1])
            once = {name: p.grad.copy() for name, p in parameters.items() if p.grad is not None}
            function.backward(self.r.copy(), self._forward()[1])
        except ShapeError:
            return  # _add_row will meet it again, and report it
        if (x != function.input.value).any():
            self._fault("forward or backward wrote into x, which belongs to the caller")
        if (dy != self.r).any():
            self._fault("backward wrote into dy, which other branches of a net may still need")
        for name, first in once.items():
            twice = parameters[name].grad
            if twice is None or abs(twice - 2 * first).max() > 1e-9 * abs(first).max():
                self._fault(
                    f"two backward passes did not give {name} twice its gradient: "
                    "add a fresh array to it, as self.weight.accumulate(…) does"
                )

    # --- the numeric side ---

    def _rounding_noise(self, y: Array) -> Array:
        """How large the rounding errors of the looked-at rows of y may be.

        Every operation rounds to one part in 2⁵³, and subtractions enlarge what comes in. That is measured: moving all
        numbers that enter by their last bit changes y by about as much as rounding does. The errors of different
        outputs are as good as independent, so their squares add. A factor of ten makes a bound of an estimate.
        """
        ulp = np.finfo(np.float64).eps
        noise = ulp * abs(y)
        originals = [tensor.parameter.value for tensor in self.tensors]
        for _ in range(3):
            for tensor, value in zip(self.tensors, originals, strict=True):
                signs = to_device(self.generator.choice([-1.0, 1.0], value.shape), device_of(value))
                tensor.parameter.value = value * (1 + ulp * signs)
            noise = array_module(y).maximum(noise, abs(self._forward()[0] - y))
        for tensor, value in zip(self.tensors, originals, strict=True):
            tensor.parameter.value = value
        rows: Array = noise.reshape(-1) if self.full else ((self.r * noise) ** 2).sum().reshape(1) ** 0.5
        return 10 * rows

    def _quotient(self, tensor: _Tensor, v: Array, step: float) -> tuple[Array | None, int]:
        """The central difference along v, or None where a kink lies between; and how many decisions differ."""
        value = tensor.parameter.value
        sides = []
        for side in value + step * v, value - step * v:
            tensor.parameter.value = side
            y, cache = self._forward()
            sides.append((y, self.function.decisions(cache)))
        tensor.parameter.value = value
        (after, decided_after), (before, decided_before) = sides
        flips = sum(int((a != b).sum()) for a, b in zip(decided_after, decided_before, strict=True))
        # The difference comes first: of two large sums ⟨r, y⟩, the small difference would be lost.
        return (None if flips else self._project(after - before) / (2 * step)), flips

    def _compare(self, tensor: _Tensor, draw: Draw, step: float) -> _Compared | None:
        """The derivatives along a drawn v; None where a kink was in the way at every step."""
        best: _Compared | None = None
        v, coordinate = draw()
        while step >= 0.99 * SMALLEST_STEP:
            for _ in range(REDRAWS):
                numeric, flips = self._quotient(tensor, v, step)
                if numeric is not None or best is not None or flips > 2 * REDRAWS:
                    break  # no new v after a failure; and among many kinks, only a smaller step helps
                v, coordinate = draw()
            if numeric is not None:
                now = self._errors(tensor, v, coordinate, numeric, step)
                best = now if best is None else _better(best, now)
                if (best.error <= self.tolerance).all():
                    break
            step /= 10
        return best

    def _errors(self, tensor: _Tensor, v: Array, coordinate: int | None, numeric: Array, step: float) -> _Compared:
        xp, gradient = array_module(v), tensor.gradient
        analytic = gradient @ v.reshape(-1) if coordinate is None else gradient[:, coordinate]
        typical = xp.linalg.norm(gradient) * xp.linalg.norm(v) / math.sqrt(gradient.size)
        error, difference = relative_error(numeric, analytic, typical), abs(numeric - analytic)
        # What has no influence crosses no kink, and is seen at the first step already. The noise of smaller steps is
        # larger, and not forgiven: a fault could hide in it.
        error = xp.where((error > self.tolerance) & (difference <= self.noise / self.eps), 0, error)
        return _Compared(analytic, numeric, xp.where(xp.isfinite(error), error, math.inf), step, coordinate)

    # --- what is drawn ---

    def _direction(self, tensor: _Tensor) -> tuple[Array, int | None]:
        return self._normal(tensor.parameter.value), None

    def _normal(self, like: Array) -> Array:
        return to_device(np.asarray(self.generator.standard_normal(like.shape)), device_of(like))

    def _coordinate(self, tensor: _Tensor, index: int | None = None) -> tuple[Array, int | None]:
        value = tensor.parameter.value
        index = int(self.generator.integers(value.size)) if index is None else index
        v = array_module(value).zeros(value.shape, value.dtype)
        v.reshape(-1)[index] = 1
        return v, index

    # --- one tensor ---

    def report(self, tensor: _Tensor, directions: int, elements: int) -> TensorReport:
        """Compare along directions and at elements; where that fails, look for the elements that are to blame."""
        name, n = tensor.name, tensor.parameter.size
        if tensor.fault:
            return TensorReport(name, tensor.parameter.shape, math.inf, note=tensor.fault)
        groups: list[list[Draw]]
        if self.full:
            groups = [[partial(self._coordinate, tensor, i)] for i in range(n)]
        else:
            groups = [[partial(self._direction, tensor)] * directions, [partial(self._coordinate, tensor)] * elements]
        compared: list[_Compared] = []
        for draws in groups:
            step = self.eps
            for draw in draws:
                result = self._compare(tensor, draw, step)
                if result is None:
                    return self._on_a_kink(tensor)
                compared.append(result)
                step = result.step  # for the next direction, kinks are as dense
        if not self.full and any(float(c.error.max()) > self.tolerance for c in compared):
            compared += self._suspects(tensor)
        return self._summary(tensor, compared)

    def _on_a_kink(self, tensor: _Tensor) -> TensorReport:
        note = (
            f"moving {tensor.name} crosses a kink (a sign or a winner changes) even with ε = {SMALLEST_STEP:g}: "
            "there is no derivative here; check at another input"
        )
        return TensorReport(tensor.name, tensor.parameter.shape, math.inf, note=note)

    def _suspects(self, tensor: _Tensor) -> list[_Compared]:
        n = tensor.parameter.size
        if n <= FEW_ELEMENTS:
            indices = list(range(n))
        else:
            indices = [self._bisect(tensor), *self.generator.integers(n, size=FEW_ELEMENTS // 10).tolist()]
        found = [self._compare(tensor, partial(self._coordinate, tensor, i), self.eps) for i in indices]
        return [compared for compared in found if compared is not None]

    def _bisect(self, tensor: _Tensor) -> int:
        """A wrong element: of the two halves of the suspects, keep the one along which the two sides differ more."""
        suspects = np.arange(tensor.parameter.size)
        while len(suspects) > 1:
            first, second = np.array_split(suspects, 2)
            suspects = first if self._difference(tensor, first) >= self._difference(tensor, second) else second
        return int(suspects[0])

    def _difference(self, tensor: _Tensor, coordinates: Array) -> float:
        value = tensor.parameter.value
        inside = np.zeros(value.size)
        inside[coordinates] = 1
        mask = to_device(inside.reshape(value.shape), device_of(value))
        compared = self._compare(tensor, lambda: (self._normal(value) * mask, None), self.eps)
        return 0.0 if compared is None else float(abs(compared.numeric - compared.analytic).max())

    def _summary(self, tensor: _Tensor, compared: list[_Compared]) -> TensorReport:
        found = [self._element(tensor, c, c.coordinate) for c in compared if c.coordinate is not None]
        worst = max(found, key=lambda element: element.relative_error)
        error = max(float(c.error.max()) for c in compared)
        note = ""
        if error > self.tolerance:
            note = _diagnosis(tensor, found, self.tolerance)
        elif all((abs(side) <= self.noise / c.step).all() for c in compared for side in (c.analytic, c.numeric)):
            note = "has no influence on the output beyond rounding, and a gradient of 0"
        comparisons = sum(c.error.size for c in compared)
        step = min(c.step for c in compared)
        return TensorReport(tensor.name, tensor.parameter.shape, error, worst, comparisons, step, note)

    def _element(self, tensor: _Tensor, compared: _Compared, coordinate: int) -> Element:
        row = int(compared.error.argmax())
        index = tuple(int(i) for i in np.unravel_index(coordinate, tensor.parameter.shape))
        output = tuple(int(i) for i in np.unravel_index(row, self.r.shape)) if self.full and self.r.ndim else None
        analytic, numeric, error = (float(a[row]) for a in (compared.analytic, compared.numeric, compared.error))
        return Element(tensor.name, index, analytic, numeric, error, output)


def relative_error(numeric: Array, analytic: Array, typical: Any) -> Array:
    """|numeric − analytic| / max(|numeric|, |analytic|, typical), where typical is ‖g‖·‖v‖/√n: see `check`."""
    xp = array_module(numeric)
    scale = xp.maximum(xp.maximum(abs(numeric), abs(analytic)), typical)
    error: Array = abs(numeric - analytic) / xp.where(scale > 0, scale, 1)
    return error


def _better(a: _Compared, b: _Compared) -> _Compared:
    """Row by row the comparison with the smaller error."""
    if a.error.size == 1:
        return a if a.error[0] <= b.error[0] else b
    xp, first = array_module(a.error), a.error <= b.error
    numeric, error = xp.where(first, a.numeric, b.numeric), xp.where(first, a.error, b.error)
    return _Compared(a.analytic, numeric, error, b.step, a.coordinate)


def _diagnosis(tensor: _Tensor, found: list[Element], tolerance: float) -> str:
    """What the errors of single elements have in common."""
    if tensor.untouched:
        return f"got no gradient: backward must call self.{tensor.name}.accumulate(…)"
    wrong = [element for element in found if element.relative_error > tolerance]
    if not wrong:
        return "wrong along a direction, though not at the single elements that were looked at"
    counts = f"wrong at {len(wrong)} of {len(found)} elements looked at"
    if all(element.analytic == 0 for element in wrong):
        return f"{counts}, where backward says 0: a term is missing"
    if all(element.numeric == 0 for element in wrong):
        return f"{counts}, where the output does not depend on them and backward should say 0"
    ratios = [element.analytic / element.numeric if element.numeric else math.inf for element in wrong]
    if len(wrong) > 1 and all(math.isclose(ratio, ratios[0], rel_tol=1e-4) for ratio in ratios):
        if math.isclose(ratios[0], -1, rel_tol=1e-4):
            return f"{counts}, where backward has the wrong sign"
        return f"{counts}, where backward gives {ratios[0]:.6g} times the true value"
    return counts
