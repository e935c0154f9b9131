"""A picture of a gradient check: for each tensor, error against step, and where its worst elements lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.arrays import Array
from minidl.errors import ArgumentError
from minidl.gradcheck.report import Report, TensorReport
from minidl.gradcheck.sweep import MAP_STEP, Curve, ErrorMap, Sweep, sweep
from minidl.layer import Layer, Shape
from minidl.losses import Loss

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg", ".pdf")
MOST_ROWS = 6  # of a net's tensors those with the largest errors are drawn
COLOURS = {"float32": "#d68910", "float64": "#1f618d"}
RED, GREY = "#c0392b", "#7f8c8d"
SMALLEST_ERROR = 1e-13  # where the axis of errors ends


def plot(report: Report, subject: Layer | Loss, *inputs: Any, path: Path | str, **options: Any) -> Sweep:
    """Draw what a check of this subject at these inputs found; returns the numbers drawn.

    Left, the error of each tensor's gradient against the step ε, in float32 and float64; rings are steps that crossed a
    kink. Right, the error of each element: blue within the tolerance, red beyond.
    For how to read it see docs/gradcheck.md.

    path: the file to make, PNG, SVG or PDF by its suffix. options: as for `sweep`.
    Raises: ArgumentError for another suffix or a folder that does not exist; what `sweep` raises.
    """
    path = picture_path(path)
    from matplotlib.figure import Figure

    shown = sorted(report.tensors, key=lambda tensor: -tensor.error)[:MOST_ROWS]
    shown = [tensor for tensor in report.tensors if tensor in shown]
    swept = sweep(subject, *inputs, tensors=[tensor.name for tensor in shown], **options)
    figure = Figure(figsize=(12, 0.9 + 3.3 * len(shown)), layout="constrained")
    rows = figure.subplots(len(shown), 2, squeeze=False, width_ratios=(1, 1.05))
    for (left, right), tensor, errors in zip(rows, shown, swept.maps, strict=True):
        _draw_curves(left, tensor, [curve for curve in swept.curves if curve.tensor == tensor.name], report.tolerance)
        _draw_map(right, errors, report.tolerance)
    rows[0, 0].legend(frameon=False, fontsize=8, loc="lower left")
    hidden = len(report.tensors) - len(shown)
    more = f"; {hidden} more tensors with smaller errors are not shown" if hidden else ""
    verdict = "the gradient is right" if report.passed else "the gradient is WRONG"
    name = report.subject if report.subject == str(subject) else f"{report.subject}, {subject}"
    figure.suptitle(
        f"{name}: {verdict}\nlargest error of the check {report.error:.1e}, allowed {report.tolerance:.0e}{more}",
        color="black" if report.passed else RED,
        parse_math=False,
        fontsize=11,
    )
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, dpi=110, format=path.suffix[1:])
    temporary.replace(path)
    return swept


def picture_path(path: Path | str) -> Path:
    """The path, after checking that a picture can be drawn there.

    Raises: ArgumentError.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ArgumentError(f"plot: expected a file name that ends in {', '.join(SUFFIXES)}, got {str(path)!r}")
    if not path.parent.is_dir():
        raise ArgumentError(f"plot: expected a file in a folder that exists, got {str(path)!r}")
    return path


# --- error against step -------------------------------------------------------------------------------------------


def _draw_curves(axes: Axes, tensor: TensorReport, curves: list[Curve], tolerance: float) -> None:
    wrong = tensor.error > tolerance
    for curve in curves:
        errors = np.maximum(curve.errors, SMALLEST_ERROR)
        colour = COLOURS[curve.dtype]
        axes.loglog(curve.steps, errors, "o-", color=colour, markersize=3, linewidth=1.2, label=curve.dtype)
        kinks = curve.kinks > 0
        if kinks.any():
            ring: dict[str, Any] = {"markersize": 8, "markerfacecolor": "none", "markeredgecolor": RED, "linestyle": ""}
            axes.plot(curve.steps[kinks], errors[kinks], "o", **ring)
        if not wrong:
            _draw_arms(axes, curve, errors, colour)
    axes.plot([], [], "o", markersize=8, markerfacecolor="none", markeredgecolor=RED, label="crosses a kink")
    small: dict[str, Any] = {"textcoords": "offset points", "color": GREY, "fontsize": 8}
    axes.axhline(tolerance, color=GREY, linewidth=0.8, linestyle="--")
    axes.annotate("allowed", (9, tolerance), xytext=(0, 2), ha="right", **small)
    axes.axvline(MAP_STEP, color=GREY, linewidth=0.8, linestyle=":")
    axes.annotate("ε of the check", (MAP_STEP, 3e-14), xytext=(3, 0), **small)
    axes.set(xlim=(4e-13, 12), ylim=(1e-14, 8), xlabel="step ε", ylabel="relative error")
    axes.set_title(f"{tensor.name} {tensor.shape}", loc="left", fontsize=10, parse_math=False)
    if wrong:
        axes.annotate(
            "flat: the error is the same at every step,\nso it is no matter of ε",
            (1e-8, float(np.median(curves[-1].errors))),
            xytext=(0, -34),
            textcoords="offset points",
            color=RED,
            fontsize=9,
        )
    axes.grid(alpha=0.2)


