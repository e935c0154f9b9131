"""minidl: a deep-learning engine small enough to read in an evening and fast enough to use."""

from minidl.accelerate import settings
from minidl.random import Key

__all__ = ["Key", "settings"]
__version__ = "0.1.0"
