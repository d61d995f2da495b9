"""Every code block of README and docs runs as it stands, in the order of its page.

Networks, data sets, engines and recipes are small ones of the same name (`conftest.py`), and a training has one epoch.
Questions of `ddcnn experiment` are not answered here: that they exist and take these options is checked.
"""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import ddcnn
from tests.docs.pages import ROOT, Block, blocks, commands, run_python

ELSEWHERE = {  # the tests that run the blocks of these pages
    "docs/how-to/arrays.md": "tests/docs/test_newcomer.py",
    "docs/how-to/export.md": "tests/cli/test_export.py",
    "docs/how-to/extending.md": "tests/test_extending.py",
    "docs/tutorial.md": "tests/docs/test_newcomer.py",
}
PAGES = [
    name
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if (name := str(path.relative_to(ROOT))) not in ELSEWHERE and blocks(name)
]
NEEDED = {
    "README.md": ("demo", "explain", "export", "large"),
    "docs/how-to/ct-volumes.md": ("explain", "large", "medical"),
    "docs/how-to/experiments.md": ("experiments",),
    "docs/how-to/explain.md": ("explain",),
    "docs/how-to/ray.md": ("large",),
    "docs/how-to/tracking.md": ("track",),
    "docs/how-to/slurm.md": ("large",),
}
LONG = {"README.md", *(f"docs/how-to/{name}.md" for name in ("ct-volumes", "plan", "ray", "slurm"))}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("page", [pytest.param(p, marks=pytest.mark.slow) if p in LONG else p for p in PAGES])
def test_the_blocks_of_a_page_run(page: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for extra in NEEDED.get(page, ()):
        for requirement in EXTRAS[extra]:
            package = (
                re.split(r"[>=\[]", requirement)[0]
                .replace("google-crc32c", "google_crc32c")
                .replace("-", "_")
                .replace("mlflow_skinny", "mlflow")
            )
            pytest.importorskip(package, reason=f"pip install 'ddcnn[{extra}]'")
    folder = tmp_path / "here"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")  # commands set it for volumes
    monkeypatch.setattr("ddcnn.report.write_report", lambda run: Path(run) / "report.html")
    before = set(sys.modules)
    names = _given(page)
    for block in blocks(page):
        assert block.language in ("python", "bash", "yaml", "text"), block
        if block.language == "python" and page != "README.md":  # tests/test_readme.py runs those, with real networks
            run_python(page, _short(block), names)
        elif block.language == "yaml":
            _run_yaml(yaml.safe_load(block.text))
        elif block.language == "bash":
            for command in commands(_short(block), tmp_path):
                run_command(command)
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == folder:
            del sys.modules[name]


def test_the_blocks_of_the_other_pages_have_tests() -> None:
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8")
        assert {block.language for block in blocks(page)} <= {"python", "bash", "text"}


def run_command(command: list[str]) -> None:
    """Run a command of ours in this process; of others, check that there is what they name."""
    name, *arguments = command
    if name == "ddcnn":
        _run_ddcnn([argument.replace("/shared/", "shared/") for argument in arguments])
    elif name == "pip":
        assert arguments[0] == "install"
        for extra in re.findall(r"\[([\w,]+)\]", arguments[1]):
            assert set(extra.split(",")) <= set(EXTRAS)
    elif name == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.M), arguments
    elif name == "python":
        assert (ROOT / arguments[0]).is_file(), arguments
    else:
        assert name in ("ray", "sleep", "scontrol"), command


def _run_ddcnn(arguments: list[str]) -> None:
    from ddcnn.cli import main

    source = arguments[arguments.index("--data") + 1] if "--data" in arguments else ""
    if source.startswith("zarr:") and not Path(store := source.removeprefix("zarr:")).exists():
        _run_ddcnn(["data", "prepare", "phantom:size=16x16x16,n=20", store, "--grid", "4x4x2"])
    if arguments[0] == "experiment":
        _check_experiment(arguments[1:])
        return
    if "--resume" in arguments and not Path(run := arguments[arguments.index("--resume") + 1]).exists():
        _run_ddcnn([arguments[0], "--data", "mnist5k", "--out", run])
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0, arguments


def _check_experiment(arguments: list[str]) -> None:
    from ddcnn.experiments.questions.registry import EXPERIMENTS

    if arguments[0] != "--list":
        assert arguments[0] in EXPERIMENTS or ":" in arguments[0]


def _run_yaml(values: dict[str, Any]) -> None:
    if "spec" in values:
        run_command(values["spec"]["entrypoint"].replace("/data/", "volume/").split())
    else:
        assert isinstance(ddcnn.Config.parse(values), ddcnn.Config)


def _short(block: Block) -> Block:
    text = re.sub(r"--time-limit \S+", "--epochs 1", block.text)  # small networks would train many epochs
    text = re.sub(r"(epochs\W{1,3})\d+", r"\g<1>1", text)
    return Block(block.language, re.sub(r"--nproc-per-node \d+", "--nproc-per-node 1", text), block.line)


def _given(page: str) -> dict[str, Any]:
    """Return the names that a page expects its reader to have."""
    files = sorted(Path("photos").rglob("*.png"))
    if page == "README.md":  # trains it
        shutil.rmtree("runs/mine")
    names: dict[str, Any] = {"files": list(map(str, files)), "labels": [path.parent.name for path in files]}
    if page.endswith("explain.md"):
        names["images"] = np.zeros((2, 3, 16, 16), np.uint8)
    return names
