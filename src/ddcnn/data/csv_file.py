"""Your own files by list: a CSV file with the columns file, label and, if you like, split and group."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ddcnn.config import DataConfig
from ddcnn.data.bad_files import BadFiles, read_or_leave
from ddcnn.data.columns import check_twice, known_columns, note_of_parts, official_part, part_of
from ddcnn.data.dataset import Dataset
from ddcnn.data.dicom import read_dicom
from ddcnn.data.files import digest, image_size, open_file, source_path, volume_size
from ddcnn.data.groups import with_groups
from ddcnn.data.images import SUFFIXES, read_image
from ddcnn.data.nifti import is_nifti, read_nifti
from ddcnn.data.photos import augmentation_of, notes_of
from ddcnn.errors import DataError, nearest

_MAX_BYTES = 2**28


@dataclass(frozen=True)
class _Row:
    line: int
    file: str
    label: str
    split: str
    group: str | None


def read_csv(config: DataConfig) -> Dataset:
    """Read ``csv:PATH``, a table whose first line names the columns: ``file``, ``label``; perhaps ``split``, ``group``.

    Files are image files, NIfTI volumes, or folders with the slices of a DICOM series (`ddcnn.data.dicom.read_dicom`),
    with paths relative to the folder of the table, which they must not leave.
    All have one size, or ``data.image_size`` gives the size to resize them to; ``data.window`` is for volumes (see
    `ddcnn.data.nifti.read_nifti`). Classes are the labels, sorted as numbers if all are numbers, or as
    ``data.classes`` groups them. ``split`` is train, val or test; then these are the official parts. ``group`` is equal
    for files that belong together, such as those of a patient (`ddcnn.data.groups`). Other columns are not used, which
    is said; one that is called almost like these, such as ``groups``, is refused. Colour images are taken for
    photographs (`ddcnn.data.photos`); of all others nothing is known of symmetries, so no augmentation is allowed by
    default.

    Raises
    ------
    DataError
        The table cannot be read, a column is missing, a file is listed twice, a label or a split is unknown; or a file
        cannot be used, which ``data.on_bad_file`` turns into a line of a report.
    """
    path = source_path(config)
    every, unused = _rows(path)
    rows, classes, numbers = _classed(path, every, config.classes)
    bad = BadFiles(config)
    inside = []
    for row in rows:
        with bad.named(row.file):
            inside.append((row, _inside(path, row)))
    if not inside:
        raise DataError(f"none of the {len(rows)} files of {path} can be used; the first: {bad.found[0].reason}")
    check_twice(str(path), [(f"line {row.line}", row.file, file) for row, file in inside])
    rows = [row for row, _ in inside]
    files = [file for _, file in inside]
    images, kept = read_or_leave(files, reader(config, files, bad), bad, config.source)
    rows = [rows[i] for i in kept]
    parts = [row.split for row in rows]
    dataset = Dataset(
        name=config.source,
        images=images,
        labels=torch.tensor([numbers[row.label] for row in rows]),
        classes=classes,
        files=tuple(row.file for row in rows),
        official_test=official_part(str(path), parts, "test"),
        official_validation=official_part(str(path), parts, "validation"),
        bad_files=tuple(bad.found),
        notes=(*bad.notes(), *unused, *note_of_parts(parts), *notes_of(images.shape)),
        **augmentation_of(images.shape),
        window=config.window,
        label_groups=config.classes,
        source={
            "publisher": "you",
            "files": f"{len(rows)} files listed in {path.resolve()} (md5 {digest(path)})",
            "licence": "not known",
        },
    )
    groups = [row.group for row in rows if row.group is not None]
    return with_groups(dataset, np.array(groups)) if groups else dataset


def _rows(path: Path) -> tuple[list[_Row], tuple[str, ...]]:
    """Return the rows, and a note on columns that are not used."""
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a CSV file; read a folder as folder:{path}")
    if path.stat().st_size > _MAX_BYTES:
        raise DataError(f"{path} has more than {_MAX_BYTES:,} bytes; is it a table of files and labels?")
    try:
        with io.TextIOWrapper(open_file(path), encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, strict=True)
            given = list(table.fieldnames or ())
            known, unused = known_columns(str(path), given)
            names = {name: plain for plain, name in known.items()}
            table.fieldnames = [names.get(name, name) for name in given]
            rows = ((table.line_num, values) for values in table)
            return [_row(path, line, values) for line, values in rows if any(values.values())], unused
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as CSV: {error}; is a quote opened and not closed?") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as CSV in UTF-8: {error}") from None


def _row(path: Path, line: int, values: Mapping[str | None, str | None]) -> _Row:
    if None in values:
        raise DataError(
            f"{path}, line {line}: there are more fields than columns; put a field that holds a comma in quotes"
        )
    file, label = ((values[name] or "").strip() for name in ("file", "label"))
    if not file or not label:
        what = "file" if not file else "label"
        raise DataError(f"{path}, line {line}: the {what} is empty; give every row a file and a label")
    split = part_of(str(path), f"line {line}", values["split"] or "") if "split" in values else ""
    group = (values["group"] or "").strip() if "group" in values else None
    if group == "":
        raise DataError(f"{path}, line {line}: the group is empty; give every row a group, or leave the column out")
    return _Row(line, file, label, split, group)


def _classed(
    path: Path, rows: Sequence[_Row], groups: Mapping[str, tuple[str, ...]] | None
) -> tuple[list[_Row], tuple[str, ...], dict[str, int]]:
    """Return the rows that belong to a class, the classes, and the number of each label's class."""
    found = {row.label: row.line for row in reversed(rows)}
    if not found:
        raise DataError(f"{path} lists no file; add rows below the names of the columns")
    if groups is None:
        labels = sorted(found, key=int) if all(is_number(label) for label in found) else sorted(found)
        return list(rows), tuple(labels), {label: i for i, label in enumerate(labels)}
    numbers = group_numbers(groups)
    unknown = [label for label in numbers if label not in found]
    if unknown:
        raise DataError(f"{path} has no label {unknown[0]!r}, which data.classes names: {nearest(unknown[0], found)}")
    return [row for row in rows if row.label in numbers], tuple(groups), numbers


