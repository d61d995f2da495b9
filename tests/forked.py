"""Python programs that are forked from a process which has imported what takes seconds to import.

What is seen of them is what is seen of ``python COMMAND``: arguments, environment, standard streams, signals, exit
code. What differs: the interpreter does not end, only its program does; PyTorch is there already, so that variables
which it reads when it is loaded come too late, but for OMP_NUM_THREADS. A test of these needs an interpreter of its
own: `tests.engines.on_ranks.launch`.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

import torch

PRELOADED = (
    "matplotlib.figure",
    "sklearn.linear_model",
    "sklearn.metrics",
    "torch._dynamo",
    "torch.fx.experimental.symbolic_shapes",
    "ddcnn.cli",
    "ddcnn.engines",
    "ddcnn.experiments",
    "ddcnn.report",
    "ddcnn.strategies",
    "tests.forked",
)


def context() -> ForkServerContext:
    """Return the context of all processes that are forked; there is one server for all of a test process."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(list(PRELOADED))
    return found


class Program:
    """A program that runs: the part of `subprocess.Popen` that tests need."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] = os.environ, folder: Path | None = None
    ) -> None:
        self._streams = tempfile.TemporaryDirectory(prefix="program-")
        self.stdout, self.stderr = (Path(self._streams.name, name) for name in ("stdout", "stderr"))
        self.stdout.touch()
        self.stderr.touch()
        arguments = (list(command), dict(environment), str(folder or Path.cwd()), str(self.stdout), str(self.stderr))
        self._process = context().Process(target=_run, args=arguments)
        self._process.start()
        self._said: tuple[str, str] | None = None
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    returncode = property(poll)

    def wait_for(self, text: str, stream: str = "stderr") -> None:
        """Wait until it has said this."""
        path: Path = getattr(self, stream)
        while text not in path.read_text():
            assert self.poll() is None, self.communicate()
            time.sleep(0.02)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; return what it wrote on stdout and stderr."""
        self._process.join(timeout)
        if self.poll() is None:
            raise TimeoutError(f"{self.pid} runs on after {timeout} seconds")
        if self._said is None:
            self._said = self.stdout.read_text(), self.stderr.read_text()
            self._streams.cleanup()
        return self._said


def _run(command: list[str], environment: dict[str, str], folder: str, stdout: str, stderr: str) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "OMP_NUM_THREADS" in environment:
        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = ["" if command[0] == "-c" else folder, *paths]
    sys.orig_argv = [sys.executable, *command]
    option, what, *arguments = command
    if option == "-m":
        sys.argv = [what, *arguments]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        assert option == "-c", command
        sys.argv = ["-c", *arguments]
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
