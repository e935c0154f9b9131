"""Kill a training that saves after every step, again and again; run as killing.py FOLDER KILLS.

A child trains or resumes; the parent kills it with SIGKILL at a random moment, loads both checkpoints, and lets the
next child go on. At the end the state reached is compared with that of a training that nobody disturbed. It is a
program of its own because it forks, which a test runner with threads should not.
"""

import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import minidl.kernels.threads  # noqa: F401  so that children need not import it
from minidl import settings
from minidl.training import Config, resume, train
from minidl.training.checkpoint import load_checkpoint
from minidl.training.report import Reporter

CONFIG = Config(model="lenet5", data="digits", epochs=500, batch=16, checkpoint_every=1)


class StopAt(Reporter):
    def __init__(self, step):
        self.at = step

    def step(self, trainer, loss, lr):
        if trainer.step >= self.at:
            os.kill(os.getpid(), signal.SIGINT)


def child(folder):
    with settings(kernels="reference"):
        if (folder / "last.safetensors").exists():
            resume(folder)
        else:
            train(CONFIG, folder)
    os._exit(0)


def main(folder, kills):
    rng = random.Random(1)
    last, lowest, longest = folder / "last.safetensors", 0, 0.3
    for _ in range(kills):
        pid = os.fork()
        if pid == 0:
            child(folder)
        deadline = time.monotonic() + 60
        while not last.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.uniform(0.0, longest))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for path in folder.glob("*.safetensors"):
            load_checkpoint(path)
        _, state = load_checkpoint(last)
        assert state["step"] >= lowest, "a kill lost a step that had been saved"
        # On a busy machine a child may die before its first step: the next ones then live longer.
        longest = 0.3 if state["step"] > lowest else min(1.5 * longest, 5.0)
        lowest = state["step"]
    steps = lowest
    undisturbed = folder.with_name("undisturbed")
    with settings(kernels="reference"):
        train(replace(CONFIG, checkpoint_every=0), undisturbed, StopAt(steps))
    ours, ours_state = load_checkpoint(last)
    theirs, theirs_state = load_checkpoint(undisturbed / "last.safetensors")
    identical = ours_state["step"] == theirs_state["step"] and all(
        ours[name].tobytes() == theirs[name].tobytes() for name in theirs
    )
    print(json.dumps({"kills": kills, "steps": steps, "identical": identical}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
