"""The command line, as a person and as a program meet it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minidl import cli

ROOT = Path(__file__).parents[1]


@pytest.fixture
def minidl(monkeypatch, capsys, tmp_path):
    """Run the command in an empty folder; gives its exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["minidl", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small trained run, and a folder of pictures of its classes."""
    from minidl.training import Config, train

    folder = tmp_path_factory.mktemp("trained")
    train(Config(model="lenet5", epochs=1, batch=64, lr=0.1, init="glorot"), folder / "run")
    return folder / "run"


def write_picture(path, value=128, size=(20, 30, 3)):
    from PIL import Image

    Image.fromarray(np.full(size, value, np.uint8)).save(path)
    return path


def test_train_eval_predict(minidl, tmp_path):
    code, out, _ = minidl("train", "--model", "lenet5", "--epochs", 2, "--batch", 64, "--lr", 0.1, "--init", "glorot")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "training lenet5 on digits: 2 epochs, batch 64, seed 0"
    pattern = (
        r"epoch  1/2  train: loss \d\.\d{3} top-1 +\d+\.\d%  test: loss \d\.\d{3} top-1 +\d+\.\d% top-5 +\d+\.\d%  "
        r"[\d,]+ images/s, \d+% waiting for data  eta \d+:\d\d"
    )
    assert re.fullmatch(pattern, lines[1]), lines[1]
    top1 = re.fullmatch(r"test top-1 (.*)%, top-5 .*% after 2 epochs in \d+ s", lines[-3])[1]
    assert lines[-2].replace("\\", "/") == "weights, log and curves are in runs/lenet5-digits-1"

    code, out, _ = minidl("eval", "runs/lenet5-digits-1")
    assert code == 0 and out.startswith(f"digits: top-1 {top1}%, ") and "359 test images" in out

    picture = write_picture(tmp_path / "grey.png")
    code, out, _ = minidl("predict", "runs/lenet5-digits-1", picture)
    assert code == 0 and len(out.splitlines()) == 6
    shares = [float(line.split("%")[0]) for line in out.splitlines()[1:]]
    assert shares == sorted(shares, reverse=True) and sum(shares) <= 100.05


def test_json(minidl, trained, tmp_path):
    code, out, err = minidl("train", "--model", "lenet5", "--epochs", 1, "--json")
    result = json.loads(out)
    assert code == 0 and len(out.splitlines()) == 1 and "epoch  1/1" in err
    assert 0 <= result["test_top1"] <= 1 and result["finished"] is True and result["epochs"] == 1

    code, out, _ = minidl("eval", trained, "--json")
    assert code == 0 and json.loads(out)["images"] == 359

    code, out, _ = minidl("predict", trained, write_picture(tmp_path / "a.jpg"), "--json", "--top", 3)
    (image,) = json.loads(out)["images"]
    assert code == 0 and [set(guess) for guess in image["predictions"]] == [{"class", "probability"}] * 3

    code, out, _ = minidl("summary", "lenet5", "--json")
    summary = json.loads(out)
    assert code == 0 and summary["model"] == "lenet5" and "61706" in out

    code, out, _ = minidl("gradcheck", "relu", "MeanSquaredError", "--json")
    result = json.loads(out)
    assert code == 0 and result["passed"] is True and result["failed"] == 0 and len(result["reports"]) == 4


def test_summary_for_people(minidl):
    code, out, _ = minidl("summary", "alexnet(groups=1)")
    assert code == 0 and "62,378,344 parameters" in out and "55×55×96" in out


def test_gradcheck_fails_on_a_wrong_gradient(minidl, monkeypatch):
    monkeypatch.setattr("minidl.layers.tanh.Tanh.backward", lambda self, dy, y, *, input_gradient=True: dy * (1 - y))
    code, out, _ = minidl("gradcheck", "tanh")
    assert code == 1 and "FAILED" in out and "0 of 1 passed" in out


def test_predict_goes_on_after_a_bad_image(minidl, trained, tmp_path):
    good = write_picture(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(good.read_bytes()[:40])
    code, out, err = minidl("predict", trained, tmp_path / "bad.png", tmp_path / "absent.png", good)
    assert code == 1 and "bad.png" in err and "absent.png" in err
    assert len(out.splitlines()) == 6 and out.startswith(str(good))


def test_a_damaged_checkpoint(minidl, trained, tmp_path):
    damaged = tmp_path / "last.safetensors"
    damaged.write_bytes((trained / "last.safetensors").read_bytes()[:-9])
    code, _, err = minidl("predict", damaged, write_picture(tmp_path / "a.png"))
    assert code == 1 and "last.safetensors: the checkpoint is damaged" in err


def test_out_that_holds_a_run(minidl, trained):
    before = (trained / "last.safetensors").read_bytes()
    code, _, err = minidl("train", "--out", trained)
    assert code == 2 and "already holds a run; go on with it by --resume" in err
    assert (trained / "last.safetensors").read_bytes() == before


def test_json_is_plain_ascii(minidl, trained, tmp_path):
    code, out, _ = minidl("predict", trained, write_picture(tmp_path / "größe 😀.png"), "--json")
    assert code == 0 and out.isascii() and json.loads(out)["images"][0]["image"].endswith("größe 😀.png")


def test_a_reader_that_goes_away_loses_nothing(tmp_path):
    command = f"{sys.executable} -m minidl train --model lenet5 --epochs 2 --out run | head -n 1"
    subprocess.run(command, shell=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    from minidl.training.checkpoint import load_checkpoint

    assert load_checkpoint(tmp_path / "run" / "last.safetensors")[1]["step"] == 90


def test_without_numba_everything_works_and_says_so_once(tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('broken for this test')")
    done = subprocess.run(
        [sys.executable, "-m", "minidl", "gradcheck", "conv2d", "relu"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "9 of 9 passed" in done.stdout
    assert done.stderr.count("Numba cannot be imported (broken for this test)") == 1


def test_config_file_and_options(minidl, tmp_path):
    (tmp_path / "config.toml").write_text('model = "lenet5"\nepochs = 5\nbatch = 64\n')
    code, out, _ = minidl("train", "--config", "config.toml", "--epochs", 1)
    assert code == 0 and out.startswith("training lenet5 on digits: 1 epochs, batch 64")


def test_device_without_gpu(minidl):
    code, _, err = minidl("train", "--device", "cuda")
    if code == 0:
        pytest.skip("this machine has a usable GPU")
    assert code == 1 and err.splitlines()[-1].startswith("minidl: device 'cuda': CuPy")


def test_every_option_is_explained(minidl):
    for command in "train", "eval", "predict", "summary", "gradcheck":
        code, out, _ = minidl(command, "--help")
        assert code == 0
        assert re.search(r"--[\w-]+( <\w+>)?\s*$", out, re.MULTILINE) is None, "an option without help"


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    arguments = ["train", "--model", "lenet5", "--epochs", "500", "--out", "run", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "minidl", *arguments],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "log.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert json.loads(out)["finished"] is False
    assert err.splitlines()[-1] == "interrupted and saved; go on with: minidl train --resume run"
    from minidl.training.checkpoint import load_checkpoint

    assert load_checkpoint(tmp_path / "run" / "last.safetensors")[1]["step"] == json.loads(out)["steps"]
