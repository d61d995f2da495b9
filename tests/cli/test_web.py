"""`ddcnn app`: the server, asked as a browser asks it."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
import pytest
from PIL import Image

from ddcnn.cli.upload import MOST_BYTES
from ddcnn.runs.folder import RunFolder

HERE = all(importlib.util.find_spec(name) for name in ("gradio", "captum"))
pytestmark = pytest.mark.skipif(not HERE, reason="pip install 'ddcnn[app]'")


@contextmanager
def serving(run: Path, tmp_path: Path, *before: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """The server, in a process of its own: gradio leaves event loops and sockets behind."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "TMPDIR": str(tmp_path)}
    command = [*before, sys.executable, "-m", "ddcnn", "app", str(run), "--strategy", "cnn-dnn"]
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and what tests start inherits it
    try:
        started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    finally:
        signal.signal(signal.SIGHUP, hangup)
    with started as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        try:
            assert line.startswith("open http://127.0.0.1:")
            assert list(tmp_path.glob("ddcnn-app-*"))
            yield line.split()[1].rstrip("/"), server
        finally:
            server.kill()


def ended(server: subprocess.Popen, by: signal.Signals, tmp_path: Path) -> int:
    """Return the exit code; what was uploaded is removed."""
    server.send_signal(by)
    code = server.wait(30)
    assert not list(tmp_path.glob("ddcnn-app-*"))
    return code


@pytest.fixture
def url(made_run: Path, tmp_path: Path) -> Iterator[str]:
    with serving(made_run, tmp_path) as (address, server):
        yield address
        assert ended(server, signal.SIGINT, tmp_path) == 0


def test_an_image_is_posted_and_answered(url: str) -> None:
    assert url.startswith("http://127.0.0.1:")
    page, headers = fetched(url)
    assert "connect-src 'self' data:" in headers["content-security-policy"]
    assert b"Drop an image" in page
    assert not [host for host in (b"googleapis", b"cdnjs", b"jsdelivr") if host in page]
    file = io.BytesIO()
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(file, "png")
    message, picture, probabilities, votes = answered(url, "a.png", file.getvalue())
    assert "decided by cnn-dnn" in message
    assert {row["label"] for row in probabilities["confidences"]} == {"cat", "dog", "[red]x"}
    assert len(votes["data"]) == 2
    shown, _ = fetched(picture["url"])
    assert Image.open(io.BytesIO(shown)).format == "PNG"
    message, picture, *_ = answered(url, "b.png", b"no image")
    assert picture is None
    assert "b.png" in message
    for code, ask in (
        (413, lambda: uploaded(url, "c.png", bytes(MOST_BYTES + 2**20))),
        (400, lambda: fetched(url, host="example.org")),
    ):
        with pytest.raises(HTTPError) as refused:
            ask()
        assert refused.value.code == code
        refused.value.close()


def fetched(url: str, data: bytes | None = None, kind: str = "", host: str = "") -> tuple[bytes, Any]:
    headers = {name: value for name, value in (("Content-Type", kind), ("Host", host)) if value}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
        return answer.read(), answer.headers


def uploaded(url: str, name: str, content: bytes) -> str:
    mark = uuid.uuid4().hex
    head = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{mark}--\r\n".encode()
    answer, _ = fetched(f"{url}/gradio_api/upload", body, f"multipart/form-data; boundary={mark}")
    (path,) = json.loads(answer)
    return str(path)


def answered(url: str, name: str, content: bytes) -> list[Any]:
    file = {"path": uploaded(url, name, content), "orig_name": name, "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [file]}).encode()
    event = json.loads(fetched(f"{url}/gradio_api/call/explain", body, "application/json")[0])["event_id"]
    lines = fetched(f"{url}/gradio_api/call/explain/{event}")[0].decode().splitlines()
    assert "event: complete" in lines, lines
    (told,) = [line for line in lines[lines.index("event: complete") :] if line.startswith("data: ")]
    found: list[Any] = json.loads(told.removeprefix("data: "))
    return found


def test_what_cannot_be_shown(
    refused: Callable[..., str], made_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "does not exist" in refused("app", tmp_path / "none") or "is no run" in refused("app", tmp_path / "none")
    volumes = tmp_path / "volumes"
    folder = RunFolder(volumes)
    folder.create(force=False)
    data = json.loads((made_run / "data.json").read_text()) | {"image_shape": [1, 8, 8, 8]}
    folder.write_json("data.json", data)
    folder.seal()
    assert "was trained on volumes, and the page shows images; use ddcnn explain" in refused("app", volumes)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "pip install 'ddcnn[app]'" in refused("app", made_run)


def test_a_port_that_is_taken(refused: Callable[..., str], made_run: Path) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = refused("app", made_run, "--port", port)
        assert said == f"error: port {port} cannot be used: Address already in use; choose another --port"


@pytest.mark.parametrize(("by", "code"), [("SIGTERM", 128 + 15), ("SIGHUP", 128 + 1)])
def test_uploads_are_removed_when_a_signal_ends_it(made_run: Path, tmp_path: Path, by: str, code: int) -> None:
    with serving(made_run, tmp_path) as (url, server):
        path = Path(uploaded(url, "a.png", b"secret"))
        assert path.read_bytes() == b"secret"
        assert tmp_path in path.parents
        assert ended(server, signal.Signals[by], tmp_path) == code


def test_a_hangup_that_is_ignored_stays_ignored(made_run: Path, tmp_path: Path) -> None:
    """As nohup starts it."""
    with serving(made_run, tmp_path, "sh", "-c", 'trap "" HUP; exec "$@"', "sh") as (url, server):
        server.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            server.wait(2)
        assert b"Drop an image" in fetched(url)[0]
        assert ended(server, signal.SIGTERM, tmp_path) == 128 + 15


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGHUP])
def test_who_calls_it_has_its_handlers_back(
    call: Callable[..., Any], made_run: Path, monkeypatch: pytest.MonkeyPatch, by: signal.Signals
) -> None:
    caught: list[int] = []

    def mine(number: int, _: object) -> None:
        caught.append(number)

    @contextmanager
    def served(*_: object) -> Iterator[str]:
        os.kill(os.getpid(), by)
        pytest.fail("goes on after a signal")
        yield ""

    monkeypatch.setattr("ddcnn.cli.web.served", served)
    before = signal.signal(by, mine)
    try:
        assert call("app", made_run).code == 128 + by
        assert not caught
        os.kill(os.getpid(), by)
        assert caught == [by]
    finally:
        signal.signal(by, before)
