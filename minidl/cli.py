"""The command line: minidl train | eval | predict | summary | gradcheck | bench | warmup | doctor.

Each command prints for people, and with --json one object on standard output for programs; then what people read goes
to standard error. Exit codes: 0 done, 1 failed, 2 asked for something impossible, 130 interrupted.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
import os
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from minidl import __version__
from minidl.errors import ArgumentError, MinidlError
from minidl.training.config import Config, read_toml

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def show_version(wanted: bool) -> None:
    """Print the version and end, where that is wanted."""
    if wanted:
        print(f"minidl {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=show_version)
    ] = False,
) -> None:
    """A deep-learning engine from scratch: train, use and take apart AlexNet and its relatives."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("minidl: %(message)s"))
    log = logging.getLogger("minidl")
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def main() -> None:
    """The entry point of the `minidl` command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show "×" gets "?" instead of a traceback
    try:
        app()
    except MinidlError as error:
        print(f"minidl: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ArgumentError) else 1)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        print(f"minidl: {name}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command, which when interrupted ends in the way that shells expect."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt:
            print("minidl: interrupted", file=sys.stderr)
            raise SystemExit(130) from None

    return app.command(name=function.__name__.removesuffix("_"))(run)


def with_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each field of `Config`; those that the user sets arrive as keyword arguments."""
    own = get_type_hints(function, include_extras=True)
    parameters = [
        p.replace(annotation=own[p.name])
        for p in inspect.signature(function).parameters.values()
        if p.kind is not p.VAR_KEYWORD
    ]
    hints = get_type_hints(Config)
    annotated: Any = Annotated  # so that type checkers accept a type that is known at run time only
    for setting in fields(Config):
        flag = "--" + setting.name.replace("_", "-")
        option = typer.Option(flag, help=f"{setting.metadata['help']} [{setting.default}]", show_default=False)
        annotation = annotated[hints[setting.name] | None, option]
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(setting.name, kind, default=None, annotation=annotation))

    @wraps(function)
    def run(**options: Any) -> None:
        function(**{name: value for name, value in options.items() if value is not None})

    # typer reads a command's options from its signature and its annotations.
    vars(run)["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    del vars(run)["__wrapped__"]
    return run


@command
@with_settings
def train(
    *,
    out: Annotated[Path | None, typer.Option(help="The run folder to make. [runs/MODEL-DATA-N]")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings; options given here win.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    json_: Json = False,
    **settings: Any,
) -> None:
    """Train a net; leave checkpoints, log and curves in a folder.

    The defaults in brackets are those of alexnet_mini; other models bring their own recipe.
    """
    from minidl.devices import parse_device
    from minidl.training.report import ConsoleReporter
    from minidl.training.run import configure
    from minidl.training.run import resume as go_on
    from minidl.training.run import train as begin

    console = make_console(json_)
    reporter = ConsoleReporter(console)
    if resume is not None:
        extra = [name for name in settings if name not in ("epochs", "device")]
        extra += [name for name, value in (("config", config), ("out", out)) if value is not None]
        if extra:
            raise ArgumentError(
                f"resume: a run goes on with the settings it began with (only --epochs and --device may change), "
                f"got --{extra[0].replace('_', '-')} too; leave it out, or start a new run"
            )
        result = go_on(resume, settings.get("epochs"), settings.get("device"), reporter)
    else:
        values = read_toml(config) if config else {}
        made = configure(str(config or "the options"), **{**values, **settings})
        parse_device(made.device)  # what cannot begin is not announced
        say(
            console, f"training {made.model} on {made.data}: {made.epochs} epochs, batch {made.batch}, seed {made.seed}"
        )
        result = begin(made, out, reporter)
    if json_:
        print_json(result.to_dict())
    if not result.finished:
        say(console, f"interrupted and saved; go on with: minidl train --resume {result.folder}")
        raise SystemExit(130)
    if not json_:
        say(
            console,
            f"test top-1 {result.test_top1:.2%}, top-5 {result.test_top5:.2%} after {result.epochs} epochs "
            f"in {result.seconds:.0f} s\n"
            f"weights, log and curves are in {result.folder}\n"
            f"name what is in a picture: minidl predict {result.folder} IMAGE",
        )


@command
def eval_(
    run: Annotated[Path, typer.Argument(help="A run folder, or one checkpoint of it.")],
    data: Annotated[str | None, typer.Option(help="Another data set than the run's.")] = None,
    split: Annotated[str, typer.Option(help="test or train.")] = "test",
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N.")] = None,
    on_bad_image: Annotated[str | None, typer.Option(help="raise or skip.")] = None,
    json_: Json = False,
) -> None:
    """Measure a trained net on a data set."""
    from minidl.training.run import load_run

    loaded = load_run(run, device)
    tally, skipped = loaded.evaluate(data, split, on_bad_image)
    if json_:
        print_json(
            {
                "checkpoint": str(loaded.path),
                "data": data or loaded.config.data,
                "split": split,
                "images": tally.count,
                "skipped_images": len(skipped),
                "loss": tally.loss,
                "top1": tally.top1,
                "top5": tally.top5,
            }
        )
        return
    console = make_console()
    for reason in skipped.values():
        say(console, f"skipped: {reason}")
    say(
        console,
        f"{data or loaded.config.data}: top-1 {tally.top1:.2%}, top-5 {tally.top5:.2%}, loss {tally.loss:.4f} "
        f"over {tally.count} {split} images",
    )


@command
def predict(
    run: Annotated[Path, typer.Argument(help="A run folder, or one checkpoint of it.")],
    images: Annotated[list[Path], typer.Argument(help="JPEG or PNG files.")],
    top: Annotated[int, typer.Option(help="How many classes to show.", min=1)] = 5,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N.")] = None,
    json_: Json = False,
) -> None:
    """Name what is in images, with probabilities.

    An image that cannot be read does not stop the others, but the exit code is then 1.
    """
    from minidl.training.run import load_run

    loaded = load_run(run, device)
    console, failed = make_console(), False
    results: list[dict[str, Any]] = []
    for image in images:
        try:
            guesses = loaded.predict(image, top)
        except MinidlError as error:
            failed = True
            print(f"minidl: {error}", file=sys.stderr)
            results.append({"image": str(image), "error": str(error)})
            continue
        results.append({"image": str(image), "predictions": [{"class": name, "probability": p} for name, p in guesses]})
        if not json_:
            say(console, str(image))
            for name, probability in guesses:
                say(console, f"  {probability:7.2%}  {name}")
    if json_:
        print_json({"checkpoint": str(loaded.path), "images": results})
    if failed:
        raise SystemExit(1)


@command
def summary(
    model: Annotated[str, typer.Argument(help="A model's name, with options: 'alexnet(groups=1)'.")] = "alexnet",
    json_: Json = False,
) -> None:
    """Show a model layer by layer: shapes, costs, memory."""
    from minidl import models
    from minidl.summary import summarize

    architecture, options = models.parse(model)
    net = architecture.build(**options)
    size, channels = architecture.input_size, options.get("in_channels", architecture.input_channels)
    table = summarize(net, (size, size, channels))
    if json_:
        print_json({"model": model, **table.to_dict()})
    else:
        make_console().print(table)


@command
def gradcheck(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Layers, losses, models, or FILE.py:LAYER of one's own. [all]", show_default=False),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the check with the largest error into this PNG file.")] = None,
    break_: Annotated[
        str | None, typer.Option("--break", metavar="TERM", help="Plant a fault first: a term of the named layer.")
    ] = None,
    shape: Annotated[str | None, typer.Option(help="Of the input of a layer of one's own, such as 2,5,5,3.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    json_: Json = False,
) -> None:
    """Hold every gradient against finite differences.

    In float64; the exit code is 1 where one is wrong.
    """
    from minidl import faults
    from minidl.catalogue import cases, kind, own_case
    from minidl.devices import parse_device
    from minidl.gradcheck import picture_path

    given, picture, device = parse_shape(shape), picture_path(plot) if plot else None, parse_device(device)
    chosen = []  # before any work, so that a wrong name is told at once
    for name in names or ["all"]:
        chosen += [own_case(name, given)] if ".py:" in name else cases(name)
    console, fault = make_console(json_), None
    if break_ is not None:
        subjects = list(dict.fromkeys(kind(case.name) for case in chosen))
        if len(subjects) > 1:
            raise ArgumentError(f"break: expected one layer to plant {break_!r} in, got {', '.join(subjects[:4])} …")
        fault = faults.named(subjects[0], break_)
        say(console, f"planted in {fault.file}:\n  - {fault.correct}\n  + {fault.wrong}\n{fault.says}\n")
    begin, reports = time.perf_counter(), []
    with faults.planted(fault) if fault else nullcontext():
        for case in chosen:
            report = case.check(device=device)
            reports.append(report)
            verdict = "passed" if report.passed else "FAILED"
            say(console, f"{verdict}  {report.error:8.1e}  {report.subject}")
            if not report.passed:
                say(console, str(report))
        failed = sum(not report.passed for report in reports)
        worst = max(reports, key=lambda report: report.error)
        seconds = time.perf_counter() - begin
        if picture:
            say(console, f"drawing {worst.subject} …")
            chosen[reports.index(worst)].plot(worst, picture, device=device)
    if json_:
        print_json({"passed": not failed, "failed": failed, "reports": [report.to_dict() for report in reports]})
    say(
        console,
        f"{len(reports) - failed} of {len(reports)} passed; largest relative error {worst.error:.1e}, "
        f"tolerance {worst.tolerance:.0e}; {seconds:.1f} s",
    )
    if picture:
        say(console, f"the picture is {picture}; docs/gradcheck.md says how to read it")
    if failed:
        raise SystemExit(1)


@command
def bench(
    model: Annotated[str, typer.Option(help="A model's name, with options: 'alexnet(groups=1)'.")] = "alexnet",
    mode: Annotated[str, typer.Option(help="train or infer.")] = "train",
    op: Annotated[
        list[str] | None, typer.Option(help="Measure this op alone, at the model's shapes; 'all' for each. Repeatable.")
    ] = None,
    batch: Annotated[str, typer.Option(help="Images in a batch; several with commas between.")] = "64",
    peer: Annotated[
        list[str] | None,
        typer.Option(help="torch, torch-compile, onnxruntime, minidl-cpu, or reference, without kernels. Repeatable."),
    ] = None,
    threads: Annotated[str | None, typer.Option(help="Threads of each side; several with commas between.")] = None,
    repeats: Annotated[int, typer.Option(help="Turns that are timed, after the warm-up.")] = 7,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N; or cpu,cuda to compare the two.")] = "cpu",
    precision: Annotated[str, typer.Option(help="float32, bf16, fp16; on a GPU also tf32.")] = "float32",
    report: Annotated[Path | None, typer.Option(help="Write a report with plots into this folder.")] = None,
    json_: Json = False,
) -> None:
    """Measure how fast a model is, beside its peers and beside the machine.

    Results are compared before anything is timed. Each side runs in a process of its own, and they take turns.
    """
    from minidl.bench.report import check_folder, describe, write_report
    from minidl.bench.sweep import counts, sweep

    console, ops, peers = make_console(json_), op or [], peer or []
    batches = counts("batch", batch)
    shares: list[int | None] = [*counts("threads", threads)] if threads else [None]
    if report:
        check_folder(report)

    def tell(news: str) -> None:
        print(f"{news} …", file=sys.stderr, flush=True)

    found = sweep(model, mode, ops, batches, shares, peers, repeats, device, precision, tell)
    nets_and_ops = ([], found) if ops else (found, [])
    if report:
        write_report(report, *nets_and_ops, commands=[shlex.join(["minidl", *sys.argv[1:]])])
    if json_:
        print_json(found[0] if len(found) == 1 else {"measurements": found})
        return
    for part in describe(*nets_and_ops):
        console.print(part)
    if report:
        say(console, f"the report is {report / 'report.html'}")


@command
def warmup(device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu") -> None:
    """Compile every kernel ahead: later runs then begin at once."""
    from minidl.warmup import warm_up

    begin = time.perf_counter()
    warm_up(lambda news: print(f"{news} …", file=sys.stderr, flush=True), device)
    print(f"all kernels are compiled ({time.perf_counter() - begin:.0f} s)")


@command
def doctor(json_: Json = False) -> None:
    """Tell what is installed and works here, what does not, why, and what to install.

    The exit code is 0 where the CPU works; a GPU is an extra.
    """
    from minidl.doctor import examine

    report = examine()
    if json_:
        print_json(report.to_dict())
    else:
        say(make_console(), str(report))
    if not report.ok:
        raise SystemExit(1)


def parse_shape(text: str | None) -> tuple[int, ...] | None:
    """(2, 5, 5, 3) of "2,5,5,3"."""
    if text is None:
        return None
    try:
        sizes = tuple(int(size) for size in text.split(","))
    except ValueError:
        sizes = ()
    if len(sizes) < 2 or min(sizes) < 1:
        raise ArgumentError(f"shape: expected sizes with commas between, batch first, as in 2,5,5,3; got {text!r}")
    return sizes


def make_console(to_stderr: bool = False) -> Console:
    """Where text for people goes."""
    from rich.console import Console

    class Patient(Console):
        """A console whose reader may go away, as `| head` does: the work goes on, without a word."""

        def on_broken_pipe(self) -> None:
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), (sys.stderr if to_stderr else sys.stdout).fileno())

    return Patient(stderr=to_stderr)


def say(console: Console, text: str) -> None:
    """Print a line as it is: not wrapped, not coloured by guesses, ":two:" not an emoji."""
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


def print_json(value: dict[str, Any]) -> None:
    """Print one object on one line of standard output; what is not finite becomes null, as JSON has no NaN."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: clean(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [clean(inner) for inner in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    print(json.dumps(clean(value), allow_nan=False), flush=True)
