"""Whatever is given to `ddcnn.fit` and ``ddcnn predict`` ends in an answer or in one line, never in a traceback."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ddcnn
from ddcnn.cli import main
from tests.cli.conftest import make_run
from tests.cli.test_upload import arrays as array_files
from tests.cli.test_upload import damaged

FUZZED = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
SMALL = {
    "model": {"name": "tests.strategies.tiny:tiny"},
    "training": {"epochs": 1, "batch_size": 8},
    "aggregation": {"epochs": 1, "hidden": [2]},
    "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
}
VALUES = st.sampled_from([0, 1, 255, -1, 300, 0.5, np.nan, np.inf, -np.inf, 1e38])


@st.composite
def images(draw: st.DrawFn) -> Any:
    shape = draw(
        st.sampled_from([(12, 4, 4), (12, 4, 4, 1), (12, 3, 4, 4), (12, 4, 4, 4), (12, 2, 4, 4, 4), (12, 16)])
        | st.lists(st.integers(0, 12), max_size=5).map(tuple)
    )
    kind = draw(st.sampled_from(["u1", "u2", "i4", "i8", "f2", "f4", "f8", "c8", "?", "U3", "O"]))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = np.full(shape, draw(VALUES)).astype(kind) if kind not in "UO" else np.full(shape, "a", kind)
    if array.size and array.dtype.kind in "uif" and draw(st.booleans()):
        array = array.copy()
        array.flat[:: draw(st.integers(1, 5))] = 7
    return array.tolist() if draw(st.integers(0, 9)) == 0 else array


LABELS = (
    st.just(list(range(2)) * 6)
    | st.lists(st.integers(-1, 3), max_size=13)
    | st.lists(st.sampled_from(["a", "b", "", "\n", None, np.nan, 1.5, (1, 2)]), min_size=11, max_size=12)
    | st.lists(st.floats(), min_size=12, max_size=12)
    | st.none()
)


@FUZZED
@given(X=images(), y=LABELS, grid=st.sampled_from(["1x1", "2x2", "1x2x2", "9x9", "2", "0x1", "x"]))
def test_fit(X: Any, y: Any, grid: str) -> None:
    said, p = "", np.empty(0)
    try:
        p = ddcnn.fit(X, y, grid=grid, config=SMALL).predict_proba(np.asarray(X))
    except ddcnn.DdcnnError as error:
        said = str(error)
    assert said.isprintable()
    assert said or (len(p) == len(X) and np.allclose(p.sum(1), 1, atol=1e-4))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    made = tmp_path_factory.mktemp("fuzzing")
    colour = make_run(made / "colour", channels=3, size=(16, 16), image_type="uint8")
    grey = make_run(made / "grey", channels=1, size=(8, 8), image_type="float32", grid=(1, 1))
    return [colour, grey]


@FUZZED
@given(
    content=damaged() | array_files() | st.binary(max_size=100),
    kind=st.sampled_from([".png", ".jpg", ".tif", ".gif", ".npy", ".npz", ".nii", ".nii.gz", ".dcm", ""]),
    which=st.integers(0, 1),
    form=st.sampled_from(["table", "json", "csv"]),
)
def test_predict(runs: list[Path], tmp_path: Path, content: bytes, kind: str, which: int, form: str) -> None:
    file = tmp_path / f"file{kind}"
    file.write_bytes(content)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
        main(["predict", str(runs[which]), str(file), "--format", form])
    assert end.value.code in (0, 2)
    assert (end.value.code == 0) == bool(out.getvalue())
    if end.value.code == 2:
        assert err.getvalue().startswith("error: ")
        assert err.getvalue().count("\n") == 1
