from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl.kernels
from minidl.accelerate import CHOICES, accelerated

FOLDER = Path(minidl.kernels.__file__).parent
MACHINERY = {
    "__init__",
    "blas",
    "compiled",
    "cuda",
    "epilogue_cuda",
    "frozen",
    "geometry",
    "im2col",
    "im2col_cuda",
    "implicit_gemm",
    "memory",
    "space_to_depth",
    "threads",
    "toom_cook",
    "winograd",
}
STEMS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in MACHINERY)
ON_GPU = [stem for stem in STEMS if stem.endswith("_cuda")]
ALLOWED = {
    "minidl.window",
    "minidl.arrays",
    "minidl.errors",
    "numpy",
    "numba",
    "threadpoolctl",
    *sys.stdlib_module_names,
}


def public_functions(module):
    return {
        name: function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if name in getattr(module, "__all__", ()) or (function.__module__ == module.__name__ and name[0] != "_")
    }


@pytest.mark.parametrize("stem", STEMS)
def test_every_kernel_has_its_op(stem):
    kernels = public_functions(importlib.import_module(f"minidl.kernels.{stem}"))
    ops = importlib.import_module(f"minidl.ops.{stem.removesuffix('_cuda')}")
    assert kernels
    for name, kernel in kernels.items():
        op = getattr(ops, name)
        assert isinstance(op, accelerated)
        parameters = list(inspect.signature(kernel).parameters.values())
        chosen = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        parameters = parameters[: len(parameters) - len(chosen)]
        assert chosen.pop("tf32", False) is False
        assert chosen.pop("algorithm", "auto") in CHOICES.get(stem.removesuffix("_cuda"), ["auto"])
        assert not chosen
        assert parameters == list(inspect.signature(op.reference).parameters.values())


def test_the_machinerys_examples():
    for name in MACHINERY - {"__init__"}:
        assert doctest.testmod(importlib.import_module(f"minidl.kernels.{name}")).failed == 0


def imports(node):
    """The modules that a file imports, but for types alone."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        yield node.module
    for child in ast.iter_child_nodes(node):
        yield from imports(child)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_kernels_import_nothing_above_them(path):
    for name in imports(ast.parse(path.read_text(encoding="utf-8"))):
        if path.stem == "cuda" and name.startswith("cupy"):
            continue  # where there is a GPU, and not before
        assert name in ALLOWED or name.split(".")[0] in ALLOWED or name.startswith("minidl.kernels"), name


def test_importing_compiles_nothing():
    script = f"""
import importlib
from numba.core.dispatcher import Dispatcher
found = 0
for stem in {STEMS}:
    for value in vars(importlib.import_module("minidl.kernels." + stem)).values():
        if isinstance(value, Dispatcher):
            found += 1
            assert not value.signatures
print(found > 10)
"""
    assert subprocess.check_output([sys.executable, "-c", script], text=True, timeout=60) == "True\n"


def test_without_a_folder_to_write_to_kernels_still_compile():
    from minidl.kernels.compiled import compiled

    source = "def double(x, start, stop):\n    for i in range(start, stop):\n        x[i] *= 2\n"
    namespace = {"__name__": "unwritable"}
    exec(compile(source, "<no file>", "exec"), namespace)  # Numba has no cache for what is in no file
    double = compiled(namespace["double"])
    x = np.ones(3)
    double(x, 0, 2)
    assert x.tolist() == [2, 2, 1]


@pytest.mark.parametrize(
    ("suffix", "damage"), [(".nbi", "empty"), (".nbi", "folder"), (".nbc", "junk"), (".nbc", "cut")]
)
def test_a_damaged_cache_costs_a_compilation_and_no_more(tmp_path, suffix, damage):
    script = "import numpy as np; from minidl.ops.relu import relu_gradient as g; print(g(np.ones(3), np.ones(3)))"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}

    def run():
        return subprocess.run([sys.executable, "-c", script], text=True, env=environment, capture_output=True)

    assert run().stdout == "[1. 1. 1.]\n"
    files = list(tmp_path.rglob(f"*{suffix}"))
    assert files
    for file in files:
        content = file.read_bytes()
        file.unlink()
        if damage == "folder":
            file.mkdir()
        else:
            file.write_bytes({"empty": b"", "junk": b"junk" * 99, "cut": content[: len(content) // 2]}[damage])
    done = run()
    assert (done.returncode, done.stdout) == (0, "[1. 1. 1.]\n")
    assert "Traceback" not in done.stderr
    assert done.stderr.count("compiled kernels cannot be kept on disk") == done.stderr.count("\n")
