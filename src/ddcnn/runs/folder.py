"""`RunFolder`: the folder of a run, whose it is and what may become of what lies in it."""

from __future__ import annotations

import contextlib
import itertools
import platform
import re
import shutil
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

from ddcnn.config import Config
from ddcnn.decomposition import build_decomposition
from ddcnn.errors import RunError
from ddcnn.folders import FolderLock, check_apart, entries, move_aside
from ddcnn.runs.files import BEGUN, CHECKPOINTS, MANIFEST, MISTAKES, REPORT, RunFiles
from ddcnn.runs.manifest import is_own

__all__ = ["BEGUN", "CHECKPOINTS", "MANIFEST", "MISTAKES", "REPORT", "RunFolder", "default_folder", "versions"]

_LOCK = f"{CHECKPOINTS}/lock"
_ASIDE = f"{CHECKPOINTS}/replaced-"  # and a number: what was here before, until this run is complete


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    packages = ("ddcnn", "torch", "numpy", "scikit-learn")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def default_folder(config: Config, job: str) -> Path:
    """Return the folder of a run that was given none.

    >>> default_folder(Config(data={"source": "cifar10"}), "compare").as_posix()
    'runs/compare-cifar10-vgg9-2x2-s0'
    >>> default_folder(Config(strategy="coherent", model={"name": "resnet20"}), "train").as_posix()
    'runs/train-coherent-mnist5k-resnet20-2x2-s0'
    """
    _, colon, path = config.data.source.partition(":")
    data = Path(path).expanduser().resolve().stem if colon and "=" not in path else config.data.source
    cuts = build_decomposition(config.decomposition).describe()
    what = f"train-{config.strategy}" if job == "train" else job
    name = f"{what}-{data}-{config.model.name}-{cuts}-s{config.seed}"
    return Path("runs") / re.sub(r"[^A-Za-z0-9._-]", "_", name)


class RunFolder(RunFiles):
    """A folder that one process at a time makes a run in, or reads one from.

    Parameters
    ----------
    path
        The folder; `create` makes it.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self._held = FolderLock(self.path / _LOCK)
        self.replaced: Path | None = None

    def check_free(self, *, force: bool, sources: Iterable[Path] = (), images: Path | None = None) -> None:
        """Make sure that the folder can be a run's, and that nothing is lost which was not written by one.

        Parameters
        ----------
        force
            Whether an earlier run may be replaced. A run is known by its own mark: a manifest that is whole, or
            ``checkpoints/run.json``. Whatever else is in its folder, and no other process may be training it.
        sources
            Files and folders that the run reads; none may lie in its folder.
        images
            A folder all of whose files are data; the run may not lie in it.

        Raises
        ------
        RunError
            It cannot, or something would be lost; the first such thing is named.
        """
        with self._usable():
            check_apart(self.path, sources, images)
            if not self.path.exists():
                return
            if not self.path.is_dir():
                raise RunError(f"{self.path} is not a folder; choose another --out")
            if not self._content():
                return
            if not force and (self.path / BEGUN).is_file():
                if self._held.is_taken():
                    raise self._is_held()
                raise RunError(
                    f"{self.path} holds a run that was not ended; go on with --resume {self.path}, choose another "
                    "--out, or --force to begin anew"
                )
            if not force:
                raise RunError(f"{self.path} exists; choose another --out, or --force to replace it")
            if self._held.is_taken():
                raise self._is_held()
            self._check_own()

    def create(self, *, force: bool, sources: Iterable[Path] = ()) -> None:
        """Make the folder, or use it if it is empty, and hold it.

        With ``force`` an earlier run is moved aside, to `replaced` within ``checkpoints/``, and removed by `clean`:
        when the new run is complete. Nothing is moved if an error is raised.
        """
        self.check_free(force=force, sources=sources)
        with self._usable():
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / CHECKPOINTS).mkdir(exist_ok=True)
            self.hold()
            try:
                self.check_free(force=force)  # again, since from now on no other process begins
                self._move_aside()
            except BaseException:
                self._held.remove()
                with contextlib.suppress(OSError):
                    self._held.path.parent.rmdir()
                raise

    def hold(self) -> None:
        """Keep other processes from training this run, until `release`, `clean` or the end of this process.

        Raises
        ------
        RunError
            Another process is training it.
        """
        self.inside(_LOCK)
        with self._usable():
            if not self._held.acquire():
                raise self._is_held()

    def release(self) -> None:
        """Let other processes go on with this run."""
        self._held.release()

    def _is_held(self) -> RunError:
        return RunError(f"{self.path} is being trained by another process; wait for its end, or choose another --out")

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        """Say in one line why a folder cannot be used."""
        try:
            str(self.path).encode()
            yield
        except UnicodeEncodeError:
            raise RunError(f"the name {self.path} is not UTF-8; choose another --out") from None
        except OSError as error:
            why = error.strerror or str(error)
            raise RunError(f"{self.path} cannot be the folder of a run: {why}; choose another --out") from None

    def _content(self) -> list[Path]:
        """Return what is in the folder, apart from the lock and what a run that has not begun moved aside."""
        inner, ours = self.path / CHECKPOINTS, (str(self.path / _LOCK), str(self.path / _ASIDE))
        scratch = entries(inner) if inner.is_dir() and not inner.is_symlink() else None
        found = [path for path in entries(self.path) if path != inner or scratch is None]
        found += [path for path in scratch or [] if not str(path).startswith(ours)]
        marks = (self.path / MANIFEST, self.path / BEGUN)
        return sorted(found, key=lambda path: path in marks)  # the mark is moved last

    def _check_own(self) -> None:
        """Make sure that a run wrote every file in the folder."""
        try:
            named = self.manifest() if self.is_complete() else None
            if named is None and not isinstance(self.read_json(BEGUN).get("job"), str):
                raise RunError("no job")
        except RunError:
            raise RunError(f"{self.path} is not a run of ddcnn and is not replaced; choose another --out") from None
        for path in self.path.rglob("*"):
            name, folder = self.name_of(path), path.is_dir() and not path.is_symlink()
            if not folder and not (named.covers(name) if named else is_own(name)) and not self.is_scratch(path):
                raise RunError(f"{path} is not of the run in {self.path} and is not replaced; move it elsewhere first")

    def _move_aside(self) -> None:
        """Move what is in the folder into a new one in ``checkpoints/``."""
        content = self._content()
        if not content:
            return
        aside = next(path for n in itertools.count(1) if not (path := self.path / f"{_ASIDE}{n}").exists())
        move_aside(content, self.path, aside)
        self.replaced, self._known = aside, None

    def clean(self) -> None:
        """Remove the checkpoints of a complete run, and with them the run that it replaces."""
        assert self.is_complete()
        if (self.path / CHECKPOINTS).is_dir() and self._held.acquire():  # else another process begins to replace it
            shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)
            self.release()
