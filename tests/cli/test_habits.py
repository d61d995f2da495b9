"""What every program does: -h, completion, neighbours of what is mistyped, first words, no escapes with NO_COLOR."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ddcnn.cli


@pytest.mark.parametrize("words", [(), ("train",), ("data",), ("data", "info"), ("config",), ("plan",)])
def test_h_is_help(call: Callable, words: tuple[str, ...]) -> None:
    code, out, _ = call(*words, "-h")
    assert code == 0
    assert " ".join(["Usage: ddcnn", *words]) in out
    assert "--help" in out


@pytest.mark.parametrize("command", ["train", "compare", "plan", "experiment"])
def test_options_have_the_same_names(call: Callable, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = call(command, "--help").out
    for option in ("--image-size", "--set", "--json", "--threads", "--augment", "--patience", "--class-weights"):
        assert option in out


@pytest.mark.parametrize("words", [(), ("train",), ("data",), ("data", "info"), ("config",), ("experiment",)])
def test_flags_take_no_value(call: Callable, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = call(*words, "--help").out
    assert "--help" in out
    assert "bool" not in out.lower()


@pytest.mark.parametrize("command", ["predict", "evaluate", "explain"])
def test_threads_and_json_are_everywhere(call: Callable, command: str) -> None:
    out = call(command, "--help").out
    assert "--threads" in out
    assert "--json" in out


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("fit",), "'train'"),
        (("comparr",), "'compare'"),
        (("test", "run"), "'evaluate'"),
        (("data", "inf"), "'info'"),
        (("train", "--epoch", "3"), "'--epochs'"),
        (("train", "--learning-rate", "3"), "'--lr'"),
        (("train", "--training.lr", "3"), "'--lr'"),
        (("train", "--momentum", "0.5"), "'--set training.momentum=...'"),
        (("predict", "run", "a.png", "--batch_size", "3"), "'--batch-size'"),
    ],
)
def test_what_is_mistyped_has_a_neighbour(refused: Callable, words: tuple[str, ...], meant: str) -> None:
    assert f"Did you mean {meant}?" in refused(*words)


def test_what_has_none_is_answered_with_all(refused: Callable) -> None:
    said = refused("xyzzy")
    assert "one of compare, train" in said
    assert "see ddcnn --help" in said
    assert "see ddcnn data info --help" in refused("data", "info", "--set")


@pytest.mark.parametrize(
    ("command", "advised", "not_advised"),
    [("train", "--limit-train", "--resize"), ("predict", "--batch-size", "--limit-train"), ("report", "fewer", "--")],
)
def test_advice_works_in_the_command_that_gives_it(
    refused: Callable, monkeypatch: pytest.MonkeyPatch, command: str, advised: str, not_advised: str
) -> None:
    def fail(_: list[str]) -> int:
        raise MemoryError

    monkeypatch.setattr(ddcnn.cli, "_invoke", fail)
    said = refused(command, "x")
    assert advised in said
    assert not_advised not in said


def test_completion_knows_the_commands(call: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_DDCNN_COMPLETE": "complete_bash", "COMP_WORDS": "ddcnn tr", "COMP_CWORD": "1"}.items():
        monkeypatch.setenv(name, value)
    code, out, _ = call()
    assert code == 0
    assert out.split() == ["train"]


def test_the_first_words_come_before_pytorch(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / f"{n}.png").touch()
    line = "import sys; sys.modules['torch'] = None; from ddcnn.cli import main; main(sys.argv[1:])"
    told = _on_a_terminal(["-c", line, "compare", "--data", f"folder:{tmp_path}"]).decode().splitlines()
    assert told[0] == f"reading 3 files of folder:{tmp_path}"
    assert "torch" in " ".join(told[1:])  # and there it ended


@pytest.mark.parametrize("words", [["--help"], ["train", "--epochs", "x"], ["config", "seed"]])
def test_no_escapes_where_no_color_is_set(words: list[str]) -> None:
    said = _on_a_terminal(["-m", "ddcnn", *words], NO_COLOR="1")
    assert len(said) > 20
    assert b"\x1b" not in said


def _on_a_terminal(words: list[str], **environment: str) -> bytes:
    """Return all that Python says on a terminal when it is called so."""
    ours, theirs = pty.openpty()
    known = os.environ | {"TERM": "xterm-256color"} | environment
    process = subprocess.Popen([sys.executable, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=known)
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 4096):
            said += part
    except OSError:  # the end of a terminal
        pass
    os.close(ours)
    process.wait()
    return said
