"""Is what a file answers what the network answers? Asked before the file is written."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddcnn.data import Split
from ddcnn.data.sources import open_lazily
from ddcnn.errors import DdcnnError, ExportError
from ddcnn.experiments import own_data
from ddcnn.exporting.formats import Format
from ddcnn.exporting.pieces import Assembly
from ddcnn.network import CNNDNN
from ddcnn.runs.folder import RunFolder

TOLERANCE = 1e-4
"""Largest difference of a probability that is rounding."""
_MOST_IMAGES, _MOST_NUMBERS = 16, 2**25


@dataclass(frozen=True)
class Sample:
    """Images to compare on.

    Attributes
    ----------
    images
        (B, C, *S), B at least 2, as the network was trained on.
    what
        What they are, in a few words.
    """

    images: Tensor
    what: str


def sample_of(folder: RunFolder, data: Mapping[str, Any], *, trust: bool) -> Sample:
    """Return test images of a run, or random ones where its data cannot be had without a download.

    Parameters
    ----------
    data
        ``data.json`` of the run.
    trust
        Whether a folder that the run names may be read.
    """
    shape, dtype = tuple(data["image_shape"]), getattr(torch, data["image_type"])
    count = max(2, min(_MOST_IMAGES, _MOST_NUMBERS // math.prod(shape)))
    try:
        config = own_data(folder, trust=trust).model_copy(update={"offline": True})
        dataset = open_lazily(config)
        chosen = Split.from_json(folder.read_text("split.json")).test[:count]
        if tuple(dataset.images.shape[1:]) == shape and dataset.images.dtype == dtype and len(chosen) > 1:
            return Sample(dataset.images[chosen], f"{len(chosen)} test images of {config.source}")
    except (DdcnnError, OSError, IndexError):  # they are gone, or changed: then any images will do
        pass
    generator = torch.Generator().manual_seed(0)
    if dtype == torch.uint8:
        images = torch.randint(0, 256, (count, *shape), dtype=dtype, generator=generator)
    else:
        low, high = data.get("input", {}).get("value_range", (0.0, 1.0))
        images = low + (high - low) * torch.rand((count, *shape), generator=generator)
    return Sample(images, f"{count} random images, since those of the run are not at hand")


def largest_difference(
    network: CNNDNN, assembly: Assembly, contents: Sequence[bytes], form: Format, images: Tensor
) -> float:
    """Return the largest difference of a probability between files and the network that they were made from.

    Raises
    ------
    ExportError
        It is more than rounding.
    """
    with torch.no_grad():
        said = network.said(images)
        expected = {"probabilities": network.decide(said.handed).softmax(1), "local_probabilities": said.probabilities}
        pairs = zip(contents, assembly.pieces, strict=True)
        files = [form.read(content, copy.deepcopy(piece)) for content, piece in pairs]
        return max(_gap(assembly.run(files, images[:count]), expected) for count in (len(images), 1))


def _gap(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Return the largest difference; of a batch of one as well, which exporters may take for something special."""
    gaps = {name: float((values - expected[name][: len(values)]).abs().max()) for name, values in found.items()}
    for name, gap in gaps.items():
        if not gap <= TOLERANCE:  # NaN is more as well
            raise ExportError(
                f"the exported {name.replace('_', ' ')} differ by {gap:.2g} from those of the network, more than "
                f"{TOLERANCE:g}; nothing was written, try another --format"
            )
    return max(gaps.values())
