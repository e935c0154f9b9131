"""Mutation testing: each small change that a machine can think of, and whether a test notices it.

    pip install cosmic-ray
    python tests/planted/mutate.py                          # minidl/layers, minidl/ops and minidl/optim.py: an hour
    python tests/planted/mutate.py minidl/ops/conv2d.py --json conv2d.json

cosmic-ray makes the mutants: a near operator in place of another, a number one larger or smaller, a condition
turned around, a loop not run, a decorator gone. (Far operators are left out: a float that is shifted fails at once,
`%` in place of `*` is noticed where `/` is, and `is` in place of `==` is the same for small integers.) So are those
mutants that change nothing but annotations, which are never evaluated, the kind of a parameter, positional or keyword,
or the negative number by which `reshape` knows what to find out itself.

The forking runner of the planted faults tries them. A mutant that loops until its time is up, or kills the process, is
noticed as well, and counted apart.

Tests come in stages, fast ones first, and what survives one goes on to the next. Survivors that no test can kill,
because they do the same, stand with their reasons in equivalent.toml; an entry that excuses none is told as well.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from runner import REPOSITORY, Trial, run

DEFAULT = ("minidl/layers", "minidl/ops", "minidl/optim.py")
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
NEAR = {
    "Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "Div_FloorDiv", "FloorDiv_Mul", "FloorDiv_Mod", "Mod_FloorDiv",
    "Mod_Mul", "Pow_Mul", "RShift_LShift", "LShift_RShift", "BitOr_BitAnd", "BitAnd_BitOr", "BitXor_BitOr",
}  # fmt: skip

# Of the first two stages those tests run whose names contain the words of the file (see `words`); of the last, all.
STAGES = (
    ("tests/test_contract.py", "tests/test_optim.py"),
    ("tests/test_oracles.py", "tests/test_ops.py", "tests/test_layers.py", "tests/test_losses.py", "tests/kernels",
     "tests/test_numerics.py", "tests/test_bad_input.py", "tests/test_summary.py", "tests/test_onnx.py",
     "tests/torch_parity"),
    ("tests/test_contract.py", "tests/test_layers.py", "tests/test_ops.py", "tests/test_losses.py",
     "tests/test_optim.py", "tests/test_summary.py", "tests/test_catalogue.py", "tests/test_bad_input.py"),
)  # fmt: skip
ALSO = {
    "adamw": "optim",
    "batch_norm": "running_mean",
    "channel_sum": "channel_dot or batch_norm or batchnorm",
    "conv": "im2col",
    "optim": "sgd or adamw",
    "pooling": "pool",
    "sgd": "optim",
}


@dataclass(frozen=True)
class Mutant:
    """One change: the first line that differs, before and after, and the whole source."""

    file: str
    line: int
    before: str
    after: str
    source: str = field(repr=False)

    @property
    def change(self) -> tuple[str, str, str]:
        """What tells it from others, though lines may come before it or go."""
        return self.file, self.before, self.after

    def diff(self) -> str:
        """What was changed, for a person."""
        original = (REPOSITORY / self.file).read_text(encoding="utf-8")
        lines = difflib.unified_diff(original.splitlines(), self.source.splitlines(), self.file, "", lineterm="", n=1)
        return "\n".join([self.file, *list(lines)[2:]])


def mutants(file: str) -> list[Mutant]:
    """All different mutants of a file that Python can read."""
    original = (REPOSITORY / file).read_text(encoding="utf-8")
    found: dict[str, Mutant] = {}
    for source in _changed(original):
        meaning = _meaning(source)
        if meaning not in (None, _meaning(original)):
            found.setdefault(str(meaning), _mutant(file, original, source))
    return sorted(found.values(), key=lambda mutant: mutant.line)


def _changed(source: str) -> Iterator[str]:
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    for name in operator_names():
        if "Variable" in name or _is_far(name):
            continue
        operator = get_operator(name)()
        places = sum(len(list(operator.mutation_positions(node))) for node in ast_nodes(get_ast(source)))
        for occurrence in range(places):
            changed = mutate_code(source, operator, occurrence)
            if changed is not None:
                yield changed


def _is_far(name: str) -> bool:
    _, _, change = name.partition("ReplaceBinaryOperator_")
    return change not in NEAR if change else ("_Is" in name and not name.endswith(("_Is_IsNot", "_IsNot_Is")))


def _meaning(source: str) -> str | None:
    """The syntax tree without what is never evaluated, or None where there is none."""
    try:
        return ast.dump(_Evaluated().visit(ast.parse(source)))
    except SyntaxError:
        return None


class _Evaluated(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]
        node.defaults += [default for default in node.kw_defaults if default]
        node.posonlyargs, node.kwonlyargs, node.kw_defaults = [], [], []
        return self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        inner = self.generic_visit(node).operand
        twice = isinstance(node.op, ast.Not) and isinstance(inner, ast.UnaryOp) and isinstance(inner.op, ast.Not)
        return inner.operand if twice else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Attribute) and node.func.attr == "reshape":  # any negative number is -1 to it
            node.args = [ast.Constant(-1) if ast.unparse(arg) in ("-1", "-2", "~1") else arg for arg in node.args]
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def _mutant(file: str, original: str, source: str) -> Mutant:
    # Blank lines apart, as a decorator goes together with those before it.
    numbered = [(i, line.strip()) for i, line in enumerate(original.splitlines(), start=1) if line.strip()]
    before, after = [line for _, line in numbered], [line.strip() for line in source.splitlines() if line.strip()]
    changes = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    first, last, begin, end = next(change[1:] for change in changes if change[0] != "equal")
    return Mutant(file, numbered[first][0], " ".join(before[first:last]), " ".join(after[begin:end]), source)


def words(file: str) -> str:
    """What the names of the tests of a file contain, as pytest's -k takes it.

    >>> words("minidl/layers/avg_pool2d.py")
    'avg_pool or avgpool'
    """
    stem = Path(file).stem.removesuffix("2d")
    return " or ".join(dict.fromkeys([stem, stem.replace("_", ""), *ALSO.get(stem, stem).split(" or ")]))


def stages(file: str) -> list[tuple[str, ...]]:
    """pytest's arguments, fast ones first."""
    here = [tuple(path for path in stage if (REPOSITORY / path).exists()) for stage in STAGES]
    return [*((*stage, "-k", words(file)) for stage in (here[0], (file, *here[1]))), here[-1]]


