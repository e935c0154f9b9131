"""A picture of a training: loss and accuracy by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def draw_curves(history: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """Draw loss and top-1 error of training and test by epoch, with the learning rate, into a PNG file."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    left, right = figure.subplots(1, 2)
    marker = "o" if len(epochs) < 40 else ""
    names = {"train": "train (as minimised: dropout, augmentation, smoothing)", "test": "test"}
    for split, colour in ("train", "#8c8c8c"), ("test", "#c0392b"):
        style = {"color": colour, "marker": marker, "markersize": 3, "label": names[split]}
        left.plot(epochs, [row[f"{split}_loss"] for row in history], **style)
        right.plot(epochs, [100 * (1 - row[f"{split}_top1"]) for row in history], **style)
    right.annotate(
        f"{100 * (1 - history[-1]['test_top1']):.2f} %",
        (epochs[-1], 100 * (1 - history[-1]["test_top1"])),
        textcoords="offset points",
        xytext=(0, 8),
        ha="right",
        color="#c0392b",
    )
    left.set(xlabel="epoch", ylabel="loss (nats)")
    right.set(xlabel="epoch", ylabel="top-1 error (%)")
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
    rate = left.twinx()
    rate.plot(epochs, [row["lr"] for row in history], color="#2980b9", linewidth=0.8, linestyle=":")
    rate.set_ylabel("learning rate (dotted)", color="#2980b9")
    rate.set_ylim(bottom=0)
    right.legend(frameon=False)
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, dpi=120, format="png")
    temporary.replace(path)
