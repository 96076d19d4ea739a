"""Config: the flat, frozen, validated record of everything that decides one training."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from makemore.errors import UserError, check_input

# The corpus puts this many boundary symbols before each word; a context cannot be longer.
MAX_BLOCK_SIZE = 32
# A step numbers its random draws in 32 bits, and dropout needs batch_size * n_hidden draws.
MAX_WIDTH = 65_535


class Config(BaseModel):
    """Hyperparameters of one training.

    The defaults are those of the lecture: 200,000 steps of SGD on a model of 11,897 parameters. A
    model of your own may need more fields: they are the fields of a subclass.
    Values are not converted, so "3", True and 3.0 are refused as integers. An integer is accepted
    as a float.

    Raises:
        UserError: a value is out of range or of the wrong type, or a key is unknown; the message
            names the key, the rule and, for an unknown key, the nearest valid one.
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
    """Decoupled weight decay: each step scales the weights by 1 - lr * weight_decay."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that a hidden unit is zeroed in a training step."""
    ema: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Evaluate an average of the weights over this fraction of the steps done; 0: no average."""
    direct: bool = False
    """Add direct connections from the embeddings to the output (Bengio et al. 2003)."""
    init: Literal["lecture", "kaiming"] = "lecture"
    """lecture: every parameter standard normal; kaiming: scaled for tanh (He et al. 2015)."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 2147483647
    """Seed of the initial weights, the batches and the dropout."""

    if not TYPE_CHECKING:  # type checkers see the fields as keywords

        def __init__(self, **fields: Any) -> None:
            try:
                super().__init__(**fields)
            except ValidationError as error:
                sentences = [_explain(e, type(self)) for e in error.errors()]
                raise UserError(f"{'; '.join(sentences)}.") from None

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, validated again.

        Raises:
            UserError: see Config.
        """
        return type(self)(**{**self.model_dump(), **changes})

    def to_toml(self, **tables: dict[str, Any]) -> str:
        """Return the TOML text that `read_config` reads.

        Args:
            tables: more tables to write after [config], for example origin={...}.
        """
        return tomli_w.dumps({"config": self.model_dump(), **tables})


class StoredConfig(Config):
    """A config whose own class is not loaded: fields that Config lacks are kept, not validated.

    Scripts that only read, compare or export trials do not need the class of a model.
    """

    model_config = ConfigDict(extra="allow")


def field_defaults(config_class: type[Config]) -> dict[str, Any]:
    """Return the defaults of the fields that have one, without the seed's."""
    fields = config_class.model_fields.items()
    return {name: f.default for name, f in fields if not f.is_required() and name != "seed"}


def parse_config(fields: dict[str, Any], where: str, config_class: type[Config] = Config) -> Config:
    """Validate `fields`; `where` names their source in messages.

    Raises:
        UserError: see Config.
    """
    try:
        return config_class(**fields)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def read_toml(path: Path | str) -> dict[str, Any]:
    """Return the tables of a config file.

    Raises:
        UserError: the file is missing, unreadable or not TOML, has no [config] table, or has
            something else than [config] and [origin].
    """
    try:
        check_input(path, "the path of a TOML file with a [config] table")
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
    except RecursionError:
        raise UserError(f"{path}: not valid TOML: nested too deeply.") from None
    if not isinstance(tables.get("config"), dict):
        raise UserError(
            f"{path}: has no [config] table; put the fields under a line that says [config]."
        )
    for name in tables:
        if name not in ("config", "origin"):
            raise UserError(
                f"{path}: {name} is outside the tables [config] and [origin]; put fields under "
                "the line that says [config]."
            )
    return tables


def read_config(path: Path | str, config_class: type[Config] = Config) -> Config:
    """Read the [config] table of a TOML file.

    Raises:
        UserError: see `read_toml` and `parse_config`.
    """
    return parse_config(read_toml(path)["config"], str(path), config_class)


# pydantic's name of a rule, and the rule in words.
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


def _explain(error: Any, config_class: type[Config]) -> str:
    """Return one of pydantic's errors in words, with the key and the value."""
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return (
            f"{key} is not a field of {config_class.__name__}; {_suggest_field(key, config_class)}"
        )
    if error["type"] == "missing":
        return f"{key} is missing; {config_class.__name__} has no default for it"
    rule = error["msg"]
    if error["type"] in RULES:
        rule = RULES[error["type"]].format(**error.get("ctx", {}))
    return f"{key} must be {rule}, but got {error['input']!r}"


def _suggest_field(key: str, config_class: type[Config]) -> str:
    fields = config_class.model_fields
    known = {**{name: name for name in fields}, "learning_rate": "lr"}
    nearest = difflib.get_close_matches(key, known, n=1)
    if nearest:
        return f"did you mean {known[nearest[0]]}"
    return f"the fields are {', '.join(fields)}"
