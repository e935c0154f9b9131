"""Figures as people read them: a table on the terminal, and a folder with a report in Markdown and HTML.

A report holds any number of measurements, of nets and of ops. The HTML is one file: its pictures are inside.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidl.bench import plots
from minidl.bench.contenders import CPU
from minidl.errors import ArgumentError

if TYPE_CHECKING:
    from rich.table import Table

Figures = dict[str, Any]
Rows = list[list[str]]  # the first is the head

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: pre; }
img { max-width: 100%; } code, pre { background: #f4f4f4; padding: .1rem .3rem; }
"""

HOW_MEASURED = (
    "Before anything was timed, each contender's results were compared with minidl's, from the same weights and the "
    "same batch. Each contender runs in a process of its own; they take turns, so that a machine that slows down slows "
    "all of them. Times are medians over the turns, compilation and warm-up apart. A ratio is the median of the "
    "ratios turn by turn, with its quartiles; above 1 minidl is faster. Of PyTorch's two layouts the faster counts. "
    "A share of the machine's limit may pass 100 % where the arrays stay in the cache, as the limit is that of memory. "
    "Memory is the largest resident set while turns were taken."
)
HOW_MEASURED_ON_A_GPU = (
    "A GPU is timed by events in its queue, around all calls of a turn. The arrays of an op are there so often that "
    "together they are twice as large as the GPU's cache, and take turns. Launches: how much of a call's time the host "
    "needs to queue it; near 100 % the GPU waits for the host. With copy: images/s where each step first copies its "
    "batch from pinned memory of the host. Device MB: what the library's pool took of the GPU's memory."
)


# --- tables ---------------------------------------------------------------------------------------------------------

WIDE = ("fastest ms", "ms: quartiles", "GB/s", "with copy", "copy GB/s")  # columns for which a terminal has no room
ON_A_GPU = ("quartiles", "peak MB", "compile s")  # and nor beside those of a GPU


def net_rows(found: Figures) -> Rows:
    """A row for minidl and one for each peer in each layout."""
    rows = [["", "images/s", "ms", "fastest ms", "ms: quartiles", "ratio", "quartiles", "peak MB", "compile s"]]
    rows.append(["minidl", *_times(found), "", "", *_rest(found)])
    for peer in found.get("peers", []):
        name = " ".join(filter(None, (peer["name"], peer["variant"])))
        rows.append([name, *_times(peer), *_ratio(peer), *_rest(peer)])
    if found["device"] == "cpu":
        return rows
    rows[0] += ["launches", "with copy", "copy GB/s", "device MB"]
    for row, side in zip(rows[1:], [found, *found.get("peers", [])], strict=True):
        row += [
            _optional("{:.0%}", side["launch_share"]),
            _optional("{:,.1f}", side["with_transfer_images_per_s"]),
            _optional("{:.1f}", side["transfer_gb_per_s"]),
            _optional("{:,.0f}", side["peak_device_mb"]),
        ]
    return rows


def _optional(form: str, value: float | None) -> str:
    return "" if value is None else form.format(value)


def net_title(found: Figures) -> str:
    """Such as "alexnet, train, batch 64, 2 threads"."""
    return f"{found['model']}, {found['mode']}, batch {found['batch']}, {plots.where(found)}"


def op_rows(found: Figures) -> Rows:
    """A row for each run of each op, with its ratio to each peer."""
    peers: list[str] = found["peers"]
    queued = ["launches"] if found["device"] != "cpu" else []
    columns = [title for peer in peers for title in (peer, "quartiles")]
    rows = [["", "ms", "fastest ms", "GFLOP/s", "GB/s", "of limit", *queued, *columns]]
    for op in found["ops"]:
        rows.append([op_label(op), *[""] * (len(rows[0]) - 1)])
        for name, run in op["runs"].items():
            times = [_ms(run["median_s"]), _ms(run["minimum_s"])]
            rates = [f"{run['gflop_per_s']:.1f}", f"{run['gb_per_s']:.1f}"]
            share = f"{run['share_of_limit']:.0%} {run['limit']}"
            ratios = [cell for peer in peers for cell in _ratio(run["peers"].get(peer))]
            launches = [_optional("{:.0%}", run["launch_share"]) for _ in queued]
            rows.append([f"  {name}", *times, *rates, share, *launches, *ratios])
    return rows


def op_title(found: Figures) -> str:
    """Such as "ops of alexnet, batch 64, 2 threads"."""
    return f"ops of {found['model']}, batch {found['batch']}, {plots.where(found)}"


def narrow(rows: Rows) -> Rows:
    """The columns for which a terminal has room; quartiles of several peers are among those for which it has none."""
    several = rows[0].count("quartiles") > 1
    hidden = {
        *WIDE,
        *(["quartiles"] if several else []),
        *(ON_A_GPU if "launches" in rows[0] else []),
    }
    shown = [i for i, title in enumerate(rows[0]) if title not in hidden]
    return [[row[index] for index in shown] for row in rows]


