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
    """Of a grid: subdomains along rows x columns, or depth x rows x columns."""
    overlap: Axes = (0,)
    """Of a grid: pixels by which each subdomain grows into its neighbours, per side."""
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
    """Of the DNN: neurons of its hidden layers."""
    features: Features = "probability"
    """What local CNNs hand over: their probability for each class, as published, its log, the logit before the softmax,
    or the penultimate features that their last linear layer sees. Average, vote and weighted average use
    probabilities.
    """
    shortcut: bool = True
    """Of the DNN: whether the sum of the logarithms of the probabilities is added to its scores, so that it starts as a
    product of experts.
    """
    subdomain_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of the DNN: probability with which a subdomain says nothing while it is trained, so that it learns to do without
    some.
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


class SubdomainConfig(Section):
    """What one local CNN has of its own; None means: as all others."""

    lr: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    """Weight decay."""


class TrainingConfig(Section):
    """How a network is trained."""

    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """What moves the parameters."""
    lr: AutoFloat = 0.1
    """Peak learning rate of the schedule; auto goes with the batch size."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of sgd."""
    nesterov: bool = True
    """Of sgd: Nesterov's form of momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """How strongly parameters are drawn to 0."""
    epochs: PositiveInt = 10
    """How often each training image is seen, in each stage."""
    batch_size: AutoInt = 128
    """Images per step; auto: 128, or fewer where images are few or large."""
    schedule: Literal["constant", "onecycle", "cosine", "step", "plateau"] = "onecycle"
    """How the learning rate changes."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Of onecycle: share of all steps in which the rate rises."""
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    """Of step: shares of all epochs after which the rate is multiplied by gamma."""
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Of step and plateau: what the rate is multiplied by."""
    plateau_patience: PositiveInt = 5
    """Of plateau: epochs without a better validation loss after which the rate is multiplied by gamma."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread over all classes."""
    class_weights: Literal["balanced"] | None = None
    """Against imbalance: balanced weights the loss so that all classes count the same."""
    sampling: Literal["shuffled", "balanced"] = "shuffled"
    """Against imbalance: balanced shows each class equally often per epoch."""
    patience: PositiveInt | None = None
    """Stop a subdomain that has not improved its validation accuracy for so many epochs; None: never."""
    select: Literal["best", "last"] = "best"
    """Keep the parameters of the epoch with the best validation accuracy, or of the last one."""
    augment: bool = True
    """Whether training images are flipped, shifted and rotated; no: not at all, whatever the next four say."""
    flip: bool | None = None
    """Whether training images are mirrored; None: as the data set allows."""
    shift: Annotated[int, Field(ge=0)] | None = None
    """Most pixels by which training images are shifted; None: as the data set allows."""
    rotation: Annotated[float, Field(ge=0, le=180)] | None = None
    """Most degrees by which training images are rotated; None: as the data set allows."""
    crop: Annotated[float, Field(gt=0, le=1)] | None = None
    """Smallest share of a training image that is enlarged to the whole; 1: none is; None: as the data set allows."""
    jitter: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """By how much contrast and brightness of training images are changed; 0.1: by a tenth at most."""
    mixup: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Mix images and their labels, with shares from a Beta distribution of this parameter; 0: not."""
    cutmix: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Put a box of another image into each, with shares from a Beta distribution of this parameter; 0: not."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest norm that the gradient of one network may have: a longer one is shortened to it, each local CNN's for
    itself. None: no limit.
    """
    decay: Literal["all", "weights"] = "all"
    """What weight decay draws to 0: all parameters, or weights, which spares norms and biases."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Keep a running mean of the parameters, of which each step leaves this share as it was, such as 0.999; it is what
    is validated, kept and used, with the statistics of its batch norm measured anew. None: no mean.
    """
    sam: Annotated[float, Field(gt=0)] | None = None
    """Radius of sharpness-aware minimisation, which takes the gradient where the loss is highest nearby, and twice the
    time. None: without.
    """
    freeze: Annotated[int, Field(ge=0)] = 0
    """Epochs for which all layers but the last of each CNN are held, in trainings that begin with what others found,
    not at random.
    """
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learning rate of each layer of a CNN as a share of that of the next one, in trainings that begin with what others
    found, not at random.
    """
    local_objective: str = "ce"
    """What local CNNs that are trained alone minimise: the cross-entropy (ce), or that and what keeps features that
    help only jointly (ce+contrast, ce+reconstruction); or module:name of your own.
    """
    local_objective_weight: Annotated[float, Field(gt=0)] = 0.1
    """Weight of what joins the cross-entropy."""
    subdomains: Annotated[dict[int, SubdomainConfig], BeforeValidator(by_index)] = Field(default_factory=dict)
    """For local CNNs, by the index of their subdomain: lr or weight_decay of their own, as in
    training.subdomains.3.lr=0.05. It plays no part where one model is trained (global, coherent, the second phase of
    transfer).
    """

    @property
    def peak_lr(self) -> float:
        """The learning rate, which is no longer ``auto``."""
        assert self.lr is not None, "ddcnn.planning.with_batch_size decides it"
        return self.lr

    def from_random(self) -> TrainingConfig:
        """Return how networks are trained that begin at random: none of their layers is worth holding."""
        return self.model_copy(update={"freeze": 0, "layer_decay": 1.0})

    def of(self, index: int) -> TrainingConfig:
        """Return how the local CNN of one subdomain is trained.

        >>> config = TrainingConfig(lr=0.1, weight_decay=0.5, subdomains={3: {"lr": 0.05}})
        >>> [(own.lr, own.weight_decay) for own in (config.of(2), config.of(3))]
        [(0.1, 0.5), (0.05, 0.5)]
        """
        own = self.subdomains.get(index, SubdomainConfig())
        return self.model_copy(update=own.model_dump(exclude_none=True))


class InitConfig(Section):
    """Where the trainings of local CNNs, of the coherent model and of the global CNN begin."""

    name: str = "random"
    """random; weights: the parameters of a file or of another run; shared: one local CNN that was trained on the
    subimages of all subdomains; contrastive: local CNNs that learned, without labels, which subimages are two views of
    the same image; or module:name of your own.
    """
    weights: Path | None = None
    """A file (safetensors) whose parameters the networks begin with, or a run, of the networks in the same place."""
    epochs: PositiveInt | None = None
    """How long shared and contrastive train; None: as long as the local CNNs will."""

    @property
    def way(self) -> str:
        """The name of the way to begin: weights that are given say so."""
        return self.name if self.weights is None else "weights"

    @model_validator(mode="after")
    def _check(self) -> InitConfig:
        if self.weights is not None and self.name not in ("random", "weights"):
            raise ConfigError(
                f"init.weights = {shortened(str(self.weights))} says where to begin, and so does init.name = "
                f"{shortened(self.name)}; leave one of them out"
            )
        return self


class ComposeConfig(Section):
    """The global CNN, composed of sub-networks that divide its channels among them (strategy compose)."""

    parts: Annotated[int, Field(ge=2)] = 2
    """Number of sub-networks."""
    epochs: PositiveInt | None = None
    """Epochs of the composed CNN; None: as many as the sub-networks had."""
    lr_factor: Annotated[float, Field(gt=0)] = 0.5
    """Multiplies the learning rate of the composed CNN."""


class CoherentConfig(Section):
    """How the CNN-DNN is trained as one model from scratch."""

    local_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of each local CNN's own loss beside the global one, at the start; it falls to 0 in the course of the
    training. 0 from the start is as published.
    """


class TransferConfig(Section):
    """The second phase of transfer: the coherent model, started from the local CNNs."""

    carry_aggregation: bool = True
    """Whether it starts from the trained DNN as well."""
    epochs: PositiveInt | None = None
    """Its epochs; None: as many as the local CNNs had."""
    lr_factor: Annotated[float, Field(gt=0)] = 0.5
    """Multiplies the learning rate of the training."""


class ComputeConfig(Section):
    """Where and how it is computed. What is auto is decided once, by a measurement, and recorded in the run."""

    device: str = "auto"
    """auto: a GPU where there is one; or cpu, cuda, cuda:1."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the training."""
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
