"""The sections of a configuration, which mirror the folders of the package."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ddcnn.config.values import (
    MOST_THREADS,
    AutoFloat,
    AutoInt,
    Axes,
    Bytes,
    Costs,
    Features,
    Fraction,
    PositiveInt,
    Resize,
    Section,
    Threshold,
    by_index,
    coarse_size,
    shortened,
    with_options,
)
from ddcnn.errors import ConfigError


class DataConfig(Section):
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
                    f"data.group_pattern = {shortened(self.group_pattern)} is no regular expression: {error}; "
                    "for example '(patient[0-9]+)_'"
                ) from None
        if self.window is not None and not self.window[0] < self.window[1]:
            low, high = self.window
            raise ConfigError(f"data.window = [{low:g}, {high:g}] should run from a lower to a higher value")
        return self


class DecompositionConfig(Section):
    """Where images are cut. ``name`` is registered, or ``module:function`` of your own, called with the ``options``.

    A grid has subdomains in rows x columns (or depth x rows x columns) that overlap by some pixels per side.
    Options may stand behind a registered name: ``voronoi:6,seed=3`` is read as ``voronoi`` with the options
    ``parts: 6, seed: 3``. ``coarse`` adds a local CNN for the whole image, reduced to so many pixels by area averaging;
    ``auto`` is a sensible size (`ddcnn.WithCoarse`), None no coarse level.
    """

    name: str = "grid"
    grid: Axes = (2, 2)
    overlap: Axes = (0,)
    options: dict[str, Any] = Field(default_factory=dict)
    coarse: Annotated[tuple[int, ...] | Literal["auto"] | None, BeforeValidator(coarse_size)] = None

    @model_validator(mode="before")
    @classmethod
    def _read_options(cls, values: Any) -> Any:
        return with_options(values)

    @model_validator(mode="after")
    def _check(self) -> DecompositionConfig:
        if self.name == "grid" or ":" in self.name:
            return self
        for name, value, default in (("grid", self.grid, (2, 2)), ("overlap", self.overlap, (0,))):
            if value != default:
                raise ConfigError(
                    f"decomposition.{name} = {'x'.join(map(str, value))} is for the decomposition grid, not for "
                    f"{shortened(self.name)}; leave it out, and write numbers behind the name, as {self.name:.40}:4"
                )
        return self


class ModelConfig(Section):
    """The network. ``name`` is registered, or ``module:function``, a factory of your own.

    ``width_factor`` scales the channels of the local CNNs; None means 1 / sqrt(N) for N subdomains.
    """

    name: str = "vgg9"
    width_factor: Annotated[float, Field(gt=0)] | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class AggregationConfig(Section):
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

    ``threshold`` says how probable a class must be to be decided for; None: the most probable class is. ``f1`` and
    ``youden`` choose thresholds by which the mean F1 or the mean recall of the classes is best on the validation
    images, ``cost`` those by which mistakes cost least: `ddcnn.training.thresholds`. A number, with two classes, is the
    probability above which the second one is decided for. ``costs`` are those of mistakes, true class first:
    ``{ill: {healthy: 10}}``; of others 1.
    """

    name: str = "dense"
    options: dict[str, Any] = Field(default_factory=dict)
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
    threshold: Threshold | None = None
    costs: Costs | None = None

    @model_validator(mode="after")
    def _check(self) -> AggregationConfig:
        if self.features == "penultimate" and self.aggregate_on == "crossfit":
            raise ConfigError(
                "aggregation.features = penultimate cannot go with aggregate_on = crossfit: the features of local CNNs "
                "that were trained apart mean different things; use holdout, or features = logit"
            )
        if (self.threshold == "cost") != (self.costs is not None):
            raise ConfigError(
                "aggregation.costs says what mistakes cost, for aggregation.threshold = cost; give both or neither"
            )
        return self


class SubdomainConfig(Section):
    """What one local CNN has of its own; None means: as all others."""

    lr: Annotated[float, Field(gt=0)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None


class TrainingConfig(Section):
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
    subdomains: Annotated[dict[int, SubdomainConfig], BeforeValidator(by_index)] = Field(default_factory=dict)

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


class CoherentConfig(Section):
    """How the CNN-DNN is trained as one model from scratch.

    ``local_weight`` is the weight of each local CNN's own loss beside the global one, at the start; it falls to 0 in
    the course of the training. 0 from the start is as published.
    """

    local_weight: Annotated[float, Field(ge=0)] = 1.0


class TransferConfig(Section):
    """The second phase of transfer: the coherent model, started from the local CNNs.

    ``carry_aggregation`` starts from the trained DNN as well. ``epochs`` None means as many as the local CNNs had;
    ``lr_factor`` multiplies the recipe's learning rate.
    """

    carry_aggregation: bool = True
    epochs: PositiveInt | None = None
    lr_factor: Annotated[float, Field(gt=0)] = 0.5


class ComputeConfig(Section):
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
