"""Freed arrays are used again, in a process that has run a kernel."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from minidl import settings
from minidl.layers import Conv2d

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

with settings(kernels="numba"):
    Conv2d(1, 1, 1)(np.zeros((1, 2, 2, 1), np.float32))
for repeat in range(3):
    before = pages()
    a, b = np.ones(1 << 24, np.float32), np.ones(1 << 25, np.float32)
    del a, b
    print(pages() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is the GNU C library that keeps memory")
def test_large_arrays_get_the_pages_of_those_before():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    first, *others = map(int, done.stdout.split())
    assert first > 1000
    assert max(others) < 100
