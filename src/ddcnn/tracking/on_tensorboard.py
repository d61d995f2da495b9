"""TensorBoard: events in ``tensorboard/`` beside the run."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

from ddcnn.config import Config
from ddcnn.tracking.tracker import Tracker


class OnTensorBoard(Tracker):
    """Writes to ``tensorboard/RUN``; a run that is begun anew under the same name, to ``RUN-2``, ``RUN-3``, ..."""

    def begin_run(self, place: Path, name: str, config: Config, *, resuming: bool) -> str:
        """Open the folder; one that is resumed has one already."""
        from torch.utils.tensorboard import SummaryWriter

        folder = place / "tensorboard"
        names = itertools.chain([name], (f"{name}-{n}" for n in itertools.count(2)))
        taken = list(itertools.takewhile(lambda one: (folder / one).exists(), names))
        chosen = taken[-1] if resuming and taken else name if not taken else f"{name}-{len(taken) + 1}"
        self._writer = SummaryWriter(str(folder / chosen), flush_secs=10)
        self._writer.add_text("config.yaml", "```\n" + config.to_yaml() + "```")
        return f"tensorboard --logdir {folder}"

    def numbers(self, values: Mapping[str, float], epoch: int) -> None:
        """Write them."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)

    def end_run(self, *, complete: bool) -> None:  # noqa: ARG002 - TensorBoard does not ask
        """Close the files."""
        self._writer.close()


TRACKER = OnTensorBoard
