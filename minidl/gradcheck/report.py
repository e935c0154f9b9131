"""What a gradient check found."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from minidl.layer import Shape

Mode: TypeAlias = Literal["directional", "full"]
Index: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Element:
    """One number of a gradient both ways: ∂⟨r, y⟩/∂tensor[index], or in full mode ∂y[output]/∂tensor[index]."""

    tensor: str
    index: Index
    analytic: float
    numeric: float
    relative_error: float
    output: Index | None = None

    @property
    def absolute_error(self) -> float:
        """|numeric − analytic|."""
        return abs(self.numeric - self.analytic)

    @property
    def place(self) -> str:
        """Such as "weight[0, 2]", or in full mode "∂y[3, 1]/∂weight[0, 2]"."""
        place = f"{self.tensor}{list(self.index)}"
        return place if self.output is None else f"∂y{list(self.output)}/∂{place}"

    def __str__(self) -> str:
        return f"{self.place}: backward {self.analytic:.9g}, difference quotient {self.numeric:.9g}"

    def to_dict(self) -> dict[str, Any]:
        """The element as JSON can hold it."""
        return {**asdict(self), "absolute_error": self.absolute_error}


@dataclass(frozen=True)
class TensorReport:
    """What was found about the gradient of one tensor.

    error: the largest relative error, over directions and single elements; infinite where there was nothing to compare.
    worst: the element with the largest relative error among those that were compared one by one.
    comparisons: how many derivatives were compared.
    step: the smallest ε that was needed.
    note: what else is to be said; on failure, what the fault may be.
    """

    name: str
    shape: Shape
    error: float
    worst: Element | None = None
    comparisons: int = 0
    step: float = math.nan
    note: str = ""


@dataclass(frozen=True)
class Report:
    """The outcome of a gradient check. It prints as a text, and `to_dict` makes it JSON.

    faults: what is wrong with the subject as a whole, such as a forward pass that writes into x.
    """

    subject: str
    mode: Mode
    tolerance: float
    tensors: tuple[TensorReport, ...]
    faults: tuple[str, ...] = ()

    @property
    def error(self) -> float:
        """The largest relative error of all tensors."""
        return max(tensor.error for tensor in self.tensors)

    @property
    def passed(self) -> bool:
        """Whether all errors are within the tolerance and there is no other fault."""
        return not self.faults and self.error <= self.tolerance

    @property
    def worst(self) -> Element | None:
        """The worst element of the worst tensor."""
        return max(self.tensors, key=lambda tensor: tensor.error).worst

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it: an infinite error is None."""
        tensors = [{**asdict(t), "worst": t.worst.to_dict() if t.worst else None} for t in self.tensors]
        plain = {**asdict(self), "tensors": tensors, "passed": self.passed, "error": self.error}
        result: dict[str, Any] = _finite(plain)
        return result

    def __str__(self) -> str:
        verdict = "passed" if self.passed else "FAILED"
        lines = [
            f"{self.subject}: gradient check {verdict}, largest error {self.error:.1e}, allowed {self.tolerance:g}"
        ]
        lines += [f"  ✗ {fault}" for fault in self.faults]
        rows = [("tensor", "shape", "error", "worst element", "backward", "difference quotient")]
        for tensor in self.tensors:
            worst = tensor.worst
            found = (worst.place, f"{worst.analytic:+.8g}", f"{worst.numeric:+.8g}") if worst else ("", "", "")
            rows.append((tensor.name, str(tensor.shape), f"{tensor.error:.1e}", *found))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
        lines.append(f"    {table[0]}".rstrip())
        for tensor, row in zip(self.tensors, table[1:], strict=True):
            lines.append(f"  {' ' if tensor.error <= self.tolerance else '✗'} {row}".rstrip())
            if tensor.note:
                lines.append(f"      {tensor.note}")
        return "\n".join(lines)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
