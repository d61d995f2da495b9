"""Samples whose labels are to be doubted: equal images, above all in two classes, and labels that nobody predicts."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from ddcnn.data.content import digests
from ddcnn.data.dataset import Dataset
from ddcnn.errors import DataError
from ddcnn.extras import needed


def copies(dataset: Dataset) -> list[list[int]]:
    """Return samples of equal pixels, as they were read: those of each image that is there more than once.

    Files of other bytes may have equal pixels; of a resized image, those after that.
    """
    found: dict[bytes, list[int]] = {}
    for sample, one in enumerate(digests(dataset.images)):
        found.setdefault(one.tobytes(), []).append(sample)
    return [same for same in found.values() if len(same) > 1]


def suspects(labels: Int64[Tensor, " m"], probabilities: Float[np.ndarray, "m K"]) -> Int64[np.ndarray, " s"]:
    """Return the samples whose labels are probably wrong, the least believed first: confident learning.

    C. Northcutt, L. Jiang, I. Chuang, Confident learning, JAIR 70 (2021) 1373-1411, as ``cleanlab`` computes it: how
    often labels of one class are of another is estimated from how sure the predictions are, and so many samples are
    taken for wrong.

    Parameters
    ----------
    labels
        As given, each of the K classes among them.
    probabilities
        Of each class, from networks that did not see the sample.

    Raises
    ------
    DataError
        cleanlab is not there, or a class has no sample.
    """
    with needed("wrong labels are found by cleanlab", "experiments", DataError):
        from cleanlab.filter import find_label_issues
    given, classes = labels.numpy(), probabilities.shape[1]
    if absent := sorted(set(range(classes)) - set(given.tolist())):
        raise DataError(f"wrong labels are looked for among samples of all {classes} classes, got none of {absent[0]}")
    found = find_label_issues(given, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    return np.asarray(found, np.int64)