def op_label(op: Figures) -> str:
    """Such as "conv2 conv2d", or "relu3 relu ×2" for two that are alike."""
    times = f" ×{op['count']}" if op["count"] > 1 else ""
    return f"{op['layer']} {op['op']}{times}"


def _ratio(peer: Figures | None) -> list[str]:
    if not peer:
        return ["", ""]
    return [f"{peer['ratio']:.2f}×", " … ".join(f"{value:.2f}" for value in peer["ratio_quartiles"])]


def _times(side: Figures) -> list[str]:
    ms = [_ms(side["median_s"]), _ms(side["minimum_s"]), " … ".join(_ms(s) for s in side["quartiles_s"])]
    return [f"{side['images_per_s']:,.1f}", *ms]


def _rest(side: Figures) -> list[str]:
    return [f"{side['peak_rss_mb']:,.0f}", f"{side['compile_s']:.1f}"]


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.3g}" if seconds < 0.1 else f"{1000 * seconds:,.0f}"


def circumstances(measurement: Figures) -> str:
    """The machine and the versions, in words."""
    known = measurement["machine"]
    memory = f", {known['memory_gb']} GB" if known["memory_gb"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in measurement["versions"].items())
    gpu = ", ".join(f"{name} {value}" for name, value in known.get("gpu", {}).items() if name != "name")
    on = f"{known['gpu']['name']} ({gpu}); " if gpu else ""
    return f"{on}{known['processor']}, {known['cores']} cores{memory}, {known['system']}; {versions}."


def limits(measurement: Figures) -> str:
    """What the machine can do, in words."""
    known = measurement["limits"]
    return (
        f"The machine: matrix product {known['sgemm_gflop_per_s']:,.0f} GFLOP/s ({known['sgemm_by']}), "
        f"copy {known['copy_gb_per_s']:.1f} GB/s ({known['copy_by']})."
    )


def refused(nets: Sequence[Figures], ops: Sequence[Figures]) -> list[str]:
    """A line about each variant of a peer that came to wrong results."""
    found = [(f"{net['model']}, {net['mode']}, batch {net['batch']}", net.get("refused", {})) for net in nets]
    found += [(f"{op_label(op)}, batch {part['batch']}", op["refused"]) for part in ops for op in part["ops"]]
    return [f"{what}: {who} was not timed: {why}." for what, wrong in found for who, why in wrong.items()]


def table(rows: Rows) -> Table:
    """Rows as a table for the terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for index, title in enumerate(rows[0]):
        made.add_column(Text(title), justify="right" if index else "left", no_wrap=True)
    for row in rows[1:]:
        made.add_row(*map(Text, row))
    return made


def describe(nets: Sequence[Figures], ops: Sequence[Figures]) -> Iterator[Table | str]:
    """What the terminal shows of measurements."""
    for found in nets:
        yield net_title(found)
        yield table(narrow(net_rows(found)))
    for found in ops:
        yield op_title(found)
        yield table(narrow(op_rows(found)))
        yield limits(found)
    rows, lines = speedups(nets, ops)
    if lines:
        yield "CPU against GPU"
        yield table(narrow(rows))
        yield from lines
    yield from refused(nets, ops)
    yield circumstances([*nets, *ops][0])


# --- CPU against GPU ------------------------------------------------------------------------------------------------


def speedups(nets: Sequence[Figures], ops: Sequence[Figures]) -> tuple[Rows, list[str]]:
    """A row for each net, and each layer of one, that was measured on both: where the CPU wins come first. And a line
    for each about the batches at which the GPU wins.
    """
    found: dict[str, dict[int, Figures]] = {}
    for net in nets:
        for peer in net.get("peers", []):
            if peer["name"] == CPU:
                found.setdefault(f"{net['model']}, {net['mode']}", {})[net["batch"]] = _speedup(net, peer)
    for part in ops:
        for op in part["ops"]:
            for name, run in op["runs"].items():
                if name in ("both", "update") and CPU in run["peers"]:
                    what = f"{part['model']}: {op_label(op)}"
                    found.setdefault(what, {})[part["batch"]] = _speedup(run, run["peers"][CPU])
    measured = [(entry["ratio"], what, batch) for what, batches in found.items() for batch, entry in batches.items()]
    head = ["", "batch", "CPU ms", "GPU ms", "speed-up", "quartiles", "launches"]
    rows = [[what, str(batch), *found[what][batch]["cells"]] for _, what, batch in sorted(measured)]
    ratios = {what: {batch: entry["ratio"] for batch, entry in batches.items()} for what, batches in found.items()}
    return [head, *rows], [f"{what}: {gpu_wins(by_batch)}" for what, by_batch in ratios.items()]


def _speedup(gpu: Figures, cpu: Figures) -> Figures:
    share = _optional("{:.0%}", gpu["launch_share"])
    return {"ratio": cpu["ratio"], "cells": [_ms(cpu["median_s"]), _ms(gpu["median_s"]), *_ratio(cpu), share]}


def gpu_wins(ratios: Mapping[int, float]) -> str:
    """From which batch on the GPU is faster, of the speed-ups by batch.

    >>> gpu_wins({1: 0.5, 8: 1.2, 64: 9.0}), gpu_wins({1: 2.0, 8: 3.0}), gpu_wins({1: 2.0, 8: 0.9})
    ('the GPU wins from batch 8 on', 'the GPU wins at each batch measured', 'the CPU wins at batch 8')
    """
    batches = sorted(ratios)
    lost = [batch for batch in batches if ratios[batch] <= 1]
    if not lost:
        return "the GPU wins at each batch measured"
    if lost[-1] == batches[-1]:
        return f"the CPU wins at batch {batches[-1]}"
    return f"the GPU wins from batch {next(batch for batch in batches if batch > lost[-1])} on"


# --- the folder -----------------------------------------------------------------------------------------------------


def write_report(
    folder: Path, nets: Sequence[Figures] = (), ops: Sequence[Figures] = (), commands: Sequence[str] = ()
) -> None:
    """Write report.html, report.md with its pictures, and results.json.

    commands: what made the measurements, to be shown.
    Raises: ArgumentError where a file is in the way.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = plots.draw(nets, ops)
    for name, png in pictures.items():
        (folder / f"{name}.png").write_bytes(png)
    blocks = _blocks(nets, ops, commands, list(pictures))
    results = {"nets": list(nets), "ops": list(ops), "commands": list(commands)}
    _write(folder / "results.json", json.dumps(results, indent=1) + "\n")
    _write(folder / "report.md", "\n\n".join(_markdown(*block) for block in blocks) + "\n")
    body = "\n".join(_html(kind, value, pictures) for kind, value in blocks)
    page = (
        f'<!doctype html>\n<meta charset="utf-8">\n<title>minidl benchmarks</title>\n<style>{STYLE}</style>\n{body}\n'
    )
    _write(folder / "report.html", page)


