"""The pictures of a report: rates of nets, their scaling, times of layers, and the roofline."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.bench.contenders import CPU

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Figures = dict[str, Any]
COLOURS = {
    "minidl": "#1f618d",
    "minidl-cpu": "#1e8449",
    "torch": "#d68910",
    "torch-compile": "#a04000",
    "onnxruntime": "#7d3c98",
    "reference": "#95a5a6",
}
GREY = "#7f8c8d"
MARKERS = {
    "conv2d": "o",
    "linear": "s",
    "max_pool2d": "v",
    "local_response_norm": "D",
    "relu": "^",
    "dropout": "P",
    "softmax_cross_entropy": "*",
    "sgd": "X",
}


def draw(nets: Sequence[Figures], ops: Sequence[Figures]) -> dict[str, bytes]:
    """PNG files by name, those that the measurements have something to show for."""
    pictures = {}
    if nets:
        pictures["nets"] = _png(_net_bars(nets))
    for axis in "threads", "batch":
        if groups := _sweeps(nets, axis):
            pictures[f"nets_by_{axis}"] = _png(_scaling(groups, axis))
    for index, found in enumerate(ops):
        if any("both" in op["runs"] for op in found["ops"]):
            pictures[f"ops{index}_layers"] = _png(_layer_bars(found))
        pictures[f"ops{index}_roofline"] = _png(_roofline(found))
    return pictures


def _png(figure: Figure) -> bytes:
    made = io.BytesIO()
    figure.savefig(made, dpi=110, format="png")
    return made.getvalue()


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def where(found: Figures) -> str:
    """The device, and the precision where it is not the usual one: "2 threads", or "cuda:0, bf16"."""
    device = f"{found['threads']} thread{'s' * (found['threads'] > 1)}" if found["device"] == "cpu" else found["device"]
    return device if (found["device"], found["precision"]) == ("cpu", "float32") else f"{device}, {found['precision']}"


def _sides(found: Figures) -> Iterator[tuple[str, Figures]]:
    """minidl, and of each peer the fastest variant."""
    yield "minidl", found
    best: dict[str, Figures] = {}
    for peer in sorted(found.get("peers", []), key=lambda peer: float(peer["median_s"])):
        best.setdefault(peer["name"], peer)
    yield from best.items()


# --- nets -----------------------------------------------------------------------------------------------------------


def _net_bars(nets: Sequence[Figures]) -> Figure:
    """Images per second as a share of minidl's, so that nets of all sizes fit beside each other."""
    bars = [(found, list(_sides(found))) for found in nets]
    figure, axes = _figure(9, 0.9 + 0.3 * sum(len(sides) + 1 for _, sides in bars))
    place, ticks, labels = 0.0, [], []
    longest = max(side["images_per_s"] / found["images_per_s"] for found, sides in bars for _, side in sides)
    for found, sides in bars:
        ticks.append(place - (len(sides) - 1) / 2)
        labels.append(f"{found['model']}\n{found['mode']}, batch {found['batch']}, {where(found)}")
        for name, side in sides:
            share = side["images_per_s"] / found["images_per_s"]
            axes.barh(place, share, height=0.85, color=COLOURS[name], label=name)
            axes.text(share + 0.01 * longest, place, f"{side['images_per_s']:,.1f}", va="center", fontsize=8)
            place -= 1
        place -= 0.7
    axes.axvline(1, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_yticks(ticks, labels, fontsize=8)
    axes.set_xlim(0, 1.12 * longest)
    axes.margins(y=0.02)
    axes.set(xlabel="images/s (at the bars), in units of minidl's")
    _legend(axes)
    return figure


def _sweeps(nets: Sequence[Figures], axis: str) -> dict[str, list[Figures]]:
    """Measurements that differ along one axis only, where there are at least two of them."""
    groups: dict[str, list[Figures]] = {}
    for found in nets:
        rest = where(found) if axis == "batch" else f"batch {found['batch']}"
        groups.setdefault(f"{found['model']}, {found['mode']}, {rest}", []).append(found)
    sweeps = {name: sorted(group, key=lambda found: int(found[axis])) for name, group in groups.items()}
    return {name: group for name, group in sweeps.items() if len({found[axis] for found in group}) > 1}


def _scaling(groups: dict[str, list[Figures]], axis: str) -> Figure:
    """Rate against threads or batch; dotted, what twice the threads would give at best."""
    from matplotlib.figure import Figure

    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.8 * rows), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).flat
    for (title, group), axes in zip(groups.items(), places, strict=False):
        lines: dict[str, dict[int, float]] = {}
        for found in group:
            for name, side in _sides(found):
                points = lines.setdefault(name, {})  # of two measurements of the same, the faster counts
                points[found[axis]] = max(side["images_per_s"], points.get(found[axis], 0.0))
        for name, points in lines.items():
            at, rates = list(points), list(points.values())
            axes.plot(at, rates, "o-", color=COLOURS[name], label=name)
            if axis == "threads":
                axes.plot(at, [rates[0] * count / at[0] for count in at], ":", color=COLOURS[name], linewidth=1)
        if axis == "batch":
            axes.set_xscale("log")
        ticks = sorted({found[axis] for found in group})
        axes.set_xticks(ticks, map(str, ticks))
        axes.set_xticks([], minor=True)
        if CPU in lines:  # too far apart for one linear scale
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set(xlabel=axis, ylabel="images/s")
        axes.spines[["top", "right"]].set_visible(False)
        _legend(axes)
    for axes in places:
        axes.remove()
    return figure


