"""The right neighbour of a command or an option that there is not: what it is called here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ddcnn.cli.options import FIELDS

_COMMANDS = {
    "fit": "train",
    "run": "compare",
    "benchmark": "compare",
    "all": "compare",
    "test": "evaluate",
    "eval": "evaluate",
    "score": "evaluate",
    "validate": "evaluate",
    "infer": "predict",
    "inference": "predict",
    "classify": "predict",
    "interpret": "explain",
    "heatmap": "explain",
    "convert": "export",
    "onnx": "export",
    "info": "data info",
    "prepare": "data prepare",
    "check": "doctor",
    "env": "doctor",
    "estimate": "plan",
    "cost": "plan",
    "settings": "config",
    "resume": "train --resume RUN",
    "html": "report",
    "sweep": "experiment",
    "version": "--version",
    "help": "--help",
}
_OPTIONS = {
    "learning-rate": "--lr",
    "dataset": "--data",
    "source": "--data",
    "architecture": "--model",
    "arch": "--model",
    "network": "--model",
    "output": "--out",
    "output-dir": "--out",
    "outdir": "--out",
    "gpu": "--device cuda",
    "cuda": "--device cuda",
    "cpu": "--device cpu",
    "num-workers": "--workers",
    "jobs": "--workers",
    "num-epochs": "--epochs",
    "bs": "--batch-size",
    "batch": "--batch-size",
    "overwrite": "--force",
    "no-augment": "--augment no",
    "early-stopping": "--patience N",
    "size": "--image-size",
    "subdomains": "--grid",
    "amp": "--precision",
    "max-time": "--time-limit",
}


def of_command(message: str, known: Iterable[str]) -> str | None:
    """Return what to say of a command that there is not; None: the message is about something else.

    >>> of_command("No such command 'fit'.", ["train", "compare"])
    "No such command 'fit'. Did you mean 'train'?"
    """
    found = re.match(r"No such command ['\"]([^'\"]*)['\"]", message)
    if found is None:
        return None
    names, name = list(known), found[1].lower()
    near = _COMMANDS.get(name, name if name in names else None)
    if near is None or near.split()[0] not in [*names, "--version", "--help"]:
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        near = close[0] if close else None
    said = f"No such command {found[1]!r}"
    return f"{said}. Did you mean {near!r}?" if near else f"{said}: one of {', '.join(names)}"


def of_option(option: str, known: Iterable[str]) -> str:
    """Return what to say of an option that there is not in a command which has others.

    >>> of_option("--epoch", ["--epochs", "--lr"])
    "No such option: --epoch. Did you mean '--epochs'?"
    >>> of_option("--momentum", ["--set", "--lr"])
    "No such option: --momentum. Did you mean '--set training.momentum=...'?"
    """
    options = list(known)
    near = _near(option.lstrip("-").replace("_", "-").lower(), options)
    said = f"No such option: {option}"
    if near is None:
        close = difflib.get_close_matches(option, options, n=1, cutoff=0.6)
        near = close[0] if close else None
    return f"{said}. Did you mean {near!r}?" if near else said


def _near(word: str, options: list[str]) -> str | None:
    """Return the option that sets what a word of other programs, or the name of a field, means."""
    if f"--{word}" in options:
        return f"--{word}"
    other = _OPTIONS.get(word, "")
    if other and other.split()[0] in options:
        return other
    fields = _fields().get(word.replace("-", "_"), [])
    for field in fields:
        own = next((one.option for one in FIELDS if one.field == field), None)
        if own in options:
            return own
    return f"--set {fields[0]}=..." if fields and "--set" in options else None


def _fields() -> Mapping[str, list[str]]:
    """Return the fields of the configuration by their full names, and by the last part of them."""
    from ddcnn.config.reference import reference

    found: dict[str, Any] = {}
    for one in reference():
        for name in {one.name, one.name.rpartition(".")[2]}:
            found.setdefault(name, []).append(one.name)
    return found
