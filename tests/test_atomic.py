"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from ddcnn.atomic import advice, replacing, write_atomic
from ddcnn.engines.task_payload import TaskPayload
from ddcnn.errors import RunError
from tests.forked import Program


def test_replacing_shows_the_old_file_or_the_complete_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replacing(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"

    def interrupted() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"one"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_who_may_read_a_file_is_for_the_user_to_say(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_atomic(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


def test_a_payload_on_a_full_disk(tmp_path: Path) -> None:
    """The kernel refuses to write past a limit, as it does on a full disk; in a process of its own."""
    code = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from ddcnn.engines.task_payload import TaskPayload
from ddcnn.errors import RunError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    TaskPayload({}, {"images": np.zeros(50_000)}).save(Path(sys.argv[1]))
except RunError as error:
    print(error)
"""
    said, _ = Program(("-c", code, str(tmp_path / "payload"))).communicate()
    assert "payload cannot be written: File too large; raise the limit on the size of files" in said
    assert list((tmp_path / "payload").iterdir()) == []


@pytest.mark.parametrize("array", [np.zeros((3, 4)), np.zeros((3, 4), order="F")[::2], np.zeros(0), np.array(7, ">i2")])
def test_a_payload_is_read_as_it_was(tmp_path: Path, array: np.ndarray) -> None:
    TaskPayload({"a": 1}, {"x": array}).save(tmp_path)
    payload = TaskPayload.open(tmp_path)
    assert payload.numbers == {"a": 1}
    assert (payload.arrays["x"].shape, payload.arrays["x"].dtype) == (array.shape, array.dtype)
    assert np.array_equal(payload.arrays["x"], array)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["numbers.json", "x.npy"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written: Not a directory; check the disk"):
        TaskPayload({}, {}).save(tmp_path / "file" / "payload")


@pytest.mark.parametrize("error", [OSError("4096 requested and 512 written"), OSError(errno.ENOSPC, None)])
def test_a_reason_is_given_whatever_the_error_lacks(error: OSError) -> None:
    assert "None" not in advice(error)
