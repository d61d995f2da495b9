"""`ddcnn data info`: what is in a data set, and how it would be split; `ddcnn data check`: what is to be doubted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddcnn.cli.options import (
    SOURCES,
    BadFileOption,
    DataDirOption,
    ImageSizeOption,
    JsonOption,
    OfflineOption,
    SetDataOption,
    StrategyOption,
    TrustOption,
)
from ddcnn.text import printable

if TYPE_CHECKING:
    from ddcnn.config import DataConfig
    from ddcnn.data import Dataset, Split
    from ddcnn.data.store import Stored

_PICTURE = "ddcnn data info --picture"

app = typer.Typer(help="Inspect, check and convert data sets.", rich_markup_mode="rich")

GroupOption = Annotated[
    str | None,
    typer.Option(
        "--group-pattern",
        metavar="REGEX",
        help="Of a folder: files for whose paths its (...) matches the same text belong together: patients.",
    ),
]


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
    assignments: SetDataOption = None,
    group_pattern: GroupOption = None,
    as_json: JsonOption = False,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="Draw a sample of a store with its subdomains.")
    ] = None,
) -> None:
    """Print what is in a data set: classes, image shape, value range, split, augmentation, where it comes from.

    \b
    For example:
    ddcnn data info mnist5k
    ddcnn data info folder:flowers --image-size 64
    ddcnn data info csv:scans.csv --set data.window=[-1000,400]
    ddcnn data info scans.zarr --picture scans.png
    """  # noqa: D301
    from ddcnn.cli.display import print_json

    given = {"image_size": image_size, "on_bad_file": on_bad_file, "group_pattern": group_pattern}
    config, dataset = _open(source, assignments or (), directory=data_dir, offline=offline or None, **given)
    facts = describe(dataset, config)
    if picture is not None:
        _draw(dataset, picture)
    if as_json:
        print_json(facts)
    else:
        print("\n".join(map(printable, _lines(facts))))


@app.command()
def check(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=f"{SOURCES}.")],
    *,
    data_dir: DataDirOption = None,
    offline: OfflineOption = False,
    image_size: ImageSizeOption = None,
    on_bad_file: BadFileOption = None,
    assignments: SetDataOption = None,
    group_pattern: GroupOption = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            metavar="FOLDER",
            help="Look for wrong labels, too: by what its networks say of images that they did not see. A comparison "
            "or an experiment with --folds knows all images.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, metavar="N", help="Of the split, where no run is given; default 0.")
    ] = 0,
    strategy: StrategyOption = None,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """List duplicate images, in two classes or two parts too, and labels that are probably wrong.

    The parts are those of the run; without one, those that a run with this seed will have.

    \b
    For example:
    ddcnn data check folder:flowers --image-size 64
    ddcnn compare --data folder:flowers --image-size 64 --folds 5 --out runs/folds
    ddcnn data check folder:flowers --image-size 64 --run runs/folds
    """  # noqa: D301
    from ddcnn.cli.display import print_json

    given = {"image_size": image_size, "on_bad_file": on_bad_file, "group_pattern": group_pattern}
    config, dataset = _open(source, assignments or (), directory=data_dir, offline=offline or None, **given)
    suspects = {} if run is None else _suspects(dataset, run, strategy, trust=trust)  # the run has seen these images
    facts = _doubts(dataset, _part_of(dataset, config, run, seed)) | suspects
    if as_json:
        print_json(facts)
    else:
        print("\n".join(map(printable, _doubt_lines(facts))))


def _open(source: str, assignments: Sequence[str], **given: Any) -> tuple[DataConfig, Dataset]:
    """Read a data set; the folder of a store needs no prefix."""
    from ddcnn.data import open_data

    if (Path(source) / "zarr.json").is_file():
        source = f"zarr:{source}"
    config = data_config(assignments, source=source, **given)
    return config, open_data(config)


def _part_of(dataset: Dataset, config: DataConfig, run: Path | None, seed: int) -> dict[int, str]:
    """Return the part of each sample; a limit leaves some out, and with folds every sample is in several."""
    from ddcnn.data import make_split
    from ddcnn.data.splits import Split
    from ddcnn.runs.folder import RunFolder

    if run is None:
        split = make_split(dataset, config, seed=seed)
    elif RunFolder(run).has("split.json"):
        split = Split.from_json(RunFolder(run).read_text("split.json"))
    else:
        return {}
    return {sample: part for part in ("train", "validation", "test") for sample in getattr(split, part).tolist()}


def _doubts(dataset: Dataset, part_of: Mapping[int, str]) -> dict[str, Any]:
    """Return which images are there more than once, ready for JSON."""
    from ddcnn.data.doubts import copies

    found = []
    for same in copies(dataset):
        rows = [{"file": _named(dataset, i), "class": _class(dataset, i), "part": part_of.get(i)} for i in same]
        classes, parts = len({row["class"] for row in rows}), len({row["part"] for row in rows} - {None})
        found.append({"files": rows, "in_two_classes": classes > 1, "in_two_parts": parts > 1})
    bad = [{"file": one.file, "reason": one.reason} for one in dataset.bad_files]
    return {
        "name": dataset.name,
        "samples": len(dataset.labels),
        "copies": found,
        "notes": list(dataset.notes),
        "bad_files": bad,
    }


def _suspects(dataset: Dataset, run: Path, strategy: str | None, *, trust: bool) -> dict[str, Any]:
    """Return whose labels are probably wrong, ready for JSON, the least believed first."""
    import torch

    from ddcnn.data.doubts import suspects
    from ddcnn.experiments.out_of_fold import out_of_fold

    probabilities, known = out_of_fold(run, dataset, strategy, trust=trust)
    judged = torch.nonzero(torch.from_numpy(known)).flatten()
    rows = []
    for i in judged[torch.from_numpy(suspects(dataset.labels[judged], probabilities[known]))].tolist():
        p, label = probabilities[i], int(dataset.labels[i])
        said = int(p.argmax())
        row = {"file": _named(dataset, i), "class": _class(dataset, i), "probability": round(float(p[label]), 4)}
        rows.append(row | {"decided": dataset.classes[said], "probability_decided": round(float(p[said]), 4)})
    return {"judged": len(judged), "suspects": rows}


def _named(dataset: Dataset, sample: int) -> str:
    return dataset.files[sample] if dataset.files else f"image {sample}"


def _class(dataset: Dataset, sample: int) -> str:
    return dataset.classes[int(dataset.labels[sample])]


def _doubt_lines(facts: dict[str, Any]) -> list[str]:
    lines = [f"{facts['name']}: {facts['samples']:,} images, {len(facts['copies'])} of them more than once"]
    lines += [f"note: {note}" for note in facts["notes"]]
    lines += [f"left out: {one['reason']}" for one in facts["bad_files"]]
    for one in facts["copies"]:
        known = any(row["part"] for row in one["files"])
        parts = [f", {row['part'] or 'in no part'}" if known else "" for row in one["files"]]
        where = [f"{row['file']} ({row['class']}{part})" for row, part in zip(one["files"], parts, strict=True)]
        torn = [word for word in ("in_two_classes", "in_two_parts") if one[word]]
        lines.append(f"  {' = '.join(where)}" + (f": {', '.join(torn).replace('_', ' ')}" if torn else ""))
    if "suspects" in facts:
        lines.append(f"{len(facts['suspects'])} of {facts['judged']:,} labels are probably wrong:")
        lines += [
            f"  {row['file']}: {row['class']} ({row['probability']:.0%}), rather {row['decided']} "
            f"({row['probability_decided']:.0%})"
            for row in facts["suspects"]
        ]
    return lines


def data_config(assignments: Sequence[str] = (), **given: Any) -> DataConfig:
    """Return a validated data configuration of those fields that are not None; assignments win over them."""
    from ddcnn.config import Config, assign
    from ddcnn.errors import ConfigError

    values: dict[str, Any] = {"data": {k: v for k, v in given.items() if v is not None}}
    for assignment in assignments:
        assign(values, assignment)
        if set(values) != {"data"}:
            raise ConfigError(f"--set {assignment!r}: here are only fields of the data, such as data.window")
    return Config.parse(values).data


def describe(dataset: Dataset, config: DataConfig) -> dict[str, Any]:
    """Return the facts of a data set, ready for JSON."""
    import torch

    from ddcnn.data import make_split
    from ddcnn.data.store import Stored

    split = make_split(dataset, config, seed=0)
    counts = torch.bincount(dataset.labels, minlength=len(dataset.classes)).tolist()
    return {
        "name": dataset.name,
        "samples": len(dataset.labels),
        "classes": dict(zip(dataset.classes, counts, strict=True)),
        "image_shape": list(dataset.images.shape[1:]),
        "type": str(dataset.images.dtype).removeprefix("torch."),
        "range": list(dataset.value_range),
        "split": {
            "train": len(split.train),
            "validation": len(split.validation),
            "test": len(split.test),
            "official_test": dataset.official_test is not None,
        },
        "groups": _group_facts(dataset, split),
        "augmentation": {
            "flip_axes": list(dataset.flip_axes),
            "shift": dataset.shift,
            "rotation": dataset.rotation,
            "plane": list(dataset.plane),
            "crop": dataset.crop,
        },
        "source": dataset.source,
        "notes": list(dataset.notes),
        "bad_files": [{"file": one.file, "reason": one.reason} for one in dataset.bad_files],
        "store": _store_facts(dataset.images) if isinstance(dataset.images, Stored) else None,
    }


def _group_facts(dataset: Dataset, split: Split) -> dict[str, int] | None:
    """Return how many groups of images there are, and how many are not kept in one part: leakage."""
    from ddcnn.data.groups import groups_in_two

    groups = dataset.groups
    if groups is None:
        return None
    return {
        "count": len(groups.unique()),
        "largest": int(groups.bincount().max()),
        "in_two_parts": groups_in_two(split.train, split.validation, split.test, groups=groups),
    }


def _group_lines(groups: dict[str, int] | None) -> list[str]:
    if groups is None:
        return []
    what, torn = f"groups      {groups['count']:,} of up to {groups['largest']:,} images", groups["in_two_parts"]
    if not torn:
        return [f"{what}, each in one part of the split"]
    return [f"{what}; {torn:,} are in more than one official part: leakage, the test looks too good"]


def _store_facts(images: Stored) -> dict[str, Any]:
    store, layout = images.store, images.store.layout
    return {
        "grid": list(layout.grid),
        "overlap": list(layout.overlap),
        "chunks": sorted({layout.chunk_shape(n) for n in range(len(layout.boxes))}),
        "samples_per_shard": layout.shard,
        "bytes": sum(file.stat().st_size for file in store.path.rglob("*") if file.is_file()),
        "provenance": layout.provenance,
    }


def _draw(dataset: Dataset, path: Path) -> None:
    """Draw the first sample of the second class, which in medicine is the interesting one."""
    import torch

    from ddcnn.cli.figures import check_figure, write_figure
    from ddcnn.data.store import Stored
    from ddcnn.errors import DataError
    from ddcnn.report.draw import draw_decomposition

    check_figure(path, "--picture", _PICTURE, DataError)
    if not isinstance(dataset.images, Stored):
        raise DataError(
            f"--picture draws the subdomains of a store, but {dataset.name} is none; see ddcnn data prepare"
        )
    sample = int(torch.nonzero(dataset.labels == 1)[0])
    figure = draw_decomposition(dataset.images.image(sample).numpy(), dataset.images.store.layout.boxes)
    write_figure(figure, path, _PICTURE, DataError)


def _lines(facts: dict[str, Any]) -> list[str]:
    split, augmentation, classes = facts["split"], facts["augmentation"], facts["classes"]
    channels, *size = facts["image_shape"]
    names = {name: printable(name) for name in classes}
    widest = max(map(len, names.values()))
    official = "set aside by the publisher" if split["official_test"] else "drawn by data.test"
    flips = ", ".join(_axis(axis, augmentation["plane"], len(size)) for axis in augmentation["flip_axes"]) or "none"
    return [
        f"{facts['name']}: {facts['samples']:,} images of {len(classes)} classes",
        f"image       {'x'.join(map(str, size))} pixels, {channels} channel{'s' if channels > 1 else ''}",
        f"values      {facts['type']} in {facts['range'][0]:g}..{facts['range'][1]:g}",
        f"split       {', '.join(f'{split[part]:,} {part}' for part in ('train', 'validation', 'test'))} ({official})",
        *_group_lines(facts["groups"]),
        f"flips       {flips}",
        f"shifts      up to {augmentation['shift']} pixels" if augmentation["shift"] else "shifts      none",
        f"rotations   up to {augmentation['rotation']:g} degrees" if augmentation["rotation"] else "rotations   none",
        f"crops       of {augmentation['crop']:.0%} or more" if augmentation["crop"] < 1 else "crops       none",
        *(f"{key:<11} {value}" for key, value in facts["source"].items()),
        *(_store_lines(facts["store"]) if facts["store"] else []),
        "images per class:",
        *(f"  {names[name]:<{widest}} {count:>8,}" for name, count in classes.items()),
        *(f"note: {one}" for one in facts["notes"]),
        *(f"left out: {one['reason']}" for one in facts["bad_files"]),
    ]


def _axis(axis: int, plane: list[int], axes: int) -> str:
    rows, columns = (number % axes for number in plane)
    return {rows: "up and down", columns: "left and right"}.get(axis, "depth")


def _store_lines(store: dict[str, Any]) -> list[str]:
    def by(numbers: Sequence[int]) -> str:
        return "x".join(map(str, numbers))

    versions = ", ".join(f"{name} {version}" for name, version in store["provenance"].get("versions", {}).items())
    return [
        f"grid        {by(store['grid'])}, stored with an overlap of {by(store['overlap'])} pixels",
        f"chunks      {', '.join(map(by, store['chunks']))} (channels x pixels), of one sample each",
        f"shards      {store['samples_per_shard']:,} samples; {store['bytes']:,} bytes on disk in all",
        f"command     {store['provenance'].get('command', 'not recorded')}",
        f"versions    {versions or 'not recorded'}",
    ]
