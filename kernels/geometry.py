"""Windows and convolutions as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from minidl.window import Window

Geometry: TypeAlias = tuple[int, int, int, int, int, int, int, int]


def geometry(window: Window) -> Geometry:
    """KH, KW, SH, SW, DH, DW, top, left: what a compiled function takes. The end's padding and rounding show in the
    output's size alone.

    >>> geometry(Window.of(3, stride=2, padding=1))
    (3, 3, 2, 2, 1, 1, 1, 1)
    """
    (top, _), (left, _) = window.padding
    return (*window.kernel, *window.stride, *window.dilation, top, left)


@dataclass(frozen=True)
class Problem:
    """A convolution's shapes: x (N, H, W, C), weight (KH, KW, C / groups, O)."""

    x_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    window: Window
    groups: int

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        """(N, OH, OW, O)."""
        N, H, W, _ = self.x_shape
        return (N, *self.window.output_size(H, W), self.weight_shape[3])

    @property
    def taps(self) -> int:
        """Along one axis, as a convolution of stride 1 over pixels that are regrouped: ⌈KH / SH⌉.

        >>> Problem((1, 227, 227, 3), (11, 11, 3, 96), Window.of(11, stride=4), 1).taps
        3
        """
        return -(-self.window.kernel[0] // self.window.stride[0])
