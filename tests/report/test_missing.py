"""The section on missing subdomains: what it says, and when there is none."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest

from ddcnn.report import write_report
from ddcnn.report.missing import curve_figure, missing_section, points
from ddcnn.report.results import Results
from tests.report.test_html import check, words


@pytest.fixture
def page_of(make_run):
    """Return the page of a run with no other figures than these, which takes less time."""

    def make(results, name="run"):
        results["details"] |= {"confusion": {}, "subdomains": [], "stages": []}
        for row in results["strategies"]:
            row.update(dict.fromkeys(("seconds", "critical_path_seconds", "parameters")))
        for row in results["subdomains"]:
            row.update(parameters=None, test_accuracy=None)
        folder = make_run(results=results, rows=[], name=name)
        (folder / "examples.safetensors").unlink()
        text = write_report(folder).read_text("utf-8")
        check(text)
        return text

    return make


def test_the_best_strategy_is_told_of_in_words(page_of, synthetic):
    results = synthetic.comparison(strategies=["vote", "transfer"])
    one = results["details"]["missing"]["transfer"]["one"] = [0.95, 0.5, 0.97, 0.98]
    results["details"]["folds"] = [5, 1]
    results["subdomains"][2] |= {"missing": True}
    seen = words(page_of(results))
    assert f"transfer reaches {100 * np.mean(one):.1f} % in the mean instead of 99.0 %" in seen
    assert "and 50.0 % without subdomain 1, which it needs most." in seen
    assert "All of it is the mean over the folds." in seen
    assert "no local CNN for subdomain 2: average, vote and CNN-DNN decide without it." in seen
    assert "1 88.2 50.0 2" in seen  # a row of the table


def test_table_and_map_hold_each_subdomain(synthetic):
    results = synthetic.comparison()
    found = results["details"]["missing"]
    found["average"]["one"] = [0.9, 0.8, None, 0.7]
    found["transfer"]["one"] = [0.95, 0.5, 0.9904, None]
    section = missing_section(Results.parse(results))
    assert section.columns == ("average", "vote", "CNN-DNN", "coherent", "transfer")
    assert [(row[0], row[1], row[5]) for row in section.rows] == [
        ("0", "90.0", "95.0"), ("1", "80.0", "50.0"), ("2", "-", "99.0"), ("3", "70.0", "-"),
    ]  # fmt: skip
    label = re.search('aria-label="([^"]*)"', section.map)[1]
    assert label == "Percentage points that transfer loses without a subdomain. 0: 4.0, 1: 49.0, 2: 0.0, 3: -"


def test_the_curve_goes_through_the_means_and_the_band_is_the_range(synthetic):
    results = Results.parse(synthetic.comparison(grid=(3, 3)))
    strategy = results.strategy("vote")
    line = points(strategy, results.details.missing["vote"])
    assert line[0] == (0, 0.902, 0.902, 0.902)
    assert [point.missing for point in line] == [0, 1, 2, 4, 8]
    axes = curve_figure([(strategy, line)]).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xydata().T, [[0, 1, 2, 4, 8], [100 * point.mean for point in line]])
    corners = axes.collections[0].get_paths()[0].vertices
    rows = results.details.missing["vote"].random
    assert corners[:, 1].min() == pytest.approx(100 * min(row.min for row in rows))


@pytest.mark.parametrize("missing", [None, {}, {"vote": None}, {"vote": {"one": [], "random": []}}])
def test_a_run_without_these_figures_has_no_such_section(synthetic, missing):
    results = synthetic.comparison()
    results["details"]["missing"] = missing
    assert missing_section(Results.parse(results)) is None


def test_the_page_of_an_old_run(page_of, synthetic):
    results = synthetic.comparison(strategies=["vote"])
    del results["details"]["missing"]
    assert "When subdomains are missing" not in page_of(results)


def test_nulls_among_the_figures(page_of, synthetic):
    results = synthetic.comparison(strategies=["average", "vote"])
    found = results["details"]["missing"]
    found["vote"]["one"] = [None, None, None, None]
    found["vote"]["random"][0] |= {"mean": None}
    found["vote"]["random"][1] |= {"min": None, "max": None}
    found["average"]["random"] = [{"missing": None, "mean": 0.5}, copy.deepcopy(found["vote"]["random"][1])]
    results["strategies"][0]["test_accuracy"] = 0.1
    text = page_of(results)
    assert "When subdomains are missing" in text
    assert "in the mean instead of" not in text


@pytest.mark.parametrize(("grid", "map_"), [((2, 2, 2), True), ((2, 1), True), ((1, 1), False)])
def test_a_map_where_there_is_a_grid(synthetic, grid, map_):
    results = synthetic.comparison(grid=grid, size=(8, 10, 12)[: len(grid)], strategies=["vote"])
    section = missing_section(Results.parse(results))
    assert (section is not None) == map_
    if map_:
        assert ("depth layer 1" in section.map) == (len(grid) == 3)
        results["grid"] = []
        assert missing_section(Results.parse(results)).map is None
