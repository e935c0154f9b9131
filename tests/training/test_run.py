"""Whole trainings: their folder, interruption, resumption, and failure."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minidl import settings
from minidl.errors import ArgumentError, CheckpointError, DataError, FormatError, NonFiniteError
from minidl.training import Config, load_run, resume, train
from minidl.training.checkpoint import load_checkpoint
from minidl.training.config import read_toml
from minidl.training.report import Reporter

SMALL = Config(model="lenet5", data="digits", epochs=3, batch=64, lr=0.1, init="glorot")


class Notes(Reporter):
    """Remembers what is said; presses Ctrl-C after one step."""

    def __init__(self, interrupt_at=None):
        self.notes, self.rows, self.interrupt_at = [], [], interrupt_at

    def note(self, text):
        self.notes.append(text)

    def epoch(self, trainer, row):
        self.rows.append(row)

    def step(self, trainer, loss, lr):
        if trainer.step == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)


def figures(history):
    return [{name: value for name, value in row.items() if name not in ("images_per_s", "waiting")} for row in history]


def assert_same_checkpoint(a, b):
    arrays_a, state_a = load_checkpoint(a)
    arrays_b, state_b = load_checkpoint(b)
    assert arrays_a.keys() == arrays_b.keys()
    for name in arrays_a:
        assert arrays_a[name].tobytes() == arrays_b[name].tobytes(), f"{name} differs"
    assert figures(state_a["history"]) == figures(state_b["history"])
    assert state_a["step"] == state_b["step"] and state_a["schedule"] == state_b["schedule"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return train(SMALL, folder), folder


def test_run_folder(whole):
    result, folder = whole
    names = {file.name for file in folder.iterdir()}
    assert names == {"config.toml", "log.jsonl", "last.safetensors", "best.safetensors", "curves.png"}
    assert result.finished and result.epochs == 3 and result.steps == 3 * 23
    assert result.test_top1 > 0.8 and result.test_top5 >= result.test_top1
    assert Config(**read_toml(folder / "config.toml")) == SMALL

    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries if entry["event"] == "step"] == [20, 40, 60]
    epochs = [entry for entry in entries if entry["event"] == "epoch"]
    assert [entry["test_top1"] for entry in epochs][-1] == result.test_top1
    from PIL import Image

    with Image.open(folder / "curves.png") as picture:
        assert picture.size == (1200, 480)


def test_loaded_run_gives_the_same_figures(whole):
    result, folder = whole
    tally, skipped = load_run(folder).evaluate()
    assert (tally.top1, tally.top5, tally.loss) == (result.test_top1, result.test_top5, result.test_loss)
    assert tally.count == 359 and skipped == {}
    best, _ = load_run(folder / "best.safetensors").evaluate()
    assert best.top1 == result.best_test_top1


@pytest.mark.parametrize("options", [{}, {"optimizer": "adamw", "lr": 0.003, "schedule": "plateau", "patience": 1}])
@pytest.mark.parametrize("step", [1, 30, 46])
def test_resumed_run_is_bit_identical(tmp_path, whole, options, step):
    config = replace(SMALL, **options)
    reference = whole[1] if not options else tmp_path / "reference"
    if options:
        train(config, reference)
    before = signal.getsignal(signal.SIGINT)
    broken_off = train(config, tmp_path / "a", Notes(interrupt_at=step))
    assert not broken_off.finished and broken_off.steps == step
    assert signal.getsignal(signal.SIGINT) is before
    notes = Notes()
    result = resume(tmp_path / "a", reporter=notes)
    assert result.finished and notes.notes == [f"resumes {tmp_path / 'a'} at step {step} of 69"]
    assert_same_checkpoint(tmp_path / "a" / "last.safetensors", reference / "last.safetensors")
    log = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    expected = [json.loads(line) for line in (reference / "log.jsonl").read_text().splitlines()]
    assert figures(log) == figures(expected)


def test_resume_of_a_finished_run_changes_nothing(tmp_path, whole):
    before = (whole[1] / "last.safetensors").read_bytes()
    assert resume(whole[1]).test_top1 == whole[0].test_top1
    assert (whole[1] / "last.safetensors").read_bytes() == before


def test_resume_with_more_epochs(tmp_path):
    train(replace(SMALL, epochs=1), tmp_path / "a")
    notes = Notes()
    assert resume(tmp_path / "a", epochs=2, reporter=notes).epochs == 2
    assert "2 epochs instead of 1: the bits will differ" in notes.notes[0]


def test_resume_on_a_changed_machine_says_so(tmp_path, monkeypatch):
    train(replace(SMALL, epochs=1), tmp_path / "a")
    monkeypatch.setenv("MINIDL_NUM_THREADS", "7")
    notes = Notes()
    resume(tmp_path / "a", reporter=notes)
    assert any("the number of kernel threads" in note and "the bits may differ" in note for note in notes.notes)


def test_a_folder_that_holds_a_run_is_not_touched(whole):
    before = {file: file.read_bytes() for file in whole[1].iterdir()}
    with pytest.raises(ArgumentError, match="already holds a run; go on with it by --resume"):
        train(SMALL, whole[1])
    assert {file: file.read_bytes() for file in whole[1].iterdir()} == before


@pytest.mark.parametrize("name", ["config.toml", "curves.png", "notes.txt"])
def test_a_folder_that_holds_anything_is_not_touched(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(ArgumentError, match=f"is not empty \\(it holds {name}\\)"):
        train(SMALL, tmp_path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, "precious")]


@pytest.mark.skipif(os.name != "posix", reason="folders are claimed by a lock of POSIX")
def test_one_process_at_a_time(tmp_path, whole):
    from minidl.training.folder import claimed

    with claimed(whole[1]), pytest.raises(ArgumentError, match="another process is training in it"):
        resume(whole[1])
    with claimed(tmp_path), pytest.raises(ArgumentError, match="another process is training in it"):
        train(SMALL, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_fewer_epochs_than_are_done(whole):
    with pytest.raises(ArgumentError, match="epochs: the run has done 3 already, got 2"):
        resume(whole[1], epochs=2)


def test_a_picture_that_cannot_be_drawn_stops_nothing(tmp_path, monkeypatch):
    def broken(*args):
        raise ImportError("no matplotlib")

    monkeypatch.setattr("minidl.training.run.draw_curves", broken)
    notes = Notes()
    assert train(replace(SMALL, epochs=1), tmp_path / "run", notes).finished
    assert notes.notes == ["curves.png could not be drawn: no matplotlib"]


def test_an_epoch_is_saved_before_it_is_told(tmp_path):
    class Gone(Reporter):
        def epoch(self, trainer, row):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        train(SMALL, tmp_path / "run", Gone())
    assert load_checkpoint(tmp_path / "run" / "last.safetensors")[1]["step"] == 23


def test_a_log_with_foreign_lines(tmp_path):
    train(SMALL, tmp_path / "run", Notes(interrupt_at=30))
    log = tmp_path / "run" / "log.jsonl"
    lines = log.read_bytes()
    log.write_bytes(lines + b'{"x": 1}\n[1]\n\xff\n{"event": "st')
    assert resume(tmp_path / "run").finished
    assert log.read_bytes().startswith(lines)
    assert all("step" in json.loads(line) for line in log.read_text().splitlines())


def test_default_folders_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = replace(SMALL, epochs=1, model="lenet5(num_classes=10)")
    first, second = train(config), train(config)
    assert first.folder != second.folder and first.folder.parent == Path("runs")


def test_out_is_a_file(tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ArgumentError, match="cannot be made a folder"):
        train(SMALL, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"


def test_exploding_loss_names_the_layer_and_keeps_a_good_checkpoint(tmp_path):
    with (
        pytest.raises(NonFiniteError, match=r"step \d+, lr 1e\+30: the loss is .*last good checkpoint is .*last"),
        np.errstate(all="ignore"),
    ):
        train(replace(SMALL, model="alexnet_mini", lr=1e30, schedule="constant", checkpoint_every=1), tmp_path / "a")
    arrays, state = load_checkpoint(tmp_path / "a" / "last.safetensors")
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert state["step"] >= 1, "checkpoint_every=1 saved the step before"
    assert load_run(tmp_path / "a").state["step"] == state["step"]


def test_blame_finds_the_first_layer():
    from minidl import Key, layers
    from minidl.training.step import blame

    net = layers.Sequential(
        fc1=layers.Linear(4, 4), body=layers.Sequential(inner=layers.Linear(4, 3)), fc3=layers.Linear(3, 2)
    )
    x = np.ones((2, 4), np.float32)
    net["body"]["inner"].weight.value = np.full((4, 3), 3e38, np.float32)
    net["fc1"].weight.value = np.full((4, 4), 10, np.float32)
    with np.errstate(all="ignore"):
        assert "first shows in the output of body.inner = Linear(4→3)" in blame(net, x, Key())
        net["fc3"].bias.value = np.array([np.nan, 0], np.float32)
        assert "the parameter fc3.bias is no longer finite" in blame(net, x, Key())
        assert "the images themselves" in blame(net, x * np.float32(np.inf), Key())


def test_resume_without_a_run(tmp_path):
    with pytest.raises(CheckpointError, match="no such run folder"):
        resume(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        resume(tmp_path)


def test_checkpoint_of_another_model(tmp_path, whole):
    from minidl.training.checkpoint import save_checkpoint

    arrays, state = load_checkpoint(whole[1] / "last.safetensors")
    state["model"] = {"name": "lenet5", "options": {"num_classes": 11, "in_channels": 1}}
    save_checkpoint(tmp_path / "c.safetensors", arrays, state)
    with pytest.raises(CheckpointError, match="has 10 class names, not one for each output"):
        load_run(tmp_path / "c.safetensors")
    state["class_names"].append("eleven")
    save_checkpoint(tmp_path / "c.safetensors", arrays, state)
    with pytest.raises(CheckpointError, match=r"fc5\.weight has shape \(84, 10\) instead of \(84, 11\)"):
        load_run(tmp_path / "c.safetensors")
    del state["class_names"]
    state["model"]["options"]["num_classes"] = 10
    save_checkpoint(tmp_path / "c.safetensors", arrays, state)
    with pytest.raises(CheckpointError, match="lacks 'class_names'"):
        load_run(tmp_path / "c.safetensors")


def make_photos(folder, classes=("circle", "stripes"), count=4, size=40):
    from PIL import Image

    rng = np.random.default_rng(5)
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            rows, columns = np.mgrid[:size, :size]
            shape = np.hypot(rows - size / 2, columns - size / 2) < size / 3 if label == 0 else rows // 4 % 2 == 0
            image = shape[..., None] * rng.integers(120, 255, 3) + rng.integers(0, 60, (size, size, 3))
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / name / f"{i}.jpg")


def test_folder_of_images_end_to_end(tmp_path):
    make_photos(tmp_path / "photos", count=10)
    config = Config(model="lenet5", data=f"folder:{tmp_path / 'photos'}", epochs=12, batch=8, lr=0.02)
    result = train(config, tmp_path / "run")
    assert result.train_top1 > 0.9
    run = load_run(tmp_path / "run")
    assert run.class_names == ("circle", "stripes")
    guesses = run.predict(tmp_path / "photos" / "circle" / "0.jpg")
    assert [name for name, _ in guesses] == ["circle", "stripes"]
    assert sum(probability for _, probability in guesses) == pytest.approx(1, abs=1e-5)


def test_bad_images(tmp_path):
    make_photos(tmp_path / "photos")
    bad = tmp_path / "photos" / "circle" / "1.jpg"
    bad.write_bytes(bad.read_bytes()[:200])
    config = Config(model="lenet5", data=f"folder:{tmp_path / 'photos'}", epochs=1, batch=4)
    with pytest.raises(FormatError, match=r"1\.jpg"):
        train(config, tmp_path / "strict")
    notes = Notes()
    train(replace(config, on_bad_image="skip"), tmp_path / "lenient", notes)
    assert notes.rows[-1]["skipped_images"] == 1


def test_changed_data_is_refused_on_resume(tmp_path):
    make_photos(tmp_path / "photos")
    config = Config(model="lenet5", data=f"folder:{tmp_path / 'photos'}", epochs=2, batch=4)
    train(config, tmp_path / "run", Notes(interrupt_at=1))
    make_photos(tmp_path / "more", classes=("a", "b", "c"))
    (tmp_path / "more" / "c").rename(tmp_path / "photos" / "c")
    with pytest.raises(DataError, match="expected the images that the run began with"):
        resume(tmp_path / "run")


def test_swapped_images_are_noticed_on_resume(tmp_path):
    make_photos(tmp_path / "photos")
    config = Config(model="lenet5", data=f"folder:{tmp_path / 'photos'}", epochs=2, batch=4)
    train(config, tmp_path / "run", Notes(interrupt_at=1))
    (tmp_path / "photos" / "circle" / "0.jpg").rename(tmp_path / "photos" / "circle" / "new.jpg")
    with pytest.raises(DataError, match="expected the images that the run began with"):
        resume(tmp_path / "run")


def test_evaluate_on_other_classes_is_refused(tmp_path, whole):
    make_photos(tmp_path / "photos")
    with pytest.raises(DataError, match="expected the 10 classes that the run was trained on"):
        load_run(whole[1]).evaluate(f"folder:{tmp_path / 'photos'}")


def test_wrong_number_of_outputs(tmp_path):
    with pytest.raises(ArgumentError, match=r"expected one output for each of the 10 classes of digits, got \(7,\)"):
        train(replace(SMALL, model="lenet5(num_classes=7)"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_reference_bodies_train_as_well(tmp_path):
    with settings(kernels="reference"):
        slow = train(replace(SMALL, epochs=1), tmp_path / "slow")
    fast = train(replace(SMALL, epochs=1), tmp_path / "fast")
    assert slow.train_loss == pytest.approx(fast.train_loss, rel=1e-4)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="killing.py forks")
def test_killed_fifty_times(tmp_path):
    script = Path(__file__).with_name("killing.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "run"), "50"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": "."},
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["kills"] == 50 and report["steps"] > 50, report
    # The survivor of fifty kills stands where an undisturbed training would.
    assert report["identical"] is True, report
