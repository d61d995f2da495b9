"""The page of an experiment: one file, everything escaped, plots beside it; a damaged summary is one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from ddcnn.errors import RunError
from ddcnn.report import experiment_tables, write_experiment_report

NASTY = "<script>alert(1)</script>"


@pytest.fixture
def summary() -> dict[str, Any]:
    def arm(name: str, mean: float, interval: list[float] | None) -> dict[str, Any]:
        return {
            "name": name, "values": [mean - 0.01, mean + 0.01], "n": 2, "mean": mean, "sd": 0.0141,
            "interval": interval, "images_sd": 0.005, "parameters": 1000.0, "epochs": 8.0, "seconds": 1.5,
            "critical_path_seconds": None,
        }  # fmt: skip

    pair = {
        "arm": "a", "other": NASTY, "measure": "test_accuracy", "n": 2, "mean": 0.0123, "sd": 0.001,
        "interval": [0.0012, 0.0234], "t_p": 0.01, "holm_p": 0.02, "wilcoxon_p": 0.5, "equivalence_holm_p": None,
        "seeds_needed": 7, "images_interval": [-0.02, 0.04], "mcnemar_p": [0.5, 0.0001], "verdict": "higher",
    }  # fmt: skip
    return {
        "experiment": "e", "question": "Is it so?", "command": f"ddcnn experiment {NASTY}", "unit": "seed",
        "units": [0, 1], "margin": 0.005,
        "about": {"data": NASTY, "model": "m", "grid": [2, 2], "epochs": 8, "samples": {"train": 9, "test": 5}},
        "arms": [arm("a", 0.9, [0.8, 1.0]), arm(NASTY, 0.8877, None)],
        "pairs": [pair],
        "tables": [{"title": "More", "columns": ["x", "y"], "rows": [["r", NASTY]], "note": "n"}],
        "curves": [{"title": "C", "x": "cuts", "y": "%", "lines": {NASTY: [[1, 0.9, 0.8, 1.0], [2, 0.8, 0.7, 0.9]]},
                    "note": "", "log": True}],
        "left_out": {"fine": "too fine"}, "versions": {"torch": "2"}, "machine": {"cores": 2}, "choices": {},
    }  # fmt: skip


def written(folder: Path, summary: dict[str, Any]) -> str:
    (folder / "summary.json").write_text(json.dumps(summary))
    return write_experiment_report(folder).read_text(encoding="utf-8")


def test_the_page_is_one_file_and_escaped(tmp_path: Path, summary: dict[str, Any]) -> None:
    page = written(tmp_path, summary)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 6
    assert not re.search(r"(src|href)=\"(?!#)", page)
    assert page.count("<svg") == 3
    assert "ddcnn experiment &lt;script" in page
    assert "fine: too fine" in page


STEERING = "\x1b[31m\u202eabc\u2066\x9b"  # colours of a terminal, and letters in another order than there are


def test_nothing_steers_who_reads_the_page(tmp_path: Path, summary: dict[str, Any]) -> None:
    def everywhere(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: everywhere(one) for key, one in value.items()}
        if isinstance(value, list):
            return [everywhere(one) for one in value]
        return value + STEERING if isinstance(value, str) and value not in ("seed", "test_accuracy") else value

    page = written(tmp_path, everywhere(summary))
    assert not [char for char in STEERING if not char.isprintable() and char in page]
    assert "\\x1b[31m\\u202eabc" in page


def test_the_numbers_are_there(tmp_path: Path, summary: dict[str, Any]) -> None:
    page = re.sub(r"<[^>]*>", "|", written(tmp_path, summary))
    for shown in (
        "90.00",
        "80.00 to 100.00",
        "+1.23",
        "+0.12 to +2.34",
        "-2.00 to +4.00",
        "0.020",
        "< 0.001",
        "higher",
    ):
        assert f"|{shown}|" in page or f"|{shown.replace('<', '&lt;')}|" in page, shown


def test_plots_can_be_printed(tmp_path: Path, summary: dict[str, Any]) -> None:
    written(tmp_path, summary)
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert names == {f"{name}.{kind}" for name in ("arms", "differences", "curve-1") for kind in ("svg", "png")}
    assert imread(tmp_path / "plots" / "arms.png").shape[1] == 1760  # 8.8 inches at 200 dots per inch
    drawn = (tmp_path / "plots" / "differences.svg").read_text()
    assert "<text" not in drawn  # letters are outlines: no font is needed
    before = drawn
    written(tmp_path, summary)
    assert (tmp_path / "plots" / "differences.svg").read_text() == before


def test_tables_for_the_terminal(summary: dict[str, Any]) -> None:
    arms, pairs, more = experiment_tables(summary)
    assert [table.row_count for table in (arms, pairs, more)] == [2, 1, 1]
    summary["pairs"] = []
    assert len(experiment_tables(summary)) == 2


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ({"arms": []}, r"summary.json: arms cannot be used"),
        ({"margin": "wide"}, r"summary.json: margin cannot be used"),
        ({"units": [[]]}, r"summary.json: units.0 cannot be used"),
    ],
)
def test_a_damaged_summary_is_one_line(
    tmp_path: Path, summary: dict[str, Any], damage: dict[str, Any], expected: str
) -> None:
    with pytest.raises(RunError, match=expected):
        written(tmp_path, summary | damage)
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(RunError, match="is damaged"):
        write_experiment_report(tmp_path)
    (tmp_path / "summary.json").unlink()
    with pytest.raises(RunError, match="cannot be read"):
        write_experiment_report(tmp_path)
