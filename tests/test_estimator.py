"""`DomainDecomposedClassifier` keeps scikit-learn's conventions."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import ddcnn
from ddcnn import DomainDecomposedClassifier
from ddcnn.runs.folder import RunFolder

SMALL = {
    "model": {"name": "tests.strategies.tiny:linear"},
    "training": {"optimizer": "adamw", "lr": 0.1},
    "aggregation": {"epochs": 3, "hidden": [4]},
    "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
}
EXEMPT = {
    "check_sample_weight_equivalence_on_dense_data": "batches of samples with weights are other batches than of copies",
}
"""Of scikit-learn's checks, by name: why they do not hold."""


@pytest.fixture(autouse=True)
def _global_numbers() -> Iterator[None]:
    """Put torch's generator back: scikit-learn's checks may clone and draw."""
    with torch.random.fork_rng(devices=[]):
        yield


def small(**parameters: Any) -> DomainDecomposedClassifier:
    values = {"grid": (1, 1), "epochs": 4, "batch_size": 8, "config": SMALL, "random_state": 0} | parameters
    return DomainDecomposedClassifier(**values)


@parametrize_with_checks(
    [small(aggregation="average", epochs=5, batch_size=32)], expected_failed_checks=lambda _: EXEMPT
)
def test_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Bright left, or bright right half; 8x6 pixels."""
    draw = np.random.default_rng(0)
    labels = np.array(["left", "right"])[draw.integers(0, 2, 60)]
    images = draw.integers(0, 60, (60, 8, 6), dtype=np.uint8)
    images[labels == "left", :, :3] += 150
    images[labels == "right", :, 3:] += 150
    return images, labels


@pytest.fixture(scope="module")
def trained(digits: tuple[np.ndarray, np.ndarray]) -> DomainDecomposedClassifier:
    return small(grid=(2, 2), epochs=2).fit(*digits)


def test_images_and_rows_are_the_same(digits: Any, trained: DomainDecomposedClassifier) -> None:
    images, labels = digits
    assert trained.score(images, labels) == 1.0
    assert trained.classes_.tolist() == ["left", "right"]
    rows = small(grid=(2, 2), epochs=2, image_shape=(8, 6)).fit(images.reshape(60, 48), labels)
    assert rows.n_features_in_ == 48
    np.testing.assert_array_equal(rows.predict_proba(images.reshape(60, 48)), trained.predict_proba(images))
    with pytest.raises(ValueError, match="X has 48 features, which are no image of image_shape 7x6"):
        small(image_shape=(7, 6)).fit(images.reshape(60, 48), labels)


def test_a_seed_determines_the_training(digits: Any, trained: DomainDecomposedClassifier) -> None:
    images, labels = digits
    same, other = (small(grid=(2, 2), epochs=2, random_state=s).fit(images, labels) for s in (0, 1))
    np.testing.assert_array_equal(same.predict_proba(images), trained.predict_proba(images))
    assert not np.array_equal(other.predict_proba(images), trained.predict_proba(images))


def test_save_and_from_run(digits: Any, trained: DomainDecomposedClassifier, tmp_path: Path) -> None:
    images, _ = digits
    trained.save(tmp_path / "run")
    again = DomainDecomposedClassifier.from_run(tmp_path / "run", trust=True)
    np.testing.assert_allclose(again.predict_proba(images), trained.predict_proba(images), atol=1e-6)
    np.testing.assert_array_equal(again.predict(images), trained.predict(images))
    network = ddcnn.load(tmp_path / "run", trust=True)
    np.testing.assert_allclose(network.predict_proba(images), trained.predict_proba(images), atol=1e-6)
    again.save(tmp_path / "again")
    with pytest.raises(ddcnn.DdcnnError, match="exists; choose another --out, or --force"):
        again.save(tmp_path / "again")
    assert again.get_params()["grid"] == (2, 2)
    refitted = clone(again).fit(*digits)
    assert refitted.score(*digits) == 1.0


@pytest.mark.parametrize(
    "mistake",
    [
        {"X": slice(58)},
        {"parameters": {"epochs": -1}},
        {"parameters": {"grid": "0x0"}},
        {"sample_weight": [1.0]},
        {"y": np.zeros(60)},
    ],
)
def test_a_fit_that_fails_leaves_what_was_fitted(mistake: dict[str, Any], digits: Any) -> None:
    """Else the network of the first fit would decide in the words of the second one."""
    images, labels = digits
    classifier = small().fit(images, labels)
    expected = classifier.predict(images)
    classifier.set_params(**mistake.get("parameters", {}))
    with pytest.raises(ValueError, match=r"."):
        classifier.fit(
            images[mistake.get("X", slice(None))],
            mistake.get("y", np.where(labels == "left", "a", "b")),
            mistake.get("sample_weight"),
        )
    np.testing.assert_array_equal(classifier.predict(images), expected)
    assert classifier.classes_.tolist() == ["left", "right"]


def test_a_fit_to_images_forgets_the_features_of_rows(digits: Any) -> None:
    images, labels = digits
    classifier = small(image_shape=(8, 6)).fit(images.reshape(60, 48), labels)
    assert classifier.n_features_in_ == 48
    classifier.fit(images[:, :6], labels)
    assert not hasattr(classifier, "n_features_in_")
    assert classifier.predict(images[:, :6]).shape == (60,)


@pytest.mark.parametrize("shape", [48, "8x6", (-8, -6), (8.0, 6.0), ()])
def test_a_shape_that_is_none_is_one_line(shape: Any, digits: Any) -> None:
    images, labels = digits
    with pytest.raises(ValueError, match=r"image_shape = .* should be positive whole numbers, such as"):
        small(image_shape=shape).fit(images.reshape(60, 48), labels)


def test_the_method_is_that_of_the_run(digits: Any, tmp_path: Path) -> None:
    more = {"transfer": {"epochs": 1, "lr_factor": 0.25}, "coherent": {"local_weight": 0.5}}
    small(grid=(2, 2), strategy="transfer", epochs=1, config=SMALL | more).fit(*digits).save(tmp_path / "run")
    again = clone(DomainDecomposedClassifier.from_run(tmp_path / "run", trust=True)).fit(*digits)
    again.save(tmp_path / "again")
    before, after = (ddcnn.Config.read(tmp_path / name / "config.yaml") for name in ("run", "again"))
    free = {"out", "seed", "compute", "data", "recipe"}
    assert after.model_dump(exclude=free) == before.model_dump(exclude=free)
    assert after.transfer.lr_factor == 0.25


def test_no_images_are_one_line(digits: Any) -> None:
    images, labels = digits
    with pytest.raises(ValueError, match="at least 2 classes are needed, got 0"):
        small().fit(images[:0], labels[:0])


def test_it_can_be_pickled(digits: Any, trained: DomainDecomposedClassifier) -> None:
    again = pickle.loads(pickle.dumps(trained))
    np.testing.assert_array_equal(again.predict_proba(digits[0]), trained.predict_proba(digits[0]))


def test_grid_search_over_grid_and_aggregation(digits: Any) -> None:
    images, labels = digits
    pipeline = make_pipeline(StandardScaler(), small(image_shape=(8, 6), epochs=1))
    over = {
        "domaindecomposedclassifier__grid": [(1, 1), (2, 1)],
        "domaindecomposedclassifier__aggregation": ["dense", "average"],
    }
    search = GridSearchCV(pipeline, over, cv=2, error_score="raise").fit(images.reshape(60, 48), labels)
    assert len(search.cv_results_["params"]) == 4
    assert search.score(images.reshape(60, 48), labels) > 0.8


def test_weights_choose_what_is_learned(digits: Any) -> None:
    images, labels = digits
    wrong = np.where(labels == "left", "right", "left")
    both, all_labels = np.concatenate([images, images]), np.concatenate([labels, wrong])
    for right_half in (0, 1):
        weights = np.repeat([1.0 - right_half, float(right_half)], len(images))
        found = small(epochs=4, validation_fraction=0.1).fit(both, all_labels, sample_weight=weights)
        assert (found.predict(images) == (labels, wrong)[right_half]).mean() > 0.9


def test_groups_are_kept_together(digits: Any) -> None:
    images, labels = digits
    small(epochs=1).fit(images, labels, groups=np.arange(60) // 2)
    with pytest.raises(ValueError, match="are of 1 group, and a group is kept in one part"):
        small(epochs=1).fit(images, labels, groups=np.zeros(60, int))


@pytest.mark.parametrize(
    ("names", "dtype"),
    [
        ([-1, 1], np.int64),
        ([-1, 1], np.int8),
        ([False, True], bool),
        ([1.0, 2.0], np.float64),
        ([-1.0, 10.0], np.float32),
        (["10", "9"], str),
        (["0", "1"], str),
        (["left", "right"], object),
        ([9, 10, 200], np.uint16),
    ],
)
def test_labels_are_after_from_run_what_they_were(names: list[Any], dtype: type, digits: Any, tmp_path: Path) -> None:
    images, y = digits[0], np.array(names, dtype)[np.arange(60) % len(names)]
    fitted = small(epochs=1).fit(images, y)
    fitted.save(tmp_path / "run")
    again = DomainDecomposedClassifier.from_run(tmp_path / "run", trust=True)
    assert again.classes_.tolist() == fitted.classes_.tolist() == names
    assert again.classes_.dtype == fitted.classes_.dtype
    assert again.predict(images).tolist() == fitted.predict(images).tolist()
    assert again.score(images, y) == fitted.score(images, y)
    again.save(tmp_path / "again")
    assert DomainDecomposedClassifier.from_run(tmp_path / "again", trust=True).classes_.tolist() == names


def test_names_of_another_run_that_are_no_numbers_in_order_stay_names(digits: Any, tmp_path: Path) -> None:
    images, _ = digits
    for number, (y, classes) in enumerate(
        [(np.arange(60) % 2, [0, 1]), (np.array(["10", "9"])[np.arange(60) % 2], ["10", "9"])]
    ):
        config = SMALL | {"strategy": "global"}
        ddcnn.fit(images, y, epochs=1, config=config, out=tmp_path / str(number))
        found = DomainDecomposedClassifier.from_run(tmp_path / str(number), trust=True)
        assert found.classes_.tolist() == classes


def test_labels_that_a_stranger_says_are_of_another_type_are_refused(
    trained: DomainDecomposedClassifier, tmp_path: Path
) -> None:
    trained.save(tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    data = folder.read_json("data.json")
    for kind, message in (
        ("int64", "the classes left, right are no labels of type int64"),
        ("datetime64", "label_kind"),
    ):
        folder.write_json("data.json", data | {"input": data["input"] | {"label_kind": kind}})
        folder.seal()
        with pytest.raises(ddcnn.DdcnnError, match=message) as error:
            DomainDecomposedClassifier.from_run(tmp_path / "run", trust=True)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("rows", [False, True])
def test_a_saved_classifier_keeps_its_layout(rows: bool, digits: Any, tmp_path: Path) -> None:
    images, labels = digits[0][:, :6], digits[1]  # 6x6: height and width can be exchanged
    turned = images.transpose(0, 2, 1)
    straight = small(grid=(2, 1), epochs=2).fit(images, labels)
    expected = straight.predict_proba(images)
    assert np.abs(straight.predict_proba(turned) - expected).max() > 0.01
    given = np.ascontiguousarray(turned).reshape(60, 36) if rows else turned
    shape = {"image_shape": (6, 6)} if rows else {}
    fitted = small(grid=(2, 1), epochs=2, layout="NWH", **shape).fit(given, labels)
    fitted.save(tmp_path / "run")
    again = DomainDecomposedClassifier.from_run(tmp_path / "run", trust=True)
    for one in (fitted, again, clone(again).set_params(config=SMALL, random_state=0).fit(given, labels)):
        np.testing.assert_allclose(one.predict_proba(given), expected, atol=1e-6)
        assert one.layout == "NWH"
    np.testing.assert_allclose(again.predict_proba(turned.reshape(60, 36)), expected, atol=1e-6)


def test_a_saved_classifier_takes_rows_of_images_that_are_not_square(digits: Any, tmp_path: Path) -> None:
    images, labels = digits  # 8x6
    rows = images.transpose(0, 2, 1).reshape(60, 48)
    fitted = small(layout="NWH", image_shape=(6, 8)).fit(rows, labels)
    fitted.save(tmp_path / "run")
    again = DomainDecomposedClassifier.from_run(tmp_path / "run", trust=True)
    assert again.image_shape == (6, 8)
    np.testing.assert_allclose(again.predict_proba(rows), fitted.predict_proba(rows), atol=1e-6)


@pytest.mark.parametrize("what", ["X", "rows", "y", "sample_weight"])
def test_masked_values_are_refused(what: str, digits: Any, trained: DomainDecomposedClassifier) -> None:
    images, labels = digits
    given = {"X": images, "y": (labels == "left").astype(int), "sample_weight": np.ones(60)}
    if what == "rows":
        given["X"] = images.reshape(60, 48)
    name = "X" if what == "rows" else what
    given[name] = np.ma.masked_array(given[name], False)
    given[name][3] = np.ma.masked
    with pytest.raises(ValueError, match=f"^{name} has masked values, .*fill them, {name}.filled"):
        small(image_shape=(8, 6)).fit(**given)
    if what == "X":
        with pytest.raises(ValueError, match=r"^X has masked values"):
            trained.predict(given["X"])


def test_fits_in_threads_are_those_of_one_after_the_other(digits: Any) -> None:
    network = small(model="resnet20", grid=(1, 2), epochs=1, config={"compute": SMALL["compute"]})
    scores = partial(cross_val_score, network, *digits, cv=2, scoring="neg_log_loss")
    alone = scores().tolist()
    with joblib.parallel_backend("threading", n_jobs=2):
        assert scores(n_jobs=2).tolist() == alone


def test_what_is_for_files_is_refused_for_arrays() -> None:
    images, labels = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8), np.arange(40) % 2
    for data in ({"window": [-1000, 400]}, {"image_size": [4, 4]}):
        config = {"data": data, "model": {"name": "tests.strategies.tiny:tiny"}, "training": {"epochs": 1}}
        with pytest.raises(ddcnn.DdcnnError, match="is for files, and these images are given in memory"):
            ddcnn.fit(images, labels, config=config)
        with pytest.raises(ddcnn.DdcnnError, match="is for files, and these images are given in memory"):
            ddcnn.DomainDecomposedClassifier(config=config).fit(images, labels)
    with pytest.raises(ddcnn.DdcnnError, match=r"sets no images aside for a test; leave out data\.test"):
        ddcnn.fit(images, labels, config={"data": {"test": 0.5}})


def test_labels_that_a_saved_classifier_would_not_keep_are_refused() -> None:
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
    days = np.array(["2026-01-01", "2026-01-02"], "datetime64[D]")[np.arange(40) % 2]
    with pytest.raises(ddcnn.DdcnnError, match=r"labels of type datetime64\[D\] would not be kept"):
        ddcnn.DomainDecomposedClassifier().fit(images, days)


def test_numbers_of_numpy_are_numbers() -> None:
    config = ddcnn.Config.parse({"decomposition": {"overlap": np.int64(1), "grid": np.int64(2)}})
    assert (config.decomposition.overlap, config.decomposition.grid) == ((1,), (2,))
