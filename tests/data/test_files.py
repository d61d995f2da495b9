from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ddcnn.config import DataConfig
from ddcnn.data.files import digest, search_folders, source_path
from ddcnn.errors import DataError
from ddcnn.machine import cache_folder


def test_cache_folder_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDCNN_DATA", "~/sets")
    assert cache_folder() == Path.home() / "sets"
    monkeypatch.setenv("DDCNN_DATA", "")
    assert cache_folder() == Path.home() / ".cache" / "ddcnn"


def test_own_directory_comes_first(tmp_path: Path, cache: Path) -> None:
    assert search_folders(DataConfig(directory=tmp_path)) == [tmp_path, cache]
    assert search_folders(DataConfig()) == [cache]


def test_source_path_keeps_colons_and_spaces(tmp_path: Path) -> None:
    folder = tmp_path / "a b:c"
    folder.mkdir()
    assert source_path(DataConfig(source=f"folder:{folder}")) == folder
    with pytest.raises(DataError, match="does not exist"):
        source_path(DataConfig(source=f"folder:{folder}x"))


def test_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert digest(tmp_path / "a") == "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321
    assert digest(tmp_path / "a", "sha256") == hashlib.sha256(b"abc").hexdigest()
