"""`ddcnn data prepare --force`: what may be replaced, and when it is gone. The file system tells."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace as replace_fields
from pathlib import Path

import pytest

from ddcnn.config import DataConfig
from ddcnn.data.source_paths import check_dest
from ddcnn.data.store import Store, write_store
from ddcnn.decomposition import Grid
from ddcnn.errors import DataError
from tests.forked import Program

from .helper import make_dataset

GRID = Grid((1, 2, 2))


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def replace(path: Path, samples: int = 5) -> None:
    write_store(make_dataset(samples=samples), path, GRID, workers=1, force=True)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_store(make_dataset(), tmp_path / "s.zarr", GRID, workers=1)
    return tmp_path / "s.zarr"


def unreadable(root: Path) -> None:
    root.write_bytes(b"\xff{")


def foreign(root: Path) -> None:
    root.write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {"title": "years of work"}}))


def forged(root: Path) -> None:
    values = json.loads(root.read_text())
    values["attributes"]["ddcnn"]["samples"] = 6
    root.write_text(json.dumps(values))


@pytest.mark.parametrize("change", [unreadable, foreign, forged])
def test_only_a_store_is_replaced(store: Path, change: Callable[[Path], None]) -> None:
    change(store / "zarr.json")
    before = content(store)
    with pytest.raises(DataError, match=r"s\.zarr exists and is not a store of ddcnn that is whole"):
        replace(store)
    after = content(store)
    after.pop(".lock", None)
    assert after == before


@pytest.mark.parametrize("change", [unreadable, forged, lambda root: root.write_text("[]")])
def test_what_is_said_of_a_damaged_description_works(store: Path, change: Callable[[Path], None]) -> None:
    change(store / "zarr.json")
    advice = re.escape(f"; remove {store} and prepare the store again")
    with pytest.raises(DataError, match=rf"zarr\.json is damaged: .*{advice}$") as read:
        Store(store)
    with pytest.raises(DataError) as prepared:
        write_store(make_dataset(), store, GRID, workers=1)
    assert str(prepared.value) == str(read.value)
    shutil.rmtree(store)
    write_store(make_dataset(), store, GRID, workers=1)
    assert Store(store).layout.complete


def test_what_is_said_of_a_damaged_array_works(store: Path) -> None:
    (store / "labels" / "zarr.json").write_text("[]")
    with pytest.raises(DataError, match=r"it is not a JSON object; prepare the store again$"):
        Store(store)
    write_store(make_dataset(), store, GRID, workers=1)
    assert Store(store).layout.complete


@pytest.mark.parametrize("name", ["thesis.tex", "labels/notes.txt", "subdomains/0/c/thesis.tex", "mine/zarr.json"])
def test_what_somebody_put_into_a_store_is_not_lost(store: Path, name: str) -> None:
    (store / name).parent.mkdir(exist_ok=True)
    (store / name).write_text("years of work")
    before = content(store)
    with pytest.raises(DataError, match=rf"{name} is not of the store in .*; move it elsewhere first"):
        replace(store)
    assert content(store) == before


def test_the_old_store_is_gone_only_when_the_new_one_is_complete(store: Path) -> None:
    before, seen = content(store), []

    def interrupt(done: int, total: int) -> None:
        seen.append(content(store / ".replaced-1") == before)
        if done == 3:
            raise KeyboardInterrupt

    other = make_dataset(samples=5)
    with pytest.raises(KeyboardInterrupt):
        write_store(other, store, GRID, workers=1, force=True, advance=interrupt)
    write_store(other, store, GRID, workers=1)  # goes on
    assert len(seen) > 1
    assert all(seen)
    assert Store(store).layout.samples == 5
    write_store(other, store.parent / "fresh.zarr", GRID, workers=1)
    assert content(store) == content(store.parent / "fresh.zarr")


def test_the_folder_itself_stays(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it may be a mount point, the working directory, or behind a link."""
    (store.parent / "link").symlink_to(store, target_is_directory=True)
    inode = store.stat().st_ino
    monkeypatch.chdir(store)
    for samples, path in ((5, Path()), (6, store.parent / "link")):
        replace(path, samples)
        assert Store(store).layout.samples == samples
        assert (store.stat().st_ino, (store.parent / "link").is_symlink()) == (inode, True)


def test_an_empty_disk(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    replace(tmp_path)
    assert Store(tmp_path).layout.samples == 5


def test_a_store_that_another_process_moves_aside_while_it_is_looked_at(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(path: Path, layout: object, *, force: bool, dataset: object = None) -> bool:
        raise FileNotFoundError(2, "No such file or directory", str(path / "zarr.json"))

    monkeypatch.setattr("ddcnn.data.store.write.check_free", gone)
    with pytest.raises(DataError, match="is being written by another process; wait for its end"):
        replace(store)


def test_a_store_that_another_process_writes(store: Path) -> None:
    code = """
import signal, sys; from pathlib import Path; from ddcnn.folders import FolderLock
lock = FolderLock(Path(sys.argv[1]) / ".lock"); print(lock.acquire(), flush=True); signal.pause()
"""
    other = Program(("-c", code, str(store)))
    try:
        other.wait_for("True", "stdout")
        before = content(store)
        with pytest.raises(DataError, match="is being written by another process"):
            replace(store)
        assert content(store) == before
    finally:
        other.kill()  # a dead process holds nothing
        other.communicate()
    replace(store)
    assert Store(store).layout.samples == 5


def test_a_store_among_its_images(tmp_path: Path) -> None:
    images = tmp_path / "a" / "images"
    images.mkdir(parents=True)
    (tmp_path / "t.csv").touch()
    (tmp_path / "link").symlink_to(images, target_is_directory=True)
    for dest, source in (
        ("a/images", f"folder:{images}"),
        ("a/images/s.zarr", f"folder:{images}"),
        ("link/s.zarr", f"folder:{images}"),
        ("a", f"folder:{images}"),
        (".", f"csv:{tmp_path / 't.csv'}"),
        ("t.csv", f"csv:{tmp_path / 't.csv'}"),
        ("a/images", f"zarr:{tmp_path / 'link'}"),
    ):
        with pytest.raises(DataError, match="should lie apart; choose another DEST"):
            check_dest(tmp_path / dest, DataConfig(source=source))
    check_dest(tmp_path / "a" / "s.zarr", DataConfig(source=f"folder:{images}"))
    check_dest(images / "s.zarr", DataConfig(source="cifar10", directory=images))  # beside the data sets
    with pytest.raises(DataError, match="should lie apart"):
        check_dest(images, DataConfig(source="cifar10", directory=images))


def test_a_source_whose_name_is_not_utf8(tmp_path: Path) -> None:
    """What is written of it can be read again, and gone on with."""
    name = "folder:/scans/\udcff"
    dataset = replace_fields(make_dataset(), name=name, source={"path": name})
    for _ in range(2):
        write_store(dataset, tmp_path / "s.zarr", GRID, workers=1, provenance={"command": f"ddcnn {name}"})
    assert Store(tmp_path / "s.zarr").layout.name == r"folder:/scans/\udcff"
    with pytest.raises(DataError, match="is not UTF-8; choose another DEST"):
        write_store(dataset, tmp_path / "\udcff", GRID, workers=1)
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]
