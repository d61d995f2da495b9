"""The sections of a configuration, which mirror the folders of the package."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ddcnn.config.values import (
    MOST_THREADS,
    Axes,
    Bytes,
    Costs,
    Features,
    Fraction,
    PositiveInt,
    Resize,
    Section,
    Threshold,
    coarse_size,
    shortened,
    with_options,
)
from ddcnn.errors import ConfigError


class DataConfig(Section):
    """Which images, and how they are split."""

    source: str = "mnist5k"
    """A name, such as mnist5k or cifar10, or a kind and a path, such as folder:photos; or module:function of your own.
    """
    directory: Path | None = None
    """Where the files of the data set are, or are downloaded to; None: ddcnn's cache folder."""
    offline: bool = False
    """Whether nothing is ever downloaded."""
    validation: Fraction | None = None
    """Share of the training samples that chooses the epoch; None: the official validation set, or else a tenth, at most
    2,500.
    """
    test: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share that is set aside where the source has no official test set; 0: none."""
    folds: Axes | None = None
    """Cross-validation, folds x repeats: 5x2 divides all samples into 5 parts, twice, each the test part of one fold.
    """
    fold: Annotated[int, Field(ge=0)] | None = None
    """The fold to train on, from 0; None: all of them."""
    limit_train: PositiveInt | None = None
    """Use so many training samples only."""
    limit_val: PositiveInt | None = None
    """Use so many validation samples only."""
    limit_test: PositiveInt | None = None
    """Use so many test samples only."""
    image_size: Axes | None = None
    """Size to which image files are resized, height x width; None: as they are."""
    resize: Resize | None = None
    """How files of other proportions get that size: stretch (None) changes their proportions, crop cuts off what is too
    much on two sides, pad adds black on two sides.
    """
    group_pattern: str | None = None
    """Regular expression for files of a folder: those for whose path below it the first group in parentheses (or,
    without one, the whole match) is the same text belong together, such as those of a patient, and stay in one part.
    """
    classes: dict[str, tuple[str, ...]] | None = None
    """Puts labels of mosmed and csv into classes, such as {healthy: [CT-0], ill: [CT-2, CT-3]}; other labels are left
    out.
    """
    window: tuple[float, float] | None = None
    """The two values of a volume that become 0 and 255, clipped beyond: for CT in Hounsfield units."""
    on_bad_file: Literal["error", "warn", "skip"] = "error"
    """What to do with a file that cannot be read: stop, leave it out and tell, or leave it out. Those that were left
    out are listed in bad_files.json of the run.
    """

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        if self.folds is not None and (len(self.folds) > 2 or self.folds[0] < 2 or min(self.folds) < 1):
            shown = "x".join(map(str, self.folds))
            raise ConfigError(
                f"data.folds = {shown} should be the number of folds, at least 2, and of repeats: 5x2 or 5"
            )
        if self.fold is not None and self.folds is None:
            raise ConfigError(f"data.fold = {self.fold} is one of data.folds, which is missing; give it, such as 5")
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
    """Where images are cut."""

    name: str = "grid"
    """A registered decomposition, perhaps with options behind it (voronoi:6,seed=3 is voronoi with parts: 6, seed: 3),
    or module:function of your own, called with the options.
    """
    grid: Axes = (2, 2)
    """Only for a grid: subdomains along rows x columns, or depth x rows x columns."""
    overlap: Axes = (0,)
    """Only for a grid: pixels by which each subdomain grows into its neighbours, per side."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What the decomposition is called with."""
    coarse: Annotated[tuple[int, ...] | Literal["auto"] | None, BeforeValidator(coarse_size)] = None
    """One more local CNN, for the whole image reduced to so many pixels by area averaging; auto: a sensible size
    (ddcnn.WithCoarse); None: no coarse level.
    """

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
    """The network."""

    name: str = "vgg9"
    """A registered network, or module:function, a factory of your own."""
    width_factor: Annotated[float, Field(gt=0)] | None = None
    """Scales the channels of the local CNNs; None: 1 / sqrt(N) for N subdomains."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What the factory is called with."""