def check_folder(folder: Path) -> None:
    """Check that a report can be written there, before the work is done.

    Raises: ArgumentError.
    """
    for place in (folder, *folder.parents):
        if place.is_file():
            raise ArgumentError(f"report: expected a folder to write into, got {str(folder)!r}: {place} is a file")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


Block = tuple[str, Any]  # a kind of block, and what it holds


def _blocks(
    nets: Sequence[Figures], ops: Sequence[Figures], commands: Sequence[str], pictures: Sequence[str]
) -> list[Block]:
    """The report, without any format yet."""
    blocks: list[Block] = [("title", "minidl benchmarks")]
    if commands:
        blocks.append(("code", "\n".join(commands)))
    blocks += [("text", circumstances([*nets, *ops][0])), ("text", HOW_MEASURED)]
    if any(found["device"] != "cpu" for found in [*nets, *ops]):
        blocks.append(("text", HOW_MEASURED_ON_A_GPU))
    rows, lines = speedups(nets, ops)
    if lines:
        blocks += [("heading", "CPU against GPU"), ("table", rows), *(("text", f"{line}.") for line in lines)]
    for found in nets:
        blocks += [("heading", net_title(found)), ("table", net_rows(found))]
    blocks += [("picture", name) for name in pictures if name.startswith("nets")]
    blocks += [("text", line) for line in refused(nets, ops)]
    for index, found in enumerate(ops):
        blocks.append(("heading", op_title(found)))
        blocks += [("text", limits(found)), ("table", op_rows(found))]
        blocks += [("picture", name) for name in pictures if name.startswith(f"ops{index}")]
    return blocks


def _markdown(kind: str, value: Any) -> str:
    if kind == "table":
        head, *rows = value
        rule = ["---", *["---:"] * (len(head) - 1)]
        return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])
    forms = {"title": "# {}", "heading": "## {}", "text": "{}", "code": "```sh\n{}\n```", "picture": "![{0}]({0}.png)"}
    return forms[kind].format(value)


def _html(kind: str, value: Any, pictures: dict[str, bytes]) -> str:
    if kind == "table":
        head, *rows = value
        lines = [_html_row(head, "th"), *(_html_row(row, "td") for row in rows)]
        return "<table>\n" + "\n".join(lines) + "\n</table>"
    if kind == "picture":
        data = base64.b64encode(pictures[value]).decode()
        return f'<p><img alt="{html.escape(value)}" src="data:image/png;base64,{data}"></p>'
    tags = {"title": "h1", "heading": "h2", "text": "p", "code": "pre"}
    return f"<{tags[kind]}>{html.escape(value)}</{tags[kind]}>"


def _html_row(row: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"
