"""Downloads are made from file:// addresses: no test uses the network."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from ddcnn.config import DataConfig
from ddcnn.data.download import Archive, download, find_or_fetch, unpack
from ddcnn.errors import DataError


def _tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def _archive(path: Path) -> Archive:
    return Archive("made", path.as_uri(), hashlib.md5(path.read_bytes()).hexdigest(), "made-data")


@pytest.fixture
def published(tmp_path: Path) -> Archive:
    return _archive(_tar(tmp_path / "web" / "made.tar.gz", {"made-data/a.bin": b"A", "made-data/b/c.bin": b"C"}))


def test_absent_is_downloaded_unpacked_and_found_again(published: Archive, cache: Path) -> None:
    folder = find_or_fetch(published, DataConfig(), contains="a.bin")
    assert folder == cache / "made-data"
    assert (folder / "b" / "c.bin").read_bytes() == b"C"
    assert list(cache.iterdir()) == [folder]  # neither the archive nor temporary files are left
    assert find_or_fetch(published, DataConfig(offline=True), contains="a.bin") == folder


def test_own_directory_is_preferred_for_the_download(published: Archive, tmp_path: Path, cache: Path) -> None:
    folder = find_or_fetch(published, DataConfig(directory=tmp_path / "own"), contains="a.bin")
    assert folder == tmp_path / "own" / "made-data"
    assert not cache.exists()


@pytest.mark.parametrize("given", ["the folder", "its parent"])
def test_the_folder_or_its_parent_may_be_given(published: Archive, tmp_path: Path, given: str) -> None:
    folder = tmp_path / "sets" / "made-data"
    folder.mkdir(parents=True)
    (folder / "a.bin").touch()
    config = DataConfig(directory=folder if given == "the folder" else folder.parent, offline=True)
    assert find_or_fetch(published, config, contains="a.bin") == folder


def test_offline_says_which_file_to_put_where_and_then_uses_it(published: Archive, tmp_path: Path, cache: Path) -> None:
    config = DataConfig(directory=tmp_path / "own", offline=True)
    with pytest.raises(DataError) as caught:
        find_or_fetch(published, config, contains="a.bin")
    message = str(caught.value)
    target = tmp_path / "own" / "made.tar.gz"
    for part in ["data.offline is set", published.url, published.md5, str(target), str(cache)]:
        assert part in message
    assert "\n" not in message

    target.parent.mkdir()
    target.write_bytes((tmp_path / "web" / "made.tar.gz").read_bytes())
    assert (find_or_fetch(published, config, contains="a.bin") / "a.bin").read_bytes() == b"A"
    assert target.exists()  # it is the user's


def test_a_damaged_archive_of_the_user_is_named(published: Archive, cache: Path) -> None:
    cache.mkdir()
    (cache / "made.tar.gz").write_bytes(b"half")
    with pytest.raises(DataError, match=rf"made\.tar\.gz is damaged: its MD5 should be {published.md5}, got"):
        find_or_fetch(published, DataConfig(offline=True), contains="a.bin")


def test_a_wrong_checksum_leaves_nothing(published: Archive, tmp_path: Path) -> None:
    target = tmp_path / "to" / "file"
    with pytest.raises(DataError, match=rf"has MD5 {published.md5}, expected {'0' * 32}; try again, or put the file"):
        download(published.url, target, "0" * 32)
    assert list(target.parent.iterdir()) == []


def test_a_failed_download_says_how_to_go_on(tmp_path: Path) -> None:
    url = (tmp_path / "gone.tar.gz").as_uri()
    with pytest.raises(DataError, match=r"gone\.tar\.gz cannot be downloaded to .*try again, or put the file \(md5 0"):
        download(url, tmp_path / "file", "0" * 32)
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("name", ["../evil.txt", "made-data/../../evil.txt"])
def test_members_that_point_outside_are_refused(tmp_path: Path, name: str) -> None:
    path = _tar(tmp_path / "in" / "bad.tar.gz", {"made-data/a.bin": b"A", name: b"evil"})
    with pytest.raises(DataError, match=r"cannot be unpacked to .*outside"):
        unpack(path, path.parent, "made-data")
    assert list(path.parent.iterdir()) == [path]
    assert not (tmp_path / "evil.txt").exists()


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_text("hello")
    with pytest.raises(DataError, match=r"a\.tgz cannot be unpacked"):
        unpack(tmp_path / "a.tgz", tmp_path, "made-data")
    _tar(tmp_path / "b.tgz", {"other/a": b""})
    with pytest.raises(DataError, match=r"b\.tgz should hold a folder made-data"):
        unpack(tmp_path / "b.tgz", tmp_path, "made-data")


def test_two_processes_may_unpack_at_once(published: Archive, tmp_path: Path) -> None:
    path = tmp_path / "web" / "made.tar.gz"
    assert unpack(path, tmp_path, "made-data") == unpack(path, tmp_path, "made-data")
