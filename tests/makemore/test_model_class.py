"""The class of a user's model: found by its file and name, checked, and compared with files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from makemore.config import Config, read_toml
from makemore.errors import UserError
from makemore.model_class import (
    NeedsClass,
    check_class,
    check_config_class,
    check_model,
    code_of,
    load_model_class,
    parse_model_config,
    source_of,
)
from tests.conftest import ROOT
from tests.own_model import DrawsItself, OwnConfig, OwnModel, Transposed, Untrained

FILE = ROOT / "tests" / "own_model.py"
CONFIG = OwnConfig(block_size=2, batch_size=8)


# ---- the file and the name


def test_class_is_loaded_from_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "tests")
    loaded = load_model_class("own_model.py:OwnModel")

    assert loaded.__name__ == "OwnModel" and issubclass(loaded, nn.Module)
    assert check_config_class(loaded).model_fields.keys() == OwnConfig.model_fields.keys()
    assert source_of(loaded) == "own_model.py:OwnModel"
    monkeypatch.chdir(ROOT)
    assert source_of(loaded) == source_of(OwnModel) == "tests/own_model.py:OwnModel"


def test_files_of_the_same_name_do_not_mix(tmp_path: Path) -> None:
    sources = []
    for folder in ("a", "b"):
        path = tmp_path / folder / "net.py"
        path.parent.mkdir()
        path.write_text(f"from torch import nn\nclass Net(nn.Module):\n    folder = {folder!r}\n")
        sources.append(f"{path}:Net")
    first, second = map(load_model_class, sources)

    assert (first.folder, second.folder) == ("a", "b")  # type: ignore[attr-defined]
    assert source_of(first).endswith("a/net.py:Net") and source_of(second).endswith("b/net.py:Net")


NET = """
from torch import nn
class Part(nn.Linear): {part}
class Other(nn.Module): {other}
class Net(nn.Module):
    # {comment}
    def __init__(self, config, vocab_size):
        super().__init__()
        self.part = Part(2, {width})
"""


def test_code_is_that_of_the_class_and_of_the_modules_it_uses(tmp_path: Path) -> None:
    values = {"part": "bias = 1", "other": "a = 1", "comment": "one", "width": "3"}

    def code(number: int, **changes: str) -> str | None:
        path = tmp_path / f"net{number}.py"
        path.write_text(NET.format(**{**values, **changes}))
        return code_of(load_model_class(f"{path}:Net"))

    first = code(0)
    assert first is not None
    assert code(1, comment="two") == code(2, other="a = 2") == first
    assert len({first, code(3, width="4"), code(4, part="bias = 2")}) == 3
    assert code_of(type("Net", (nn.Module,), {"__module__": "builtins"})) is None


def test_file_that_cannot_be_loaded_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    for text in ("class Net(:\n", "import absent_package\n"):
        path.write_text(text)
        with pytest.raises(UserError, match="net.py: cannot be loaded: .*Error: "):
            load_model_class(f"{path}:Net")


def test_placeholder_asks_for_a_file() -> None:
    with pytest.raises(UserError, match="class Net was defined without a file.*save it in a file"):
        load_model_class("FILE.py:Net")


def test_field_types_are_those_that_can_be_stored() -> None:
    class Wide(Config):
        widths: tuple[int, ...] = (1, 2)

    class Net(nn.Module):
        config_class = Wide

    with pytest.raises(UserError, match="field widths of Wide must be an int, float, bool, str"):
        check_config_class(Net)


def test_class_without_a_file_has_a_placeholder() -> None:
    made = type("Net", (nn.Module,), {"__module__": "builtins"})

    assert source_of(made) == "FILE.py:Net"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("OwnModel", "--model must be FILE.py:CLASS, for example .*, but got 'OwnModel'"),
        (f"{FILE}", "--model must be FILE.py:CLASS"),
        ("own.txt:Net", "--model must be FILE.py:CLASS"),
        (f"{FILE}:", "--model must be FILE.py:CLASS"),
        ("absent.py:Net", "absent.py: no such file; give --model as FILE.py:CLASS"),
        (f"{ROOT}/tests/x.py:Net", "x.py: no such file"),
        (f"{FILE}:Net", "own_model.py: has no class Net; give --model the name of a class"),
        (f"{FILE}:NOT_A_MODULE", "NOT_A_MODULE is not a subclass of torch.nn.Module"),
        (f"{FILE}:OwnConfig", "OwnConfig is not a subclass of torch.nn.Module"),
    ],
)
def test_bad_source_is_user_error(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_model_class(source)


def test_config_class_must_be_a_config() -> None:
    class Wrong(OwnModel):
        config_class = dict  # type: ignore[assignment]

    with pytest.raises(UserError, match="Wrong.config_class must be a subclass of .*Config, but"):
        check_config_class(Wrong)


# ---- the trial run


def test_good_model_passes_without_a_trace() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    check_model(OwnModel, CONFIG.replace(dropout=0.5), 27)

    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Transposed, r"contexts \(8, 2\) to \(27, 8\), but it must return logits \(8, 27\): one"),
        (DrawsItself, "draws random numbers from torch's generator, .*; use nn.Dropout layers"),
        (Untrained, "Untrained has no parameters to train; add a layer"),
    ],
)
def test_unusable_model_is_user_error(model: type[nn.Module], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_model(model, CONFIG, 27)


# ---- the class that a file names


def test_class_of_the_same_name_is_accepted() -> None:
    check_class("m: is a checkpoint", "elsewhere/own.py:OwnModel", OwnModel)
    check_class("m: is a checkpoint", None, None)


@pytest.mark.parametrize(
    ("stored", "model", "message"),
    [
        ("own.py:Net", None, "^m: is a checkpoint of the model Net; give --model own.py:Net.$"),
        ("a b.py:Net", OwnModel, "of the model Net, not of OwnModel; give --model 'a b.py:Net'.$"),
        (None, OwnModel, "^m: is a checkpoint of the MLP, not of OwnModel; leave --model out.$"),
    ],
)
def test_other_class_is_refused(
    stored: str | None, model: type[nn.Module] | None, message: str
) -> None:
    with pytest.raises(NeedsClass, match=message):
        check_class("m: is a checkpoint", stored, model)


def test_exported_config_needs_its_class(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OwnConfig(n_layers=3).to_toml(origin={"model": "own.py:OwnModel"}))

    config = parse_model_config(path, read_toml(path), OwnModel)
    assert config == OwnConfig(n_layers=3)
    with pytest.raises(NeedsClass, match="own.toml: is a config of the model OwnModel; give --mod"):
        parse_model_config(path, read_toml(path), None)


def test_config_of_an_mlp_can_train_another_model(tmp_path: Path) -> None:
    path = tmp_path / "mlp.toml"
    path.write_text(Config(n_hidden=7).to_toml(origin={"study": "mlp"}))

    assert parse_model_config(path, read_toml(path), OwnModel) == OwnConfig(n_hidden=7)
