"""`--force`: what may be replaced, and when it is gone. What is expected is told by the file system."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ddcnn.errors import RunError
from ddcnn.folders import move_aside
from ddcnn.runs.folder import RunFolder
from tests.forked import Program

NOT_A_RUN = "is not a run of ddcnn and is not replaced; choose another --out"


def content(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder but the lock."""
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: value for name, value in files.items() if name != "checkpoints/lock"}


def write(path: Path, seed: int) -> RunFolder:
    folder = RunFolder(path)
    folder.create(force=True)
    folder.write_json("checkpoints/run.json", {"format": 2, "job": "train"})
    folder.write_text("config.yaml", f"seed: {seed}\n")
    folder.write_tensors("locals/0.safetensors", {"w": torch.zeros(2)})
    return folder


def finish(folder: RunFolder) -> Path:
    folder.seal()
    folder.clean()
    return folder.path


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    return finish(write(tmp_path / "run", 0))


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    folder = write(tmp_path / "run", 0)
    folder.release()
    return folder.path


def refuse(path: Path, message: str) -> None:
    before, lock = content(path), (path / "checkpoints" / "lock").exists()
    for ask in (RunFolder(path).check_free, RunFolder(path).create):
        with pytest.raises(RunError, match=message) as caught:
            ask(force=True)
        assert "\n" not in str(caught.value)
    assert content(path) == before
    assert (path / "checkpoints" / "lock").exists() == lock


def foreign(path: Path) -> None:
    (path / "config.yaml").write_text("a: 1\n")


def of_a_web_page(path: Path) -> None:
    (path / "manifest.json").write_text('{"name": "my app", "icons": []}')


def damaged(path: Path) -> None:
    text = (finish(write(path / "other", 0)) / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace("a", "b", 1))


def of_another_tool(path: Path) -> None:
    (path / "checkpoints").mkdir()
    (path / "checkpoints" / "run.json").write_text('{"epoch": 3}')


@pytest.mark.parametrize("make", [foreign, of_a_web_page, damaged, of_another_tool])
def test_only_a_run_is_replaced(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """What it is called, and what lies in it, makes no folder a run."""
    make(tmp_path)
    (tmp_path / "thesis.tex").write_text("years of work")
    refuse(tmp_path, NOT_A_RUN)


@pytest.mark.parametrize("kind", ["complete", "unfinished"])
@pytest.mark.parametrize(
    "name",
    ["thesis.tex", "locals/notes.txt", "figures/a/b.png", "x/checkpoints/data.csv", ".thesis.chapter1", ".nfs-notes"],
)
def test_what_somebody_put_into_a_run_is_not_lost(request: pytest.FixtureRequest, kind: str, name: str) -> None:
    run = request.getfixturevalue(kind)
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).write_text("years of work")
    refuse(run, rf"{name} is not of the run in .*; move it elsewhere first")
    RunFolder(run).sweep()
    assert (run / name).read_text() == "years of work"


def test_what_a_killed_process_left_half_written_is_removed(unfinished: Path) -> None:
    names = [".config.yaml.0123abcd", "locals/.0.safetensors.0123abcd", "checkpoints/.local.bin.0123abcd"]
    for name in names:
        (unfinished / name).touch()
    RunFolder(unfinished).sweep()
    assert not [name for name in names if (unfinished / name).exists()]
    (unfinished / names[0]).touch()
    finish(write(unfinished, 1))  # it is nothing that could be lost


def test_a_link_in_a_run_is_not_lost(complete: Path, tmp_path: Path) -> None:
    (complete / "link.json").symlink_to(tmp_path)
    refuse(complete, r"link\.json is not of the run")


def test_a_file_beside_a_sealed_run_is_not_made_part_of_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", 0)
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    assert finish(folder)
    assert "thesis.tex" not in folder.manifest().sums
    refuse(folder.path, r"thesis\.tex is not of the run")


@pytest.mark.parametrize("kind", ["complete", "unfinished"])
def test_the_old_run_is_gone_only_when_the_new_one_is_complete(request: pytest.FixtureRequest, kind: str) -> None:
    run = request.getfixturevalue(kind)
    before = content(run)
    new = write(run, 1)
    aside = run / "checkpoints" / "replaced-1"
    assert new.replaced == aside
    assert content(aside) == before
    new.seal()
    assert content(aside) == before
    new.clean()
    assert set(content(run)) == {"config.yaml", "locals/0.safetensors", "manifest.json"}
    assert json.loads((run / "manifest.json").read_text())["runs"] == []
    RunFolder(run).check()


