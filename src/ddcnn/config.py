"""The one configuration object: validated, YAML in and out, a complete description of a run.

Sections mirror the folders of the package. Unknown fields are errors that name the nearest valid one.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from ddcnn.errors import ConfigError, nearest
from ddcnn.recipes import RECIPES
from ddcnn.strict import MOST_YAML, parse_yaml


def _axes(value: Any) -> Any:
    """Read ``"4x4x2"`` and ``4`` as well as ``[4, 4, 2]``."""
    if isinstance(value, str):
        value = value.lower().split("x")
    if isinstance(value, int):
        value = (value,)
    return value


def _by_index(value: Any) -> Any:
    """Take an index that is text, as ``--set`` gives it, for the number; of entries for the same index, all count."""
    if not isinstance(value, Mapping):
        return value
    merged: dict[str, Any] = {}
    for index, entry in value.items():
        merged = _merge(merged, {str(index): entry})
    return merged


def _bytes(value: Any) -> Any:
    """Read ``"8GB"`` and ``"512 MiB"`` as well as a number of bytes."""
    form = r"([0-9]{1,20}(?:\.[0-9]{1,20})?) *([KMGT]?)(I?)B?"
    found = re.fullmatch(form, value.strip().upper()) if isinstance(value, str) else None
    if not found:
        return value
    number, prefix, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMGT".index(prefix or " "))


def _auto(value: Any) -> Any:
    """Read ``auto`` as None: to be found out once the data are known."""
    return None if value == "auto" else value


def _coarse(value: Any) -> Any:
    """Read ``16x16``, 16, ``auto`` and true; none, false and null are no coarse level."""
    if isinstance(value, bool):
        return "auto" if value else None
    if value is None or value == "auto":
        return value
    size = _axes(value)
    if not isinstance(size, list | tuple) or not all(re.fullmatch(r"[1-9]\d{0,8}", str(n)) for n in size) or not size:
        raise ConfigError(
            f"decomposition.coarse = {_short(value)} should be a size in pixels, 1 or more, such as 16x16, or auto"
        )
    return tuple(int(n) for n in size)


def _with_options(values: Any) -> Any:
    """Read the name ``voronoi:6,seed=3`` as a name and its options; ``module:function`` stays a name."""
    name = values.get("name") if isinstance(values, Mapping) else None
    word, colon, text = name.partition(":") if isinstance(name, str) else ("", "", "")
    options = values.get("options") or {} if colon else {}
    if not colon or text.isidentifier() or not isinstance(options, Mapping):
        return values
    given = {}
    for number, part in enumerate(text.split(",")):
        key, equals, value = part.partition("=")
        if not equals and number == 0:
            key, value = "parts", part
        if not key.isidentifier() or not value:
            raise ConfigError(
                f"decomposition.name = {_short(name)} should look like {word}:6 or {word}:2x2,option=value, or be "
                f"module:function"
            )
        given[key] = _option(value)
    if word != "grid":
        return {**values, "name": word, "options": {**options, **given}}
    cuts = {"parts": "grid"}
    return {**values, "name": word, **{cuts.get(key, key): value for key, value in given.items()}}


def _option(text: str) -> Any:
    """Return numbers along axes, ``2x2``, as a list; all else as YAML has it."""
    if re.fullmatch(r"\d{1,9}(x\d{1,9})+", text):
        return [int(n) for n in text.split("x")]
    try:
        return parse_yaml(text)
    except ValueError:
        return text


_AUTO = (BeforeValidator(_auto), PlainSerializer(lambda value: "auto" if value is None else value))
Axes = Annotated[tuple[int, ...], BeforeValidator(_axes)]
Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=1)]
PositiveInt = Annotated[int, Field(ge=1)]
MOST_THREADS = 1024  # of a process; a number that the system refuses ends it without a word
AutoInt = Annotated[Annotated[int, Field(ge=1)] | None, *_AUTO]
AutoFloat = Annotated[Annotated[float, Field(gt=0)] | None, *_AUTO]
Resize = Literal["stretch", "crop", "pad"]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Features = Literal["probability", "log", "logit", "penultimate"]
"""What local CNNs hand over to an aggregation; of probabilities it may take the logarithms."""
_LONGEST = 200  # characters of a value in a message


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class DataConfig(_Section):
    """Which images, and how they are split.

    ``validation`` None means the source's official validation set, or else a tenth of the training samples, at most
    2,500. ``test`` is the fraction set aside where the source has no official test set; 0: none. ``folds`` 5x2 divides
    all samples into 5 parts, twice, each the test part of one fold; ``fold`` is the one to train on, from 0, and None
    means all of them. ``image_size`` None means: as they are.

    ``resize`` says how image files of other proportions get that size: ``stretch`` (None) changes their proportions,
    ``crop`` cuts off what is too much on two sides, ``pad`` adds black on two sides. ``group_pattern`` is a regular
    expression for files of `folder`: images for whose path below the folder its first group in parentheses (or, without
    one, the whole match) is the same text belong together, such as those of a patient, and stay in one part.

    ``classes`` puts labels (of `mosmed` and `csv`) into classes, for example ``{healthy: [CT-0], ill: [CT-2, CT-3]}``;
    other labels are left out. ``window`` maps these two values of a volume to 0 and 255 and clips beyond, for CT in
    Hounsfield units. ``on_bad_file``: stop, leave it out and tell, or leave it out; files that were left out are listed
    in the run's ``bad_files.json``.
    """

    source: str = "mnist5k"
    directory: Path | None = None
    offline: bool = False
    validation: Fraction | None = None
    test: Annotated[float, Field(ge=0, lt=1)] = 0.2
    folds: Axes | None = None
    fold: Annotated[int, Field(ge=0)] | None = None
    limit_train: PositiveInt | None = None
    limit_val: PositiveInt | None = None
    limit_test: PositiveInt | None = None
    image_size: Axes | None = None
    resize: Resize | None = None
    group_pattern: str | None = None
    classes: dict[str, tuple[str, ...]] | None = None
    window: tuple[float, float] | None = None
    on_bad_file: Literal["error", "warn", "skip"] = "error"

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        if self.folds is not None and (len(self.folds) > 2 or self.folds[0] < 2 or min(self.folds) < 1):
            shown = "x".join(map(str, self.folds))
            raise ConfigError(
                f"data.folds = {shown} should be the number of folds, at least 2, and of repeats: 5x2 or 5"
            )
        if self.fold is not None and self.fold >= math.prod(self.folds or (0,)):
            raise ConfigError(
                f"data.fold = {self.fold} should be below {math.prod(self.folds or (0,))}, the product of data.folds"
            )
        if self.group_pattern is not None:
            try:
                re.compile(self.group_pattern)
            except re.error as error:
                raise ConfigError(
                    f"data.group_pattern = {_short(self.group_pattern)} is no regular expression: {error}; for example "
                    "'(patient[0-9]+)_'"
                ) from None
        if self.window is not None and not self.window[0] < self.window[1]:
            low, high = self.window
            raise ConfigError(f"data.window = [{low:g}, {high:g}] should run from a lower to a higher value")
        return self


class DecompositionConfig(_Section):
    """Where images are cut. ``name`` is registered, or ``module:function`` of your own, called with the ``options``.

    A grid has subdomains in rows x columns (or depth x rows x columns) that overlap by some pixels per side.
    Options may stand behind a registered name: ``voronoi:6,seed=3`` is read as ``voronoi`` with the options
    ``parts: 6, seed: 3``. ``coarse`` adds a local CNN for the whole image, reduced to so many pixels by area averaging;
    ``auto`` is a sensible size (`ddcnn.WithCoarse`), None no coarse level.
    """

    name: str = "grid"
    grid: Axes = (2, 2)
    overlap: Axes = (0,)
    options: dict[str, Any] = {}
    coarse: Annotated[tuple[int, ...] | Literal["auto"] | None, BeforeValidator(_coarse)] = None

    @model_validator(mode="before")
    @classmethod
    def _read_options(cls, values: Any) -> Any:
        return _with_options(values)

    @model_validator(mode="after")
    def _check(self) -> DecompositionConfig:
        if self.name == "grid" or ":" in self.name:
            return self
        for name, value, default in (("grid", self.grid, (2, 2)), ("overlap", self.overlap, (0,))):
            if value != default:
                raise ConfigError(
                    f"decomposition.{name} = {'x'.join(map(str, value))} is for the decomposition grid, not for "
                    f"{_short(self.name)}; leave it out, and write numbers behind the name, such as {self.name:.40}:4"
                )
        return self


class ModelConfig(_Section):
    """The network. ``name`` is registered, or ``module:function``, a factory of your own.

    ``width_factor`` scales the channels of the local CNNs; None means 1 / sqrt(N) for N subdomains.
    """

    name: str = "vgg9"
    width_factor: Annotated[float, Field(gt=0)] | None = None
    options: dict[str, Any] = {}


class AggregationConfig(_Section):
    """How what local CNNs say becomes the global decision, and how the dense network (DNN) for it is trained.

    ``aggregate_on`` says from which probabilities the DNN learns. ``train``: those of the training images.
    ``holdout``: those of a part, ``holdout_fraction`` of the training images, that the local CNNs never saw.
    ``crossfit``: those of all training images, each computed by local CNNs that did not see it, which trains the
    local CNNs ``folds`` more times. ``name`` is registered, or ``module:function`` of your own, called with the number
    of subdomains, the number of classes and the ``options``. ``hidden``, ``shortcut`` and ``subdomain_dropout`` are
    those of `ddcnn.aggregation.Dense`.

    ``features`` is what local CNNs hand over: their ``probability`` for each class, as published, its ``log``, the
    ``logit`` before the softmax, or the ``penultimate`` features that their last linear layer sees. Average, vote and
    weighted average use probabilities. ``calibrate`` finds a temperature for each local CNN, before the aggregation
    learns, and one for the decision, both on the validation images.
    """

    name: str = "dense"
    options: dict[str, Any] = {}
    aggregate_on: Literal["train", "holdout", "crossfit"] = "train"
    holdout_fraction: Fraction = 0.2
    folds: Annotated[int, Field(ge=2)] = 3
    hidden: Annotated[Axes, Field(max_length=64)] = (256, 128)
    features: Features = "probability"
    shortcut: bool = True
    subdomain_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    epochs: PositiveInt = 30
    batch_size: PositiveInt = 256
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    calibrate: bool = False

    @model_validator(mode="after")
    def _check(self) -> AggregationConfig:
        if self.features == "penultimate" and self.aggregate_on == "crossfit":
            raise ConfigError(
                "aggregation.features = penultimate cannot go with aggregate_on = crossfit: the features of local CNNs "
                "that were trained apart mean different things; use holdout, or features = logit"
            )
        return self


class SubdomainConfig(_Section):
    """What one local CNN has of its own; None means: as all others."""

    lr: Annotated[float, Field(gt=0)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None


class TrainingConfig(_Section):
    """How a network is trained.

    ``lr`` is the peak of the schedule. ``auto`` is decided once the data are known: `ddcnn.planning.batch_size`.
    ``warmup`` is the fraction of all steps in which a one-cycle schedule rises.
    ``milestones`` are fractions of all epochs at which a step schedule multiplies the rate by ``gamma``; a plateau
    schedule does so after ``plateau_patience`` epochs without a better validation loss. ``patience`` stops a
    subdomain that has not improved its validation accuracy for so many epochs; None never stops. ``select`` keeps
    the parameters of the epoch with the best validation accuracy, or of the last one. ``shift`` is in pixels,
    ``rotation`` in degrees; these two and ``flip`` None mean: as the data set allows. Against imbalance,
    ``class_weights`` weights the loss, and ``sampling`` balanced shows each class equally often per epoch.
    ``clip_norm`` is the largest norm that the gradient of one network may have: a longer one is shortened to it, each
    local CNN's for itself. ``subdomains`` gives local CNNs, by the index of their subdomain, a learning rate or a
    weight decay of their own, as in ``--set training.subdomains.3.lr=0.05``; it plays no part where one model is
    trained (global, coherent, the second phase of transfer).
    """

    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: AutoFloat = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    epochs: PositiveInt = 10
    batch_size: AutoInt = 128
    schedule: Literal["constant", "onecycle", "cosine", "step", "plateau"] = "onecycle"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.2
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1
    plateau_patience: PositiveInt = 5
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_weights: Literal["balanced"] | None = None
    sampling: Literal["shuffled", "balanced"] = "shuffled"
    patience: PositiveInt | None = None
    select: Literal["best", "last"] = "best"
    flip: bool | None = None
    shift: Annotated[int, Field(ge=0)] | None = None
    rotation: Annotated[float, Field(ge=0, le=180)] | None = None
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    subdomains: Annotated[dict[int, SubdomainConfig], BeforeValidator(_by_index)] = {}

    @property
    def peak_lr(self) -> float:
        """The learning rate, which is no longer ``auto``."""
        assert self.lr is not None, "ddcnn.planning.with_batch_size decides it"
        return self.lr

    def of(self, index: int) -> TrainingConfig:
        """Return how the local CNN of one subdomain is trained.

        >>> config = TrainingConfig(lr=0.1, weight_decay=0.5, subdomains={3: {"lr": 0.05}})
        >>> [(own.lr, own.weight_decay) for own in (config.of(2), config.of(3))]
        [(0.1, 0.5), (0.05, 0.5)]
        """
        own = self.subdomains.get(index, SubdomainConfig())
        return self.model_copy(update=own.model_dump(exclude_none=True))


class CoherentConfig(_Section):
    """How the CNN-DNN is trained as one model from scratch.

    ``local_weight`` is the weight of each local CNN's own loss beside the global one, at the start; it falls to 0 in
    the course of the training. 0 from the start is as published.
    """

    local_weight: Annotated[float, Field(ge=0)] = 1.0


class TransferConfig(_Section):
    """The second phase of transfer: the coherent model, started from the local CNNs.

    ``carry_aggregation`` starts from the trained DNN as well. ``epochs`` None means as many as the local CNNs had;
    ``lr_factor`` multiplies the recipe's learning rate.
    """

    carry_aggregation: bool = True
    epochs: PositiveInt | None = None
    lr_factor: Annotated[float, Field(gt=0)] = 0.5


class ComputeConfig(_Section):
    """Where and how it is computed. ``auto`` is decided once, by a measurement, and recorded in the run.

    ``memory``, in bytes or as ``8GB``, is how much of the device, or of this process on a CPU, may be used at most. It
    decides how many local CNNs are trained at once, and whether images are resident. None: no limit. ``group`` is how
    many at once; None: as memory and workers have it.

    ``engine`` says where local CNNs are trained: here one group after the other, in ``processes`` of this machine, on a
    ``ray`` cluster (at ``ray_address``; None starts one here), or by ``module:function`` of your own. ``workers`` is
    how many groups are trained at the same time, with ``threads`` each; None: one per GPU, or per core. Without
    workers, ``threads`` are those of this process; None: as many as cores, or fewer beside other programs. ``retries``
    is how often a task that fails goes on from its checkpoint.

    ``replicas`` is for the coherent model over ranks: so many groups of them each have all subdomains, and compute a
    share of each batch.
    """

    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    backend: Literal["auto", "fused", "vmapped", "looped"] = "auto"
    memory: Bytes | None = None
    group: PositiveInt | None = None
    engine: str = "in_process"
    workers: PositiveInt | None = None
    threads: Annotated[int, Field(ge=1, le=MOST_THREADS)] | None = None
    ray_address: str | None = None
    retries: Annotated[int, Field(ge=0)] = 1
    replicas: PositiveInt = 1


class Config(_Section):
    """A complete description of a run. ``recipe`` fills what is not set; what you set yourself wins.

    >>> config = Config(decomposition={"grid": "4x4"}, training={"epochs": 2})
    >>> config.decomposition.grid, config.training.epochs, config.training.schedule
    ((4, 4), 2, 'onecycle')
    """

    recipe: str = "fast"
    strategy: str = "local"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    out: Path | None = None
    force: bool = False
    data: DataConfig = DataConfig()
    decomposition: DecompositionConfig = DecompositionConfig()
    model: ModelConfig = ModelConfig()
    aggregation: AggregationConfig = AggregationConfig()
    training: TrainingConfig = TrainingConfig()
    coherent: CoherentConfig = CoherentConfig()
    transfer: TransferConfig = TransferConfig()
    compute: ComputeConfig = ComputeConfig()

    @model_validator(mode="before")
    @classmethod
    def _fill_from_recipe(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        name = values.get("recipe", "fast")
        if not isinstance(name, str) or name not in RECIPES:
            raise ConfigError(f"recipe = {_short(name)} is unknown: {nearest(_short(name), RECIPES)}")
        return _merge(RECIPES[name](), values)

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
        return cls.parse(_merge(read_yaml(path), overrides or {}))

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
    except ValueError:
        raise ConfigError(f"--set {assignment!r}: {text!r} is not a valid YAML value") from None
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {assignment!r}: {parent!r} holds a value, not a section")
    values[field] = value


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, BaseModel):
            merged[key] = value.model_dump()
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _one_line(model: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    if isinstance(first.get("ctx", {}).get("error"), ConfigError):
        return str(first["ctx"]["error"])
    path = [str(part) for part in first["loc"] if part != "[key]"]
    name = ".".join(path)
    if first["type"] != "extra_forbidden":
        return f"{name} = {_short(first['input'])} is not valid: {first['msg']}"
    return f"{name} is not a field of the configuration: {nearest(path[-1], _section(model, path[:-1]).model_fields)}"


def _short(value: Any) -> str:
    """Return a value as one short line, whatever it is."""
    text = reprlib.repr(value) if isinstance(value, list | dict | int) else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


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
