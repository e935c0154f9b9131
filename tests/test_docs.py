"""The documentation cannot rot: snippets run, quotations are real, links lead somewhere, figures are fresh.

A block marked `python` is executed, all of a page in one namespace. A block marked `py` is a quotation: the paragraph
before it ends with a link to the file in which each of its lines stands, in that order; `…` on a line leaves some out.
"""

from __future__ import annotations

import doctest
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest

from minidl import settings

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
LINK = re.compile(r"\]\(([^)\s]+)\)")

each_page = pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])


class Block(NamedTuple):
    language: str
    text: str
    line: int  # of its first line, counted from 1
    before: str  # the paragraph before it


def blocks(page: Path) -> Iterator[Block]:
    before, blank, language, begin, lines = "", True, None, 0, list[str]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if language is not None:
            if line.startswith("```"):
                yield Block(language, "\n".join(lines) + "\n", begin, before)
                before, language, lines = "", None, []
            else:
                lines.append(line)
        elif line.startswith("```"):
            language, begin = line[3:].strip(), number + 1
        else:
            before = f"{before} {line}" if line.strip() and not blank else line or before
            blank = not line.strip()
    assert language is None, f"{page.name}: the block at line {begin} is not closed"


def prose(page: Path) -> str:
    return re.sub(r"(?ms)^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"(?m)^#+ (.*)$", re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_there_are_pages() -> None:
    assert {page.stem for page in PAGES} >= {"README", "architecture", "conv2d"}


@each_page
def test_snippets_run(page: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with settings(kernels="reference"):
        for block in blocks(page):
            if block.language == "python":
                run(block, page, namespace)


def run(block: Block, page: Path, namespace: dict[str, Any]) -> None:
    if ">>>" not in block.text:
        exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), namespace)
        return
    parsed = doctest.DocTestParser().get_doctest(block.text, namespace, page.name, str(page), block.line - 1)
    parsed.globs = namespace  # the parser copies it; what a block defines serves the blocks after it
    report: list[str] = []
    doctest.DocTestRunner(optionflags=OPTIONS, verbose=False).run(parsed, out=report.append, clear_globs=False)
    assert not report, "".join(report)


@each_page
def test_quotations_stand_in_the_file_they_name(page: Path) -> None:
    for block in blocks(page):
        if block.language not in ("py", "cpp"):
            continue
        suffix = ".py" if block.language == "py" else ".cu"
        where = f"{page.name}:{block.line}"
        targets = [target for target in LINK.findall(block.before) if target.endswith(suffix)]
        assert targets, f"{where}: the paragraph before a quotation must link to its file"
        source = [line.strip() for line in (page.parent / targets[-1]).read_text(encoding="utf-8").splitlines()]
        position = 0
        for line in block.text.splitlines():
            if line.strip() in ("", "…"):
                continue
            assert line.strip() in source[position:], (
                f"{where}: {targets[-1]} does not hold (here) the line {line.strip()!r}"
            )
            position = source.index(line.strip(), position) + 1


@each_page
def test_links_resolve(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target} leads nowhere"
        assert file.is_relative_to(ROOT), f"{page.name}: {target} leads out of the repository"
        if anchor:
            assert anchor in anchors(file), f"{page.name}: {target}: no such heading"


@each_page
def test_languages_of_blocks_are_known(page: Path) -> None:
    assert {block.language for block in blocks(page)} <= {"python", "py", "cpp", "text", "sh", "toml", "json"}


@pytest.fixture(scope="module")
def make_figures() -> ModuleType:
    path = ROOT / "docs" / "figures" / "make_figures.py"
    spec = importlib.util.spec_from_file_location("make_figures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_are_what_the_script_draws(make_figures: ModuleType) -> None:
    folder = ROOT / "docs" / "figures"
    drawn = make_figures.figures()
    assert sorted(drawn) == sorted(path.name for path in folder.glob("*.svg"))
    for name, svg in drawn.items():
        ElementTree.fromstring(svg)
        committed = (folder / name).read_text(encoding="utf-8")
        assert committed == svg, f"{name} is out of date; run python docs/figures/make_figures.py"


def test_every_figure_is_shown() -> None:
    shown = {
        Path(target).name for page in PAGES for target in LINK.findall(prose(page)) if target.endswith((".svg", ".png"))
    }
    assert shown == {path.name for path in (ROOT / "docs" / "figures").glob("*.[sp][vn]g")}
