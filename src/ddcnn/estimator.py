"""`DomainDecomposedClassifier`: the method as scikit-learn has its classifiers. A thin shell around `ddcnn.fit`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import DataConversionWarning
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ddcnn.data.arrays import arranged, as_dataset, as_numpy, refuse_masked
from ddcnn.data.csv_file import is_number
from ddcnn.data.description import LABEL_KINDS
from ddcnn.errors import DataError, RunError
from ddcnn.experiments.fitting import Fitted, configured, fit_in_memory
from ddcnn.experiments.given_images import refuse_for_files
from ddcnn.runs.folder import RunFolder
from ddcnn.runs.networks import load, open_saved

_SHARED = ("model", "grid", "overlap", "strategy", "aggregation", "epochs", "batch_size", "lr")
_METHOD = {"model", "decomposition", "aggregation", "init", "training", "coherent", "transfer", "compose"}
_LARGEST_SEED = 2**31 - 1


class DomainDecomposedClassifier(ClassifierMixin, BaseEstimator):
    """Local CNNs on subdomains of images, and an aggregation of what they say (arXiv 2408.14442).

    Parameters
    ----------
    image_shape
        (H, W), (H, W, C) or (D, H, W), of images that come as rows of numbers, (n, features), as pipelines and
        scikit-learn's data sets have them; None: such a row is an image of 1 x features pixels.
    layout
        Which axis of other arrays is what: as in `ddcnn.as_dataset`.
    model, grid, overlap, strategy, aggregation, epochs, batch_size, lr
        As in `ddcnn.fit`; None: as ``config`` has it.
    validation_fraction
        Of the images, in 0..1, which choose the epoch and are not trained on; None: a tenth, at most 2,500.
    config
        Nested mappings of any other fields of the configuration, such as ``{"compute": {"device": "cpu"}}``.
    random_state
        Of everything random: a number, a ``numpy.random.RandomState``, or None for another training each time.

    Attributes
    ----------
    classes_
        (K,) the labels, sorted.
    n_features_in_
        Of images as rows: their length.
    network_
        The trained `ddcnn.CNNDNN`.

    Examples
    --------
    >>> classifier = DomainDecomposedClassifier(image_shape=(8, 8), grid=(2, 2), epochs=5)
    >>> classifier.get_params()["grid"]
    (2, 2)
    """

    def __init__(
        self,
        *,
        image_shape: Sequence[int] | None = None,
        layout: str | None = None,
        model: str | None = None,
        grid: str | Sequence[int] | None = None,
        overlap: int | Sequence[int] | None = None,
        strategy: str | None = None,
        aggregation: str | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        validation_fraction: float | None = None,
        config: Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.image_shape = image_shape
        self.layout = layout
        self.model = model
        self.grid = grid
        self.overlap = overlap
        self.strategy = strategy
        self.aggregation = aggregation
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.validation_fraction = validation_fraction
        self.config = config
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, groups: Any = None) -> Self:
        """Train.

        Parameters
        ----------
        X
            Images (n, H, W), (n, H, W, C), ..., or rows (n, features).
        y
            (n,) labels of any kind that scikit-learn takes for classes.
        sample_weight
            (n,) how much each image counts in the training.
        groups
            (n,) equal for images that belong together, such as those of a patient: those that choose the epoch are of
            other groups than those that are trained on.

        Raises
        ------
        ValueError
            Images, labels or parameters cannot be used.
        """
        before = dict(self.__dict__)
        try:
            return self._fit(X, y, sample_weight, groups)
        except BaseException:  # it stays as it was: a network that is there would be given other classes
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _fit(self, X: Any, y: Any, sample_weight: Any, groups: Any) -> Self:
        for name, values in (("y", y), ("sample_weight", sample_weight)):
            refuse_masked(values, name)
        for name in ("n_features_in_", "feature_names_in_"):  # of rows that it was fitted to before
            self.__dict__.pop(name, None)
        images = self._images(X, reset=True, y=y)
        labels = np.asarray(y)
        if labels.ndim == 2 and labels.shape[1] == 1:
            warnings.warn(
                "A column-vector y was passed when a 1d array was expected; give y.ravel()",
                DataConversionWarning,
                stacklevel=2,
            )
            labels = labels.ravel()
        check_classification_targets(labels)
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        if self.classes_.dtype.kind in "mM":
            raise DataError(f"labels of type {self.classes_.dtype} would not be kept; give strings or numbers")
        if len(self.classes_) < 2:
            one = ", ".join(repr(name) for name in self.classes_.tolist())
            raise DataError(f"at least 2 classes are needed, got {len(self.classes_)}{one and f': {one}'}")
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        seed = check_random_state(self.random_state).randint(_LARGEST_SEED)
        given = {name: getattr(self, name) for name in _SHARED}
        config = configured(self.config, given | {"validation": self.validation_fraction, "seed": seed})
        refuse_for_files(config.data)
        dataset = as_dataset(
            images,
            numbers,
            groups=groups,
            layout=self.layout,
            classes=[str(one) for one in self.classes_],
            sample_weight=sample_weight,
        )
        kind = "str" if self.classes_.dtype.kind in "UT" else self.classes_.dtype.name
        dataset = replace(dataset, label_kind=kind if kind in LABEL_KINDS else None)
        self.image_shape_ = tuple(dataset.images.shape[1:])
        self._fitted = fit_in_memory(config, dataset)
        return self

    @property
    def network_(self) -> Any:
        """The trained network."""
        check_is_fitted(self)
        return self._fitted.network

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, (n, K), in the order of ``classes_``."""
        check_is_fitted(self)
        images, network = self._images(X, reset=False), self._fitted.network
        if network.input is None:  # of a run of version 0.1
            images = arranged(images, self.image_shape_, "X")
        found = network.predict_proba(images).astype(np.float64)
        return np.asarray(found / found.sum(1, keepdims=True))

    def predict(self, X: Any) -> np.ndarray:
        """Return the class that is decided for, per image, (n,)."""
        found = torch.from_numpy(self.predict_proba(X))  # first, since it tells whether there is anything to decide by
        return np.asarray(self.classes_[self._fitted.network.decided(found.log()).numpy()])

    def save(self, path: Path | str, *, force: bool = False) -> None:
        """Write a run, which `from_run`, `ddcnn.load` and ``ddcnn predict`` read.

        Parameters
        ----------
        path
            A new folder.
        force
            Replace a run that is there.
        """
        check_is_fitted(self)
        self._fitted.save(path, force=force)

    @classmethod
    def from_run(cls, path: Path | str, *, strategy: str | None = None, trust: bool = False) -> Self:
        """Return a classifier that is fitted already, from a run of `save`, `ddcnn.train` or `ddcnn.compare`.

        ``classes_`` are what they were at `fit`; of another run, the names of the classes, as numbers if all are, and
        ascend. Parameters are those of `ddcnn.load`. `fit` trains anew, from another seed and on this machine's choice
        of computation.
        """
        network = load(path, strategy, trust=trust)
        saved = open_saved(RunFolder(path), strategy, trust=trust)
        config, shape, known = saved.config, tuple(saved.data["image_shape"]), saved.data.get("input", {})
        found = cls(
            model=config.model.name,
            grid=config.decomposition.grid,
            overlap=config.decomposition.overlap,
            strategy=config.strategy,
            aggregation=config.aggregation.name,
            epochs=config.training.epochs,
            batch_size=config.training.batch_size,
            lr=config.training.lr,
            validation_fraction=config.data.validation,
            config=config.model_dump(mode="json", include=_METHOD),
            random_state=config.seed,
        )
        found.layout = known.get("layout")
        found.image_shape = _as_given(shape, found.layout)
        found.classes_ = _labels_of(saved.data["classes"], known.get("label_kind"))
        found.image_shape_ = shape
        found.n_features_in_ = int(np.prod(shape))
        found._fitted = Fitted(
            config, saved.data, saved.name, network, saved.aggregation, saved.shares_local_cnns, saved.whole_image
        )
        return found

    def __sklearn_is_fitted__(self) -> bool:
        """Tell whether `fit` has been called."""
        return hasattr(self, "_fitted")

    def __sklearn_tags__(self) -> Any:
        """Return what scikit-learn asks of every estimator."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _images(self, X: Any, *, reset: bool, y: Any = None) -> np.ndarray:
        """Return images as they were given, or, of rows, in the shape that these have as images."""
        refuse_masked(X, "X")
        if not hasattr(X, "ndim"):
            X = np.asarray(X)
        if X.ndim > 2:
            if reset and y is None:
                raise DataError("DomainDecomposedClassifier requires y to be passed, but the target y is None")
            return as_numpy(X, "X")
        more = {"y": y, "multi_output": True} if reset else {}
        found = validate_data(self, X, reset=reset, ensure_min_samples=2 if reset else 1, dtype="numeric", **more)
        values = found[0] if more else found
        if values.dtype != np.uint8:
            values = values.astype(np.float32)  # of integers in rows nobody knows that they are pixels in 0..255
        shape = (1, values.shape[1]) if self.image_shape is None else self._checked_shape()
        if np.prod(shape) != values.shape[1]:
            text = "x".join(map(str, shape))
            raise DataError(f"X has {values.shape[1]} features, which are no image of image_shape {text}")
        return np.asarray(values).reshape(len(values), *shape)

    def _checked_shape(self) -> tuple[int, ...]:
        given: Any = self.image_shape
        sizes: list[Any] = [*given] if isinstance(given, Iterable) and not isinstance(given, str) else []
        if not sizes or not all(isinstance(size, Integral) and int(size) > 0 for size in sizes):
            raise DataError(f"image_shape = {given!r} should be positive whole numbers, such as (28, 28)")
        return tuple(map(int, sizes))


def _as_given(shape: Sequence[int], layout: str | None) -> tuple[int, ...]:
    """Return the shape of an image (C, *S) in a layout; None: channels last, if there are several."""
    C, *size = shape
    axes = "DHW"[-len(size) :]
    order = layout or f"N{axes}{'' if C == 1 else 'C'}"
    sizes = dict(zip("C" + axes, shape, strict=True))
    return tuple(sizes[axis] for axis in order[1:])


def _labels_of(names: Sequence[str], kind: str | None) -> np.ndarray:
    """Return the labels whose names these are, by their type, one of `ddcnn.data.description.LABEL_KINDS`."""
    texts = np.array(names)
    if kind is None:
        numbers = [int(name) for name in names] if all(map(is_number, names)) else []
        return np.array(numbers) if numbers and numbers == sorted(numbers) else texts
    try:
        found = texts == "True" if kind == "bool" else texts.astype(kind)
    except (ValueError, OverflowError):
        found = texts[:0]
    if [str(one) for one in found] != [*names]:
        raise RunError(f"data.json: the classes {', '.join(names[:5])} are no labels of type {kind}; train again")
    return found
