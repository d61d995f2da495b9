import json

import numpy as np
import pytest
from PIL import Image

import ddcnn
from ddcnn.errors import DataError
from ddcnn.training import Progress


class Notes(Progress):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def folder(tmp_path):
    for i in range(24):
        path = tmp_path / f"images/{'ab'[i % 2]}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    (tmp_path / "images/a/bad.png").write_text("hello")
    return tmp_path / "images"


@pytest.mark.parametrize("mode", ["warn", "skip"])
def test_the_run_names_what_was_left_out(folder, make_config, mode):
    notes = Notes()
    config = make_config(
        strategy="global",
        data={"source": f"folder:{folder}", "on_bad_file": mode},
        training={"epochs": 1},
        model={"width_factor": 0.1},
    )
    run = ddcnn.train(config, progress=notes).run
    report = json.loads((run / "bad_files.json").read_text())
    reason = f"{folder / 'a/bad.png'} is not an image; remove it or replace it"
    assert report == {"on_bad_file": mode, "files": [{"file": str(folder / "a/bad.png"), "reason": reason}]}
    assert (f"left out: {reason}" in notes.notes) == (mode == "warn")
    assert "1 file is left out, named in bad_files.json" in notes.notes


def test_by_default_it_is_an_error(folder, make_config, tmp_path):
    with pytest.raises(DataError, match=r"bad\.png is not an image"):
        ddcnn.train(make_config(data={"source": f"folder:{folder}"}))
    assert not (tmp_path / "run").exists()
