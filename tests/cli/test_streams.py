"""Standard streams that cannot be written cost the display and nothing else; the shell does to them what users do."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ddcnn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such streams")

QUIET_CASES = {  # what the shell does: code of `ddcnn`
    "": 0,
    ">/dev/full": 1,
    ">&-": 1,
    ">&- 2>&- <&-": 1,
    ">/dev/full 2>/dev/full": 1,
    "2>/dev/full": 0,
    "2>&-": 0,
    "| true": 1,
    "2> >(true)": 0,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("streams") / "d.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (60, 16, 16), dtype=np.uint8)
    np.savez(path, images=pixels, labels=[0, 1] * 30)
    return path


def shell(line: str, **environment: str) -> tuple[int, str, str]:
    """Return the exit code of the first command of a pipe, and what arrived on stdout and stderr."""
    paths = {"PYTHONPATH": str(Path(ddcnn.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
        env=os.environ | paths | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout, done.stderr


def program(*arguments: object) -> str:
    return shlex.join([sys.executable, "-m", "ddcnn", *map(str, arguments)])


@pytest.mark.slow
@pytest.mark.parametrize("redirection", QUIET_CASES)
def test_a_training_ends_and_is_reported(images: Path, tmp_path: Path, redirection: str) -> None:
    run = tmp_path / "run"
    options = ["--grid", "2x1", "--epochs", 2, "--set", "model.width_factor=0.05"]
    options += ["--precision", "float32", "--backend", "looped"]
    line = program("train", "--data", f"npz:{images}", *options, "--out", run)
    code, out, err = shell(f"{line} {redirection}")
    assert code == QUIET_CASES[redirection], err
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    for name in ("manifest.json", "report.html", "comparison.json"):
        assert (run / name).is_file()
    if redirection == ">/dev/full":
        assert err.splitlines()[-1] == (
            "error: stdout cannot be written: No space left on device; the work itself is done"
        )
    if redirection.startswith("2>"):
        assert f"report: {run}" in out


@pytest.mark.parametrize(
    ("redirection", "expected", "said"),
    [
        (">/dev/full", 1, "error: stdout cannot be written: No space left on device; the work itself is done\n"),
        (">&-", 1, "error: stdout cannot be written: Bad file descriptor; the work itself is done\n"),
        ("| true", 1, ""),
        ("2>/dev/full", 0, ""),
    ],
)
def test_a_short_answer_that_arrives_nowhere(images: Path, redirection: str, expected: int, said: str) -> None:
    code, out, err = shell(f"{program('data', 'info', f'npz:{images}')} {redirection}")
    assert (code, err) == (expected, said)
    assert bool(out) == (expected == 0)


def test_an_error_that_arrives_nowhere_is_still_one(tmp_path: Path) -> None:
    for redirection in ("2>/dev/full", "2>&-", ">&- 2>&- <&-"):
        assert shell(f"{program('report', tmp_path)} {redirection}") == (2, "", "")


def test_no_file_takes_the_place_of_a_closed_stream(images: Path, tmp_path: Path) -> None:
    """The next file that is opened would get its number, and what C code prints."""
    code = (
        "import os, sys; from ddcnn.cli.streams import endure; endure(); file = open(sys.argv[1], 'w')\n"
        "assert file.fileno() > 2; os.system('echo from C'); print('from Python'); file.write('kept'); file.close()"
    )
    line = shlex.join([sys.executable, "-c", code, str(tmp_path / "file")])
    assert shell(f"{line} <&- >&- 2>&-")[1:] == ("", "")
    assert (tmp_path / "file").read_text() == "kept"


def test_letters_that_the_terminal_lacks(tmp_path: Path) -> None:
    pixels = np.zeros((40, 4, 4), np.uint8)
    np.savez(tmp_path / "d.npz", images=pixels, labels=[0, 1] * 20, classes=["猫", "Größe"])
    line = program("data", "info", f"npz:{tmp_path / 'd.npz'}")
    code, out, err = shell(line, PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert (code, err) == (0, "")
    assert r"\u732b" in out
    assert r"Gr\xf6\xdfe" in out
