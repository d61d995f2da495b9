"""Evaluate a trained network again, on the test part of its own data or on other data with the same classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ddcnn.config import DataConfig
from ddcnn.data import Dataset, Split, open_data
from ddcnn.data.arrays import ARRAYS
from ddcnn.data.batches import Batches
from ddcnn.data.content import are_among, content_of
from ddcnn.data.description import InputDescription
from ddcnn.data.labels import known_classes
from ddcnn.data.lazy import as_images
from ddcnn.data.sources import is_foreign
from ddcnn.decomposition import Grid, Subimages
from ddcnn.errors import DataError, RunError
from ddcnn.experiments.decisions import confusion
from ddcnn.experiments.given_images import Given, as_given
from ddcnn.network import CNNDNN, decided
from ddcnn.runs.folder import RunFolder
from ddcnn.runs.learned import learned_by
from ddcnn.runs.networks import best_strategy, load
from ddcnn.runs.run_validation import read_config, read_data, untrusted
from ddcnn.training import accuracy_of, auc, class_figures, macro_f1, member_losses, predict_outputs, sureness


@runtime_checkable
class Deployed(Protocol):
    """A network that was taken out of a run; `ddcnn.exporting.OnnxNetwork` is one."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """``strategy``, ``classes`` and ``input``."""

    @property
    def missing(self) -> tuple[int, ...]:
        """Subdomains without a local CNN."""

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """By which it decides; None: for the most probable class."""

    def scores(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (B, K) and local probabilities (B, N, K) of whole raw images (B, C, *S)."""


def evaluate(
    run: Path | str,
    *,
    data: DataConfig | Given = None,
    strategy: str | None = None,
    trust: bool = False,
    deployed: Deployed | None = None,
) -> dict[str, Any]:
    """Return accuracy, cross-entropy, confusion and accuracy per subdomain (None: missing) of a strategy of a run.

    ``classes`` has the samples, precision, recall (which is the accuracy on the class) and F1 of each class;
    ``thresholds`` are those by which the network decides; None: the most probable class is decided for.

    ``loss`` is the cross-entropy (NLL), ``brier`` and ``ece`` are those of `ddcnn.training.sureness`.

    ``notes`` are what reading the images has to say, ``left_out`` the files that ``data.on_bad_file`` left out and why.

    ``learned_from`` is how many of the images, with these labels, the run was trained on or chose epochs by; None: it
    was made by version 0.1, which does not say. A store that was made by version 0.1 knows only such stores of the same
    grid and overlap again.

    Parameters
    ----------
    run
        The folder of the run.
    data
        Other data, all of which is used: a configuration that names them, or a `ddcnn.Dataset`, a pair (X, y) or a
        table, as `ddcnn.as_dataset` has them; of a pair, the layout is that of the training, if it fits. Of the run's
        own data (None, the same source, or the same images), only the test part is.
    strategy, trust
        As in `ddcnn.load`; of a run that is not trusted, no folder that it names is used as `data.directory`.
    deployed
        What answers instead of the run's network, such as an exported file; it says itself which strategy it is.

    Raises
    ------
    RunError, DataError
        The run cannot be read, or the data has other classes or another image shape than the run's.
    """
    network = load(run, strategy, trust=trust, backend="looped") if deployed is None else None
    folder = RunFolder(run)
    folder.manifest()
    expected = folder.read_json("data.json")
    if deployed is not None:
        _check_deployed(deployed, strategy, expected)
    own = own_data(folder, trust=trust or data is not None)
    config, dataset = _images(data, own, expected)
    _check(config.source, dataset, config, expected)
    found = content_of(dataset)
    learned = learned_by(folder)
    part = torch.arange(len(dataset.labels))
    tests = config.source == own.source and (config.source != ARRAYS or _is_own(folder, found))
    if tests:
        part = _test_part(folder, config.source, found)
    labels = dataset.labels[part]
    batches = Batches(as_images(dataset.images), dataset.labels, part, batch_size=1)  # as many at once as do no harm
    if network is None:
        assert deployed is not None
        (scores, local), missing = _scores_of_deployed(deployed, batches), deployed.missing
        thresholds = deployed.thresholds
        name = str(deployed.facts["strategy"])
    else:
        (scores, local), missing = _scores(network, batches), network.missing
        thresholds = network.thresholds
        name = strategy or best_strategy(folder)
    decisions = decided(scores, thresholds)
    subdomains = [
        {"index": n, "accuracy": None if n in missing else accuracy}
        for n, accuracy in enumerate(accuracy_of(local, labels).tolist())
    ]
    about = {
        "run": str(folder.path),
        "strategy": name,
        "data": config.source,
        "part": "test" if tests else "all",
        "thresholds": thresholds,
        "notes": list(dataset.notes),
        "left_out": [{"file": one.file, "reason": one.reason} for one in dataset.bad_files],
        "learned_from": None if learned is None else int(are_among(found[part], learned.all).sum()),
    }
    return about | _figures(scores, decisions, labels, dataset.classes) | {"subdomains": subdomains}


