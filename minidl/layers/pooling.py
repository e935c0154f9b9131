"""What max and average pooling share: their window and the shape of their output."""

from __future__ import annotations

from minidl.errors import ShapeError
from minidl.layer import Shape, expect_rank
from minidl.window import Padding, Rounding, Size, Window


def pooling_window(
    kernel_size: Size, stride: Size | None, padding: Padding, dilation: Size, rounding: Rounding
) -> Window:
    """A window whose stride is its kernel unless given: windows then tile the image."""
    return Window.of(kernel_size, kernel_size if stride is None else stride, padding, dilation, rounding)


def pooled_shape(window: Window, shape: Shape) -> Shape:
    """(H, W, C) → (OH, OW, C).

    Raises: ShapeError for a wrong rank, a window that does not fit, or one that would see padding only.
    """
    H, W, C = expect_rank(shape, "H, W, C")
    OH, OW = window.output_size(H, W)
    rows, columns = window.tap_counts(H, W)
    if min(*rows, *columns) == 0:
        raise ShapeError(f"expected less padding, as a window of {window} sees nothing else, got {H}×{W}")
    return OH, OW, C