def test_a_run_whose_process_died_leaves_the_old_one(complete: Path) -> None:
    before = content(complete)
    for attempt in (1, 2):
        write(complete, attempt).release()
    assert content(complete / "checkpoints" / "replaced-1") == before
    assert (complete / "checkpoints" / "replaced-2" / "config.yaml").read_text() == "seed: 1\n"
    finish(write(complete, 3))
    assert not (complete / "checkpoints").exists()


def test_a_run_that_never_began_can_begin_without_force(complete: Path) -> None:
    before = content(complete)
    RunFolder(complete).create(force=True)
    RunFolder(complete).create(force=False)
    assert content(complete / "checkpoints" / "replaced-1") == before


@pytest.mark.parametrize("last", ["config.yaml", "locals", "manifest.json"])
def test_what_cannot_be_moved_is_left_as_it_was(complete: Path, monkeypatch: pytest.MonkeyPatch, last: str) -> None:
    before, rename = content(complete), Path.rename

    def busy(path: Path, target: Path) -> Path:
        if path.name == last and path.parent == complete:
            raise OSError(errno.EBUSY, "Device or resource busy")  # a mount point
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", busy)
    with pytest.raises(RunError, match="Device or resource busy; choose another --out"):
        RunFolder(complete).create(force=True)
    assert content(complete) == before
    RunFolder(complete).check()


@pytest.mark.parametrize("full", [False, True])
def test_the_working_directory_a_link_and_a_folder_that_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """The folder itself stays, whatever is mounted or links there."""
    real = tmp_path / "real"
    real.mkdir()
    if full:
        finish(write(real, 0))
    (tmp_path / "link").symlink_to(real, target_is_directory=True)
    monkeypatch.chdir(real)
    inode = real.stat().st_ino
    for path in (Path(), tmp_path / "link", real):
        finish(write(path, 1))
        assert (real / "config.yaml").read_text() == "seed: 1\n"
        assert (real.stat().st_ino, (tmp_path / "link").is_symlink()) == (inode, True)
        RunFolder(real).check()


def test_a_disk_of_its_own(tmp_path: Path) -> None:
    """Docker and Kubernetes mount an empty folder; that of a disk holds lost+found."""
    (tmp_path / "lost+found").mkdir()
    inside = "mount -t tmpfs none mnt && mkdir mnt/lost+found && shift 0"
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from tests.runs.test_replacing import finish, write, RunFolder
for seed in (1, 2):
    finish(write(Path("mnt"), seed))
    RunFolder("mnt").check()
    print(Path("mnt/config.yaml").read_text(), sorted(p.name for p in Path("mnt").iterdir()))
"""
    (tmp_path / "mnt").mkdir()
    command = ["unshare", "-rm", "sh", "-c", f'{inside}; exec "$0" -c "$1"', sys.executable, code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("nothing may be mounted here")
    names = "['config.yaml', 'locals', 'lost+found', 'manifest.json']"
    assert done.stdout == f"seed: 1\n {names}\nseed: 2\n {names}\n", done.stderr
    finish(write(tmp_path / "run", 0))


def test_a_source_in_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for out, source in (("run", "run/images"), ("run", "run"), ("link/run", "run/d.npz"), (".", "images/a")):
        with pytest.raises(RunError, match=r"would be read, but lies in .*; choose another --out"):
            RunFolder(tmp_path / out).create(force=True, sources=[tmp_path / source])
    assert [p.name for p in tmp_path.iterdir()] == ["link"]
    RunFolder(tmp_path / "run").create(force=True, sources=[tmp_path / "running", tmp_path / "images"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (300 * "x", "cannot be the folder of a run: File name too long; choose another --out"),
        (os.fsdecode(b"r\xff"), "is not UTF-8; choose another --out"),
        ("file", "is not a folder; choose another --out"),
        ("file/run", "cannot be the folder of a run: Not a directory; choose another --out"),
        ("dangling", "cannot be the folder of a run: File exists; choose another --out"),
    ],
)
def test_a_name_that_cannot_be(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for force in (False, True):
        with pytest.raises(RunError, match=message):
            RunFolder(tmp_path / name).create(force=force)


HOLD = """
import signal, sys; from ddcnn.runs.folder import RunFolder
folder = RunFolder(sys.argv[1]); folder.hold(); print("held", flush=True); signal.pause()
"""


def test_a_run_that_another_process_trains(unfinished: Path) -> None:
    other = Program(("-c", HOLD, str(unfinished)))
    try:
        other.wait_for("held", "stdout")
        before = content(unfinished)
        folder = RunFolder(unfinished)
        calls: list[Callable[[], None]] = [
            lambda: folder.check_free(force=True),
            lambda: folder.create(force=True),
            folder.hold,
        ]
        for call in calls:
            with pytest.raises(RunError, match="is being trained by another process; wait for its end"):
                call()
        assert content(unfinished) == before
    finally:
        other.kill()  # a dead process holds nothing
        other.communicate()
    folder.hold()
    folder.release()
    folder.create(force=True)


def test_of_two_that_begin_at_once_one_does(tmp_path: Path) -> None:
    code = """
