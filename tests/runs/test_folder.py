import errno
import hashlib
import json
import os
import pickle
import shutil
import stat
from pathlib import Path

import pytest
import torch

from ddcnn.atomic import write_atomic
from ddcnn.errors import RunError
from ddcnn.runs.folder import RunFolder
from ddcnn.runs.manifest import Manifest
from tests.forked import Program


@pytest.fixture
def folder(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(force=False)
    run.write_text("config.yaml", "seed: 0\n")
    run.write_json("data.json", {"a": 1})
    run.write_tensors("locals/0.safetensors", {"w": torch.arange(6.0).view(2, 3).T})
    run.add_metrics({"epoch": 1})
    run.add_metrics({"epoch": 2})
    run.seal()
    run.clean()
    return run


def test_what_is_written_is_read(folder):
    assert folder.read_json("data.json") == {"a": 1}
    assert torch.equal(folder.read_tensors("locals/0.safetensors")["w"], torch.arange(6.0).view(2, 3).T)
    assert [json.loads(line)["epoch"] for line in folder.read_text("metrics.jsonl").splitlines()] == [1, 2]
    folder.check()


def test_the_manifest_holds_the_checksum_of_every_file(folder):
    manifest = json.loads((folder.path / "manifest.json").read_text())
    files = {p.relative_to(folder.path).as_posix() for p in folder.path.rglob("*") if p.is_file()}
    assert set(manifest["sha256"]) == files - {"manifest.json"}
    for name, found in manifest["sha256"].items():
        assert found == hashlib.sha256((folder.path / name).read_bytes()).hexdigest()


def test_the_manifest_ends_with_the_checksum_of_what_stands_above(folder):
    text = (folder.path / "manifest.json").read_text()
    above, _, last = text.partition(',\n "manifest": ')
    assert json.loads(last.rstrip("}\n")) == hashlib.sha256(f"{above}\n}}\n".encode()).hexdigest()


def test_hidden_files_and_links_are_no_part_of_a_run(folder, tmp_path):
    (folder.path / ".config.yaml.x8a2").write_text("what a killed process left")
    (tmp_path / "elsewhere").write_text("x")
    (folder.path / "link.txt").symlink_to(tmp_path / "elsewhere")
    before = folder.manifest()
    folder.seal()
    assert folder.manifest() == before


def test_a_run_in_a_run_keeps_its_own_manifest(folder):
    inner = RunFolder(folder.path / "folds" / "0")
    inner.create(force=False)
    inner.write_text("config.yaml", "seed: 1\n")
    inner.seal()
    folder.seal()
    assert folder.manifest().runs == ("folds/0",)
    folder.check()
    inner.add_sealed("report.html", "a page")  # the manifest around it needs no change
    folder.check()
    (inner.path / "config.yaml").write_text("seed: 2\n")
    with pytest.raises(RunError, match=r"folds/0/config\.yaml is damaged"):
        RunFolder(folder.path).check()
    (inner.path / "manifest.json").unlink()
    with pytest.raises(RunError, match=r"folds/0 has no manifest\.json"):
        RunFolder(folder.path).check()


def test_a_run_in_itself_is_not_followed(folder):
    (folder.path / "again").symlink_to(".")
    manifest = folder.manifest()
    folder.write_text("manifest.json", Manifest(manifest.sums, ("again",)).to_text())
    with pytest.raises(RunError, match="again is a run in a run"):
        folder.check()


def test_one_file_joins_a_sealed_run_and_no_other_is_blessed(folder):
    (folder.path / "data.json").write_text("{}")
    folder.add_sealed("report.html", "first")
    folder.add_sealed("report.html", "second")
    assert folder.manifest().sums["report.html"] == hashlib.sha256(b"second").hexdigest()
    with pytest.raises(RunError, match=r"data\.json is damaged"):
        folder.check()


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_crash_while_a_file_joins_leaves_a_complete_run(folder, monkeypatch, step):
    folder.add_sealed("report.html", "first")
    count = 0
    real = os.replace

    def crash(source, target):
        nonlocal count
        count += 1
        if count == step:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        folder.add_sealed("report.html", "second")
    RunFolder(folder.path).check()


def test_the_page_may_be_damaged_where_it_is_written_anew(folder):
    folder.add_sealed("report.html", "page")
    (folder.path / "report.html").write_text("torn")
    with pytest.raises(RunError, match=r"report\.html is damaged: .*; write it again with ddcnn report"):
        folder.check()
    folder.check(but=["report.html"])


@pytest.mark.parametrize("name", ["config.yaml", "data.json", "locals/0.safetensors", "metrics.jsonl"])
def test_a_flipped_bit_is_named(folder, name):
    path = folder.path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(RunError, match=name):
        folder.check()


def test_a_missing_file_is_named(folder):
    (folder.path / "data.json").unlink()
    with pytest.raises(RunError, match=r"data\.json is missing; the run is not complete"):
        folder.check()


def test_what_is_read_is_what_was_sealed(folder):
    (folder.path / "data.json").write_text('{"a": 2}')
    with pytest.raises(RunError, match=r"data\.json is damaged: its SHA-256 is not that of manifest\.json; copy"):
        RunFolder(folder.path).read_json("data.json")


def test_what_the_manifest_does_not_name_is_not_read(folder):
    (folder.path / "extra.json").write_text("{}")
    folder.check()
    assert not folder.has("extra.json")
    with pytest.raises(RunError, match=r"extra\.json is not named in manifest\.json and not read"):
        folder.read_json("extra.json")


def test_an_unfinished_run_is_not_a_run(folder):
    (folder.path / "manifest.json").unlink()
    with pytest.raises(RunError, match="did not finish"):
        folder.check()
    with pytest.raises(RunError, match="does not exist"):
        RunFolder(folder.path / "absent").check()


def test_nothing_is_overwritten_without_force(folder):
    with pytest.raises(RunError, match="--force"):
        folder.create(force=False)


FAILURES = {
    errno.ENOSPC: "No space left on device; free some space",
    errno.EDQUOT: "Disk quota exceeded; free some space",
    errno.EROFS: "Read-only file system; make the folder writable",
    errno.EACCES: "Permission denied; make the folder writable",
    errno.EIO: "Input/output error; check the disk",  # what NFS says when its server has lost a write
}


@pytest.mark.parametrize("number", FAILURES)
@pytest.mark.parametrize("function", ["fsync", "open", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(folder, monkeypatch, function, number):
    before = {p: p.read_bytes() for p in folder.path.rglob("*") if p.is_file()}

    def fail(*_args, **_kwargs):
        raise OSError(number, os.strerror(number))

    place = {"fsync": "os.fsync", "open": "pathlib.Path.open", "replace": "pathlib.Path.replace"}[function]
    message = rf"data\.json cannot be written: {FAILURES[number]}.*; earlier files are intact"
    with monkeypatch.context() as patched:
        patched.setattr(place, fail)
        with pytest.raises(RunError, match=message) as caught:
            folder.write_json("data.json", {"a": 2})
    assert "\n" not in str(caught.value)
    assert {p: p.read_bytes() for p in folder.path.rglob("*") if p.is_file()} == before
    folder.check()


def test_a_disk_that_is_full_in_truth(folder):
    """The kernel refuses to write past a limit, as it does on a full disk; in a process of its own."""
    code = """
import resource, signal, sys
from ddcnn.errors import RunError
from ddcnn.runs.folder import RunFolder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    RunFolder(sys.argv[1]).write_text("data.json", "x" * 20_000)
except RunError as error:
    print(error)
"""
    said, _ = Program(("-c", code, str(folder.path))).communicate()
    assert "data.json cannot be written: File too large; raise the limit" in said
    assert not [p for p in folder.path.iterdir() if p.name.startswith(".")]
    folder.check()


def test_a_write_survives_a_crash_of_the_machine(tmp_path, monkeypatch):
    """The file is on the disk before it gets its name, and its name is before anybody is told."""
    done = []
    fsync, replace = os.fsync, Path.replace

    def note_sync(handle):
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        done.append((kind, os.fstat(handle).st_ino))
        fsync(handle)

    def note_rename(source, target):
        done.append(("rename", source.stat().st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_rename)
    write_atomic(tmp_path / "a", b"content")
    inode = (tmp_path / "a").stat().st_ino
    assert done == [("file", inode), ("rename", inode), ("folder", tmp_path.stat().st_ino)]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_folders(tmp_path, monkeypatch, number):
    def sync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, "no such thing")

    monkeypatch.setattr(os, "fsync", sync)
    write_atomic(tmp_path / "a", b"content")
    assert (tmp_path / "a").read_bytes() == b"content"


def test_a_folder_that_vanished_is_not_made_again(folder):
    shutil.rmtree(folder.path)
    for write in (lambda: folder.write_text("a.txt", "x"), lambda: folder.write_text("locals/1.txt", "x")):
        with pytest.raises(RunError, match=r"run has vanished; leave it in place"):
            write()
    with pytest.raises(RunError, match="vanished"):
        folder.seal()
    assert not folder.path.exists()


def test_nothing_is_written_through_a_link(folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder.path / "checkpoints").symlink_to(outside)
    with pytest.raises(RunError, match="lies outside"):
        folder.write_text("checkpoints/a.json", "x")
    (outside / "page").write_text("mine")
    (folder.path / "report.html").symlink_to(outside / "page")
    folder.add_sealed("report.html", "a page")  # takes the place of the link
    assert (outside / "page").read_text() == "mine"
    assert [p.name for p in outside.iterdir()] == ["page"]


def test_large_json_is_written_without_line_breaks(folder, monkeypatch):
    monkeypatch.setattr("ddcnn.runs.files._INDENTED", 100)
    folder.write_json("data.json", {"a": [0] * 100})
    assert (folder.path / "data.json").read_text() == '{"a":[' + ",".join("0" * 100) + "]}\n"


def test_not_a_number_is_not_written(folder):
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.write_json("data.json", {"a": float("nan")})
    assert folder.read_json("data.json") == {"a": 1}


NAMES = [
    "../secret",
    "/etc/passwd",
    "locals/../../secret",
    "",
    ".",
    "./data.json",
    "locals//0",
    "C:secret",
    "a\\b",
    "a\nb",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_that_names_what_is_not_in_the_run(folder, tmp_path, name):
    (tmp_path / "secret").write_text("x")
    digest = hashlib.sha256(b"x").hexdigest()
    for manifest in (Manifest({name: digest}), Manifest({}, (name,))):
        folder.write_text("manifest.json", manifest.to_text())
        with pytest.raises(RunError, match=r"manifest\.json is damaged: .* is no name of a file in a run") as caught:
            folder.check()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["../secret", "/etc/passwd", "loop"])
def test_a_link_that_leaves_the_run(folder, tmp_path, target):
    (tmp_path / "secret").write_text("x")
    (folder.path / "loop").symlink_to(target)
    sums = {"loop": hashlib.sha256(b"x").hexdigest()}
    folder.write_text("manifest.json", Manifest(sums).to_text())
    with pytest.raises(RunError, match="'loop' lies outside"):
        folder.check()


def test_what_is_no_file_is_not_opened(folder):
    os.mkfifo(folder.path / "pipe")  # to open it would wait for ever
    (folder.path / "folder").mkdir()
    for name in ("pipe", "folder"):
        folder.write_text("manifest.json", Manifest({name: "0" * 64}).to_text())
        with pytest.raises(RunError, match=f"{name} is not a file"):
            folder.check()


LIMITS = {"a.json": 2**26, "a.yaml": 2**20, "a.jsonl": 2**28, "a.safetensors": 2**36, "a.bin": 2**36}


@pytest.mark.parametrize("name", LIMITS)
def test_a_file_that_is_too_large_is_refused_unread(folder, name, monkeypatch):
    with (folder.path / name).open("wb") as file:
        file.truncate(LIMITS[name] + 1)  # sparse: it takes no room
    folder.write_text("manifest.json", Manifest({name: "0" * 64}).to_text())
    monkeypatch.setattr("hashlib.file_digest", None)
    for read in (folder.check, lambda: folder.read_text(name)):
        with pytest.raises(
            RunError, match=rf"{name} has {LIMITS[name] + 1:,} bytes, at most {LIMITS[name]:,} are read"
        ):
            read()


HEADERS = {
    "pickle": pickle.dumps({"w": [1.0] * 10}),
    "nothing": b"",
    "a header of 2^60 bytes": (2**60).to_bytes(8, "little") + b"{}",
    "a header of all 64 bits": b"\xff" * 16,
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_what_is_no_safetensors_file(folder, content):
    path = folder.path / "locals/0.safetensors"
    path.write_bytes(content)
    sums = {"locals/0.safetensors": hashlib.sha256(content).hexdigest()}
    folder.write_text("manifest.json", Manifest(sums).to_text())
    for read in (folder.check, lambda: folder.read_tensors("locals/0.safetensors")):
        with pytest.raises(RunError, match=r"0\.safetensors is not a safetensors file: it announces a header of"):
            read()


def test_a_tensor_of_2_to_the_60_bytes(folder):
    header = b'{"w":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' % (2**58, 2**60)
    (folder.path / "locals/0.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    folder.seal()
    for read in (folder.read_shapes, folder.read_tensors, folder.read_arrays):
        with pytest.raises(RunError, match=r"0\.safetensors is not a safetensors file"):
            read("locals/0.safetensors")


def test_types_and_shapes_without_the_numbers(folder):
    assert folder.read_shapes("locals/0.safetensors") == {"w": ("F32", (3, 2))}


JSON = {
    '{"a": NaN}': "NaN is not a number",
    '{"a": -Infinity}': "-Infinity is not a number",
    '{"a": ' + "[" * 100_000: "it is nested too deeply",
    '{"a": ' + "1" * 5000 + "}": "Exceeds the limit",
    '{"a": 1': "Expecting",
    "[1]": "should hold a JSON object, got list",
}


@pytest.mark.parametrize("text", JSON, ids=JSON.values())
def test_json_that_is_not_plain(folder, text):
    folder.write_text("data.json", text)
    folder.seal()
    with pytest.raises(RunError, match=JSON[text]) as caught:
        folder.read_json("data.json")
    assert "data.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_utf8_are_shown_as_on_a_terminal(folder):
    folder.add_sealed("report.html", "<p>scans/\udcff</p>")
    folder.check()
    assert folder.read_text("report.html") == r"<p>scans/\udcff</p>"
