"""The README's promises: its snippets run, its commands are those that CI runs."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_snippets_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(snippets) == 5
    namespace = {"__name__": "readme"}
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), namespace)
    assert namespace["result"].test_top1 > 0.5
    assert namespace["loss"] < 2.5
    assert namespace["y"].shape == (3, 2)
    assert namespace["report"].passed


def test_ci_calls_the_readme_s_test_command():
    begin, test = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)[:2]
    assert test.strip() == ".venv/bin/python -m pytest"
    assert test.strip() in (ROOT / ".ci" / "run").read_text()
    assert begin.strip().endswith(".venv/bin/minidl train")


def test_named_places_exist():
    for place in re.findall(r"`([\w/]+/)`", README) + re.findall(r"\]\(([\w./]+)\)", README):
        assert (ROOT / place).exists(), place
