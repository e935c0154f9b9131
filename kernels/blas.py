"""How many threads a matrix product uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread_per_product() -> Iterator[None]:
    """Inside, each thread computes its own matrix products: many small ones side by side, without waiting.

    The setting belongs to the process: the first to enter makes it, the last to leave undoes it.
    """
    with _state.lock:
        if _state.users == 0:
            _state.limit = _controller().limit(limits=1, user_api="blas")
        _state.users += 1
    try:
        yield
    finally:
        with _state.lock:
            _state.users -= 1
            if _state.users == 0:
                _state.limit.restore_original_limits()


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # looks through the loaded libraries once, which takes milliseconds


class _State:
    def __init__(self) -> None:
        self.lock = Lock()
        self.users = 0
        self.limit: Any = None


_state = _State()


def _start_afresh() -> None:
    global _state
    _state = _State()


if hasattr(os, "register_at_fork"):  # the lock may have been taken by a thread that a forked child lacks
    os.register_at_fork(after_in_child=_start_afresh)