def _draw_arms(axes: Axes, curve: Curve, errors: Array, colour: str) -> None:
    """Straight lines of the slopes that theory expects, through a point on each arm."""
    best = int(errors.argmin())
    last = len(errors) - 4
    if last > best + 3 and errors[last] > SMALLEST_ERROR:
        _draw_slope(axes, curve.steps[best:], (curve.steps[last], errors[last]), -1, "rounding: u/ε", colour)
    smooth = [i for i in range(best) if curve.kinks[i] == 0 and errors[i] < 0.1]
    if len(smooth) > 3 and curve.dtype == "float64":
        first = smooth[0]
        through = (curve.steps[first], errors[first])
        _draw_slope(axes, curve.steps[first : best + 1], through, 2, "truncation: ε²", colour)


def _draw_slope(axes: Axes, steps: Array, through: tuple[float, float], slope: int, label: str, colour: str) -> None:
    line = through[1] * (steps / through[0]) ** slope
    axes.plot(steps, line, ":", color=colour, linewidth=1)
    middle = len(steps) // 2
    offset, align = ((5, 10), "left") if slope < 0 else ((-10, 10), "right")
    where = (steps[middle], line[middle])
    axes.annotate(label, where, offset, ha=align, textcoords="offset points", color=colour, fontsize=8)


# --- error of each element ----------------------------------------------------------------------------------------


def _draw_map(axes: Axes, found: ErrorMap, tolerance: float) -> None:
    from matplotlib.colors import TwoSlopeNorm

    exponents = np.log10(np.maximum(found.errors, SMALLEST_ERROR))
    layout = _Layout.of(found.tensor, found.errors.shape)
    norm = TwoSlopeNorm(np.log10(tolerance), np.log10(SMALLEST_ERROR), 0)
    image = axes.imshow(layout.picture(exponents), cmap="RdBu_r", norm=norm, aspect="auto", interpolation="nearest")
    axes.set_facecolor("#dddddd")
    ticks = [-12, -9, float(np.log10(tolerance)), -3, 0]
    bar = axes.figure.colorbar(image, ax=axes, ticks=ticks)
    bar.ax.set_yticklabels([f"1e{round(tick)}" if tick else "1" for tick in ticks])
    bar.ax.tick_params(labelsize=8)
    bar.set_label("relative error", fontsize=8)
    axes.plot(layout.column[found.kinks], layout.row[found.kinks], "x", color=RED, markersize=4)
    if found.errors[found.worst] > tolerance:
        ring: dict[str, Any] = {"markersize": 12, "markerfacecolor": "none", "markeredgecolor": "black"}
        axes.plot(layout.column[found.worst], layout.row[found.worst], "o", **ring)
    looked = np.isfinite(found.errors).sum()
    part = "" if looked == found.errors.size else f"; {looked} of {found.errors.size} looked at"
    index = ", ".join(map(str, found.worst))
    axes.set_title(
        f"worst element [{index}]: {found.errors[found.worst]:.0e}{part}", loc="left", fontsize=10, parse_math=False
    )
    axes.set_xlabel(layout.columns.label, fontsize=9)
    axes.set_ylabel(layout.rows.label, fontsize=9)
    axes.set_xticks(*layout.columns.ticks(), fontsize=8)
    axes.set_yticks(*layout.rows.ticks(), fontsize=8)
    for side, draw in (layout.columns, axes.axvline), (layout.rows, axes.axhline):
        for border in side.borders():
            draw(border, color="white", linewidth=min(4, 30 / side.count))


@dataclass(frozen=True)
class _Axis:
    """One side of the plane that a tensor is laid out in: `count` blocks of `size` cells."""

    label: str
    count: int
    size: int = 1

    def ticks(self) -> tuple[list[float], list[str]]:
        """The middles of the blocks, and their numbers: no more than a dozen."""
        shown = range(0, self.count, -(-self.count // 12))
        return [i * self.size + (self.size - 1) / 2 for i in shown], [str(i) for i in shown]

    def borders(self) -> list[float]:
        """Where blocks meet."""
        return [i * self.size - 0.5 for i in range(1, self.count)] if self.size > 1 else []


@dataclass(frozen=True)
class _Layout:
    """Where each element of a tensor lies in a plane: four axes become a table of small maps."""

    row: Array  # of each element, in the shape of the tensor
    column: Array
    rows: _Axis
    columns: _Axis

    @classmethod
    def of(cls, tensor: str, shape: Shape) -> _Layout:
        is_input = tensor in ("x", "(input)", "outputs")
        if len(shape) == 4 and is_input:
            (n, h, w, c), (N, H, W, C) = np.indices(shape), shape
            rows, columns = _Axis(f"sample, each of {H} rows", N, H), _Axis(f"channel, each of {W} columns", C, W)
            return cls(n * H + h, c * W + w, rows, columns)
        if len(shape) == 4:
            (i, j, c, o), (KH, KW, C, O) = np.indices(shape), shape
            rows = _Axis(f"input channel, each of {KH} rows", C, KH)
            return cls(c * KH + i, o * KW + j, rows, _Axis(f"output channel, each of {KW} columns", O, KW))
        height = shape[0] if len(shape) > 1 else 1
        width = int(np.prod(shape)) // height
        row, column = np.divmod(np.arange(height * width).reshape(shape), width)
        labels = ("sample", "") if is_input else ("input", "output") if len(shape) == 2 else ("", "")
        return cls(row, column, _Axis(labels[0], height), _Axis(labels[1], width))

    def picture(self, values: Array) -> Array:
        """The values in the plane."""
        plane = np.empty((int(self.row.max()) + 1, int(self.column.max()) + 1))
        plane[self.row, self.column] = values
        return plane