def group_numbers(groups: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """Return the number of the class of each label; raise a `DataError` if it has two.

    >>> group_numbers({"healthy": ("CT-0",), "ill": ("CT-2", "CT-3")})
    {'CT-0': 0, 'CT-2': 1, 'CT-3': 1}
    """
    numbers: dict[str, int] = {}
    for number, (name, labels) in enumerate(groups.items()):
        for label in labels:
            if label in numbers:
                raise DataError(f"data.classes puts {label!r} into {list(groups)[numbers[label]]!r} and {name!r}")
            numbers[label] = number
    return numbers


def is_number(label: str) -> bool:
    """Tell whether a label is a number that sorts as one."""
    return label.isascii() and label.isdigit() and len(label) < 10 and str(int(label)) == label


def _inside(path: Path, row: _Row) -> Path:
    root = path.parent.resolve()
    try:
        file = (root / row.file).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a null byte, a loop of links
        raise DataError(f"{path}, line {row.line}: {row.file!r} is not a path: {error}") from None
    if not file.is_relative_to(root):
        raise DataError(f"{path}, line {row.line}: {row.file!r} leaves the folder of the table; move the file into it")
    try:
        there = file.is_file() or file.is_dir()  # and no pipe or device
    except OSError:  # such as a name that is too long
        there = False
    if not there:
        raise DataError(f"{path}, line {row.line}: {row.file!r} is not a file, nor a folder with a DICOM series")
    return file


def reader(config: DataConfig, files: Sequence[Path], bad: BadFiles) -> Callable[[Path], np.ndarray]:
    """Return a function that reads a file, or a folder with a DICOM series, as the configuration says."""
    volumes = sum(file.is_dir() or is_nifti(file) for file in files) > len(files) / 2
    if volumes and config.resize is not None:
        raise DataError(f"data.resize = {config.resize} is for images; volumes are stretched, leave it out")
    images_to = None if volumes else image_size(config)
    volumes_to = volume_size(config) if volumes else None

    def read(path: Path) -> np.ndarray:
        if path.is_dir():
            return read_dicom(path, volumes_to, config.window)
        if is_nifti(path):
            return read_nifti(path, volumes_to, config.window)
        if path.suffix.lower() in SUFFIXES:
            return read_image(path, images_to, done=bad, how=config.resize)
        raise DataError(
            f"{path} is neither an image ({', '.join(sorted(SUFFIXES))}) nor a volume (.nii, .nii.gz, a DICOM folder)"
        )

    return read