def _figures(scores: Tensor, decisions: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Return what scores (n, K) and decisions (n,) are worth, in total and by class."""
    counts = confusion(labels, decisions, len(classes))
    figures, sure = class_figures(counts), sureness(scores, labels)
    return {
        "samples": len(labels),
        "accuracy": float((decisions == labels).float().mean()),
        "auc": auc(scores.double().log_softmax(1), labels),
        "f1": macro_f1(counts),
        "loss": float(member_losses(scores.unsqueeze(1), labels)[0]),
        "brier": sure["brier"],
        "ece": sure["ece"],
        "classes": {
            name: {"accuracy": figures["recall"][k]} | {figure: values[k] for figure, values in figures.items()}
            for k, name in enumerate(classes)
        },
        "confusion": counts,
    }


def _images(data: DataConfig | Given, own: DataConfig, expected: dict[str, Any]) -> tuple[DataConfig, Dataset]:
    """Return the images that are meant, and how they are read."""
    known = InputDescription.from_json(expected["input"]) if "input" in expected else None
    if data is None or isinstance(data, DataConfig):
        config = own if data is None else _as_trained(data, own, expected)
        with known_classes(expected["classes"]):
            dataset = open_data(config)
        if known is not None and config.source.startswith("npz:") and dataset.layout is None:
            known.check_told(config.source)
        return config, _numbered_as(expected["classes"], dataset)
    config = _as_trained(DataConfig(source=ARRAYS), own, expected)
    with known_classes(expected["classes"]):
        return config, _numbered_as(expected["classes"], as_given(data, config, expected["classes"], known))


def _numbered_as(classes: Sequence[str], dataset: Dataset) -> Dataset:
    """Return images whose labels count in the classes of the network, if it knows all of theirs."""
    if not set(dataset.classes) <= set(classes):
        return dataset
    numbers = torch.tensor([classes.index(name) for name in dataset.classes])
    labels = numbers[dataset.labels]
    there = set(labels.unique().tolist())
    lacking = [repr(name) for k, name in enumerate(classes) if k not in there]
    notes = (f"no image is of class {', '.join(lacking)}",) if lacking else ()
    return replace(dataset, labels=labels, classes=tuple(classes), notes=(*dataset.notes, *notes))


def _is_own(folder: RunFolder, found: Tensor) -> bool:
    """Tell whether images in memory are those of the run."""
    return folder.has("content.safetensors") and torch.equal(
        folder.read_tensors("content.safetensors").get("digests", torch.empty(0)), found
    )


def _scores(network: CNNDNN, batches: Batches) -> tuple[Tensor, Tensor]:
    """Return scores (n, K) and local probabilities (n, N, K) of all samples in order."""
    seen, over = replace(batches, subdomains=network.local_cnns.subdomains), network.handed
    with closing(seen.in_order()) as read:
        first = next(read).inputs
    assert isinstance(first, Subimages)
    network = network.for_inference(first, count=len(seen))
    outputs = predict_outputs(network.local_cnns, seen, features=over is not None and not over.by_class)
    with torch.no_grad():
        return network.decide(outputs.handed(over)), outputs.probabilities


def _scores_of_deployed(deployed: Deployed, batches: Batches) -> tuple[Tensor, Tensor]:
    """Return the same, from whole images."""
    size = batches.inputs.shape[2:]
    whole = replace(batches, subdomains=Grid((1,) * len(size)).subdomains(size))
    pairs = []
    for batch in whole.in_order():
        assert isinstance(batch.inputs, Subimages)
        pairs.append(deployed.scores(batch.inputs.parts[0]))
    scores, local = zip(*pairs, strict=True)
    return torch.cat(scores), torch.cat(local)


def _check_deployed(deployed: Deployed, strategy: str | None, data: Mapping[str, Any]) -> None:
    """Raise a `RunError` if the exported network is not one of this run, as far as can be told."""
    facts, given = deployed.facts, deployed.facts["input"]
    for what, got, wanted in (
        ("classes", facts["classes"], data["classes"]),
        ("images", [given["channels"], *given["size"]], data["image_shape"]),
        ("input", given, data.get("input", given)),  # type, range, window
        ("strategy", facts["strategy"], strategy or facts["strategy"]),
    ):
        if got != wanted:
            raise RunError(f"the exported network has {what} {got}, but asked for is {wanted}; export this run again")


def _as_trained(data: DataConfig, own: DataConfig, expected: dict[str, Any]) -> DataConfig:
    """Return a description of other data that means the same by pixels and labels as that of the run's own."""
    if data.source == own.source:
        return own.model_copy(update={"directory": data.directory or own.directory, "offline": data.offline})
    if "input" in expected:
        return InputDescription.from_json(expected["input"]).adopt(data)
    return data.model_copy(update={"image_size": data.image_size or own.image_size})


def _check(source: str, dataset: Dataset, config: DataConfig, data: dict[str, Any]) -> None:
    """Raise a `DataError` if images or classes are not of the kind that the network was made for."""
    found = InputDescription.of(dataset, config)
    if "input" in data:
        InputDescription.from_json(data["input"]).check(found, source)
        return
    for what, got, wanted in (  # of a run of version 0.1
        ("classes", list(found.classes), data["classes"]),
        ("images of shape", [found.channels, *found.size], data["image_shape"]),
        ("pixels of type", found.dtype, data["image_type"]),
    ):
        if got != wanted:
            raise DataError(f"{source} has {what} {got}, but the run was trained on {wanted}")


def _test_part(folder: RunFolder, source: str, found: Tensor) -> Tensor:
    """Return the test samples of the run's own data, if they are what they were."""
    part = Split.from_json(folder.read_text("split.json")).test
    if not len(part):
        raise RunError(f"{folder.path / 'split.json'} leaves no image for the test; give others, with --data")
    if int(part.max()) >= len(found):
        raise DataError(f"{source} has {len(found)} images, fewer than when the run was trained")
    if folder.has("content.safetensors"):
        content = folder.read_tensors("content.safetensors")["digests"]
        changed = int((content != found).any(1).sum()) if len(content) == len(found) else abs(len(found) - len(content))
        if changed:
            raise DataError(
                f"{source} is not what the run was trained on: {changed} of {len(content)} images or labels were "
                "changed, added or removed since, so nobody knows which are test images; put them back, or give images "
                "that the run has not seen by another --data"
            )
    return part


def own_data(folder: RunFolder, *, trust: bool) -> DataConfig:
    """Return which data a run was trained on.

    Raises
    ------
    RunError
        They are to be resized to what no image of the run had; or the run names the folder that they are in, or are
        downloaded to, and is not trusted.
    """
    folder.manifest()  # a run that is not complete has nothing to say
    config, size = read_config(folder).data, tuple(read_data(folder, trust=trust)["image_shape"][1:])
    if config.image_size not in (None, size) and config.image_size * len(size) != size:
        raise RunError(
            f"{folder.path / 'config.yaml'}: data.image_size = {config.image_size} does not fit the images of "
            f"data.json, {size}; train again"
        )
    if is_foreign(config.source) and not trust:
        raise RunError(untrusted(folder, config.source))
    if config.directory is not None and not trust:
        raise RunError(
            f"{folder.path / 'config.yaml'} names the folder of its data, {str(config.directory)!r}, where files would "
            f"be written as well; if that is right, name it with --data-dir, or say --trust"
        )
    return config.model_copy(update={"group_pattern": None})  # nothing is split: a stranger's pattern is not run
