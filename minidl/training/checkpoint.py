"""Checkpoints: one safetensors file whose header carries the rest as JSON, replaced in one step.

Keeping arrays and JSON in one file means that no crash can leave one new and the other old. A new checkpoint is
written beside the old one, flushed to the disk, and renamed over it, and the folder is flushed too: at every moment
one whole checkpoint stands under the name.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minidl.arrays import Array, is_array, to_host
from minidl.errors import ArgumentError, CheckpointError, expect_path, told

FORMAT = 1


def save_checkpoint(path: Path, arrays: Mapping[str, Array], state: Mapping[str, Any]) -> None:
    """Write arrays and a JSON-ready state so that the old file at `path` stays whole until the new one is.

    Raises: CheckpointError, with the old file untouched, where the disk is full or the folder not writable;
        ArgumentError for arrays and a state that a file cannot hold.
    """
    from safetensors.numpy import save

    path = expect_path("", "path", path)
    for argument, value in ("arrays", arrays), ("state", state):
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise ArgumentError(f"{argument}: expected a dictionary whose keys are names, got {told(value)}")
    for name, array in arrays.items():
        if not is_array(array) or array.dtype.kind not in "fiub":
            raise ArgumentError(f"arrays: expected an array of numbers as {name!r}, got {told(array)}")
    host = {name: np.asarray(to_host(array), order="C") for name, array in arrays.items()}
    try:
        header = json.dumps({"format": FORMAT, "crc32": _crc32(host), "state": dict(state)})
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"state: expected what JSON can hold: {error}") from error
    content = save(host, metadata={"minidl": header})
    temporary = _beside(path)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        kept = "; the checkpoint written before is untouched" if path.exists() else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            size = f"{len(content) / 2**20:.1f} MiB"
            raise CheckpointError(
                f"{path}: no space left for a checkpoint of {size}{kept}; free some space, then resume"
            ) from error
        raise CheckpointError(f"{path}: cannot write the checkpoint ({error.strerror}){kept}") from error


def keep_checkpoint(path: Path, name: str) -> None:
    """Give the checkpoint at `path` a second name in its folder, under which it stays when `path` is replaced.

    Raises: CheckpointError where there is none at `path`, the folder is not writable or, on a file system without
        links, the disk is full; ArgumentError for what is no path, or no name of a file.
    """
    path = expect_path("", "path", path)
    if not isinstance(name, str) or not name or Path(name).name != name or name == path.name:
        raise ArgumentError(f"name: expected another name of a file, without a folder, got {told(name)}")
    kept = path.with_name(name)
    temporary = _beside(kept)
    try:
        temporary.unlink(missing_ok=True)
        try:
            temporary.hardlink_to(path)
        except OSError:
            shutil.copyfile(path, temporary)
        temporary.replace(kept)
        _flush_folder(path.parent)
    except OSError as error:
        raise CheckpointError(f"{kept}: cannot write the checkpoint ({error.strerror})") from error


def load_checkpoint(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and the state of a checkpoint.

    Raises: CheckpointError where the file is missing, damaged (a checksum tells), or not a checkpoint of minidl;
        ArgumentError for what is no path.
    """
    from safetensors import SafetensorError, safe_open

    path = expect_path("", "path", path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        path.open("rb").close()  # safetensors calls a file that may not be read damaged
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("minidl", "null"))
            if not (isinstance(header, dict) and header.keys() >= {"format", "crc32", "state"}):
                raise CheckpointError(f"{path}: a safetensors file, but not a checkpoint that minidl wrote")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except (SafetensorError, ValueError, OSError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path}: the checkpoint is damaged ({error}); copy another of the run, such as best.safetensors, over it"
        ) from error
    if header["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: expected checkpoint format {FORMAT}, got {header['format']}; it needs a newer minidl"
        )
    if header["crc32"] != _crc32(arrays):
        raise CheckpointError(f"{path}: the checkpoint is damaged: its checksum does not match its content")
    state: dict[str, Any] = header["state"]
    return arrays, state


def _beside(path: Path) -> Path:
    # A name of this process's own, so that two processes cannot write into one file.
    return path.with_name(f".{path.name}.{os.getpid()}.new")


def _crc32(arrays: Mapping[str, Array]) -> int:
    crc = 0
    for name in sorted(arrays):
        crc = zlib.crc32(
            np.asarray(arrays[name], order="C").reshape(-1).view(np.uint8).data, zlib.crc32(name.encode(), crc)
        )
    return crc


def _flush_folder(folder: Path) -> None:
    # A rename lasts once the folder's own entry is on the disk. Windows cannot open folders, and needs no such call.
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
