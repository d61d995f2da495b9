"""The one configuration object: validated, YAML in and out, a complete description of a run.

Sections mirror the folders of the package. Unknown fields are errors that name the nearest valid one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from ddcnn.config.sections import AggregationConfig, ComputeConfig, DataConfig, DecompositionConfig, ModelConfig
from ddcnn.config.training import (
    CoherentConfig,
    ComposeConfig,
    InitConfig,
    SubdomainConfig,
    TrainingConfig,
    TransferConfig,
)
from ddcnn.config.values import MOST_THREADS, Features, HomePath, Resize, Section, merge, shortened
from ddcnn.errors import ConfigError, nearest
from ddcnn.recipes import RECIPES
from ddcnn.strict import MOST_YAML, parse_yaml

__all__ = [
    "MOST_THREADS",
    "AggregationConfig",
    "CoherentConfig",
    "ComposeConfig",
    "ComputeConfig",
    "Config",
    "DataConfig",
    "DecompositionConfig",
    "Features",
    "InitConfig",
    "ModelConfig",
    "Resize",
    "SubdomainConfig",
    "TrainingConfig",
    "TransferConfig",
    "assign",
    "mapping_of",
    "read_yaml",
]


class Config(Section):
    """A complete description of a run. ``recipe`` fills what is not set; what you set yourself wins.

    ``track`` shows every epoch to TensorBoard or MLflow as well: `ddcnn.tracking`.

    >>> config = Config(decomposition={"grid": "4x4"}, training={"epochs": 2})
    >>> config.decomposition.grid, config.training.epochs, config.training.schedule
    ((4, 4), 2, 'onecycle')
    """

    recipe: str = "fast"
    """Fills what you do not set: fast; strong, for the best accuracy; or paper, as published, of which nothing is
    measured yet.
    """
    strategy: str = "local"
    """What ddcnn train trains, in which order: global, local, coherent, transfer, compose, or module:name of your own.
    """
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Everything random follows from it."""
    out: HomePath | None = None
    """Folder of the run; None: runs/COMMAND-DATA-MODEL-GRID-sSEED; of train, runs/train-STRATEGY-DATA-..."""
    force: bool = False
    """Whether a run that is in that folder is replaced."""
    track: Literal["tensorboard", "mlflow"] | None = None
    """Who shows epochs and results beside metrics.jsonl: tensorboard, mlflow, or nobody."""
    data: DataConfig = DataConfig()
    """Which images, and how they are split."""
    decomposition: DecompositionConfig = DecompositionConfig()
    """Where images are cut."""
    model: ModelConfig = ModelConfig()
    """The network."""
    aggregation: AggregationConfig = AggregationConfig()
    """How what local CNNs say becomes the global decision."""
    training: TrainingConfig = TrainingConfig()
    """How a network is trained."""
    init: InitConfig = InitConfig()
    """Where trainings begin."""
    coherent: CoherentConfig = CoherentConfig()
    """How the CNN-DNN is trained as one model from scratch."""
    transfer: TransferConfig = TransferConfig()
    """The second phase of transfer."""
    compose: ComposeConfig = ComposeConfig()
    """The global CNN, composed of sub-networks."""
    compute: ComputeConfig = ComputeConfig()
    """Where and how it is computed."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_recipe(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        name = values.get("recipe", "fast")
        if not isinstance(name, str) or name not in RECIPES:
            raise ConfigError(f"recipe = {shortened(name)} is unknown: {nearest(shortened(name), RECIPES)}")
        return merge(RECIPES[name](), values)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Config:
        """Build a configuration from nested mappings.

        Raises
        ------
        ConfigError
            One line that names the field, the value and what is valid.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(_one_line(cls, error)) from None

    @classmethod
    def read(cls, path: Path | str, overrides: Mapping[str, Any] | None = None) -> Config:
        """Read YAML (``safe_load``) and apply nested overrides."""
        return cls.parse(merge(read_yaml(path), overrides or {}))

    def to_yaml(self) -> str:
        """Return all fields as YAML; `read` gives back an equal object."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a mapping from a YAML file."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(MOST_YAML + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    return mapping_of(text, path)


def mapping_of(text: str, source: Path | str) -> dict[str, Any]:
    """Return the mapping that YAML text holds; ``source`` says in messages where it comes from."""
    try:
        values = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{source} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{source} should hold a mapping of fields, got {type(values).__name__}")
    return values


def assign(values: dict[str, Any], assignment: str) -> None:
    """Set one dotted field from text such as ``training.lr=0.1`` (the value is YAML), in place.

    Of a section, as in ``training={lr: 0.1}``, those fields are set that are named.

    >>> values = {}
    >>> assign(values, "training.milestones=[0.5, 0.8]")
    >>> values
    {'training': {'milestones': [0.5, 0.8]}}
    """
    name, equals, text = assignment.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--set {assignment!r} should look like section.field=value, for example training.lr=0.1")
    *parents, field = name.strip().split(".")
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"--set {assignment!r}: {text!r} is not a valid YAML value: {error}") from None
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {assignment!r}: {parent!r} holds a value, not a section")
    sections = [name for name, one in Config.model_fields.items() if isinstance(one.default, Section)]
    if (
        not parents
        and field in sections
        and isinstance(before := values.get(field), Mapping)
        and isinstance(value, Mapping)
    ):
        value = merge(before, value)
    values[field] = value


def _one_line(model: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    if isinstance(first.get("ctx", {}).get("error"), ConfigError):
        return str(first["ctx"]["error"])
    path = [str(part) for part in first["loc"] if part != "[key]"]
    name = ".".join(path)
    if first["type"] != "extra_forbidden":
        return f"{name} = {shortened(first['input'])} is not valid: {first['msg']}"
    return f"{name} is not a field of the configuration: {nearest(path[-1], _section(model, path[:-1]).model_fields)}"


def _section(model: type[BaseModel], path: list[str]) -> type[BaseModel]:
    for part in path:
        if part not in model.model_fields:
            continue  # an index in a mapping of sections
        annotation = model.model_fields[part].annotation
        if get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        model = annotation
    return model
