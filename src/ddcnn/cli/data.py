"""`ddcnn data info`: what is in a data set, and how it would be split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddcnn.cli.options import SOURCES, BadFileOption, DataDirOption, ImageSizeOption, JsonOption, OfflineOption

if TYPE_CHECKING:
    from ddcnn.config import DataConfig
    from ddcnn.data import Dataset

app = typer.Typer(help="Look at data sets.", rich_markup_mode="rich")


@app.callback()
def _data() -> None:
    pass


@app.command()
def info(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=f"{SOURCES}.")],
    *,
    data_dir: DataDirOption = None,
    offline: OfflineOption = False,
    image_size: ImageSizeOption = None,
    on_bad_file: BadFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what is in a data set: classes, image shape, value range, split, augmentation, where it comes from.

    \b
    For example:
    ddcnn data info mnist5k
    ddcnn data info folder:flowers --image-size 64
    """  # noqa: D301
    from ddcnn.cli.display import print_json
    from ddcnn.data import open_data

    config = data_config(
        source=source, directory=data_dir, offline=offline or None, image_size=image_size, on_bad_file=on_bad_file
    )
    facts = describe(open_data(config), config)
    if as_json:
        print_json(facts)
    else:
        print("\n".join(_lines(facts)))


def data_config(**given: Any) -> DataConfig:
    """Return a validated data configuration of those fields that are not None."""
    from ddcnn.config import Config

    return Config.parse({"data": {k: v for k, v in given.items() if v is not None}}).data


def describe(dataset: Dataset, config: DataConfig) -> dict[str, Any]:
    """Return the facts of a data set, ready for JSON."""
    import torch

    from ddcnn.data import make_split

    split = make_split(dataset, config, seed=0)
    counts = torch.bincount(dataset.labels, minlength=len(dataset.classes)).tolist()
    return {
        "name": dataset.name,
        "samples": len(dataset.labels),
        "classes": dict(zip(dataset.classes, counts, strict=True)),
        "image_shape": list(dataset.images.shape[1:]),
        "type": str(dataset.images.dtype).removeprefix("torch."),
        "range": [dataset.images.min().item(), dataset.images.max().item()],
        "split": {
            "train": len(split.train),
            "validation": len(split.validation),
            "test": len(split.test),
            "official_test": dataset.official_test is not None,
        },
        "augmentation": {
            "flip_axes": list(dataset.flip_axes),
            "shift": dataset.shift,
            "rotation": dataset.rotation,
            "plane": list(dataset.plane),
        },
        "source": dataset.source,
        "bad_files": [{"file": one.file, "reason": one.reason} for one in dataset.bad_files],
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    split, augmentation, classes = facts["split"], facts["augmentation"], facts["classes"]
    channels, *size = facts["image_shape"]
    widest = max(len(name) for name in classes)
    official = "set aside by the publisher" if split["official_test"] else "drawn by data.test"
    flips = ", ".join(_axis(axis, augmentation["plane"], len(size)) for axis in augmentation["flip_axes"]) or "none"
    return [
        f"{facts['name']}: {facts['samples']:,} images of {len(classes)} classes",
        f"image       {'x'.join(map(str, size))} pixels, {channels} channel{'s' if channels > 1 else ''}",
        f"values      {facts['type']} in {facts['range'][0]:g}..{facts['range'][1]:g}",
        f"split       {', '.join(f'{split[part]:,} {part}' for part in ('train', 'validation', 'test'))} ({official})",
        f"flips       {flips}",
        f"shifts      up to {augmentation['shift']} pixels" if augmentation["shift"] else "shifts      none",
        f"rotations   up to {augmentation['rotation']:g} degrees" if augmentation["rotation"] else "rotations   none",
        *(f"{key:<11} {value}" for key, value in facts["source"].items()),
        "images per class:",
        *(f"  {name:<{widest}} {count:>8,}" for name, count in classes.items()),
        *(f"left out: {one['reason']}" for one in facts["bad_files"]),
    ]


def _axis(axis: int, plane: list[int], axes: int) -> str:
    rows, columns = (number % axes for number in plane)
    return {rows: "up and down", columns: "left and right"}.get(axis, "depth")
