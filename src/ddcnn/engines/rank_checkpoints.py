"""Checkpoints of a coherent model that is spread over ranks: one of them keeps what all have."""

from __future__ import annotations

import time

import torch

from ddcnn.engines.rank_rng import RankRandomness
from ddcnn.engines.ranks import Ranks
from ddcnn.training import Checkpoints, State
from ddcnn.training.checkpoint import packed, unpacked

_BETWEEN = 1.0  # seconds: so long may a signal wait, and so rarely do ranks ask each other


class RankCheckpoints:
    """The `ddcnn.training.Checkpoints` that rank 0 keeps for all ranks.

    State is kept under the names of the subdomains, so it goes on with another number of ranks, or with none. All
    ranks write, and end, after the same step: about once a second they tell each other three numbers.

    Parameters
    ----------
    ranks
        Between whom.
    kept
        Where; only rank 0 uses it.
    stream
        What local CNNs draw here; it goes on if there are as many ranks as before, and else begins anew.
    """

    def __init__(self, ranks: Ranks, kept: Checkpoints, stream: RankRandomness) -> None:
        self.ranks, self.kept, self.stream = ranks, kept, stream
        self._left = 1  # steps until the ranks ask each other
        self._steps, self._asked = 1, time.monotonic()

    def load(self) -> State | None:
        """Return the newest state that rank 0 has; None if there is none."""
        found = self.kept.load() if self.ranks.first else None
        content = self.ranks.shared(b"" if found is None else packed(found))
        if not content:
            return None
        state = unpacked(content, self.kept.folder)
        self.stream.load(state.part(self._name))
        return state

    @property
    def due(self) -> bool:
        """Whether rank 0 should write."""
        mine = torch.tensor([int(self.ranks.first and self.kept.due)])
        return bool(self.ranks.all_max(mine))

    def asked(self, signal: int | None) -> tuple[bool, int | None]:
        """Return whether to write now, and the signal that one of the ranks was sent; mostly neither."""
        self._left -= 1
        if self._left:
            return False, None
        now = time.monotonic()
        pace = (now - self._asked) / self._steps
        write = self.ranks.first and self.kept.overdue
        steps = max(1, int(_BETWEEN / max(pace, 1e-6))) if self.ranks.first else 0
        mine = torch.tensor([signal or 0, int(write), steps])
        number, overdue, self._left = self.ranks.all_max(mine).tolist()
        self._steps, self._asked = self._left, now
        return bool(overdue or number), number or None

    def save(self, state: State) -> None:
        """Keep what all ranks have."""
        drawn = {f"{self._name}/{name}": value for name, value in self.stream.state().items()}
        tensors = self.ranks.union(state.tensors | drawn)
        if self.ranks.first:
            self.kept.save(State(tensors, state.numbers))

    @property
    def _name(self) -> str:
        return f"drawn/rank {self.ranks.rank} of {self.ranks.count}"
