"""Writing: interrupted at any moment, it goes on; nothing of somebody else is overwritten."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ddcnn.config import DataConfig
from ddcnn.data import Dataset, open_data
from ddcnn.data.bad_files import BadFile
from ddcnn.data.lazy import Lazy
from ddcnn.data.store import Store, Stored, blocks, write_store
from ddcnn.data.store import write as write_module
from ddcnn.decomposition import Grid
from ddcnn.errors import DataError, DdcnnError
from tests.data.store.helper import make_dataset

pytestmark = pytest.mark.usefixtures("small_blocks")
GRID = Grid((2, 2, 1), overlap=1)

SLOW = """
import sys, time
from pathlib import Path
from dataclasses import replace
from ddcnn.data.lazy import Lazy
from ddcnn.data.store import write as module
from ddcnn.decomposition import Grid
from tests.data.store.helper import make_dataset

module._MOST_SAMPLES = 3
dataset = make_dataset(samples=20)
pixels = dataset.images

def slow(i):
    time.sleep(0.03)
    return pixels[i]

lazy = replace(dataset, images=Lazy(slow, pixels.shape, pixels.dtype))
module.write_store(lazy, Path(sys.argv[1]), Grid((2, 2, 1), overlap=1), workers=2)
"""


def _content(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name[0] != "."}


def test_what_is_left_half_written_is_removed(tmp_path: Path) -> None:
    path = write_store(make_dataset(), tmp_path / "a.zarr", GRID, workers=1) and tmp_path / "a.zarr"
    left = [path / ".zarr.json.0123abcd", path / "images" / "c" / ".0.4d0f5d81"]
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"half")
    (path / ".notes.0123abcd").write_text("stay")
    write_store(make_dataset(), path, GRID, workers=1)
    assert not any(file.exists() for file in left)
    assert (path / ".notes.0123abcd").exists()


def test_killed_it_goes_on_where_it_was(tmp_path: Path) -> None:
    write_store(make_dataset(samples=20), tmp_path / "whole.zarr", GRID, workers=1)
    path = tmp_path / "killed.zarr"
    child = subprocess.Popen([sys.executable, "-c", SLOW, str(path)], env=os.environ | {"PYTHONPATH": _paths()})
    while child.poll() is None and not list(path.glob("sha256/c/0/*/0")):
        time.sleep(0.005)
    child.kill()
    assert child.wait() == -signal.SIGKILL  # it was not done
    assert 0 < len(list(path.glob("sha256/c/0/*/0"))) < 7
    with pytest.raises(DataError, match=r"killed\.zarr is not complete; run the same ddcnn data prepare again"):
        Store(path)
    complete = [p.parent.name for p in path.glob("sha256/c/0/*/0")]  # any block, where several threads write
    there = {p: p.stat().st_mtime_ns for b in complete for p in path.glob(f"subdomains/*/c/{b}/**/0") if p.is_file()}
    assert there
    write_store(make_dataset(samples=20), path, GRID, workers=1)
    assert there == {p: p.stat().st_mtime_ns for p in there}  # what was complete is not written again
    assert _content(path) == _content(tmp_path / "whole.zarr")


def _paths() -> str:
    import ddcnn

    return os.pathsep.join([str(Path(ddcnn.__file__).parents[1]), str(Path(__file__).parents[3])])


def test_the_number_of_threads_changes_nothing(tmp_path: Path) -> None:
    for workers in (1, 3):
        write_store(make_dataset(), tmp_path / f"{workers}.zarr", GRID, workers=workers)
    assert _content(tmp_path / "1.zarr") == _content(tmp_path / "3.zarr")


def test_a_missing_shard_is_written_again_and_nothing_else(made: Callable[..., Stored]) -> None:
    dataset = make_dataset()
    path = made(dataset, GRID).store.path
    shard = path / "subdomains/2/c/1/0/0/0/0"
    content, times = shard.read_bytes(), {p: p.stat().st_mtime_ns for p in path.glob("subdomains/*/c/0/0/0/0/0")}
    shard.unlink()
    seen: list[tuple[int, int]] = []
    write_store(dataset, path, GRID, workers=1, advance=lambda done, total: seen.append((done, total)))
    assert shard.read_bytes() == content
    assert times == {p: p.stat().st_mtime_ns for p in times}
    assert seen == [(4, 7), (5, 7), (6, 7), (7, 7)]


@pytest.mark.parametrize("file", ["moments/c/1/0/0", "content/c/1/0", "sha256/c/0/1/0"])
@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_damage_is_mended_not_sealed(made: Callable[..., Stored], file: str, damage: str) -> None:
    dataset = make_dataset()
    path = made(dataset, GRID).store.path
    before = _content(path)
    if damage == "gone":
        (path / file).unlink()
    else:
        (path / file).write_bytes(bytes([before[file][0] ^ 1]) + before[file][1:])
    write_store(dataset, path, GRID, workers=1)
    assert _content(path) == before


@pytest.mark.parametrize("lazy", [False, True])
def test_images_that_were_exchanged_are_not_taken_for_those_of_the_store(
    made: Callable[..., Stored], lazy: bool
) -> None:
    """The source says the same of them: their number, labels, names."""
    path = made(make_dataset(), GRID).store.path
    before = _content(path)
    dataset = make_dataset()
    dataset.images[3 if lazy else 4, 0, 0, 0, 0] ^= 1
    other = dataset
    if lazy:
        other = replace(dataset, images=Lazy(dataset.images.__getitem__, dataset.images.shape, torch.uint8))
    with pytest.raises(DataError, match=r"is a store of other images or of another grid; .* --force to replace it"):
        write_store(other, path, GRID, workers=1)
    assert _content(path) == before
    write_store(other, path, GRID, workers=1, force=True)
    assert torch.equal(Stored(Store(path))[torch.arange(7)], dataset.images)


def test_a_store_of_version_1_is_left_as_it_is_or_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_module, "_MOST_SAMPLES", 4096)  # as it was made
    shutil.copytree(Path(__file__).with_name("version-1"), path := tmp_path / "old.zarr")
    before = _content(path)
    opened = open_data(DataConfig(source=f"zarr:{path}"))
    source = {key: value for key, value in opened.source.items() if key != "store"}
    made_of = replace(
        opened, name=Store(path).layout.name, images=opened.images[torch.arange(4)], source=source, window=(0.0, 255.0)
    )
    write_store(made_of, path, Grid((1, 2)), workers=1)
    assert _content(path).keys() == before.keys()
    assert Store(path).layout.version == 1
    (path / "subdomains/1/c/0/0/0/0").unlink()
    write_store(made_of, path, Grid((1, 2)), workers=1)
    assert Store(path).layout.version == 1
    write_store(made_of, path, Grid((1, 2)), workers=1, force=True)
    assert (Store(path).layout.version, Store(path).layout.window) == (2, (0.0, 255.0))


def test_names_that_take_more_than_a_store_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_module, "MOST_JSON", 2**14)
    many = tuple(BadFile("x" * 100, "y") for _ in range(1_002))
    with pytest.raises(DataError, match="the names of classes and files take more than the 16,384 bytes"):
        write_store(replace(make_dataset(), bad_files=many), tmp_path / "s.zarr", GRID)
    monkeypatch.undo()
    write_store(replace(make_dataset(), bad_files=many), tmp_path / "s.zarr", GRID, workers=1)
    layout = Store(tmp_path / "s.zarr").layout
    assert (len(layout.bad_files), layout.notes) == (1_000, ("left out: 2 more files",))


def test_other_images_are_not_overwritten(made: Callable[..., Stored], tmp_path: Path) -> None:
    path = made(make_dataset(), GRID).store.path
    for dataset, grid in ((make_dataset(samples=5), GRID), (make_dataset(), Grid((2, 1, 1)))):
        with pytest.raises(DataError, match=r"s\.zarr is a store of other images or of .* --force to replace it"):
            write_store(dataset, path, grid)
    write_store(make_dataset(samples=5), path, GRID, workers=1, force=True)
    assert Store(path).layout.samples == 5
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    for force in (False, True):
        with pytest.raises(DataError, match="mine exists and is not a store"):
            write_store(make_dataset(), tmp_path / "mine", GRID, force=force)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def _lazy(function: Callable[[int], torch.Tensor]) -> Dataset:
    dataset = make_dataset(dtype=torch.float32)
    return Dataset("made", Lazy(function, dataset.images.shape, torch.float32), dataset.labels, ("a", "b"))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.full((2, 9, 11, 7), torch.nan), "made: image 4 holds NaN or infinity"),
        (torch.full((2, 9, 11, 7), -torch.inf), "made: image 4 holds NaN or infinity"),
        (torch.zeros(2, 9, 11, 8), r"image 4 should be torch.float32 of shape \(2, 9, 11, 7\), got .* \(2, 9, 11, 8\)"),
        (torch.zeros(2, 9, 11, 7).double(), "image 4 should be torch.float32 .*got torch.float64"),
    ],
)
def test_a_bad_image_is_named_and_leaves_no_block(tmp_path: Path, bad: torch.Tensor, message: str) -> None:
    good = make_dataset(dtype=torch.float32).images
    with pytest.raises(DataError, match=message):
        write_store(_lazy(lambda i: bad if i == 4 else good[i]), tmp_path / "s.zarr", GRID, workers=1)
    assert [p.name for p in sorted(tmp_path.glob("s.zarr/sha256/c/0/*"))] == ["0"]
    assert not list(tmp_path.rglob(".*"))  # no temporary file is left
    write_store(_lazy(lambda i: good[i]), tmp_path / "s.zarr", GRID, workers=1)
    assert torch.equal(Stored(Store(tmp_path / "s.zarr"))[torch.arange(7)], good)


def test_what_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, name: str, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(blocks.Writer, "_write", full)
    with pytest.raises(DataError, match=r"cannot be written: No space left on device; mend this and run"):
        write_store(make_dataset(), tmp_path / "s.zarr", GRID)


def test_a_grid_that_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DdcnnError, match="grid 2x2 has 2 axes, but the images are 9x11x7"):
        write_store(make_dataset(), tmp_path / "s.zarr", Grid((2, 2)))
    assert not list(tmp_path.iterdir())
