"""Checkpoints survive what happens to files, and say what is wrong with those that do not."""

import errno
import os

import numpy as np
import pytest

from minidl.errors import CheckpointError
from minidl.training.checkpoint import keep_checkpoint, load_checkpoint, save_checkpoint

ARRAYS = {"net.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "optimizer.updates.weight": np.array(7)}
STATE = {"step": 7, "class_names": ["Afghan hound", "größe"], "history": [{"loss": 0.25}]}


def assert_holds(path, arrays, state):
    loaded, loaded_state = load_checkpoint(path)
    assert loaded.keys() == arrays.keys() and loaded_state == state
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype and loaded[name].shape == array.shape


def test_round_trip(tmp_path):
    save_checkpoint(tmp_path / "last.safetensors", ARRAYS, STATE)
    assert_holds(tmp_path / "last.safetensors", ARRAYS, STATE)
    assert [file.name for file in tmp_path.iterdir()] == ["last.safetensors"], "no temporary file stays"


def test_strided_arrays_are_saved_as_they_look(tmp_path):
    arrays = {"a": np.arange(12.0).reshape(3, 4).T, "b": np.arange(12.0)[::3]}
    save_checkpoint(tmp_path / "c", arrays, {})
    assert_holds(tmp_path / "c", arrays, {})


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_keeps_the_old_checkpoint(tmp_path, monkeypatch, call):
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, ARRAYS, STATE)

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(
        CheckpointError, match=r"no space left for a checkpoint of .* MiB; the checkpoint written before"
    ):
        save_checkpoint(path, {"net.weight": np.zeros(5)}, {})
    monkeypatch.undo()
    assert_holds(path, ARRAYS, STATE)
    assert [file.name for file in tmp_path.iterdir()] == ["last.safetensors"]


@pytest.mark.parametrize("links", [True, False])
def test_kept_checkpoint_stays_when_the_first_is_replaced(tmp_path, monkeypatch, links):
    def refuse(self, target):
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    path = tmp_path / "last.safetensors"
    for step in 1, 2:
        save_checkpoint(path, ARRAYS, {"step": step})
        keep_checkpoint(path, "best.safetensors")
    save_checkpoint(path, {"net.weight": np.zeros(5)}, {"step": 3})
    assert_holds(tmp_path / "best.safetensors", ARRAYS, {"step": 2})
    assert len(list(tmp_path.iterdir())) == 2


def test_unwritable_folder(tmp_path):
    with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        save_checkpoint(tmp_path / "missing" / "last.safetensors", ARRAYS, STATE)


def test_missing(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere: no such checkpoint"):
        load_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize("keep", [0, 5, 8, 200, -1])
def test_truncated(tmp_path, keep):
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, ARRAYS, STATE)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)


def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path):
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, ARRAYS, STATE)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        load_checkpoint(path)


def test_foreign_safetensors(tmp_path):
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="not a checkpoint that minidl wrote"):
        load_checkpoint(tmp_path / "foreign.safetensors")


def test_newer_format(tmp_path, monkeypatch):
    monkeypatch.setattr("minidl.training.checkpoint.FORMAT", 99)
    save_checkpoint(tmp_path / "c", ARRAYS, STATE)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="expected checkpoint format 1, got 99"):
        load_checkpoint(tmp_path / "c")
