"""Config: everything that decides one training run, as one flat, frozen, validated record."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from makemore.errors import UserError

# The corpus lays this many boundary symbols before each word, so every shorter context is a window of the same stream.
MAX_BLOCK_SIZE = 32
# The draws of a step are numbered in 32 bits, and dropout takes batch_size * n_hidden of them.
MAX_WIDTH = 65_535


class Config(BaseModel):
    """A training run. The defaults are those of the lecture: 200,000 steps of SGD on an 11,897-parameter model.

    Values are not converted: "3", True and 3.0 are no integers (an integer is a float, though).

    Raises:
        UserError: a value is out of range or of the wrong type, or a key is unknown; one sentence with the key, the
            rule and, for an unknown key, the nearest valid one.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, strict=True, use_attribute_docstrings=True
    )

    lr: Annotated[float, Field(gt=0)] = 0.1
    """Peak learning rate."""
    block_size: Annotated[int, Field(ge=1, le=MAX_BLOCK_SIZE)] = 3
    """Context length in characters."""
    n_embd: Annotated[int, Field(ge=1, le=MAX_WIDTH)] = 10
    """Embedding dimension of a character."""
    n_hidden: Annotated[int, Field(ge=1, le=MAX_WIDTH)] = 200
    """Number of tanh units."""
    batch_size: Annotated[int, Field(ge=1, le=MAX_WIDTH)] = 32
    """Examples per step."""
    max_steps: Annotated[int, Field(ge=1, lt=2**32)] = 200_000
    """Optimizer steps."""
    eval_interval: Annotated[int, Field(ge=1, lt=2**32)] = 10_000
    """Steps between two evaluations; the last step is always evaluated."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd (as in the lecture) or adamw."""
    schedule: Literal["constant", "step", "cosine"] = "step"
    """step: lr / 10 from half of max_steps; cosine: down to 0."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled: each step scales the weights by 1 - lr * weight_decay."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that a hidden unit is zeroed in a training step."""
    ema: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Evaluate an average of the weights over this fraction of the steps done."""
    direct: bool = False
    """Bengio's direct connections from the embeddings to the output."""
    init: Literal["lecture", "kaiming"] = "lecture"
    """lecture: every parameter standard normal."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 2147483647
    """Seed of the initial weights, the batches and the dropout."""

    if not TYPE_CHECKING:  # type checkers see the fields as keywords

        def __init__(self, **fields: Any) -> None:
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise UserError(f"{'; '.join(_sentence(e) for e in error.errors())}.") from None

    def replace(self, **changes: Any) -> Config:
        """This config with some fields changed, validated again.

        Raises:
            UserError: as Config.
        """
        return Config(**{**self.model_dump(), **changes})

    def to_toml(self, **tables: dict[str, Any]) -> str:
        """The TOML that `read_config` reads back; `tables` are written after it, for example `origin={...}`."""
        return tomli_w.dumps({"config": self.model_dump(), **tables})


def parse_config(fields: dict[str, Any], where: str) -> Config:
    """Validate `fields`; `where` names their source in the message.

    Raises:
        UserError: as Config, after the source.
    """
    try:
        return Config(**fields)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def read_toml(path: Path | str) -> dict[str, Any]:
    """The tables of a config file.

    Raises:
        UserError: the file is missing, unreadable or not TOML, or has no [config] table; one sentence.
    """
    try:
        tables = tomllib.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; give the path of a TOML file with a [config] table."
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise UserError(
            f"{path}: not UTF-8 text; give the path of a TOML file with a [config] table."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}.") from None
    if not isinstance(tables.get("config"), dict):
        raise UserError(
            f"{path}: has no [config] table; put the fields under a line that says [config]."
        )
    return tables


def read_config(path: Path | str) -> Config:
    """Read the [config] table of a TOML file.

    Raises:
        UserError: as `read_toml` and `parse_config`.
    """
    return parse_config(read_toml(path)["config"], str(path))


# What a value must be, by pydantic's name of the rule that it breaks.
RULES = {
    "greater_than": "greater than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:,}",
    "less_than_equal": "at most {le:,}",
    "literal_error": "{expected}",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "finite_number": "a finite number",
}


def _sentence(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = {**{name: name for name in Config.model_fields}, "learning_rate": "lr"}
        nearest = difflib.get_close_matches(key, known, n=1)
        hint = (
            f"did you mean {known[nearest[0]]}"
            if nearest
            else f"the fields are {', '.join(Config.model_fields)}"
        )
        return f"{key} is not a field of Config; {hint}"
    rule = (
        RULES[error["type"]].format(**error.get("ctx", {}))
        if error["type"] in RULES
        else error["msg"]
    )
    return f"{key} must be {rule}, but got {error['input']!r}"
