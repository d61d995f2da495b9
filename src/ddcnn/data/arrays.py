"""Images and labels that are in memory, or listed in a table, as a `Dataset`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from ddcnn.config import DataConfig
from ddcnn.data.bad_files import BadFiles, read_all
from ddcnn.data.columns import check_twice, known_columns, note_of_parts, official_part, part_of
from ddcnn.data.csv_file import is_number, reader
from ddcnn.data.dataset import Dataset, checked
from ddcnn.data.files import open_file
from ddcnn.data.groups import with_groups
from ddcnn.data.labels import read_labels
from ddcnn.data.layouts import Conversion, axis_order, check_kind, check_range, needs_look
from ddcnn.data.photos import augmentation_of, notes_of
from ddcnn.errors import DataError, in_one_line

ARRAYS = "arrays"
"""What ``data.source`` is where images were given in memory."""


def as_dataset(
    X: Any,
    y: Any = None,
    *,
    groups: Any = None,
    layout: str | None = None,
    classes: Sequence[str] | None = None,
    sample_weight: Any = None,
    config: DataConfig | None = None,
) -> Dataset:
    """Return images and labels as a data set.

    Parameters
    ----------
    X
        Images or volumes, a NumPy array or a PyTorch tensor; or a table (a pandas DataFrame, or a mapping of columns)
        with the columns ``file``, ``label`` and perhaps ``split`` and ``group``, whose files are read as those of
        `ddcnn.data.csv_file` are, with paths relative to the current folder; or a `Dataset`.
    y
        Labels (n,): integers 0..K-1, or strings.
    groups
        (n,) integers or strings, equal for images that belong together, such as those of a patient: a split keeps them
        in one part.
    layout
        Which axis is what, such as ``"NHWC"``, ``"NCHW"`` or ``"NDHW"``; None: as `ddcnn.data.layouts` recognises it.
    classes
        The K names; None: the strings, sorted, or ``"0"``, ``"1"``, ...
    sample_weight
        (n,) how much each image counts in the training, at least 0.
    config
        How the files of a table are read: ``image_size``, ``resize``, ``window`` and ``on_bad_file``.

    Raises
    ------
    DataError
        Shapes, types or lengths do not fit, or values cannot be used, or are masked.

    >>> data = as_dataset(np.zeros((4, 8, 9), np.uint8), ["cat", "dog", "cat", "dog"], groups=[1, 2, 3, 4])
    >>> tuple(data.images.shape), data.classes, data.labels.tolist()
    ((4, 1, 8, 9), ('cat', 'dog'), [0, 1, 0, 1])
    """
    if isinstance(X, Dataset):
        if y is not None or layout is not None or classes is not None:
            raise DataError("a Dataset has its labels, classes and layout; leave y, layout and classes out")
        dataset = X
    elif hasattr(X, "keys"):  # a DataFrame or a mapping of columns; pandas itself is not needed
        dataset = _of_table(X, y, config or DataConfig(source=ARRAYS), classes)
    else:
        dataset = _of_arrays(X, y, layout, classes)
    known = len(dataset.labels)
    if groups is not None:
        dataset = with_groups(dataset, _array(groups, "groups"))
    if sample_weight is not None:
        weights = as_numpy(sample_weight, "sample_weight").astype(np.float32)
        if weights.shape != (known,):
            raise DataError(f"sample_weight should have shape ({known},), one per image, got {weights.shape}")
        dataset = replace(dataset, weights=torch.from_numpy(weights))
    return checked(dataset)


def refuse_to_read(config: DataConfig) -> NoReturn:
    """Say what is to be done about images that were in memory when a run was trained."""
    raise DataError(
        f"data.source = {config.source}: these images were given in memory and are not kept; give them again, as "
        "data=(X, y) to ddcnn.evaluate or ddcnn.resume, or name files with --data"
    )


def as_numpy(values: Any, name: str) -> np.ndarray:
    """Return an array or tensor on the host, or raise a `DataError` if it is none, or has masked values."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().resolve_conj().resolve_neg()
        return np.asarray(values.float() if values.dtype == torch.bfloat16 else values)
    found = _array(values, name)
    if found.dtype.kind == "O":
        raise DataError(f"{name} should be an array of numbers of one shape, got Python objects")
    return found


def _array(values: Any, name: str) -> np.ndarray:
    refuse_masked(values, name)
    try:
        found = np.asarray(values)
    except (ValueError, TypeError) as error:  # lists within lists of other lengths
        raise DataError(f"{name} is no array: {in_one_line(error)}") from None
    return found if found.dtype.kind != "T" else found.astype(object)  # NumPy's own strings, of any length


def refuse_masked(values: Any, name: str) -> None:
    """Raise a `DataError` if a NumPy array, or one of a list, has masked values: `np.asarray` would unmask them."""
    given = values if isinstance(values, list | tuple) else [values]
    if masked := sum(int(np.ma.getmaskarray(one).sum()) for one in given if np.ma.is_masked(one)):
        raise DataError(
            f"{name} has masked values, {masked:,} of them; fill them, {name}.filled(...), or leave these images out"
        )


