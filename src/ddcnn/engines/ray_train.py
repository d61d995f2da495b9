"""Ranks on a Ray cluster: Ray Train starts them, and starts all anew when one of them dies."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ddcnn.engines.events import TellingProgress, replay_event
from ddcnn.engines.task import find, name_of
from ddcnn.errors import DdcnnError, EngineError, InterruptionError, RankError, in_one_line
from ddcnn.extras import needed
from ddcnn.training import Progress
from ddcnn.training.interruption import INTERRUPTION

if TYPE_CHECKING:
    from ddcnn.engines.on_ray import OnRay

_WAIT = 0.2  # seconds between two looks at what ranks tell, or at whether they are to end


def run_on_ranks(
    engine: OnRay,
    count: int,
    function: Callable[[dict[str, Any], Progress], None],
    arguments: Mapping[str, Any],
    progress: Progress,
    shared: Path,
) -> None:
    """Run a function of ddcnn on ranks of a Ray cluster, until all have returned.

    A rank whose process or node dies takes all others with it; all are started anew, as often as the engine retries.
    A signal that this process is sent is passed on to them.

    Parameters
    ----------
    engine
        Connects to the cluster; a rank has as many threads as one of its tasks, and a GPU if there are any.
    count
        Number of ranks.
    function, arguments
        A function of a module of ddcnn, called on each rank with the arguments (JSON) and a progress. PyTorch's
        process group is there.
    progress
        Is told what rank 0 tells.
    shared
        A folder that all nodes see, where Ray Train leaves notes of its own while it runs.

    Raises
    ------
    EngineError
        Ray Train is not installed, or ranks have died too often.
    DdcnnError
        What the function has raised, with its message.
    """
    with needed("ranks on a Ray cluster need Ray Train", "ray", EngineError):
        import ray.train
        from ray.train.torch import TorchTrainer
    if (wanted := count * engine.threads) > engine.cores:
        progress.note(f"{count} ranks wait for {wanted} cores, of which the cluster has {engine.cores} now")
    mailbox = engine.mailbox()
    order = {
        "function": name_of(function),
        "arguments": dict(arguments),
        "threads": engine.threads,
        "mailbox": mailbox,
        "folder": str(Path.cwd()),
    }
    scaling = ray.train.ScalingConfig(
        num_workers=count,
        use_gpu=bool(engine.gpus),
        resources_per_worker={"CPU": engine.threads} | ({"GPU": 1} if engine.gpus else {}),
    )
    with _notes(shared) as notes, INTERRUPTION.deferred():
        config = ray.train.RunConfig(storage_path=str(notes))

        def start() -> _Fit:
            return _Fit(TorchTrainer(_rank, train_loop_config=order, scaling_config=scaling, run_config=config))

        _until_done(start, engine.retries, mailbox, progress)


def _until_done(start: Callable[[], _Fit], retries: int, mailbox: Any, progress: Progress) -> None:
    """Start all ranks, and start them anew while some of them die."""
    for left in reversed(range(retries + 1)):
        fit = start()
        reasons = _watch(fit, mailbox, progress)
        INTERRUPTION.check()
        if reasons:
            raise RankError(reasons[0])
        if fit.error is None:
            return
        reason = in_one_line(fit.error)
        if not left:
            raise EngineError(f"ranks have died ({reason}); what was done is in the run's checkpoints: resume it")
        progress.note(f"ranks have died ({reason}); all go on from the last checkpoint")


class _Fit(threading.Thread):
    """Ray Train at work, in a thread of its own: in the main one it would take Ctrl-C for itself."""

    def __init__(self, trainer: Any) -> None:
        super().__init__(name="ddcnn-ray-train", daemon=True)
        self.trainer = trainer
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Train, and keep what went wrong."""
        try:
            self.trainer.fit()
        except BaseException as error:
            self.error = error


def _watch(fit: _Fit, mailbox: Any, progress: Progress) -> list[str]:
    """Pass on what ranks tell until all have ended; return the errors they ended by, the first one first."""
    import ray

    reasons: list[str] = []
    sent, going = False, True
    while going:
        fit.join(_WAIT)
        going = fit.is_alive()
        for _, what, values in ray.get(mailbox.take.remote()):
            if what == "ended":
                reasons += values
            else:
                replay_event(progress, what, values)
        if INTERRUPTION.signal is not None and not sent:
            ray.get(mailbox.send.remote(INTERRUPTION.signal))
            sent = True
    return reasons


def _rank(order: dict[str, Any]) -> None:
    """Do the work of one rank; an error of ours is told, and ends the process, or the others would wait for it."""
    import ray

    os.environ["OMP_NUM_THREADS"] = str(order["threads"])  # these are this rank's, and not to be shared with others
    torch.set_num_threads(order["threads"])
    if Path(order["folder"]).is_dir():  # paths of the configuration are relative to it; Ray Train has left it
        os.chdir(order["folder"])
    mailbox = order["mailbox"]
    rank = int(os.environ["RANK"])
    progress = TellingProgress(lambda what, values: mailbox.put.remote(rank, what, values))
    try:
        with _hearing(mailbox):
            find(order["function"])(order["arguments"], progress if rank == 0 else Progress())
    except InterruptionError:
        return  # who sent the signal knows
    except RankError:
        raise  # another one has died, or told why it ends
    except DdcnnError as error:
        traceback.print_exc()
        ray.get(mailbox.put.remote(rank, "ended", [f"rank {rank}: {error}"]))
        os._exit(1)


@contextmanager
def _hearing(mailbox: Any) -> Iterator[None]:
    """Take note of a signal that was sent to the process which asked for this one."""
    import ray

    done = threading.Event()

    def hear() -> None:
        while not done.wait(_WAIT):
            number = ray.get(mailbox.signal.remote())
            if number is not None:
                INTERRUPTION.signal = number
                return

    thread = threading.Thread(target=hear, name="ddcnn-hearing", daemon=True)
    thread.start()
    try:
        with INTERRUPTION.deferred():
            yield
    finally:
        done.set()
        thread.join()
        INTERRUPTION.signal = None


@contextmanager
def _notes(shared: Path) -> Iterator[Path]:
    """Provide a folder for what Ray Train writes, and remove it."""
    shared.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".ray-train-", dir=shared.resolve()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