class AggregationConfig(Section):
    """How what local CNNs say becomes the global decision, and how the dense network (DNN) for it is trained."""

    name: str = "dense"
    """A registered aggregation, or module:function of your own, called with the number of subdomains, the number of
    classes and the options.
    """
    options: dict[str, Any] = Field(default_factory=dict)
    """What the aggregation is called with."""
    aggregate_on: Literal["train", "holdout", "crossfit"] = "train"
    """From which probabilities the DNN learns. train: those of the training images. holdout: those of a part of them
    that the local CNNs never saw. crossfit: those of all, each computed by local CNNs that did not see it, which
    trains the local CNNs as often again as there are folds.
    """
    holdout_fraction: Fraction = 0.2
    """With holdout: the share of the training images that the local CNNs never see."""
    folds: Annotated[int, Field(ge=2)] = 3
    """With crossfit: the number of parts."""
    hidden: Annotated[Axes, Field(max_length=64)] = (256, 128)
    """Neurons of the hidden layers of the DNN."""
    features: Features = "probability"
    """What local CNNs hand over: their probability for each class, as published, its log, the logit before the softmax,
    or the penultimate features that their last linear layer sees. Average, vote and weighted average use
    probabilities.
    """
    shortcut: bool = True
    """Only for the DNN: whether the sum of the logarithms of the probabilities is added to its scores, so that it
    starts as a product of experts.
    """
    subdomain_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability with which a subdomain is dropped (dropout) while the aggregation is trained, so that it learns to do
    without some.
    """
    epochs: PositiveInt = 30
    """Epochs of the training of the DNN."""
    batch_size: PositiveInt = 256
    """Images per step of the training of the DNN."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate of the training of the DNN, by AdamW."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """Weight decay of the training of the DNN."""
    calibrate: bool = False
    """Find a temperature for each local CNN, before the aggregation learns, and one for the decision, both on the
    validation images.
    """
    threshold: Threshold | None = None
    """How probable a class must be to be decided for; None: the most probable class is. f1 and youden choose thresholds
    by which the mean F1 or the mean recall of the classes is best on the validation images, cost those by which
    mistakes cost least. A number, with two classes, is the probability above which the second one is decided for.
    """
    costs: Costs | None = None
    """With threshold cost: what mistakes cost, true class first, such as {ill: {healthy: 10}}; of others 1."""

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


class ComputeConfig(Section):
    """Where and how it is computed. What is auto is decided once, by a measurement, and recorded in the run."""

    device: str = "auto"
    """auto: a GPU where there is one; or cpu, cuda, cuda:1."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the training."""
    cuda_graphs: bool = True
    """Whether a GPU may replay forward and backward pass of a training step as a CUDA graph, where that is proved to
    compute the same and there is no limit on memory.
    """
    backend: Literal["auto", "fused", "vmapped", "looped"] = "auto"
    """How several local CNNs run at once: as one grouped network, by vmap, or in turn."""
    memory: Bytes | None = None
    """How much of the device, or of this process on a CPU, may be used at most, in bytes or as 8GB: it decides how many
    local CNNs are trained at once, and whether images are resident. None: no limit.
    """
    group: PositiveInt | None = None
    """How many local CNNs are trained at once; None: as memory and workers have it."""
    engine: str = "in_process"
    """Where local CNNs are trained: here one group after the other (in_process), in processes of this machine, on a ray
    cluster, or by module:function of your own.
    """
    workers: PositiveInt | None = None
    """How many groups are trained at the same time; None: one per GPU, or per core."""
    threads: Annotated[int, Field(ge=1, le=MOST_THREADS)] | None = None
    """Threads of each worker, or without workers of this process; None: as many as cores, or fewer beside other
    programs.
    """
    ray_address: str | None = None
    """Address of the cluster; None starts one here."""
    retries: Annotated[int, Field(ge=0)] = 1
    """How often a task that fails goes on from its checkpoint."""
    replicas: PositiveInt = 1
    """For the coherent model over ranks: so many groups of them each have all subdomains, and compute a share of each
    batch.
    """
