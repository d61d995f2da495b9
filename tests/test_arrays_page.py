"""What `docs/arrays.md` shows works as it is shown there, with fewer images and epochs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ddcnn

PAGE = Path(__file__).parents[1] / "docs" / "arrays.md"
QUICK = {
    "aggregation": {"epochs": 1, "hidden": [8]},
    "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
}
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


@pytest.mark.usefixtures("seeded")
def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pandas", reason="the page shows a pandas DataFrame")
    monkeypatch.chdir(tmp_path)
    files, labels = [], []
    for i in range(24):
        Image.fromarray(np.full((18, 20), 10 * i, np.uint8)).save(f"{i}.png")
        files.append(os.fspath(tmp_path / f"{i}.png"))
        labels.append("light" if i > 11 else "dark")
    names: dict[str, Any] = {"files": files, "labels": labels, "QUICK": QUICK}
    for code in BLOCKS:
        exec(compile(_smaller(code), str(PAGE), "exec"), names)
    out = capsys.readouterr().out
    assert "transfer" in out
    assert out.count("test ") == 1
    assert "('dark', 'light')" in out
    assert names["probabilities"].shape == (50, 10)
    np.testing.assert_allclose(names["probabilities"].sum(1), 1, atol=1e-5)
    assert names["again"].classes_.tolist() == list(range(10))
    rows = names["X"].reshape(-1, 64)
    scaled = names["search"].best_estimator_[0].transform(rows)
    np.testing.assert_array_equal(names["again"].predict(scaled), names["search"].predict(rows))


def _smaller(code: str) -> str:
    small = re.sub(r'model="resnet20"|"name": "resnet20"', _tiny, code)
    small = re.sub(r"epochs(\W+)\d+", r"epochs\g<1>1", small)
    small = small.replace("X = X.reshape(-1, 8, 8)", "X, y = X[:150].reshape(-1, 8, 8), y[:150]")
    small = small.replace("Config(model", "Config(**QUICK, model").replace("Config(data", "Config(**QUICK, data")
    small = small.replace("grid=(2, 2), epochs=1)", "grid=(2, 2), epochs=1, config=QUICK)")
    small = small.replace("Classifier(image_shape", "Classifier(config=QUICK, image_shape")
    small = small.replace("data=(X, y))", "data=(X, y), trust=True)").replace("load(run)", "load(run, trust=True)")
    small = small.replace('from_run("runs/digits-sklearn")', 'from_run("runs/digits-sklearn", trust=True)')
    small = small.replace("slice(0, 1400), slice(1400, None)", "slice(0, 100), slice(100, None)")
    return small.replace('data={"image_size"', 'model={"name": "tests.strategies.tiny:tiny"}, data={"image_size"')


def _tiny(found: re.Match[str]) -> str:
    return found[0].replace("resnet20", "tests.strategies.tiny:tiny")


def test_the_page_is_short_and_names_what_there_is() -> None:
    assert all(len(block.strip().splitlines()) <= 14 for block in BLOCKS)
    for name in re.findall(r"ddcnn\.(\w+)\(", PAGE.read_text(encoding="utf-8")):
        assert hasattr(ddcnn, name), name