def fitting(layout: str | None, given: Sequence[int], shape: Sequence[int]) -> str | None:
    """Return the layout if images of shape ``given``, (n, ...), are images (C, *S) in it.

    >>> fitting("NWH", (5, 8, 6), (1, 6, 8)), fitting("NWH", (5, 6, 8), (1, 6, 8)), fitting("NWH", (5, 6), (1, 6, 8))
    ('NWH', None, None)
    """
    if layout is None or len(layout) != len(given):
        return None
    return layout if Conversion(layout, np.dtype(np.uint8)).shape(given)[1:] == tuple(shape) else None


def arranged(images: np.ndarray, shape: Sequence[int], name: str, layout: str | None = None) -> np.ndarray:
    """Return images as (n, C, *S).

    Parameters
    ----------
    shape
        (C, *S), of the images that a network was made for.
    layout
        Which axis is what; None: they are (n, C, *S), (n, *S, C), or (n, *S) and C is 1.

    Raises
    ------
    DataError
        They have another shape.
    """
    channels, *size = shape
    given = images.shape[1:]
    if layout is not None:
        found = Conversion(axis_order(name, images.shape, layout), images.dtype)(images)
        if found.shape[1:] == tuple(shape):
            return found
        expected, got = ("x".join(map(str, one)) for one in (shape, found.shape[1:]))
        raise DataError(f"{name}: expected images of {expected} (channels first) as in training, got {got} by {layout}")
    if given == tuple(shape):
        return images
    if channels == 1 and given == tuple(size):
        return images[:, None]
    if given == (*size, channels):
        return np.moveaxis(images, -1, 1)
    wanted = ", ".join(map(str, shape))
    raise DataError(f"{name}: expected images of shape (n, {wanted}) as in training, got {tuple(images.shape)}")


def _of_arrays(X: Any, y: Any, layout: str | None, classes: Sequence[str] | None) -> Dataset:
    if y is None:
        raise DataError("labels are missing; give X and y, or a table with the columns file and label")
    images = as_numpy(X, "X")
    check_kind("X", images.dtype)
    order = axis_order("X", images.shape, layout)
    labels, names, kind = _labels(y, classes)
    if len(labels) != len(images):
        raise DataError(f"X has {len(images)} images, but y has {len(labels)} labels")
    check_range("X", images)
    convert = Conversion(order, _kind(images))
    pixels = np.array(convert(images), order="C")  # a copy: who gave it may write into it later
    return Dataset(
        ARRAYS,
        torch.from_numpy(pixels),
        torch.from_numpy(labels),
        names,
        source=_SOURCE,
        layout=order,
        label_kind=kind,
    )


_SOURCE = {"publisher": "you", "files": "none: the images were given in memory", "licence": "not known"}


def _kind(images: np.ndarray) -> np.dtype:
    if images.dtype.kind == "f":
        return np.dtype(np.float32)
    small = not needs_look(images.dtype) or (images.size > 0 and images.min() >= 0 and images.max() <= 255)
    return np.dtype(np.uint8 if small else np.float32)


def _labels(y: Any, classes: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...], str | None]:
    """Return labels (n,), the K names, and ``"str"`` if these are what was given, even if they read like numbers."""
    values = _array(y.detach().cpu() if isinstance(y, Tensor) else y, "y")
    if values.dtype.kind == "O" and all(isinstance(one, str) for one in values.flat):
        values = values.astype(str)
    labels, names = read_labels("y", values, None if classes is None else np.array(list(classes)))
    return labels, names, "str" if values.dtype.kind in "SU" else None


def _of_table(table: Any, y: Any, config: DataConfig, classes: Sequence[str] | None) -> Dataset:
    """Return the images that a table lists."""
    given = {str(name): name for name in table.keys()}  # noqa: SIM118 - a DataFrame is not iterated by column
    needed = ("file", "label") if y is None else ("file",)
    known, unused = known_columns("a table", [str(name) for name in table.keys()], needed)  # noqa: SIM118 - the same
    column = {name: table[given[said]] for name, said in known.items()}
    files = [Path(str(one)) for one in column["file"]]
    values = [str(one) for one in (column["label"] if y is None else y)]
    if len(values) != len(files) or not files:
        raise DataError(f"a table should have a label for each file, got {len(files)} files and {len(values)} labels")
    check_twice("a table", [(f"row {i}", str(file), file.resolve()) for i, file in enumerate(files)])
    bad = BadFiles(config)
    read = reader(config, files, bad)

    def one(path: Path) -> np.ndarray:
        if not path.is_dir():
            open_file(path).close()
        return read(path)

    images, kept = read_all(files, one, bad)
    chosen = [values[i] for i in kept]
    order = tuple(classes or sorted(set(chosen), key=int if all(map(is_number, chosen)) else None))
    labels, kinds, _ = _labels(chosen, order)
    splits = [str(value) for value in column.get("split", ())]
    parts = [part_of("a table", f"row {i}", splits[i]) for i in kept] if splits else []
    dataset = Dataset(
        ARRAYS,
        torch.from_numpy(images),
        torch.from_numpy(labels),
        kinds,
        official_test=official_part("a table", parts, "test"),
        official_validation=official_part("a table", parts, "validation"),
        bad_files=tuple(bad.found),
        notes=(*bad.notes(), *unused, *note_of_parts(parts), *notes_of(images.shape)),
        **augmentation_of(images.shape),
        window=config.window,
        source={"publisher": "you", "files": f"{len(kept)} files of a table", "licence": "not known"},
    )
    if "group" not in column:
        return dataset
    return with_groups(dataset, np.asarray(column["group"])[kept])
