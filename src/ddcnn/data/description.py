"""What an image and a label mean to a network: kept with it, and compared with whatever it is given later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from ddcnn.config import DataConfig, Resize
from ddcnn.data.arrays import arranged, as_numpy, fitting
from ddcnn.data.dataset import Dataset
from ddcnn.data.layouts import check_kind
from ddcnn.data.sources import takes
from ddcnn.errors import DataError
from ddcnn.text import name_fault

_NUMBERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")
LABEL_KINDS = ("str", "object", "bool", *_NUMBERS)
"""Types of labels, as NumPy names them; of ``"object"`` are strings, too."""

_BEYOND_UNIT = 16  # a largest value from here on tells that the scale is not 0..1
_BRIGHTER = 10  # times the range of the training: so much, but not 255 times, other images may be brighter


@dataclass(frozen=True)
class InputDescription:
    """The input of a network.

    Attributes
    ----------
    dtype
        ``"uint8"`` or ``"float32"``.
    value_range
        Smallest and largest value of the images that it was trained on, before normalisation.
    channels, size
        C, and (H, W) or (D, H, W).
    classes
        The K class names, in the order of the scores.
    window
        ``data.window``: the values of a volume that became 0 and 255.
    label_groups
        ``data.classes``: which labels of the source each class stands for; None: each label is a class.
    resized
        Whether files were resized to this size, so that others may be.
    resize
        ``data.resize``: what became of other proportions.
    layout
        Which axis of the arrays of the training was what, such as ``"NHWC"``: those that are given later have it, too.
        None: they were no arrays, or the run is older.
    label_kind
        The type of the labels, one of `LABEL_KINDS`, where the names of the classes do not tell it.
    """

    dtype: str
    value_range: tuple[float, float]
    channels: int
    size: tuple[int, ...]
    classes: tuple[str, ...]
    window: tuple[float, float] | None = None
    label_groups: Mapping[str, tuple[str, ...]] | None = None
    resized: bool = False
    resize: Resize | None = None
    layout: str | None = None
    label_kind: str | None = None

    @classmethod
    def of(cls, dataset: Dataset, config: DataConfig) -> InputDescription:
        """Return the description of a data set as the configuration has it read."""
        return cls(
            dtype=str(dataset.images.dtype).removeprefix("torch."),
            value_range=dataset.value_range,
            channels=dataset.channels,
            size=dataset.image_size,
            classes=dataset.classes,
            window=dataset.window,
            label_groups=dataset.label_groups,
            resized=dataset.resized or config.image_size is not None,
            resize=dataset.resize or config.resize,
            layout=dataset.layout,
            label_kind=dataset.label_kind,
        )

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold; `from_json` gives back an equal description."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> InputDescription:
        """Read what `to_json` returned, perhaps through a file that someone else wrote.

        Raises
        ------
        DataError
            A field is unknown, missing, of another type or cannot be.
        """
        if not isinstance(value, Mapping) or set(value) - set(cls.__dataclass_fields__):
            raise DataError("the description of the input cannot be used: it is no object, or has unknown fields")
        try:
            found = TypeAdapter(cls).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise DataError(f"the description of the input cannot be used: {field}: {first['msg']}") from None
        if fault := _fault(found):
            raise DataError(f"the description of the input cannot be used: {fault} cannot be so; train again")
        return found

    def adopt(self, config: DataConfig) -> DataConfig:
        """Return a configuration that reads other data as these were read: its window, its classes, its size.

        What the configuration says itself stays; what its source knows nothing of is not taken over.
        """
        size = self.size if self.resized else None
        own = {"window": self.window, "classes": self.label_groups, "image_size": size, "resize": self.resize}
        taken = {
            name: value
            for name, value in own.items()
            if value is not None and getattr(config, name) is None and takes(config.source, name)
        }
        return config.model_copy(update=taken)

    def check(self, other: InputDescription, name: str = "the data") -> None:
        """Raise a `DataError` unless other data mean the same.

        Parameters
        ----------
        name
            What the message calls them: the source.
        """
        self._check_classes(other, name)
        for what, ours, theirs in (
            ("images of", _shape(self), _shape(other)),
            ("data.window =", _window(self.window), _window(other.window)),
            ("data.classes =", _groups(self.label_groups), _groups(other.label_groups)),
        ):
            if ours != theirs:
                raise DataError(f"{name}: the network was trained with {what} {ours}, got {theirs}; read them as then")
        if self.dtype != other.dtype:
            raise DataError(
                f"{name}: the network was trained on {self.dtype} in {_range(self.value_range)}, got {other.dtype} in "
                f"{_range(other.value_range)}; convert the values to {self.dtype} of that range"
            )
        self._check_scale(other.value_range, name, integers=other.dtype == "uint8")

    def arranged(self, images: Tensor | np.ndarray, name: str = "X") -> np.ndarray:
        """Return images as a writable array (n, C, *S), checked as `check_array` does.

        Parameters
        ----------
        images
            With the axes of those of the training, if `layout` is known and their shape fits; else (n, C, *S),
            (n, *S, C), or (n, *S) if C is 1.
        """
        found = as_numpy(images, name)
        check_kind(name, found.dtype)
        found = arranged(found, (self.channels, *self.size), name, self.fitting(found.shape))
        self.check_array(found, name)
        if found.dtype != np.uint8:
            found = found.astype(np.float32)
        return np.require(found, requirements=["C", "W"])

    def fitting(self, shape: Sequence[int]) -> str | None:
        """Return the layout of the training, if images of a shape, (n, ...), can be read by it; else None."""
        return fitting(self.layout, shape, (self.channels, *self.size))

    def check_told(self, name: str) -> None:
        """Raise a `DataError` if a file of arrays of this size has to say its layout, since there are two readings.

        Such a file is read as height before width, if it says nothing; so were the images of the training not.
        """
        axes = (self.layout or "NHW").replace("C", "")
        usual = "NDHW" if "D" in axes else "NHW"
        if axes != usual and fitting(axes, (1, *self.size), (1, *self.size)):
            raise DataError(
                f"{name} does not say which axis is what, and the network was trained on arrays of layout "
                f"{self.layout}; write the file with one more entry, numpy.savez(..., layout={self.layout!r}), or "
                f"{usual!r}"
            )

    def check_array(self, images: Tensor | np.ndarray, name: str = "the input", *, dark: bool = False) -> None:
        """Raise a `DataError` unless bare images (B, C, *S) are such as the network was trained on.

        Channels, size and the scale of the values are compared, not the type: numbers of 0..255 may come as floats.
        Numbers of 0..1 given to a network of 0..255 are an error, and the reverse; all zeros are not.

        Parameters
        ----------
        dark
            Whether numbers of 0..1 may be pixels of 0..255, as those of an image file are.
        """
        shape = (self.channels, *self.size)
        if tuple(images.shape[1:]) != shape:
            last = tuple(images.shape[1:]) == (*self.size, self.channels)
            hint = "; move the axis of the channels to the front" if last else ""
            raise DataError(
                f"{name}: expected images of shape (B, {', '.join(map(str, shape))}), got {tuple(images.shape)}{hint}"
            )
        if not len(images):
            return
        given = float(images.min()), float(images.max())
        if not np.isfinite(given).all():
            raise DataError(f"{name} holds NaN or infinity; remove it or replace the values")
        kind = str(images.dtype).removeprefix("torch.")
        if self.dtype == "uint8" and (given[0] < 0 or given[1] > 255):
            raise DataError(
                f"{name}: the network was trained on uint8 in 0..255, got {kind} in {_range(given)}; convert the "
                "values to 0..255, or train on float32"
            )
        self._check_scale(given, name, integers=not kind.startswith(("float", "bfloat")), dark=dark)

    def _check_classes(self, other: InputDescription, name: str) -> None:
        if self.classes == other.classes:
            return
        if sorted(self.classes) == sorted(other.classes):
            what = "has the classes in another order"
        else:
            new = [one for one in other.classes if one not in self.classes]
            gone = [one for one in self.classes if one not in other.classes]
            what = f"has the unknown class {new[0]!r}" if new else f"lacks the class {gone[0]!r}"
        raise DataError(
            f"{name} {what}: the network knows {len(self.classes)} classes, {_listed(self.classes)}, got "
            f"{len(other.classes)}, {_listed(other.classes)}; name and order them alike"
        )

    def _check_scale(self, given: tuple[float, float], name: str, *, integers: bool, dark: bool = False) -> None:
        low, high = self.value_range
        if low == high or given == (0, 0):
            return
        small = self.dtype == "uint8" and high <= _BEYOND_UNIT  # masks, not photos: of these some pixel is brighter
        room = (high - low) * (1 if integers and not small else _BRIGHTER)
        outside = given[0] < low - room or given[1] > high + room
        if high >= _BEYOND_UNIT and given[0] >= 0 and 0 < given[1] <= 1 and not dark:
            hint = f"they look scaled to 0..1, give them in {_range(self.value_range)}"
        elif outside and (small or self.dtype != "uint8"):  # other numbers of 0..255 are on the scale of uint8
            hint = f"scale them to {_range(self.value_range)}, as in training"
        else:
            return
        raise DataError(
            f"{name}: the network was trained on {self.dtype} in {_range(self.value_range)}, got values in "
            f"{_range(given)}; {hint}"
        )


def _fault(one: InputDescription) -> str | None:
    """Return the name of the first field that cannot be so."""
    names = one.classes
    faults = {
        "dtype": one.dtype not in ("uint8", "float32"),
        "value_range": not (np.isfinite(one.value_range).all() and one.value_range[0] <= one.value_range[1]),
        "channels": not 1 <= one.channels < 2**31,
        "size": len(one.size) not in (2, 3) or not all(1 <= n < 2**31 for n in one.size),
        "classes": len(names) < 2 or len(set(names)) < len(names) or any(map(name_fault, names)),
        "layout": one.layout is not None and not _is_layout(one.layout, one),
        "label_kind": one.label_kind not in (None, *LABEL_KINDS),
        "window": one.window is not None and not -np.inf < one.window[0] < one.window[1] < np.inf,
    }
    return next((name for name, fault in faults.items() if fault), None)


def _is_layout(layout: str, one: InputDescription) -> bool:
    axes = "HW" if len(one.size) == 2 else "DHW"
    return layout[:1] == "N" and sorted(layout[1:]) in ([*axes], ["C", *axes]) and ("C" in layout or one.channels == 1)


def _shape(one: InputDescription) -> str:
    return f"{'x'.join(map(str, one.size))} with {one.channels} channel{'' if one.channels == 1 else 's'}"


def _range(values: Sequence[float]) -> str:
    return f"{values[0]:g}..{values[1]:g}"


def _window(window: Sequence[float] | None) -> str:
    return "none" if window is None else f"[{window[0]:g}, {window[1]:g}]"


def _groups(groups: Mapping[str, Sequence[str]] | None) -> str:
    return "none" if groups is None else str({name: sorted(groups[name]) for name in sorted(groups)})


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
