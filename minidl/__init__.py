"""minidl: a deep-learning engine from scratch: its core reads in an evening, and it is fast enough to use."""

from minidl.accelerate import num_threads, set_num_threads, settings
from minidl.random import Key

__all__ = ["Key", "num_threads", "set_num_threads", "settings"]
__version__ = "0.1.0"
