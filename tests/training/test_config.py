"""Settings: defaults, files, overrides, and what is said about wrong ones."""

from dataclasses import asdict

import pytest

from minidl.errors import ArgumentError, DataError, FormatError, UnknownNameError
from minidl.models import MODELS
from minidl.schedules import Constant, Cosine, Plateau, Step, WarmUp
from minidl.training import Config, configure
from minidl.training.config import read_toml


def test_toml_round_trip(tmp_path):
    config = Config(model="alexnet(groups=1)", data='folder:C:\\photos "x"', lr=1e-4, epochs=3, on_bad_image="skip")
    (tmp_path / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    assert Config.from_mapping(read_toml(tmp_path / "config.toml"), "a test") == config


def test_recipes_lie_between_defaults_and_settings():
    config = configure(model="alexnet(groups=1)", epochs=3)
    assert (config.epochs, config.batch, config.lr, config.optimizer) == (3, 128, 0.01, Config.optimizer)
    assert configure() == Config(weight_decay=1e-3, label_smoothing=0.1), "alexnet_mini has a recipe too"
    for architecture in MODELS.values():
        configure(model=architecture.name)


def test_integers_serve_as_numbers():
    assert Config(lr=1) == Config(lr=1.0) and isinstance(Config(lr=1).lr, float)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("epochs", 0, "epochs: expected at least 1, got 0"),
        ("epochs", 1.5, "epochs: expected an integer, got 1.5"),
        ("epochs", True, "epochs: expected an integer, got True"),
        ("batch", -1, "batch: expected at least 1"),
        ("lr", float("nan"), "lr: expected a number ≥ 0"),
        ("lr", "fast", "lr: expected a number, got 'fast'"),
        ("momentum", 1.0, "momentum: expected a number of at least 0 and below 1"),
        ("label_smoothing", 1.5, "label_smoothing: expected"),
        ("schedule", "cosin", "unknown schedule 'cosin': did you mean 'cosine'"),
        ("optimizer", "adam", "unknown optimizer 'adam': did you mean 'adamw'"),
        ("precision", "float16", "unknown precision 'float16'"),
        ("on_bad_image", "ignore", "unknown on_bad_image 'ignore'"),
    ],
)
def test_wrong_values(setting, value, message):
    with pytest.raises(ArgumentError, match=message):
        Config(**{setting: value})


def test_wrong_names_and_files(tmp_path):
    with pytest.raises(UnknownNameError, match="'epoch': did you mean 'epochs'"):
        Config.from_mapping({"epoch": 3}, "a test")
    with pytest.raises(DataError, match="cannot be read"):
        read_toml(tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("epochs = = 3")
    with pytest.raises(FormatError, match="not a TOML file"):
        read_toml(tmp_path / "broken.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="not a TOML file"):
        read_toml(tmp_path / "binary.toml")


def test_schedules_count_in_epochs():
    assert Config(schedule="constant", lr=0.1).make_schedule(7) == Constant(0.1)
    assert Config(schedule="step", lr=0.1, step_epochs=2, gamma=0.5).make_schedule(7) == Step(0.1, 14, 0.5)
    assert Config(schedule="plateau", lr=0.1, patience=4).make_schedule(7) == Plateau(0.1, 0.1, 4)
    cosine = Config(lr=0.1, epochs=3).make_schedule(7)
    assert cosine == Cosine(0.1, 21)
    assert Config(lr=0.1, epochs=3, warmup=1.5).make_schedule(7) == WarmUp.before(cosine, 10)


def test_every_setting_says_what_it_means():
    from dataclasses import fields

    assert all(setting.metadata["help"].endswith(".") for setting in fields(Config))
    assert list(asdict(Config()))[:2] == ["model", "data"]
