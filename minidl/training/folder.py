"""The run folder: where a training run leaves what came of it, and from where it goes on.

config.toml         the settings, all of them
log.jsonl           one JSON object a line: the loss every few steps, and each epoch's figures
last.safetensors    the newest checkpoint: weights, optimiser, progress, class names, preprocessing
best.safetensors    the checkpoint with the highest test top-1
curves.png          loss and error by epoch
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minidl.errors import ArgumentError, CheckpointError
from minidl.training.config import Config

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def make_folder(config: Config, out: str | Path | None) -> Path:
    """A new or empty folder: `out`, or unless given the next free runs/MODEL-DATA-N.

    Raises: ArgumentError where `out` holds something, or where the folder cannot be made.
    """
    try:
        if out is not None:
            folder = Path(out)
            folder.mkdir(parents=True, exist_ok=True)
            require_empty(folder)
            return folder
        stem = re.sub(r"[^\w.-]+", "_", f"{config.model}-{Path(config.data.removeprefix('folder:')).name}").strip("_")
        number = 1
        while True:
            folder = Path("runs") / f"{stem[:200]}-{number}"
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                if not Path("runs").is_dir():
                    raise
                number += 1
            else:
                return folder
    except OSError as error:
        raise ArgumentError(
            f"out: {folder} cannot be made a folder ({error.strerror}); choose another with --out"
        ) from error


def require_empty(folder: Path) -> None:
    """Check that a new run would overwrite nothing.

    Raises: ArgumentError.
    """
    if (folder / "last.safetensors").exists():
        raise ArgumentError(
            f"out: {folder} already holds a run; go on with it by --resume {folder}, or choose another folder"
        )
    held = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if held:
        raise ArgumentError(f"out: {folder} is not empty (it holds {held[0]}); choose a new folder")


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within: no other process may claim the folder. The system releases it however this process ends.

    Raises: ArgumentError where another process holds it.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArgumentError(
                f"{folder}: another process is training in it; wait for it, or choose another"
            ) from None
        yield
    finally:
        os.close(descriptor)


class Log:
    """log.jsonl: an entry a line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, entry: dict[str, Any]) -> None:
        """Append an entry.

        Raises: CheckpointError where it cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            cure = "free some space, then resume" if error.errno == errno.ENOSPC else "mend that, then resume"
            raise CheckpointError(f"{self.path}: cannot write the log ({error.strerror}); {cure}") from error

    def cut(self, step: int) -> None:
        """Drop what was logged after this step, and lines that are no entries, such as one that was cut off."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and isinstance(entry.get("step"), int) and entry["step"] <= step:
                kept.append(line + "\n")
        temporary = self.path.with_name(f".{self.path.name}")
        temporary.write_text("".join(kept), encoding="utf-8")
        temporary.replace(self.path)
