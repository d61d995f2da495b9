"""`ddcnn app`: a page on this machine to drop images on, and see what a network says of them."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ddcnn.cli.options import RunArgument, StrategyOption, TrustOption
from ddcnn.errors import DataError, DdcnnError, ExplanationError, in_one_line
from ddcnn.extras import install

if TYPE_CHECKING:
    from ddcnn.cli.upload import Answering

_HERE = "127.0.0.1"
_HOUR = 3600  # seconds after which uploads are removed, while the server runs
_QUEUE = 16  # uploads that may wait
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' data: blob:; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
"""What the page may load and whom it may ask: this server alone."""

_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="app")(serve)


def serve(
    run: RunArgument,
    *,
    strategy: StrategyOption = None,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, metavar="N", help="Default: the first free one from 7860.")
    ] = None,
    trust: TrustOption = False,
) -> None:
    """Open a page to drop images on: what is decided, what each subdomain votes for, and where it looked.

    Only this machine sees it (127.0.0.1). Images stay here, and are removed at the end.

    \b
    For example:
    ddcnn app runs/c10
    ddcnn app runs/c10 --strategy transfer --port 8080
    """  # noqa: D301
    _check_gradio()
    answering = open_answering(run, strategy, trust=trust)
    with _ended_by_signals(), served(answering, port) as url, suppress(KeyboardInterrupt):
        print(f"open {url} in a browser; Ctrl-C ends it", flush=True)
        threading.Event().wait()


def open_answering(run: Path, strategy: str | None, *, trust: bool) -> Answering:
    """Return what answers uploads.

    Raises
    ------
    DdcnnError
        The run cannot be read or was trained on volumes, or a package is missing.
    """
    from ddcnn.cli.inputs import Wanted
    from ddcnn.cli.upload import Answering
    from ddcnn.explaining.grad_cam import captum
    from ddcnn.runs.folder import RunFolder
    from ddcnn.runs.networks import best_strategy, load

    folder = RunFolder(run)
    folder.manifest()  # that there is a run is the first thing to know
    data = folder.read_json("data.json")
    wanted = Wanted.of(data)
    if wanted.volumes:
        raise DataError(f"{run} was trained on volumes, and the page shows images; use ddcnn explain {run} VOLUME")
    captum()
    network = load(run, strategy, trust=trust, backend="looped")
    network.input = network.input_check = None  # each file is looked at, and arranged, when it is read
    return Answering(network, strategy or best_strategy(folder), wanted, tuple(data["classes"]))


@contextmanager
def served(answering: Answering, port: int | None = None) -> Iterator[str]:
    """Serve the page to this machine until the end of the context; provide its address.

    Raises
    ------
    DdcnnError
        The port is taken, or the server does not start.
    """
    if port is not None:
        _check_port(port)
    with TemporaryDirectory(prefix="ddcnn-app-") as uploads, _environment(uploads):
        page = _page(answering)
        try:
            yield _launched(page, port)
        finally:
            page.close(verbose=False)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP leave the context, with exit code 128 + number; one that is ignored stays ignored."""

    def end(number: int, _: FrameType | None) -> NoReturn:
        for other in before:
            signal.signal(other, signal.SIG_IGN)  # a second signal does not stop the cleaning up
        raise SystemExit(128 + number)

    before = {one: signal.getsignal(one) for one in _ENDING}
    before = {one: handler for one, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for one in before:
        signal.signal(one, end)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _launched(page: Any, port: int | None) -> str:
    """Start the server in a thread; return its address."""
    from ddcnn.cli.upload import MOST_BYTES

    page.queue(max_size=_QUEUE, default_concurrency_limit=1)
    try:
        _, url, _ = page.launch(
            server_name=_HERE,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=MOST_BYTES,
            enable_monitoring=False,
            ssr_mode=False,
            mcp_server=False,
            footer_links=[],
            theme=_theme(),
            app_kwargs={"middleware": _middleware()},
        )
    except (OSError, ValueError) as error:
        raise DdcnnError(f"the server does not start: {in_one_line(error)}") from None
    return str(url)


def _check_gradio() -> None:
    if importlib.util.find_spec("gradio") is None:  # to import it takes seconds
        raise ExplanationError(f"the page needs gradio: {install('app')}")


def _check_port(port: int) -> None:
    with socket.socket() as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((_HERE, port))
        except OSError as error:
            raise DdcnnError(f"port {port} cannot be used: {error.strerror}; choose another --port") from None


@contextmanager
def _environment(uploads: str) -> Iterator[None]:
    """Keep uploads in one folder, and gradio from asking anybody for anything."""
    wanted = {
        "GRADIO_TEMP_DIR": uploads,
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _page(answering: Answering) -> Any:
    import gradio

    def shown(file: str | None) -> tuple[Any, ...]:
        answer = answering(file)
        return answer.message, answer.picture, answer.probabilities or None, answer.votes

    with gradio.Blocks(title="ddcnn", analytics_enabled=False, delete_cache=(_HOUR, _HOUR)) as page:
        gradio.Markdown("# ddcnn\nDrop an image. It stays on this machine.")
        with gradio.Row():
            with gradio.Column(scale=1):
                file = gradio.File(label="Image", height=140)
                message = gradio.Textbox(label="Decision", lines=2, interactive=False)
                probabilities = gradio.Label(label="Probabilities", num_top_classes=10)
            with gradio.Column(scale=2):
                gradio.Markdown("Pixels that speak for the decision, and votes of the subdomains")
                picture = gradio.Image(show_label=False, format="png", interactive=False, buttons=["fullscreen"])
                headers = ["subdomain", "votes for", "sure", "lost without it"]
                votes = gradio.Dataframe(headers=headers, show_label=False, interactive=False, wrap=True, buttons=[])
        file.change(shown, file, [message, picture, probabilities, votes], api_name="explain", show_progress="minimal")
    return page


def _theme() -> Any:
    from gradio import themes

    fonts = ["system-ui", "sans-serif"]  # the page loads no font from elsewhere
    return themes.Base(font=fonts, font_mono=["ui-monospace", "monospace"])


def _middleware() -> list[Any]:
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    return [Middleware(TrustedHostMiddleware, allowed_hosts=[_HERE, "localhost"]), Middleware(_WithPolicy)]


class _WithPolicy:
    """Adds the policy to each answer of the server."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY.encode())]
            await send(message)

        await self.app(scope, receive, send_with_policy if scope["type"] == "http" else send)
