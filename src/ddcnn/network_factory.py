"""`NetworkFactory`: makes every network of a run, for training, for checking and for loading."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from ddcnn.aggregation import build_aggregation, check_aggregation, check_scores_of
from ddcnn.config import Config
from ddcnn.decomposition import Decomposition, Grid, Subdomain, Subimages, build_decomposition
from ddcnn.errors import DecompositionError, FusionError, ModelError, in_one_line, is_out_of_memory
from ddcnn.fusion import Backend, Proofs, classifier_of
from ddcnn.models import LocalCNNs, Normalization, build, width_rule
from ddcnn.models.randomness import draws_in_eval_mode
from ddcnn.network import CNNDNN
from ddcnn.seeds import derive_seed, own_random_numbers

_LITTLE = 2**14  # numbers of input: to compute with so few is faster than to find out that one need not
_CHECK_BATCH = 2  # batch norm can do with as many; of one image it may have a single number per channel


@dataclass(frozen=True)
class NetworkFactory:
    """Builds local CNNs, the global CNN and aggregations; each from a seed of its own.

    Attributes
    ----------
    config
        Its ``decomposition``, ``model``, ``aggregation`` and ``seed`` are used.
    channels, classes, image_size
        Of the images: C, K and (H, W) or (D, H, W).
    normalization
        What turns raw pixels into the numbers that networks see.
    device
        Where networks are made.
    proofs
        What has been proved of fused networks so far; it grows.
    """

    config: Config
    channels: int
    classes: int
    image_size: tuple[int, ...]
    normalization: Normalization
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    proofs: Proofs = field(default_factory=Proofs)

    @cached_property
    def decomposition(self) -> Decomposition:
        """The decomposition that the configuration describes."""
        return build_decomposition(self.config.decomposition)

    @property
    def whole_image(self) -> Decomposition:
        """The decomposition into one subdomain, whose local CNN is the global CNN."""
        return Grid((1,) * len(self.image_size))

    @cached_property
    def subdomains(self) -> tuple[Subdomain, ...]:
        """The N subdomains."""
        found, expected = self.decomposition.subdomains(self.image_size), len(self.decomposition)
        if len(found) != expected or not found:
            raise DecompositionError(
                f"decomposition {self.config.decomposition.name!r} cuts images into {len(found)} subdomains, and says "
                f"that there are {expected}; there should be as many, and at least one"
            )
        return found

    def local_module(self, index: int, purpose: str = "local") -> nn.Module:
        """Build the local CNN of one subdomain, on the CPU; its seed is that of (run, purpose, subdomain)."""
        width = self.config.model.width_factor or width_rule(self.decomposition.fine)
        subdomain, seed = self.subdomains[index], derive_seed(self.config.seed, purpose, index)
        return self._build(subdomain.shape, width, seed, self.channels + subdomain.added_channels)

    def local_modules(self, indices: Sequence[int] | None = None, purpose: str = "local") -> list[nn.Module]:
        """Build the local CNNs of some subdomains; None: of all."""
        return [self.local_module(n, purpose) for n in (range(len(self.subdomains)) if indices is None else indices)]

    def global_module(self) -> nn.Module:
        """Build the global CNN, of full width, for the whole image."""
        return self._build(self.image_size, 1.0, derive_seed(self.config.seed, "global"), self.channels)

    def local_cnns(
        self,
        indices: Sequence[int] | None = None,
        *,
        backend: Backend = "auto",
        modules: Sequence[nn.Module] | None = None,
        example: Subimages | None = None,
    ) -> LocalCNNs:
        """Return the local CNNs of some subdomains, fused, on the device; proved exact unless they are known to be.

        Parameters
        ----------
        indices
            The subdomains; None: all.
        backend, example
            As in `ddcnn.fuse`.
        modules
            Their networks; None builds them.
        """
        modules = self.local_modules(indices) if modules is None else modules
        return self._fused(self.decomposition, modules, indices, backend, example)

    def global_cnn(self, module: nn.Module | None = None) -> LocalCNNs:
        """Return the global CNN, as the only local CNN of a decomposition into one subdomain."""
        return self._fused(self.whole_image, [module or self.global_module()], None, "looped", None)

    @cached_property
    def feature_widths(self) -> tuple[int, ...] | None:
        """How many features each local CNN hands over, N numbers; None: the configuration asks for none.

        Raises
        ------
        ModelError
            A network has none.
        """
        return self.widths if self.config.aggregation.features == "penultimate" else None

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """How many features each local CNN has, whether it hands them over or not, N numbers.

        Raises
        ------
        ModelError
            A network has none.
        """
        known: dict[tuple[int, ...], int] = {}
        shapes = [(self.channels + s.added_channels, *s.shape) for s in self.subdomains]
        for subdomain, shape in zip(self.subdomains, shapes, strict=True):
            if shape not in known:
                try:
                    known[shape] = classifier_of(self.local_module(subdomain.index), shape)[1]
                except FusionError as error:
                    raise ModelError(f"model {self.config.model.name!r}: {error}") from None
        return tuple(known[shape] for shape in shapes)

    def aggregation(self, name: str, purpose: str = "dnn") -> nn.Module:
        """Build an aggregation on the device."""
        config, seed = self.config.aggregation, derive_seed(self.config.seed, purpose)
        widths = self.feature_widths
        return build_aggregation(name, len(self.decomposition), self.classes, config, seed=seed, widths=widths).to(
            self.device
        )

    def global_aggregation(self) -> nn.Module:
        """Build the aggregation of the global CNN, an average of one."""
        return build_aggregation("average", 1, self.classes, self.config.aggregation).to(self.device)

    def global_network(self, local_cnns: LocalCNNs) -> CNNDNN:
        """Return the global CNN as a `CNNDNN` of one subdomain, whose average is its own probability."""
        return CNNDNN(self.whole_image, local_cnns, self.global_aggregation())

    def network(self, local_cnns: LocalCNNs, aggregation: nn.Module, missing: Sequence[int] = ()) -> CNNDNN:
        """Return the whole network from its parts."""
        return CNNDNN(self.decomposition, local_cnns, aggregation, missing=missing)

    def check(self) -> None:
        """Make sure that each network takes its images and returns a score per class, and that all can be put together.

        Raises
        ------
        ModelError
            One does not: the image is too small for it, or it returns something else.
        AggregationError
            The aggregation cannot be trained as the configuration says.
        """
        check_aggregation(self.config.aggregation)
        self._check(self.global_module(), (self.channels, *self.image_size), "the image", Subdomain.remedy)
        for s in self._one_of_each_shape:
            try:
                module = self.local_module(s.index)
            except ModelError as error:
                if s.remedy == Subdomain.remedy:
                    raise
                raise ModelError(f"{s.name}: {str(error).replace(Subdomain.remedy, s.remedy)}") from None
            shape = (self.channels + s.added_channels, *s.shape)
            self._check(module, shape, f"the subimage of subdomain {s.index}", s.remedy)
        name, N = self.config.aggregation.name, len(self.decomposition)
        width = max(self.feature_widths or [self.classes])
        check_scores_of(
            name, self.aggregation(name), torch.full((2, N, width), 1 / width, device=self.device), self.classes
        )

    def examples(self) -> Iterator[tuple[nn.Module, tuple[int, ...]]]:
        """Yield the global CNN and a local CNN of each shape, with the shape of a small batch that it takes."""
        yield self.global_module(), (_CHECK_BATCH, self.channels, *self.image_size)
        for s in self._one_of_each_shape:
            yield self.local_module(s.index), (_CHECK_BATCH, self.channels + s.added_channels, *s.shape)

    @property
    def _one_of_each_shape(self) -> Iterable[Subdomain]:
        return {(s.shape, s.added_channels): s for s in self.subdomains}.values()

    def unreduced(self) -> str:
        """Return in one line that local CNNs are as large as the global CNN, against the width rule; else nothing."""
        width = self.config.model.width_factor or width_rule(self.decomposition.fine)
        if width >= 1:
            return ""
        local, whole = (sum(p.numel() for p in m.parameters()) for m in (self.local_module(0), self.global_module()))
        if local < whole:
            return ""
        return (
            f"not divided: {self.config.model.name} has {local:,} parameters as each of {len(self.subdomains)} local "
            f"CNNs, and {whole:,} as the global CNN"
        )

    def _fused(
        self,
        decomposition: Decomposition,
        modules: Sequence[nn.Module],
        indices: Sequence[int] | None,
        backend: Backend,
        example: Subimages | None,
    ) -> LocalCNNs:
        return LocalCNNs(
            decomposition,
            [module.to(self.device) for module in modules],
            image_size=self.image_size,
            indices=indices,
            backend=backend,
            example=example,
            channels=self.channels,
            proofs=self.proofs,
            normalization=copy.deepcopy(self.normalization).to(self.device),
        )

    def _build(self, size: tuple[int, ...], width: float, seed: int, channels: int) -> nn.Module:
        model = self.config.model
        return build(model.name, channels, self.classes, size, width=width, seed=seed, options=model.options)

    def _check(self, module: nn.Module, image: tuple[int, ...], what: str, remedy: str) -> None:
        self._check_scores(module, image, what, remedy)
        shape = (_CHECK_BATCH, *image)
        if draws_in_eval_mode(module, shape, compute=math.prod(shape) <= _LITTLE):
            raise ModelError(
                f"model {self.config.model.name!r} draws random numbers in eval mode, so an image would be classified "
                "in another way each time; do so where self.training alone"
            )

    def _check_scores(self, module: nn.Module, image: tuple[int, ...], what: str, remedy: str) -> None:
        batch = min(self.config.training.batch_size or _CHECK_BATCH, _CHECK_BATCH)
        shape, wanted = (batch, *image), (batch, self.classes)
        solved = hasattr(module, "solve")  # without gradients
        if not solved and not any(p.requires_grad for p in module.parameters()):
            raise ModelError(f"model {self.config.model.name!r} has no parameter that learns; one at least is needed")
        name, where = f"model {self.config.model.name!r}", f"{what}, {'x'.join(map(str, image[1:]))} pixels"
        if math.prod(shape) > _LITTLE and _shape_of_scores(module, shape) == wanted:
            return
        try:
            with own_random_numbers():  # dropout draws
                scores = module.cpu().train()(torch.zeros(shape))
        except (RuntimeError, ValueError) as error:  # whatever a network says of an input that is too small
            if is_out_of_memory(error):
                raise
            reason, remedy = in_one_line(error), f"use {remedy}"
            if batch < _CHECK_BATCH and _shape_of_scores(module, (_CHECK_BATCH, *shape[1:])) is not None:
                remedy = f"it takes batches of {_CHECK_BATCH}, so use a larger --batch-size"
            raise ModelError(f"{name} does not fit {where}, in batches of {batch}: {reason}; {remedy}") from None
        if not isinstance(scores, Tensor) or tuple(scores.shape) != wanted:
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ModelError(f"{name} should return scores (B, K) = {wanted} for {where}, got {got}")


def _shape_of_scores(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape of a network's scores, found without computing them, in no time and memory.

    None: it cannot be told; the input is too small, or the network must see numbers.
    """
    try:
        with own_random_numbers():
            scores = copy.deepcopy(module).to("meta").train()(torch.empty(shape, device="meta"))
    except Exception:  # whatever a network raises: computing will tell
        return None
    return tuple(scores.shape) if isinstance(scores, Tensor) else None
