"""Tables whose keys are patterns of parameter names, such as "*.bias" or "conv[245].weight"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from minidl.errors import ArgumentError, told

T = TypeVar("T")


def by_pattern(owner: str, table: Mapping[str, T], names: Iterable[str]) -> dict[str, T]:
    """For each name that a pattern matches, the value of the last such pattern: a table reads from the general to the
    particular.

    >>> by_pattern("SGD", {"*": 1, "*.bias": 2}, ["fc1.weight", "fc1.bias"])
    {'fc1.weight': 1, 'fc1.bias': 2}

    Raises: ArgumentError for a pattern that matches no name, as that is a spelling mistake, and for no table.
    """
    if not isinstance(table, Mapping) or not all(isinstance(pattern, str) for pattern in table):
        raise ArgumentError(f"{owner}: expected a table from patterns of names, such as '*.bias', got {told(table)}")
    names = list(names)
    for pattern in table:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ArgumentError(
                f"{owner}: the pattern {pattern!r} matches none of the parameters {', '.join(names) or '(none)'}"
            )
    return {name: value for pattern, value in table.items() for name in names if fnmatchcase(name, pattern)}