# --- ops ------------------------------------------------------------------------------------------------------------


def _layer_bars(found: Figures) -> Figure:
    """Forward and backward of each layer, for all that have both."""
    ops = [op for op in found["ops"] if "both" in op["runs"]]
    names = ["minidl", *found["peers"]]
    figure, axes = _figure(9, 1.2 + len(ops) * (0.16 + 0.16 * len(names)))
    height = 0.85 / len(names)
    longest = max(_seconds(op, name) for op in ops for name in names)
    for row, op in enumerate(ops):
        for index, name in enumerate(names):
            seconds, place = _seconds(op, name), row - 0.425 + (index + 0.5) * height
            axes.barh(place, 1000 * seconds, height=0.92 * height, color=COLOURS[name], label=name)
            note = "" if name == "minidl" else f"  {op['runs']['both']['peers'][name]['ratio']:.1f}×"
            axes.text(1000 * seconds, place, f" {1000 * seconds:,.3g}{note}", va="center", fontsize=7)
    axes.set_yticks(range(len(ops)), [f"{op['layer']}  {op['op']}" for op in ops], fontsize=8)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(right=4000 * longest)
    axes.set(xlabel="forward + backward, ms; times as long as minidl")
    axes.set_title(f"{found['model']}, batch {found['batch']}, {where(found)}", fontsize=10, loc="left")
    _legend(axes)
    return figure


def _seconds(op: Figures, name: str) -> float:
    run = op["runs"]["both"]
    seconds: float = run["median_s"] if name == "minidl" else run["peers"][name]["median_s"]
    return seconds


def _roofline(found: Figures) -> Figure:
    """Achieved arithmetic against arithmetic per byte. Above its roof no op can be: the copy rate to the left, the
    matrix product to the right. Full signs are forward passes, hollow ones backward.
    """
    figure, axes = _figure(9, 5.6)
    peak, bandwidth = found["limits"]["sgemm_gflop_per_s"], found["limits"]["copy_gb_per_s"]
    points = [
        (op, name, run["flop"] / run["bytes"], run["gflop_per_s"])
        for op in found["ops"]
        for name, run in op["runs"].items()
        if name in ("forward", "backward", "update")
    ]
    points.sort(key=lambda point: str(point[1]) == "backward")  # the legend shows what comes first
    at = np.geomspace(min(p[2] for p in points) / 3, max(max(p[2] for p in points), peak / bandwidth) * 3, 200)
    axes.loglog(at, np.minimum(peak, bandwidth * at), color="black", linewidth=1.2)
    axes.annotate(f"matrix product {peak:,.0f} GFLOP/s", (at[-1], peak), (0, 4), ha="right", **_small())
    axes.annotate(f"copy {bandwidth:.1f} GB/s", (at[40], bandwidth * at[40]), (-6, 6), ha="right", **_small())
    for op, name, intensity, rate in points:
        colour = COLOURS["minidl"]
        face = "none" if name == "backward" else colour
        axes.plot(intensity, rate, MARKERS[op["op"]], color=colour, markerfacecolor=face, label=op["op"])
        if name != "backward":
            axes.annotate(op["layer"], (intensity, rate), (5, 3), **_small())
    axes.set(xlabel="operations per byte that must be moved", ylabel="GFLOP/s")
    axes.set_title(
        f"{found['model']}, batch {found['batch']}, {where(found)}: hollow is backward", fontsize=10, loc="left"
    )
    axes.grid(alpha=0.2, which="both")
    _legend(axes)
    return figure


def _small() -> dict[str, Any]:
    return {"textcoords": "offset points", "fontsize": 7, "color": "#333333"}


def _legend(axes: Axes) -> None:
    """Each name once."""
    once: dict[str, Any] = {}
    for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
        once.setdefault(label, handle)
    axes.legend(once.values(), once.keys(), frameon=False, fontsize=8, loc="best")
