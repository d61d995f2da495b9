import base64
import copy
import hashlib
import json
import re
import sys
import xml.etree.ElementTree as ET
from importlib.resources import files

import numpy as np
import pytest

from ddcnn.errors import DdcnnError
from ddcnn.report import write_report

HOSTILE = ["<script>alert(1)</script>", "a&b", "$\\frac{", 'x" onload="y', "]]>", "猫", "\x00\x1b[0m", "-->"]


def page_of(folder):
    text = write_report(folder).read_text("utf-8")
    check(text)
    return text


def check(text):
    """Well-formed, self-contained, no script but our own, unique identifiers that all resolve."""
    root = ET.fromstring(text.removeprefix("<!DOCTYPE html>"))
    (script,) = root.iter("script")
    assert script.text == files("ddcnn.report").joinpath("page.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    (policy,) = (e.get("content") for e in root.iter("meta") if e.get("http-equiv") == "Content-Security-Policy")
    assert policy.split("; ") == [
        "default-src 'none'", "style-src 'unsafe-inline'", "img-src data:", f"script-src 'sha256-{digest}'",
    ]  # fmt: skip
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    for element in root.iter():
        assert element.tag in TAGS.split()
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            if name in ("src", "href") or name.endswith("}href"):
                assert value.startswith("data:image/png;base64,") or value.removeprefix("#") in ids, value[:80]
            for reference in re.findall(r"url\((.*?)\)", value):
                assert reference.removeprefix("#") in ids
    assert not re.search(r"@import|url\(\s*['\"]?(http|//)", text)
    assert all(e.get("aria-label") for e in root.iter("svg"))
    assert len(text) < 3_000_000


TAGS = """html head meta title style body main header section p h1 h2 h3 span div table thead tbody tr th td i dl dt dd
figure figcaption details summary pre svg g path text tspan rect defs clipPath use image nav ul li a b code script"""


def words(text):
    """Return the page as a reader sees it, outside the figures."""
    text = re.sub(r"<(svg|style|script).*?</\1>", "", text, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def test_full_page(make_run):
    text = page_of(make_run())
    seen = words(text)
    assert "mnist5k · vgg9 · 2 × 2 grid" in seen
    assert "4 local CNNs with 1/4 of the parameters each, trained independently, reach 97.7 % with a CNN-DNN" in seen
    for part in ("98.8", "302,000", "83.5", "310", "ddcnn compare --data mnist5k", "torch 2.13.0", "recipe: fast"):
        assert part in seen
    assert "3,600 train, 400 validation, 1,000 test" in seen
    assert "bfloat16: 1.7 times as fast as float32" in seen
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings == [
        "Comparison", "Test accuracy", "What to do next", "The decomposition", "Accuracy per subdomain",
        "When subdomains are missing", "Training", "Which classes are confused", "The most confident mistakes",
        "Class by class", "Training time", "Parameters", "How it was made",
    ]  # fmt: skip
    contents = re.search(r"<nav.*?</nav>", text, re.DOTALL)[0]
    assert re.findall(r">([^<\n]+)</a>", contents) == headings
    assert text.count("<figcaption>") >= 7
    assert len(text) < 500_000


def test_same_files_same_page(make_run, monkeypatch):
    folder = make_run()
    first = write_report(folder).read_bytes()
    monkeypatch.setitem(sys.modules["matplotlib"].rcParams, "font.size", 20)
    assert write_report(folder).read_bytes() == first


def test_volume(make_run):
    text = page_of(make_run(grid=(2, 3, 2), size=(12, 18, 20), overlap=1))
    assert "depth layer 1" in text
    assert "One slice per axis" in text
    assert "Shaded pixels" in text


@pytest.mark.parametrize(("K", "grid"), [(2, (1, 1)), (8, (1, 3)), (50, (8, 8))])
def test_sizes(make_run, K, grid, synthetic):
    rows = synthetic.metrics(grid[0] * grid[1], epochs=2)
    text = page_of(make_run(grid=grid, classes=[f"class {k}" for k in range(K)], size=(40, 48), rows=rows))
    assert f"random guessing among {K} classes" in words(text)


def test_large_colour_images_stay_small(make_run):
    noise = np.random.default_rng(0).integers(0, 256, (3, 3, 700, 500), np.uint8)
    page_of(make_run(size=(700, 500), images=noise, grid=(4, 4), overlap=8))


def test_hostile_words(make_run, synthetic):
    results = synthetic.comparison(classes=HOSTILE)
    results |= {"data": HOSTILE[0], "model": HOSTILE[1], "run": HOSTILE[3], "device": "${x}"}
    results["details"]["command"] = HOSTILE[0] + "{{ 7 * 7 }}"
    results["details"]["versions"] = {HOSTILE[0]: HOSTILE[0]}
    results["strategies"].append({"name": HOSTILE[0], "test_accuracy": 0.5, "seconds": 3.0})
    folder = make_run(results=results, rows=[{"stage": HOSTILE[0], "epoch": 1, "validation_accuracy": [0.5]}])
    (folder / "config.yaml").write_text(HOSTILE[0])
    text = page_of(folder)
    assert text.count("<script") == 1  # `check` has seen that it is ours
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "{{ 7 * 7 }}" in text


def test_no_name_steers_the_page(make_run, synthetic):
    odd = ["\u202egnp", "\x1b[2J", "\u2066a\u2069", "soft\xad", "\u2028", "\U000e0041tag", "\x9b", "می\u200cخواهم"]
    results = synthetic.comparison(classes=odd)
    results["data"] = results["run"] = results["details"]["command"] = "".join(odd)
    results["details"]["versions"] = {odd[0]: odd[1]}
    folder = make_run(results=results)
    (folder / "config.yaml").write_text("".join(odd))
    text = page_of(folder)
    assert not {"\u202e", "\x1b", "\u2066", "\u2069", "\xad", "\u2028", "\U000e0041", "\x9b", "\ufffd"} & set(text)
    for shown in ("\\u202egnp", "\\x1b[2J", "soft\\xad", "می\u200cخواهم"):
        assert shown in text


@pytest.mark.parametrize("name", ["global", "average", "transfer"])
def test_run_of_one_strategy(make_run, name, synthetic):
    results = synthetic.comparison(strategies=[name])
    if name == "global":
        results["subdomains"] = results["details"]["subdomains"] = []
    text = page_of(make_run(results=results, rows=synthetic.metrics(4, epochs=1, stages=["local"])))
    assert ("the dashed line" in text) == (name == "global")


def test_everything_null(make_run, synthetic):
    text = page_of(make_run(results=_nulled(synthetic.comparison()), rows=[]))
    assert "No test accuracy was measured in this run." in text
    assert "None" not in words(text)
    assert "nan" not in words(text).lower()


@pytest.mark.parametrize("results", [{}, {"strategies": [], "details": None}, {"strategies": [{"name": "local"}]}])
def test_nearly_empty(make_run, results):
    page_of(make_run(results=results, rows=[]))


def test_some_nulls(make_run, synthetic):
    results = synthetic.comparison()
    results["strategies"][0]["test_accuracy"] = None
    results["strategies"][3]["critical_path_seconds"] = None
    results["subdomains"][1] |= {"test_accuracy": None, "parameters": None}
    results["details"]["subdomains"][0]["class_accuracy"][2] = None
    results["details"]["confusion"] = {"vote": None, "average": [[3, 1], [0, 2]]}
    rows = synthetic.metrics(4)
    rows[12]["validation_accuracy"] = [None, 0.5, float("nan"), None]
    page_of(make_run(results=results, rows=rows))


def test_times_that_do_not_add_up(make_run, synthetic):
    results = synthetic.comparison()
    results["strategies"][-1]["seconds"] = 1.0
    assert "1.0" in words(page_of(make_run(results=results)))


def test_without_examples(make_run):
    folder = make_run()
    (folder / "examples.safetensors").unlink()
    assert "The decomposition" not in page_of(folder)


def test_examples_of_another_size(make_run, synthetic):
    folder = make_run(images=synthetic.images_of((20, 20)))
    with pytest.raises(DdcnnError, match="is not in an image"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_coarse_level_beside_the_grid(make_run, synthetic):
    results = synthetic.comparison()
    results["subdomains"].append({"index": 4, "box": [[0, 28], [0, 28]], "test_accuracy": 0.91})
    seen = words(page_of(make_run(results=results)))
    assert "Beside the grid: subdomain 4, 91.0 %" in seen
    assert "Shaded" not in seen


def test_folds_and_resumed_epochs(make_run, synthetic):
    rows = synthetic.metrics(4, stages=["local", "dnn", "transfer", "local/fold0", "local/fold1"])
    text = page_of(make_run(rows=[*rows, *copy.deepcopy(rows[:3])]))
    assert "local CNNs, folds" in text
    assert "Folds are trained only" in text


def test_grid_and_boxes_follow_the_file(make_run, synthetic):
    folder = make_run(grid=(2, 2), overlap=3)
    stored = json.loads((folder / "comparison.json").read_text())
    assert stored["subdomains"][0]["box"] == synthetic.boxes_of((2, 2), (28, 28), 3)[0]
    assert "0:17" in words(page_of(folder))


def _nulled(value):
    if isinstance(value, dict):
        keep = {"name", "index"}
        return {k: v if k in keep else _nulled(v) for k, v in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_nulled(v) for v in value]
    return None


def test_a_local_cnn_that_diverged_is_named_with_its_epoch(make_run, synthetic):
    results = synthetic.comparison()
    results["subdomains"][2] |= {"best_epoch": 1, "diverged_epoch": 2}
    assert words(page_of(make_run(results))).count("1 (diverged in 2)") == 1


def test_thresholds_are_told_where_there_are_any(make_run, synthetic):
    results = synthetic.comparison()
    assert "Decided by thresholds" not in page_of(make_run(results=results, name="plain"))
    names = results["details"]["classes"]
    results["strategies"][0]["thresholds"] = [0.125, *[0.875 / (len(names) - 1)] * (len(names) - 1)]
    page = page_of(make_run(results=results, name="chosen"))
    assert page.count(f"Decided by thresholds instead of the largest probability: {names[0]} 0.125, ") == 1