@cache
def patience(tests: tuple[str, ...]) -> float | None:
    """The seconds that a mutant may take, after what the original takes; None where no test has the words."""
    file = "minidl/__main__.py"
    (control,) = run([Trial("unchanged", file, (REPOSITORY / file).read_text(encoding="utf-8"), tests, seconds=1800)])
    if control.verdict == "broken":
        return None
    if control.verdict != "survived":
        raise SystemExit(f"without a mutant {control.node} is {control.verdict}: {control.says}")
    return max(20, 4 * control.seconds)


@dataclass(frozen=True)
class Score:
    """What became of the mutants of one file: how many died in which way, and the others as differences."""

    file: str
    deaths: Counter[str]
    equivalent: list[str]
    survived: list[str]

    @property
    def killed(self) -> int:
        """Of a test that failed, of time or of a crash."""
        return self.deaths.total()

    @property
    def mutants(self) -> int:
        """All there were."""
        return self.killed + len(self.equivalent) + len(self.survived)

    @property
    def share(self) -> float:
        """Killed, of those that can be."""
        return self.killed / max(1, self.killed + len(self.survived))

    def __add__(self, other: Score) -> Score:
        return Score(
            "all", self.deaths + other.deaths, self.equivalent + other.equivalent, self.survived + other.survived
        )

    def __str__(self) -> str:
        return (
            f"{self.file:42} {self.mutants:7} {self.killed:6} {self.deaths['timeout']:6} {self.deaths['crashed']:6} "
            f"{len(self.equivalent):10} {len(self.survived):8} {self.share:6.1%}"
        )


HEAD = f"{'file':42} mutants killed (time) (crash) equivalent survived  score"


def scored(file: str, workers: int) -> Score:
    """Try all mutants of a file."""
    left, deaths = mutants(file), Counter[str]()
    for tests in stages(file):
        seconds = patience(tests) if left else None
        if seconds is None:
            continue
        trials = [Trial(str(i), file, mutant.source, tests, seconds) for i, mutant in enumerate(left)]
        verdicts = {int(outcome.name): outcome.verdict for outcome in run(trials, workers)}
        deaths.update(verdict for verdict in verdicts.values() if verdict != "survived")
        left = [mutant for i, mutant in enumerate(left) if verdicts[i] == "survived"]
    excused = {(entry["file"], entry["before"], entry["after"]) for entry in excuses()}
    equivalent = [mutant.diff() for mutant in left if mutant.change in excused]
    survived = [mutant.diff() for mutant in left if mutant.change not in excused]
    for _, before, after in {change for change in excused if change[0] == file} - {mutant.change for mutant in left}:
        survived.append(f"{EQUIVALENT.name} excuses what did not survive: {before}  →  {after}")
    return Score(file, deaths, equivalent, survived)


def excuses() -> list[dict[str, Any]]:
    """The survivors that do the same as the original, with the reasons."""
    if not EQUIVALENT.exists():
        return []
    entries: list[dict[str, Any]] = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))["mutant"]
    return entries


def files(paths: list[str]) -> list[str]:
    """The Python files that are named, or lie in the folders that are named."""
    found = []
    for path in map(Path, paths):
        inside = sorted((REPOSITORY / path).glob("*.py")) if (REPOSITORY / path).is_dir() else [REPOSITORY / path]
        found += [str(file.relative_to(REPOSITORY)) for file in inside if file.name != "__init__.py"]
    return found


def main() -> None:
    """Score the files named, and list what survived."""
    parser = argparse.ArgumentParser(description="Mutation testing of minidl.")
    parser.add_argument("paths", nargs="*", default=DEFAULT)
    parser.add_argument("--json", type=Path, help="also write the scores here")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    scores = []
    print(HEAD)
    for file in files(options.paths):
        scores.append(scored(file, options.workers))
        print(scores[-1], flush=True)
        if options.json:
            options.json.write_text(json.dumps([vars(score) for score in scores], indent=1), encoding="utf-8")
    total = sum(scores[1:], start=scores[0])
    print(total)
    for diff in total.survived:
        print(f"\nsurvived: {diff}")


if __name__ == "__main__":
    main()
