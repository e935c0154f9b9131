"""Training: the step, the loop around it, checkpoints, and the run folder that holds what came of it."""

from minidl.training.config import Config
from minidl.training.run import LoadedRun, configure, load_run, resume, train
from minidl.training.step import train_step

__all__ = ["Config", "LoadedRun", "configure", "load_run", "resume", "train", "train_step"]
