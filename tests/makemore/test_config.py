"""Config: validation, messages, and TOML round trips."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makemore.config import (
    MAX_BLOCK_SIZE,
    MAX_WIDTH,
    Config,
    StoredConfig,
    field_defaults,
    parse_config,
    read_config,
    read_toml,
)
from makemore.errors import UserError
from tests.conftest import ROOT
from tests.own_model import OwnConfig

positive = st.floats(0, exclude_min=True, allow_nan=False, allow_infinity=False)
widths = st.integers(1, MAX_WIDTH)
configs = st.builds(
    Config,
    lr=positive,
    block_size=st.integers(1, MAX_BLOCK_SIZE),
    n_embd=widths,
    n_hidden=widths,
    batch_size=widths,
    max_steps=st.integers(1, 2**32 - 1),
    eval_interval=st.integers(1, 2**32 - 1),
    optimizer=st.sampled_from(["sgd", "adamw"]),
    schedule=st.sampled_from(["constant", "step", "cosine"]),
    weight_decay=st.just(0.0) | positive,
    dropout=st.floats(0, 1, exclude_max=True),
    direct=st.booleans(),
    init=st.sampled_from(["lecture", "kaiming"]),
    seed=st.integers(0, 2**63 - 1),
)


@settings(deadline=None)
@given(configs)
def test_config_survives_a_toml_round_trip(
    tmp_path_factory: pytest.TempPathFactory, config: Config
) -> None:
    path = tmp_path_factory.getbasetemp() / "round_trip.toml"
    path.write_text(config.to_toml(origin={"study": "mlp", "trial": 7}))

    assert read_config(path) == config
    assert read_toml(path)["origin"] == {"study": "mlp", "trial": 7}


def test_defaults_are_the_lectures_run() -> None:
    lecture = ROOT / "experiments" / "configs" / "lecture.toml"

    assert read_config(lecture) == Config()


# A key close to a field gets its name, learning_rate too; other keys get the list of fields.
@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("hidden", "did you mean n_hidden."),
        ("batchsize", "did you mean batch_size."),
        ("max_step", "did you mean max_steps."),
        ("learning_rate", "did you mean lr."),
        ("momentum", f"the fields are {', '.join(Config.model_fields)}."),
    ],
)
def test_unknown_key_suggests_the_nearest_field(key: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_config({key: 1}, "my.toml")

    assert str(caught.value) == f"my.toml: {key} is not a field of Config; {hint}"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"lr": -1}, "lr must be greater than 0, but got -1."),
        ({"lr": 0.0}, "lr must be greater than 0, but got 0.0."),
        ({"lr": float("nan")}, "lr must be a finite number, but got nan."),
        ({"lr": "0.1"}, "lr must be a number, but got '0.1'."),
        ({"lr": True}, "lr must be a number, but got True."),
        ({"block_size": 0}, "block_size must be at least 1, but got 0."),
        ({"block_size": 33}, "block_size must be at most 32, but got 33."),
        ({"block_size": "3"}, "block_size must be an integer, but got '3'."),
        ({"block_size": True}, "block_size must be an integer, but got True."),
        ({"block_size": 3.0}, "block_size must be an integer, but got 3.0."),
        ({"n_hidden": 65_536}, "n_hidden must be at most 65,535, but got 65536."),
        ({"n_embd": None}, "n_embd must be an integer, but got None."),
        ({"dropout": 1.0}, "dropout must be less than 1.0, but got 1.0."),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0, but got -0.1."),
        ({"direct": 1}, "direct must be true or false, but got 1."),
        ({"optimizer": "adam"}, "optimizer must be 'sgd' or 'adamw', but got 'adam'."),
        ({"seed": 2**63}, f"seed must be less than {2**63:,}, but got {2**63}."),
        (
            {"lr": 0, "n_embd": 0},
            "lr must be greater than 0, but got 0; n_embd must be at least 1, but got 0.",
        ),
    ],
)
def test_bad_value_is_refused_in_one_sentence(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        Config(**fields)

    assert str(caught.value) == sentence


def test_equal_numbers_make_equal_configs() -> None:
    assert Config(lr=1) == Config(lr=1.0) == Config(lr=np.float64(1.0))
    assert type(Config(lr=1).lr) is float


def test_replace_changes_fields_and_validates() -> None:
    config = Config(n_hidden=7)

    assert config.replace(lr=0.5) == Config(n_hidden=7, lr=0.5)
    with pytest.raises(UserError, match="lr must be greater than 0"):
        config.replace(lr=0)
    with pytest.raises(UserError, match="did you mean n_hidden"):
        config.replace(nhidden=3)


def test_config_is_frozen_hashable_and_picklable() -> None:
    config = Config(lr=0.3)

    with pytest.raises(ValueError, match="frozen"):
        config.lr = 1.0
    assert pickle.loads(pickle.dumps(config)) == config
    assert hash(config) == hash(Config(lr=0.3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[config]\nlr = ", "not valid TOML"),
        (b"[config]\nlr = " + b"[" * 5000, "not valid TOML: nested too deeply."),
        (b"lr = 0.1", "has no [config] table"),
        (b"config = 3", "has no [config] table"),
        (b"lr = 0.5\n[config]\n", "lr is outside the tables [config] and [origin]"),
        (b"[config]\n[confg]\nlr = 0.5\n", "confg is outside the tables"),
        (b"[config]\nname = '\xff'", "not UTF-8 text"),
        (b"[config]\nlr = 'fast'", "lr must be a number, but got 'fast'."),
    ],
)
def test_bad_file_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)

    with pytest.raises(UserError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)


def test_path_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_config(tmp_path / "missing.toml")
    with pytest.raises(UserError, match="cannot be read"):
        read_config(tmp_path)


def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(UserError, match=f"{path}: is not a regular file; give the path of a"):
            read_config(path)


def test_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "bom.toml"
    path.write_bytes(b"\xef\xbb\xbf[config]\r\nlr = 1\r\n")

    assert read_config(path) == Config(lr=1.0)


# --- subclasses of a user's model


def test_subclass_keeps_its_class_and_fields() -> None:
    config = OwnConfig(n_layers=3).replace(lr=0.5)

    assert type(config) is OwnConfig and (config.n_layers, config.lr) == (3, 0.5)
    with pytest.raises(UserError, match="n_layers must be at least 1, but got 0"):
        config.replace(n_layers=0)
    with pytest.raises(UserError, match="n_layer is not a field of OwnConfig; did you mean n_lay"):
        OwnConfig(n_layer=3)  # type: ignore[call-arg]


def test_subclass_survives_a_file(tmp_path: Path) -> None:
    config = OwnConfig(n_layers=3, momentum=0.25)
    path = tmp_path / "own.toml"
    path.write_text(config.to_toml())

    assert read_config(path, OwnConfig) == config
    with pytest.raises(UserError, match="own.toml: n_layers is not a field of Config"):
        read_config(path)


def test_stored_config_keeps_unknown_fields() -> None:
    fields = OwnConfig(n_layers=3).model_dump()
    config = parse_config(fields, "trial 1", StoredConfig)

    assert config.model_dump() == fields
    assert config.replace(lr=0.5).model_dump() == {**fields, "lr": 0.5}
    with pytest.raises(UserError, match="trial 1: lr must be greater than 0"):
        parse_config({**fields, "lr": 0}, "trial 1", StoredConfig)


def test_field_without_default_is_required() -> None:
    class Needs(Config):
        depth: int

    assert field_defaults(Needs) == Config().model_dump(exclude={"seed"})
    with pytest.raises(UserError, match="depth is missing; Needs has no default for it"):
        Needs()  # type: ignore[call-arg]
