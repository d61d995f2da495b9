"""Discriminant analysis of pixels, whole and decomposed, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from ddcnn.models.lda import LDA
from tests.bars import write_bars
from tests.setups import aggregate, decided, train_local


@pytest.mark.parametrize("classes", [2, 4])
def test_equals_scikit_learn(classes: int, seeded: None) -> None:
    labels = torch.arange(80) % classes
    images = torch.randn(80, 2, 5, 4) + labels.view(-1, 1, 1, 1) * torch.randn(1, 2, 5, 4)
    network = LDA(2, classes, (5, 4))
    network.solve(images, labels)
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(images.flatten(1), labels)
    np.testing.assert_array_equal(network(images).argmax(1), reference.predict(images.flatten(1)))
    np.testing.assert_allclose(
        network(images).detach().softmax(1), reference.predict_proba(images.flatten(1)), rtol=1e-3, atol=1e-5
    )


def test_large_images_are_averaged_first(seeded: None) -> None:
    network = LDA(3, 2, (60, 40), numbers=300)
    assert network.linear.in_features == 3 * 12 * 8
    images = torch.rand(4, 3, 60, 40)
    expected = network.linear(F.adaptive_avg_pool2d(images, (12, 8)).flatten(1))
    torch.testing.assert_close(network(images), expected)
    assert LDA(1, 2, (20, 20, 20), numbers=100).linear.in_features <= 100


def test_a_class_without_images_is_never_decided_for(seeded: None) -> None:
    labels = torch.arange(40) % 2 * 2
    images = torch.randn(40, 1, 3, 3, generator=torch.Generator().manual_seed(0)) + labels.view(-1, 1, 1, 1)
    network = LDA(1, 3, (3, 3))
    network.solve(images, labels)
    assert set(network(images).argmax(1).tolist()) == {0, 2}


def test_each_local_cnn_is_solved_for_on_its_own_subimages(tmp_path: object) -> None:
    from pathlib import Path

    source = write_bars(Path(str(tmp_path)), (8, 12))
    setup = decided(
        {
            "data": {"source": source},
            "model": {"name": "lda"},
            "decomposition": {"grid": "2x1"},
            "compute": {"device": "cpu"},
        }
    )
    local = train_local(setup)
    data = setup.data
    pixels = data.normalization(data.dataset.images.float())
    for n, rows in enumerate((slice(0, 4), slice(4, 8))):
        train, test = (pixels[part][:, :, rows].flatten(1) for part in (data.split.train, data.split.test))
        reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(
            train, data.dataset.labels[data.split.train]
        )
        expected = reference.predict_proba(test)
        np.testing.assert_allclose(local.probabilities.of("test")[:, n], expected, rtol=1e-2, atol=1e-4)
    assert local.history.epochs == 1
    assert aggregate(setup, local, "average").aggregation == "average"
