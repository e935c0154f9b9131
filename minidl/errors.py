"""Every error that minidl raises on purpose.

A message names the thing, what was expected, what came, and where possible the cure. Each class is also the
built-in error that a caller would guess (`ValueError`, `OSError`, …), so both can be caught.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MinidlError(Exception):
    """Base of all of minidl's errors. Containers prepend the names of the layers it passes through."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.path: list[str] = []

    def within(self, name: str) -> None:
        """Record that the error came out of the child `name` of a container."""
        self.path.insert(0, name)

    def __str__(self) -> str:
        message = str(self.args[0])
        return f"{'.'.join(self.path)}: {message}" if self.path else message


class ArgumentError(MinidlError, ValueError):
    """An argument has a value that its function does not allow."""


class ShapeError(MinidlError, ValueError):
    """An array has the wrong rank or the wrong sizes."""


class DTypeError(MinidlError, TypeError):
    """An array has a dtype that is not allowed, or another dtype than its partners."""


class DeviceError(MinidlError, RuntimeError):
    """A device is missing or unusable, or two arrays live on different devices."""


class LabelError(MinidlError, ValueError):
    """A class label is out of range or not an integer."""


class NonFiniteError(MinidlError, ArithmeticError):
    """A loss became NaN or infinite."""


class DataError(MinidlError, OSError):
    """A data set is missing, empty or incomplete."""


class FormatError(MinidlError, ValueError):
    """A file's content is not what its format promises: corrupt, truncated or of another kind."""


class CheckpointError(MinidlError, OSError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class UnknownNameError(ArgumentError):
    """A name that is not in a list of choices.

    >>> raise UnknownNameError("model", "alexnte", ["alexnet", "vgg16"])
    Traceback (most recent call last):
    minidl.errors.UnknownNameError: unknown model 'alexnte': did you mean 'alexnet'? Known: alexnet, vgg16
    """

    def __init__(self, kind: str, name: str, choices: Iterable[str]) -> None:
        choices = list(choices)
        by_lower = {choice.lower(): choice for choice in choices}
        close = difflib.get_close_matches(name.lower(), by_lower, n=1)
        hint = f" did you mean {by_lower[close[0]]!r}?" if close else ""
        super().__init__(f"unknown {kind} {name!r}:{hint} Known: {', '.join(choices)}")


def expect_positive(owner: str, **values: int) -> None:
    """Check that arguments are positive integers.

    Raises: ArgumentError naming the owner and the argument.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ArgumentError(f"{owner}: {name}: expected a positive integer, got {value!r}")
