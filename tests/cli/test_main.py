"""The program as a whole: help, version, and how it fails."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import ddcnn
from ddcnn.errors import DataError


def test_alone_prints_help(call: Callable) -> None:
    code, out, err = call()
    assert (code, err) == (0, "")
    for command in ("compare", "train", "evaluate", "predict", "data", "report"):
        assert command in out
    assert "\x1b" not in out


def test_version(call: Callable) -> None:
    assert call("--version") == (0, f"ddcnn {version('ddcnn')}\n", "")


@pytest.mark.parametrize("command", ["compare", "train", "evaluate", "predict", "report", "data info"])
def test_help_of_commands(call: Callable, command: str) -> None:
    code, out, _ = call(*command.split(), "--help")
    assert code == 0
    assert f"ddcnn {command}" in out
    assert "For example" in out


def test_help_is_grouped(call: Callable) -> None:
    out = call("compare", "--help").out
    places = [out.index(f" {panel} ─") for panel in ("Data", "Method", "Training", "Compute", "Output")]
    assert places == sorted(places)
    assert "--strategy" not in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["compar"], "'compare'"),
        (["compare", "--epoch", "3"], "--epochs"),
        (["compare", "extra"], "extra"),
        (["train", "--lr"], "--lr"),
        (["predict"], "RUN"),
        (["data"], "ddcnn data --help"),
    ],
)
def test_usage_errors_are_one_line(refused: Callable, arguments: list[str], expected: str) -> None:
    assert expected in refused(*arguments)


def failing_with(error: BaseException) -> Callable:
    def fail(*args: object, **options: object) -> None:
        raise error

    return fail


def test_our_errors_are_one_line(refused: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddcnn.experiments.compare", failing_with(DataError("two\nlines")))
    assert refused("compare") == "error: two lines"


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_says_what_to_do(refused: Callable, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr("ddcnn.experiments.compare", failing_with(error))
    assert "--batch-size" in refused("compare")


def test_bugs_are_not_hidden(call: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddcnn.experiments.compare", None)
    with pytest.raises(TypeError, match="not callable"):
        call("compare")


def test_interrupt(call: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddcnn.experiments.compare", failing_with(KeyboardInterrupt()))
    code, out, err = call("compare")
    assert (code, out) == (130, "")
    assert err.splitlines() == ["interrupted"]


def test_what_libraries_warn_of_is_a_line_that_steers_nothing(call: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """They quote files: pydicom does, where the header of a slice is odd."""

    def warn(*_: object, **__: object) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("the value \x1b[2J\nof slice \udcff", UserWarning, stacklevel=1)
        logging.Logger("library").warning("%s", "and \u202e\x9b")
        raise DataError("the end")

    monkeypatch.setattr("ddcnn.experiments.compare", warn)
    before = warnings.showwarning
    err = call("compare").err
    assert err == "warning: the value \\x1b[2J of slice \\udcff\nand \\u202e\\x9b\nerror: the end\n"
    assert warnings.showwarning is before


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "runs/x"),
            "runs/x cannot be used: File name too long; choo",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "a file cannot be used: No space left on device; free some"),
    ],
)
def test_the_file_system_says_what_to_do(
    refused: Callable, monkeypatch: pytest.MonkeyPatch, error: OSError, expected: str
) -> None:
    monkeypatch.setattr("ddcnn.experiments.compare", failing_with(error))
    assert refused("compare").startswith(f"error: {expected}")


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "LONG"],
        ["predict", "LONG", "x.png"],
        ["report", "LONG"],
        ["data", "info", "LONG"],
        ["data", "info", "folder:LONG"],
        ["data", "info", "npz:LONG"],
        ["data", "prepare", "phantom", "LONG", "--grid", "2x2x2"],
        ["data", "prepare", "folder:LONG", "d.zarr", "--grid", "2x2x2"],
        ["train", "--resume", "LONG"],
        ["train", "--config", "LONG"],
        ["train", "--out", "LONG"],
        ["train", "--data", "cifar10", "--data-dir", "LONG", "--offline"],
    ],
)
@pytest.mark.parametrize("name", [300 * "x", os.fsdecode(b"r\xff\xfe")])
def test_names_that_cannot_be(refused: Callable, command: list[str], name: str) -> None:
    """300 characters, or bytes that are no UTF-8."""
    line = refused(*(word.replace("LONG", name) for word in command))
    assert name.encode(errors="backslashreplace").decode() in line.replace("\\udc", "\\udc")


def test_help_does_without_torch() -> None:
    code = (
        "import sys, types; package = types.ModuleType('ddcnn'); package.__path__ = [sys.argv[1]]\n"
        "sys.modules['ddcnn'] = package  # without what `import ddcnn` itself imports\n"
        "import ddcnn.cli; print(sorted({'torch', 'numpy', 'pydantic', 'matplotlib'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(Path(ddcnn.__file__).parent)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
