"""What is computed from weights that cannot change is computed once."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable

from minidl.arrays import Array


def is_frozen(weight: Array) -> bool:
    """Whether nobody can write into the array: it is read-only, and no view of another."""
    return not weight.flags.writeable and weight.base is None


def once(weight: Array, name: Hashable, make: Callable[[], Array]) -> Array:
    """make(), which for a frozen array is remembered as long as that lives, and frozen too."""
    if not is_frozen(weight):
        return make()
    if id(weight) not in _made:
        _made[id(weight)] = {}
        weakref.finalize(weight, _made.pop, id(weight), None)
    made = _made[id(weight)]
    if name not in made:
        made[name] = make()
        made[name].flags.writeable = False
    return made[name]


_made: dict[int, dict[Hashable, Array]] = {}
