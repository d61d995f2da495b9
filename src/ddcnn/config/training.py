"""Sections of the configuration: how networks are trained, where trainings begin, and what strategies add."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from ddcnn.config.values import (
    AutoFloat,
    AutoInt,
    Fraction,
    HomePath,
    PositiveInt,
    Section,
    by_index,
    shortened,
)
from ddcnn.errors import ConfigError


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
    """Momentum of SGD."""
    nesterov: bool = True
    """Only for optimizer=sgd: Nesterov's form of momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """How strongly parameters are drawn to 0."""
    epochs: PositiveInt = 10
    """How often each training image is seen, in each stage."""
    batch_size: AutoInt = 128
    """Images per step; auto: 128, or fewer where images are few or large."""
    schedule: Literal["constant", "onecycle", "cosine", "step", "plateau"] = "onecycle"
    """How the learning rate changes."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Only for schedule=onecycle: share of all steps in which the rate rises."""
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    """Only for schedule=step: shares of all epochs after which the rate is multiplied by gamma."""
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Only for schedule=step and schedule=plateau: what the rate is multiplied by."""
    plateau_patience: PositiveInt = 5
    """Only for schedule=plateau: epochs without a better validation loss before the rate is multiplied by gamma."""
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
    """Whether training images are flipped, shifted and rotated; no: as they are, whatever the next seven fields say."""
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
    the same image; trained: the local CNNs of another run, which are not trained any more; or module:name of your own.
    """
    weights: HomePath | None = None
    """A file (safetensors) whose parameters the networks begin with, or a run, of the networks in the same place."""
    epochs: PositiveInt | None = None
    """How long shared and contrastive train; None: as long as the local CNNs will."""

    @property
    def way(self) -> str:
        """The name of the way to begin: weights that are given say so."""
        return "weights" if self.weights is not None and self.name == "random" else self.name

    @property
    def at_random(self) -> bool:
        """Whether what is trained begins with random parameters."""
        return self.way in ("random", "trained")

    @model_validator(mode="after")
    def _check(self) -> InitConfig:
        if self.weights is not None and self.name not in ("random", "weights", "trained"):
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
