"""Every error that minidl raises on purpose.

A message names the thing, what was expected, what came, and where possible the cure. Each class is also the
built-in error that a caller would guess (`ValueError`, `OSError`, …), so both can be caught.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from numbers import Integral, Real
from pathlib import Path
from typing import Any


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


class DeviceMemoryError(DeviceError, MemoryError):
    """A GPU has too little memory for what is computed.

    asked: bytes that were asked for last. held: those that this process had taken before.
    free, total: bytes that the GPU then had left, and that it has.

    >>> raise DeviceMemoryError("cuda:0", asked=3 << 30, held=6 << 30, free=1 << 30, total=8 << 30)
    Traceback (most recent call last):
    minidl.errors.DeviceMemoryError: device 'cuda:0': out of memory: 3.00 GiB more were asked for, with 6.00 GiB taken
        and 1.00 GiB free of 8.00 GiB
    """

    def __init__(self, device: str, asked: int, held: int, free: int, total: int) -> None:
        sizes = (f"{n / 2**30:.2f} GiB" if n >> 30 else f"{n / 2**20:.1f} MiB" for n in (asked, held, free, total))
        message = "{} more were asked for, with {} taken and {} free of {}".format(*sizes)
        super().__init__(f"device {device!r}: out of memory: {message}")
        self.asked, self.held, self.free, self.total = asked, held, free, total


class KernelError(MinidlError, RuntimeError):
    """A kernel for the GPU does not compile."""


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

    def __init__(self, kind: str, name: object, choices: Iterable[str]) -> None:
        choices = list(choices)
        by_lower = {choice.lower(): choice for choice in choices}
        close = difflib.get_close_matches(str(name).lower(), by_lower, n=1)
        hint = f" did you mean {by_lower[close[0]]!r}?" if close else ""
        super().__init__(f"unknown {kind} {told(name)}:{hint} Known: {', '.join(choices)}")


# --- checks of arguments: each gives the argument back, in the form in which the engine computes with it ----------


def expect_integer(owner: str, name: str, value: Any, least: int = 1) -> int:
    """A Python integer, where the argument is an integer of at least `least`: NumPy's too, but not True and not 2.0.

    >>> expect_integer("Linear", "in_features", 0)
    Traceback (most recent call last):
    minidl.errors.ArgumentError: Linear: in_features: expected a positive integer, got 0

    Raises: ArgumentError naming the owner and the argument.
    """
    if isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least:
        return int(value)
    what = "a positive integer" if least == 1 else f"an integer of at least {least}"
    raise ArgumentError(f"{_called(owner, name)}: expected {what}, got {told(value)}")


def expect_positive(owner: str, **values: Any) -> list[int]:
    """Several positive integers, by name: see `expect_integer`."""
    return [expect_integer(owner, name, value) for name, value in values.items()]


def expect_number(owner: str, name: str, value: Any, within: str = "(-inf, inf)") -> float:
    """A Python number, where the argument is a number within the interval, so neither NaN nor True.

    A NumPy scalar must not come through: it would turn float32 arrays into float64 ones.

    >>> expect_number("Dropout", "p", 1, within="[0, 1)")
    Traceback (most recent call last):
    minidl.errors.ArgumentError: Dropout: p: expected a number in [0, 1), got 1

    Raises: ArgumentError naming the owner and the argument.
    """
    low, high = (float(bound) for bound in within[1:-1].split(","))
    if isinstance(value, Real) and not isinstance(value, bool):
        number = value if isinstance(value, int) else float(value)
        if low < number < high or (number == low and within[0] == "[") or (number == high and within[-1] == "]"):
            return number
    raise ArgumentError(f"{_called(owner, name)}: expected a number in {within}, got {told(value)}")


def expect_flag(owner: str, name: str, value: Any) -> bool:
    """True or False, where the argument is one of them: the string "False" would count as true.

    Raises: ArgumentError naming the owner and the argument.
    """
    if type(value).__name__ in ("bool", "bool_"):  # Python's, NumPy's
        return bool(value)
    raise ArgumentError(f"{_called(owner, name)}: expected True or False, got {told(value)}")


def expect_a(kind: type, owner: str, name: str, value: Any) -> None:
    """Check that the argument is an instance of a class.

    Raises: ArgumentError naming the owner and the argument.
    """
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        cure = f"; make one: {value.__name__}(…)" if isinstance(value, type) and issubclass(value, kind) else ""
        raise ArgumentError(f"{_called(owner, name)}: expected {article} {kind.__name__}, got {told(value)}{cure}")


def expect_path(owner: str, name: str, value: Any) -> Path:
    """A path, where the argument is a string or a path that a file could have.

    Raises: ArgumentError naming the owner and the argument.
    """
    if isinstance(value, str | os.PathLike) and "\0" not in str(value):
        return Path(value)
    raise ArgumentError(f"{_called(owner, name)}: expected a path, got {told(value)}")


def told(value: object) -> str:
    """A value as a message shows it: an array by dtype and shape, a class by name, a long text cut short.

    >>> told([0.0] * 1000), told(int)
    ('[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.…', 'the class int')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if getattr(value, "shape", ()) and hasattr(value, "dtype"):
        return f"{type(value).__name__} of {value.dtype}, {value.shape}"  # type: ignore[attr-defined]
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:63]}…"


def _called(owner: str, name: str) -> str:
    return f"{owner}: {name}" if owner else name
