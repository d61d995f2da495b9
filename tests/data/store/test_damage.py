"""Damaged and hostile stores: one line that names the place, never another exception, never wrong pixels."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddcnn.data.store import Store, Stored
from ddcnn.data.store import layout as layout_module
from ddcnn.data.store.layout import read_json
from ddcnn.data.store.shard import DamagedError, compress, content_size, decompress
from ddcnn.decomposition import Grid
from ddcnn.errors import DataError
from tests.data.store.helper import make_dataset

GRID = Grid((2, 1, 2))
SHARD = "subdomains/2/c/1/0/0/0/0"  # samples 3 to 5
DATASET = make_dataset(size=(4, 5, 6), channels=1)


@pytest.fixture
def path(made: Callable[..., Stored]) -> Path:
    return made(DATASET, GRID).store.path


def _read(path: Path) -> torch.Tensor:
    return Stored(Store(path))[torch.arange(7)]


def _flip(file: Path, place: int, bit: int = 1) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= bit
    file.write_bytes(content)


def test_a_flipped_byte_in_a_chunk_is_named(path: Path) -> None:
    _flip(path / SHARD, 20)
    images = Stored(Store(path))
    assert torch.equal(images[torch.tensor([0, 6])], DATASET.images[[0, 6]])  # other shards are as good as before
    message = rf"s\.zarr: sample 3, subdomain 2 is damaged: its SHA-256 differs; remove {SHARD} in it and run the same"
    with pytest.raises(DataError, match=message):
        images.image(3)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: f.unlink(), "sample 4, subdomain 2 is damaged: its file .* cannot be read: No such file"),
        (lambda f: f.write_bytes(b""), "sample 4, subdomain 2 is damaged: its file .* is truncated: 0 bytes"),
        (lambda f: f.write_bytes(f.read_bytes()[:-9]), "sample 4, subdomain 2 is damaged: the index .* is damaged"),
        (lambda f: _flip(f, -3), "sample 4, subdomain 2 is damaged: the index .* is damaged"),
        (lambda f: (f.unlink(), f.mkdir()), "sample 4, subdomain 2 is damaged: its file .* cannot be read"),
    ],
)
def test_a_broken_shard_is_named(path: Path, break_it: Callable[[Path], Any], message: str) -> None:
    break_it(path / SHARD)
    with pytest.raises(DataError, match=message):
        Stored(Store(path)).image(4)


def test_a_link_out_of_the_store_is_not_followed(path: Path, tmp_path: Path) -> None:
    (path / SHARD).rename(tmp_path / "elsewhere")
    (path / SHARD).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"sample 3, subdomain 2 is damaged: .* is a link that leaves the store"):
        Stored(Store(path)).image(3)
    (path / "labels/c/0").rename(tmp_path / "labels")
    (path / "labels/c/0").symlink_to(tmp_path / "labels")
    with pytest.raises(DataError, match=r"labels cannot be read: its file .* is a link that leaves the store"):
        Store(path)


def _index(file: Path, place: int, offset: int, length: int) -> None:
    """Forge an entry of an index, with the right checksum."""
    import google_crc32c

    content = file.read_bytes()
    index = np.frombuffer(content[-52:-4], "<u8").reshape(3, 2).copy()
    index[place] = offset, length
    raw = index.tobytes()
    file.write_bytes(content[:-52] + raw + struct.pack("<I", google_crc32c.value(raw)))


@pytest.mark.parametrize("entry", [(2**64 - 1, 2**64 - 1), (0, 2**40), (10**6, 8), (2**63, 8), (2**64 - 4, 8)])
def test_an_index_that_points_elsewhere_is_refused(path: Path, entry: tuple[int, int]) -> None:
    _index(path / SHARD, 1, *entry)
    with pytest.raises(DataError, match=r"sample 4, subdomain 2 is damaged: the index of its file .* points outside"):
        Stored(Store(path)).image(4)


def test_swapped_chunks_are_found(path: Path) -> None:
    shard = Stored(Store(path)).store._shard(2, 1)[0]
    entries = [tuple(int(number) for number in row) for row in shard.index]
    _index(path / SHARD, 0, *entries[1])
    with pytest.raises(DataError, match="sample 3, subdomain 2 is damaged: its SHA-256 differs"):
        Stored(Store(path)).image(3)


def test_a_chunk_that_declares_another_size_is_not_decompressed() -> None:
    pixels = np.zeros(1000, np.uint8)
    for size in (999, 1001, 10**7):
        chunk = compress(np.zeros(size, np.uint8))
        assert content_size(chunk) == size
        with pytest.raises(DamagedError, match=f"it should decompress to 1000 bytes, and declares {size}"):
            decompress(chunk, hashlib.sha256(chunk).digest(), pixels)
    for chunk in (b"", b"gzip", b"\x28\xb5\x2f\xfd\x00", b"\x28\xb5\x2f\xfd\x80\x00\x01"):
        with pytest.raises(DamagedError, match="declares None"):
            decompress(chunk, hashlib.sha256(chunk).digest(), pixels)
    half = compress(np.arange(1000) % 7)[:40]
    out = np.zeros(8000, np.uint8)
    with pytest.raises(DamagedError, match="cannot be decompressed"):
        decompress(half, hashlib.sha256(half).digest(), out)


def _forge(path: Path, **changes: Any) -> None:
    """Change the description of a store and its checksum, as somebody hostile would."""
    root = json.loads((path / "zarr.json").read_text())
    values = root["attributes"]["ddcnn"] | changes
    values.pop("digest")
    values["digest"] = layout_module._digest(values)
    root["attributes"]["ddcnn"] = values
    (path / "zarr.json").write_text(json.dumps(root))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 3}, "a store of version 3, this ddcnn reads versions 1 and 2; prepare it again"),
        ({"version": "1"}, "a store of version '1'"),
        ({"window": [400, -1000]}, r"the window \[400.0, -1000.0\], which should run from low to high"),
        ({"window": [1]}, "window"),
        ({"notes": "all"}, "notes"),
        ({"bad_files": [["a"]]}, "bad_files"),
        ({"label_groups": {"a": 1}}, "label_groups"),
        ({"samples": 10**15}, "samples = 1000000000000000 is not valid"),
        ({"samples": 10**11}, "does not go with"),
        ({"samples": -1}, "samples = -1 is not valid"),
        ({"image_shape": [1, 10**6, 10**6, 10**6]}, "declares images of 1000000x1000000x1000000 pixels, more than"),
        ({"image_shape": [1, 4]}, "image_shape"),
        ({"image_shape": [1, 4, 5, 60]}, "does not go with"),
        ({"grid": [10**3, 10**3, 10**3]}, "declares a grid of 1000x1000x1000, more than 65536"),
        ({"grid": [9, 1, 2]}, "declares what cannot be: grid 9x1x2 is finer than the images"),
        ({"grid": [2, 1]}, "declares what cannot be"),
        ({"overlap": [1]}, "overlap"),
        ({"type": "float64"}, "type = 'float64' is not valid"),
        ({"type": "../../etc"}, "is not valid"),
        ({"classes": ["a"]}, "classes"),
        ({"flip_axes": [2, 5]}, "flip_axes"),
        ({"shard": 2**30}, "shard"),
        ({"official_test": 10**9}, "does not go with"),
        ({"surprise": 1}, "surprise"),
        ({"complete": False}, "is not complete"),
    ],
)
def test_a_hostile_description_is_refused(path: Path, changes: dict[str, Any], message: str) -> None:
    _forge(path, **changes)
    with pytest.raises(DataError, match=message) as caught:
        Store(path)
    assert "\n" not in str(caught.value)
    assert "zarr" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
        (b"[" * 10**5, "it is not JSON"),
        (b"[]", "it is not a JSON object"),
        (b"{}", "should describe a Zarr v3 group"),
        (b'{"zarr_format": 2, "node_type": "group"}', "should describe a Zarr v3 group"),
        (b'{"zarr_format": 3, "node_type": "group", "attributes": {}}', "not one that ddcnn data prepare made"),
        (b'{"zarr_format": 3, "node_type": "group", "attributes": 3}', "not one that ddcnn data prepare made"),
        (b" " * (2**24 + 1), "larger than 16777216 bytes"),
    ],
)
def test_a_root_that_is_none(path: Path, content: bytes, message: str) -> None:
    (path / "zarr.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        Store(path)


@pytest.mark.parametrize("file", ["labels/zarr.json", "labels/c/0", "moments/c/0/0/0", "content/c/0/0", SHARD])
def test_a_named_pipe_is_not_waited_for(path: Path, file: str) -> None:
    (path / file).unlink()
    os.mkfifo(path / file)
    with pytest.raises(DataError, match=r"cannot be read: it is a named pipe, not a file"):
        Stored(Store(path)).image(4)
    (path / "zarr.json").unlink()
    os.mkfifo(path / "zarr.json")
    with pytest.raises(DataError, match=r"it has no zarr\.json"):
        Store(path)
    with pytest.raises(DataError, match="it is a named pipe, not a file"):
        read_json(path / "zarr.json")  # exchanged after that look


def test_a_pipe_in_the_place_of_checksums_is_not_waited_for(path: Path) -> None:
    images = Stored(Store(path))
    (path / "sha256/c/0/1/0").unlink()
    os.mkfifo(path / "sha256/c/0/1/0")
    for read in (lambda: images.image(4), images.known_digests):
        with pytest.raises(DataError, match="cannot be read: it is a named pipe, not a file"):
            read()


def test_no_store_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a Zarr v3 store: it has no zarr\.json; make one with ddcnn"):
        Store(tmp_path)


def test_small_arrays_of_another_size_are_not_read(path: Path) -> None:
    for name in ("labels/c/0", "moments/c/1/0/0", "content/c/1/0", "official_test/c/0"):
        content = (path / name).read_bytes()
        (path / name).write_bytes(content + b"12345678")
        with pytest.raises(DataError, match=f"{name.partition('/')[0]} is damaged: its SHA-256 differs"):
            Store(path)
        (path / name).write_bytes(content)
    (path / "labels/c/0").unlink()
    with pytest.raises(DataError, match=r"labels/c/0 cannot be read: No such file or directory; prepare"):
        Store(path)


def _found(path: Path) -> str:
    """Return what is said of a store that is not as it was; nothing if it is."""
    try:
        assert torch.equal(_read(path), DATASET.images)
    except DataError as error:
        return str(error)
    return ""


def test_every_flipped_bit_is_found_or_harmless(path: Path) -> None:
    """Sampled: some bits of every file."""
    rng = np.random.default_rng(0)
    messages = []
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        size = file.stat().st_size
        for place in rng.choice(size, min(size, 5), replace=False).tolist():
            bit = 1 << int(rng.integers(0, 8))
            _flip(file, place, bit)
            messages.append(_found(path))
            _flip(file, place, bit)
    assert _found(path) == ""
    found = [message for message in messages if message]
    assert all(str(path) in message and "\n" not in message for message in found)
    assert len(found) > 0.9 * len(messages)  # harmless: white space in JSON, and checksums of samples that are none
