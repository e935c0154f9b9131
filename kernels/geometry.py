"""A window as the plain integers that a compiled function takes."""

from __future__ import annotations

from typing import TypeAlias

from minidl.window import Window

Geometry: TypeAlias = tuple[int, int, int, int, int, int, int, int]


def geometry(window: Window) -> Geometry:
    """KH, KW, SH, SW, DH, DW, top, left. The end's padding and rounding show in the output's size alone.

    >>> geometry(Window.of(3, stride=2, padding=1))
    (3, 3, 2, 2, 1, 1, 1, 1)
    """
    (top, _), (left, _) = window.padding
    return (*window.kernel, *window.stride, *window.dilation, top, left)
