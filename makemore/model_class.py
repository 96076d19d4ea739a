"""The class of a user's model: found in a file that the user names, and checked before training."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import os
import shlex
import sys
import textwrap
import traceback
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_origin

import torch
from torch import Tensor, nn

from makemore.config import Config, parse_config, read_toml
from makemore.dropout import seed_dropout
from makemore.errors import UserError, check_input
from makemore.models import GENERATOR, ModelClass, build, config_class_of

SHAPE = "FILE.py:CLASS"  # how a command line names a model class
NO_FILE = "FILE.py"  # in the place of the file of a class that has none
CHECK_ROWS = 32  # contexts of the trial run of a new model
FIELD_TYPES = (int, float, bool, str)  # of config fields; TOML, MLflow and Optuna can store them


class NeedsClass(UserError):
    """A checkpoint was read without the class of its model, or with another one."""


def load_model_class(source: str) -> ModelClass:
    """Run a Python file and return a model class in it.

    Args:
        source: FILE.py:CLASS.

    Raises:
        UserError: the file or the class does not exist, or the class is not an nn.Module.
        Exception: whatever the file's own code raises.
    """
    path, colon, name = source.rpartition(":")
    if not (colon and path.endswith(".py") and name.isidentifier()):
        raise UserError(
            f"--model must be {SHAPE}, for example studies/wavenet.py:WaveNet, but got {source!r}."
        )
    if path == NO_FILE:
        raise UserError(
            f"the class {name} was defined without a file, for example in a notebook; save it in a "
            f"file, and give --model that file and :{name}."
        )
    file = Path(path)
    check_input(file, f"--model as {SHAPE}")
    if not file.is_file():
        raise UserError(f"{path}: no such file; give --model as {SHAPE}.")
    try:
        module = _run_file(file)
    except (SyntaxError, ImportError) as error:
        raise UserError(f"{path}: cannot be loaded: {type(error).__name__}: {error}.") from None
    found = getattr(module, name, None)
    if found is None:
        raise UserError(f"{path}: has no class {name}; give --model the name of a class in it.")
    if not is_model_class(found):
        raise UserError(
            f"{path}: {name} is not a subclass of torch.nn.Module; give --model a class that is."
        )
    check_config_class(found)
    return found


def is_model_class(found: object) -> bool:
    """Return whether something is a class of torch modules, and not, for example, a module."""
    return isinstance(found, type) and issubclass(found, nn.Module)


def _run_file(file: Path) -> ModuleType:
    """Run a file as a module, but not a second time if it is the running script."""
    main = sys.modules["__main__"]
    running = getattr(main, "__file__", None)  # absent at a prompt
    if running is not None and Path(running).resolve() == file.resolve():
        return main
    # Two files of the same name must not share a module.
    name = f"{file.stem}_{zlib.crc32(str(file.resolve()).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look their module up
    spec.loader.exec_module(module)
    return module


def check_config_class(model: ModelClass) -> type[Config]:
    """Return the class of a model's configs.

    Raises:
        UserError: it is not a subclass of Config.
    """
    found = config_class_of(model)
    if not (isinstance(found, type) and issubclass(found, Config)):
        raise UserError(
            f"{model.__name__}.config_class must be a subclass of makemore.config.Config, but is "
            f"{found!r}."
        )
    for name, field in found.model_fields.items():
        if field.annotation not in FIELD_TYPES and get_origin(field.annotation) is not Literal:
            raise UserError(
                f"the field {name} of {found.__name__} must be an int, float, bool, str or "
                f"Literal, but is {field.annotation}; other types cannot be stored and searched."
            )
    return found


def source_of(model: ModelClass) -> str:
    """Return FILE.py:CLASS of a model class; the file is relative to the working directory.

    A class without a file, for example of a notebook, has FILE.py in its place.
    """
    try:
        file = Path(inspect.getfile(model)).resolve()
    except (TypeError, OSError):
        return f"{NO_FILE}:{model.__name__}"
    # Not absolute, so that exported files have no paths of this machine.
    return f"{Path(os.path.relpath(file)).as_posix()}:{model.__name__}"


def code_of(model: ModelClass) -> str | None:
    """Return a digest of the code of a class, and of the torch modules in its file that it uses.

    Comments and layout do not change it.

    Returns:
        None if the source is not known.
    """
    parts: dict[str, str] = {}
    classes: list[Any] = [model]
    while classes:
        found = classes.pop()
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(found)))
        except (TypeError, OSError, SyntaxError):
            return None
        parts[found.__qualname__] = ast.dump(tree)
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        around = vars(sys.modules[found.__module__])
        classes += [
            around[name]
            for name in sorted(names & around.keys())
            if is_model_class(around[name])
            and around[name].__module__ == found.__module__
            and around[name].__qualname__ not in parts
        ]
    return hashlib.sha256("".join(parts[name] for name in sorted(parts)).encode()).hexdigest()[:16]


def describe_error(model: ModelClass, error: Exception) -> str:
    """Return an error that a user's model raised in one sentence, with its place in their file."""
    frames = traceback.extract_tb(error.__traceback__)
    try:
        own = [frame for frame in frames if frame.filename == inspect.getfile(model)]
    except (TypeError, OSError):
        own = []
    place = (own or list(frames))[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    return f"{model.__name__} raised {type(error).__name__}: {error} ({where})"


def check_model(model: ModelClass, config: Config, vocab_size: int) -> None:
    """Run a new model once, as a training step does.

    Raises:
        UserError: its logits have the wrong shape, it has nothing to train, or it draws from
            torch's generator.
        Exception: whatever the model itself raises.
    """
    module = build(model, config, vocab_size)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise UserError(f"{model.__name__} has no parameters to train; add a layer.")
    seed_dropout(module, config.seed)
    module.train()
    B = min(CHECK_ROWS, config.batch_size)
    X = torch.arange(B * config.block_size).view(B, -1) % vocab_size  # (B, T)
    with GENERATOR, torch.random.fork_rng(devices=[]):
        before = torch.get_rng_state()
        logits = module(X)
        drew = not torch.equal(before, torch.get_rng_state())
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (B, vocab_size):
        raise UserError(
            f"{model.__name__} maps contexts {tuple(X.shape)} to {shape}, but it must return "
            f"logits {(B, vocab_size)}: one row for each context, one column for each symbol."
        )
    if drew:
        raise UserError(
            f"{model.__name__} draws random numbers from torch's generator, so its trials would "
            "depend on each other; use nn.Dropout layers, whose draws come from the trial's seed."
        )


def check_class(what: str, stored: str | None, model: ModelClass | None) -> None:
    """Compare the class that a file or a study has with the one that the user named.

    Args:
        what: begins the message, for example "m.safetensors: is a checkpoint".
        stored: FILE.py:CLASS, as it was stored; None for the MLP.
        model: the class that the user named; None for the MLP.

    Raises:
        NeedsClass: the names of the classes differ.
    """
    name = None if stored is None else stored.rpartition(":")[2]
    given = None if model is None else model.__name__
    if name == given:
        return
    if stored is None:
        raise NeedsClass(f"{what} of the MLP, not of {given}; leave --model out.")
    instead = f", not of {given}" if given else ""
    raise NeedsClass(f"{what} of the model {name}{instead}; give --model {shlex.quote(stored)}.")


def parse_model_config(
    path: Path | str, tables: dict[str, Any], model: ModelClass | None
) -> Config:
    """Return the config of a TOML file whose tables were read.

    Args:
        path: of the file, for messages.
        tables: from `read_toml`.
        model: class of the user's model; None for the MLP.

    Raises:
        NeedsClass: the file was exported for a model of another class.
        UserError: see `parse_config`.
    """
    origin = tables.get("origin", {})
    stored = origin.get("model") if isinstance(origin, dict) else None
    if stored is not None:
        check_class(f"{path}: is a config", str(stored), model)
    return parse_config(tables["config"], str(path), config_class_of(model))


def read_model_config(path: Path | str, model: ModelClass | None) -> Config:
    """Read the config of a TOML file; see `read_toml` and `parse_model_config`."""
    return parse_model_config(path, read_toml(path), model)
