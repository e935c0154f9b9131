"""The house rules that no single module can keep: who imports whom, what `import minidl` costs, what is shipped."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
# minidl/kernels and minidl/models are links to the folders at the top.
MODULES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for folder in ("minidl", "kernels", "models")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not {"kernels", "models"} & set(path.relative_to(ROOT).parts[1:])
}


def imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """What a module imports, less what serves types only; and whether it does so as it is itself imported."""

    def visit(node: ast.AST, at_import: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from ((f"{node.module}.{alias.name}", at_import) for alias in node.names)
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, at_import and not lazy)

    return visit(tree, True)


def importers(package: str, *, at_import: bool | None = None) -> set[str]:
    """The modules that import anything of a package."""
    return {
        path
        for path, tree in MODULES.items()
        for name, early in imports(tree)
        if (name + ".").startswith(package + ".") and at_import in (None, early)
    }


def in_folder(paths: set[str], folder: str) -> set[str]:
    return {path for path in paths if path.startswith(f"{folder}/")}


def test_all_modules_are_seen():
    assert len(in_folder(set(MODULES), "minidl")) > 45
    assert len(in_folder(set(MODULES), "models")) > 3
    assert "minidl/layers/conv2d.py" in MODULES
    assert ("minidl.errors.ArgumentError", True) in set(imports(MODULES["minidl/random.py"]))


def test_only_accelerate_imports_kernels():
    assert importers("minidl.kernels") - in_folder(set(MODULES), "kernels") == {"minidl/accelerate.py"}
    assert "minidl/accelerate.py" not in importers("minidl.kernels", at_import=True)


def test_few_import_models():
    users = importers("minidl.models") - in_folder(set(MODULES), "models")
    early = importers("minidl.models", at_import=True) - in_folder(set(MODULES), "models")
    assert "minidl/training/run.py" in users
    assert users <= {"minidl/training/run.py", "minidl/cli.py", "minidl/catalogue.py", "minidl/bench/task.py"}
    assert early <= {"minidl/training/run.py", "minidl/cli.py"}


def test_models_stand_on_layers_and_not_on_training():
    allowed = {"minidl.combine", "minidl.errors", "minidl.initializers", "minidl.layers", "minidl.models"}
    for path in in_folder(set(MODULES), "models"):
        for name, _ in imports(MODULES[path]):
            if name.startswith("minidl"):
                assert ".".join(name.split(".")[:2]) in allowed, f"{path} imports {name}"


def test_kernels_stand_on_the_bottom_of_the_engine():
    allowed = {"minidl.arrays", "minidl.errors", "minidl.kernels", "minidl.window"}
    others = {"numba", "numpy", "threadpoolctl", *sys.stdlib_module_names}
    for path in in_folder(set(MODULES), "kernels"):
        for name, _ in imports(MODULES[path]):
            top = name.split(".")[0]
            if (path, top) == ("kernels/cuda.py", "cupy"):
                continue
            assert top in others or ".".join(name.split(".")[:2]) in allowed, f"{path} imports {name}"


@pytest.mark.parametrize("stem", ["arrays", "devices", "window", "errors"])
def test_the_bottom_of_the_engine_stands_on_nothing(stem):
    below = ("minidl.errors.", "minidl.devices.") if stem == "arrays" else ("minidl.errors.",)
    used = {name for name, _ in imports(MODULES[f"minidl/{stem}.py"]) if name.startswith("minidl")}
    assert all(name.startswith(below) for name in used)


def test_layers_know_of_no_training():
    below = {path for path in MODULES if path.startswith(("minidl/ops/", "minidl/layers/", "models/"))}
    assert not importers("minidl.training") & below
    assert not importers("minidl.data") & below
    assert not importers("minidl.optim") & below


def test_cupy_is_imported_in_two_places():
    assert importers("cupy") <= {"minidl/devices.py", "kernels/cuda.py"}
    assert importers("cupy", at_import=True) == set()


HEAVY = ("cupy", "numba", "PIL", "rich", "matplotlib", "typer", "torch", "safetensors", "threadpoolctl")


@pytest.mark.parametrize(
    "statement",
    [
        "import minidl",
        "from minidl import layers, models",
        "import minidl.losses, minidl.optim, minidl.schedules, minidl.training.step, minidl.summary, minidl.gradcheck",
    ],
)
def test_importing_costs_little(statement):
    code = f"{statement}\nimport sys\nprint(*({{*sys.modules}} & {set(HEAVY)!r}))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [], "")


def test_building_a_model_imports_no_numba():
    code = "import sys; from minidl import models; models.alexnet().macs((227, 227, 3)); print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("False", "")


@pytest.mark.parametrize("path", MODULES)
def test_every_module_says_what_it_is(path):
    docstring = ast.get_docstring(MODULES[path])
    assert docstring, f"{path} has no docstring"
    assert docstring.splitlines()[0].endswith((".", ":")), f"{path}: {docstring.splitlines()[0]!r}"


def test_every_op_is_documented():
    for path in in_folder(set(MODULES), "minidl/ops"):
        for node in MODULES[path].body:
            if isinstance(node, ast.FunctionDef) and any(ast.unparse(d) == "accelerated" for d in node.decorator_list):
                assert ast.get_docstring(node), f"{path}: {node.name}"


def array_functions() -> dict[str, str]:
    """Every name that is taken from an array library, with one of the places."""
    used: dict[str, str] = {}
    for path in in_folder(set(MODULES), "minidl"):
        for node in ast.walk(MODULES[path]):
            if isinstance(node, ast.Attribute):
                library = node.value.func if isinstance(node.value, ast.Call) else node.value
                if ast.unparse(library) in ("xp", "array_module"):
                    used[node.attr] = f"{path}:{node.lineno}"
    return used


def test_array_functions_exist_in_numpy():
    used = array_functions()
    assert {"pad", "where", "exp", "zeros", "take_along_axis"} <= set(used)
    for name, place in used.items():
        assert hasattr(np, name), f"{place}: NumPy has no {name}"


def test_array_functions_exist_in_cupy():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed, so its names cannot be compared")
    for name, place in array_functions().items():
        assert hasattr(cupy, name), f"{place}: CuPy has no {name}"


# --- what is shipped --------------------------------------------------------------------------------------------


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_wheel_holds_every_package():
    folders = {str(Path(path).parent).replace("/", ".") for path in MODULES if path.endswith("__init__.py")}
    packages = {f"minidl.{name}" if name in ("models", "kernels") else name for name in folders}
    tools = project()["tool"]["setuptools"]
    assert sorted(tools["packages"]) == sorted(packages)
    assert tools["package-dir"] == {"minidl": "minidl", "minidl.models": "models", "minidl.kernels": "kernels"}


def test_every_folder_of_modules_is_a_package():
    for folder in {Path(path).parent for path in MODULES}:
        assert (ROOT / folder / "__init__.py").exists(), folder


def test_the_wheel_holds_every_data_file():
    data = project()["tool"]["setuptools"]["package-data"]
    for folder in ("minidl", "kernels", "models"):
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT)
            linked = {"kernels", "models"} & set(inside.parts[1:])
            if path.is_file() and path.suffix not in (".py", ".pyc", ".nbi", ".nbc") and not linked:
                package = ".".join(inside.parent.parts)
                package = f"minidl.{package}" if folder != "minidl" else package
                assert any(path.match(pattern) for pattern in data.get(package, [])), f"{inside} is not shipped"


@pytest.mark.parametrize("name", ["models", "kernels"])
def test_a_checkout_finds_the_folders_at_the_top(name):
    link = ROOT / "minidl" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..") / name
    spec = importlib.util.find_spec(f"minidl.{name}")
    assert spec is not None
    assert Path(spec.origin).resolve() == ROOT / name / "__init__.py"


def test_the_version_is_stated_once_and_the_same():
    import minidl

    assert project()["project"]["version"] == minidl.__version__
