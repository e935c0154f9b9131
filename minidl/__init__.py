"""minidl: a deep-learning engine from scratch: its core reads in an evening, and it is fast enough to use."""

from minidl.accelerate import settings
from minidl.random import Key

__all__ = ["Key", "settings"]
__version__ = "0.1.0"
