"""`Dataset`: images, labels and what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from torch import Tensor

from ddcnn.config import Resize
from ddcnn.data.bad_files import BadFile
from ddcnn.data.labels import check_classes, label_hint, label_notes, may_lack_images
from ddcnn.data.lazy import Images
from ddcnn.data.moments import moments
from ddcnn.errors import DataError


@dataclass(frozen=True)
class Dataset:
    """Labelled images of one size.

    Attributes
    ----------
    name
        The source, as in the configuration.
    images
        (n, C, H, W) or (n, C, D, H, W); uint8 in 0..255, or finite float32: in memory, or `Images` that are read or
        made when they are needed.
    labels
        (n,), in 0..K-1.
    classes
        The K class names.
    official_test
        Indices of the samples that the publisher set aside for the test, or None.
    official_validation
        The same for the validation.
    flip_axes
        Axes of the image (0 = first spatial axis) along which a mirrored image keeps its class.
    shift
        Pixels by which an image may be shifted for augmentation.
    rotation
        Degrees by which an image may be rotated for augmentation.
    plane
        The two axes that a rotation turns into each other: of a volume, those of its slices.
    crop
        Smallest share of an image that augmentation may enlarge to the whole; 1: it may not.
    source
        Provenance: publisher, files, checksums, licence.
    bad_files
        Files that were left out, and why.
    notes
        What was done to the files, and what of the folder was passed over, with counts; and what looks odd about the
        labels: a line each.
    window
        The values of the volumes that became 0 and 255, if values were clipped.
    label_groups
        Which labels of the source make which class, if they were put together.
    resized
        Whether files were resized to this size, so that others may be.
    resize
        What became of other proportions: ``data.resize``.
    groups
        (n,) which samples belong together, by equal numbers, such as those of one patient: they are never in two parts
        of a split. None: all are independent.
    weights
        (n,) how much each sample counts in the training, at least 0; None: all the same.
    files
        Of each sample, the path of its file below the folder of the data set; empty: it has none.
    layout
        Of images that were arrays: which of their axes was what, such as ``"NHWC"``; of a file, if it says so.
    label_kind
        Of labels whose names alone do not tell it: their type, one of `ddcnn.data.description.LABEL_KINDS`.
    annotation
        Of a sample, by its index, the mask (*S) of what makes its class, for drawings; or None.
    """

    name: str
    images: Shaped[Tensor, "n C *S"] | Images
    labels: Int64[Tensor, " n"]
    classes: tuple[str, ...]
    official_test: Int64[Tensor, " m"] | None = None
    official_validation: Int64[Tensor, " v"] | None = None
    flip_axes: tuple[int, ...] = ()
    shift: int = 0
    rotation: float = 0.0
    plane: tuple[int, int] = (-2, -1)
    crop: float = 1.0
    source: dict[str, str] = field(default_factory=dict)
    bad_files: tuple[BadFile, ...] = ()
    notes: tuple[str, ...] = ()
    window: tuple[float, float] | None = None
    label_groups: Mapping[str, tuple[str, ...]] | None = None
    resized: bool = False
    resize: Resize | None = None
    groups: Int64[Tensor, " n"] | None = None
    weights: Float[Tensor, " n"] | None = None
    files: tuple[str, ...] = ()
    layout: str | None = None
    label_kind: str | None = None
    annotation: Callable[[int], Bool[Tensor, "*S"]] | None = None

    @property
    def image_size(self) -> tuple[int, ...]:
        """Spatial size, (H, W) or (D, H, W), in pixels."""
        return tuple(self.images.shape[2:])

    @property
    def channels(self) -> int:
        """Number of image channels, C."""
        return self.images.shape[1]

    @property
    def value_range(self) -> tuple[float, float]:
        """Smallest and largest value of all images."""
        if isinstance(self.images, Tensor):
            return float(self.images.min()), float(self.images.max())
        found = self.images.moments()
        return float(found[..., 2].min()), float(found[..., 3].max())

    def moments(self, samples: Int64[Tensor, " m"] | None = None) -> Float64[Tensor, "m C 4"]:
        """Return sum, sum of squares, minimum and maximum of some images, per channel; None: of all."""
        if isinstance(self.images, Images):
            return self.images.moments(samples)
        return moments(self.images, samples)


def checked(dataset: Dataset) -> Dataset:
    """Return the data set, with notes on its labels, if it can be trained on: the one door for every source.

    Raises
    ------
    DataError
        Wrong dimensions or type, NaN or infinity, no pixels, labels out of range, fewer than two classes, a class
        without a name or an image.
    """
    images, labels, classes = dataset.images, dataset.labels, len(dataset.classes)
    if images.ndim not in (4, 5):
        raise DataError(
            f"{dataset.name}: expected images (n, C, H, W) or (n, C, D, H, W), got shape {tuple(images.shape)}"
        )
    if images.dtype not in (torch.uint8, torch.float32):
        raise DataError(f"{dataset.name}: images should be uint8 or float32, got {images.dtype}")
    if len(images) != len(labels):
        raise DataError(f"{dataset.name}: {len(images)} images but {len(labels)} labels")
    if not len(images):
        raise DataError(f"{dataset.name}: no images")
    for what, values in (("groups", dataset.groups), ("weights", dataset.weights)):
        if values is not None and tuple(values.shape) != (len(images),):
            raise DataError(f"{dataset.name}: {what} should have shape ({len(images)},), got {tuple(values.shape)}")
    if dataset.weights is not None:
        _check_weights(dataset.name, dataset.weights)
    if 0 in images.shape:
        raise DataError(f"{dataset.name}: images should have pixels, got shape {tuple(images.shape)}")
    check_classes(dataset.name, dataset.classes)
    if labels.is_floating_point() or labels.is_complex():
        raise DataError(f"{dataset.name}: labels should be whole numbers, got {labels.dtype}; give labels.long()")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        hint = label_hint(labels.unique().numpy(), classes)
        raise DataError(f"{dataset.name}: labels should lie in 0..{classes - 1}, got {low}..{high}{hint}")
    if isinstance(images, Tensor) and images.is_floating_point():
        _check_finite(dataset.name, images)
    counts = torch.bincount(labels, minlength=classes)
    if int(counts.min()) == 0 and not may_lack_images(dataset.classes):
        empty = dataset.classes[int(counts.argmin())]
        raise DataError(f"{dataset.name}: class {empty!r} has no image; remove the class or add images")
    notes = dict.fromkeys((*dataset.notes, *label_notes(dataset.classes, counts.tolist())))
    return replace(dataset, notes=tuple(notes))


def _check_weights(name: str, weights: Tensor) -> None:
    if not torch.isfinite(weights).all() or float(weights.min()) < 0 or float(weights.max()) == 0:
        low, high = float(weights.min()), float(weights.max())
        raise DataError(f"{name}: weights should be at least 0, finite, and not all 0, got {low:g}..{high:g}")


def _check_finite(name: str, images: Tensor) -> None:
    for i, image in enumerate(images):
        if not torch.isfinite(image).all():
            raise DataError(f"{name}: image {i} holds NaN or infinity; remove it or replace the values")