import sys; from ddcnn.errors import RunError; from ddcnn.runs.folder import RunFolder
folder = RunFolder(sys.argv[1]); print("ready", flush=True); sys.stdin.readline()
try:
    folder.create(force=False)
except RunError as error:
    print(error, flush=True)
else:
    print("begun", flush=True)
sys.stdin.readline()
"""
    pipe = subprocess.PIPE
    both = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path / "run"], stdin=pipe, stdout=pipe, text=True)
        for _ in range(2)
    ]
    for stage in ("ready", "go"):
        said = [process.stdout.readline().strip() for process in both if process.stdout]
        for process in both:
            if process.stdin and stage == "ready":
                print(file=process.stdin, flush=True)
    for process in both:
        process.communicate("\n")
    assert sorted("begun" if line == "begun" else "refused" for line in said) == ["begun", "refused"]


def test_a_complete_run_that_is_being_replaced_is_not_cleaned(complete: Path) -> None:
    """Whoever resumed it in this moment would remove what was moved aside."""
    before = content(complete)
    new = RunFolder(complete)
    new.create(force=True)
    new.write_text("manifest.json", (complete / "checkpoints/replaced-1/manifest.json").read_text())
    RunFolder(complete).clean()
    assert content(complete / "checkpoints" / "replaced-1") == before


def test_the_remedy_is_one_that_helps(unfinished: Path, tmp_path: Path) -> None:
    advice = f"did not finish; unless it is being trained now, go on with ddcnn train --resume {unfinished}"
    with pytest.raises(RunError, match=advice):
        RunFolder(unfinished).check()
    with pytest.raises(RunError, match=r"nope does not exist \(looked from .*\); give the folder of a run"):
        RunFolder(tmp_path / "nope").check()
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file is not a folder; give the folder of a run"):
        RunFolder(tmp_path / "file").check()


@pytest.mark.parametrize("kind", ["complete", "unfinished"])
def test_checkpoints_that_lie_elsewhere(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> None:
    """A run of a stranger whose checkpoints are a link: neither a lock is written nor anything moved there."""
    run = request.getfixturevalue(kind)
    if (run / "checkpoints").exists():
        (run / "checkpoints").rename(tmp_path / "outside")
    else:
        (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "thesis.tex").write_text("years of work")
    (run / "checkpoints").symlink_to(tmp_path / "outside")
    before = content(tmp_path)
    with pytest.raises(RunError, match=r"checkpoints is not of the run|is not a run of ddcnn"):
        RunFolder(run).create(force=True)
    with pytest.raises(RunError, match="lies outside"):
        RunFolder(run).hold()
    assert content(tmp_path) == before


def test_what_cannot_be_moved_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, into = tmp_path / "f", tmp_path / "aside"
    names = ["a/1", "b/2", "c/3", "d/4", "e/5"]
    for name in names:
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(name)
    rename = Path.rename

    def refusing(path: Path, target: Path) -> Path:
        if path.name == "5":
            raise PermissionError(errno.EACCES, "not this one")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refusing)
    with pytest.raises(PermissionError, match="not this one"):
        move_aside([folder / name for name in names], folder, into)
    assert not into.exists()
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == names


def test_a_run_that_is_being_trained_is_not_offered_to_be_resumed(tmp_path: Path) -> None:
    training = write(tmp_path / "run", 0)
    with pytest.raises(RunError, match="another process") as caught:
        RunFolder(tmp_path / "run").check_free(force=False)
    assert "--resume" not in str(caught.value)
    training.release()
    with pytest.raises(RunError, match="was not ended; go on with --resume"):
        RunFolder(tmp_path / "run").check_free(force=False)
