"""`Trials`: what the trainings of runs cost here; each kind of them is counted and tried out once."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from ddcnn.planning import Footprint, Setup, Trial, Work, computing_with, footprint, try_out

_OF_TRAINING = {
    *("optimizer", "momentum", "batch_size", "flip", "shift", "rotation", "crop", "jitter", "mixup", "cutmix"),
    *("augment", "clip_norm", "sampling", "ema", "sam", "local_objective"),
}
_TURNS = 8  # steps, of training or as long, that a hasty trial takes
_SHARE = 0.05  # of a run, that may be spent on trials


@dataclass
class Trials:
    """What was counted and measured so far.

    Attributes
    ----------
    careful
        As of `ddcnn.planning.try_out`.
    """

    careful: bool = True
    _measured: dict[str, Trial] = field(default_factory=dict)
    _counted: dict[str, Footprint] = field(default_factory=dict)

    def of(self, setup: Setup, work: Work, threads: int | None = None) -> Trial:
        """Return what a training costs, with so many threads; None: with those of this process."""
        key = _key(setup, work, threads)
        if key not in self._measured and threads is not None:
            with computing_with(threads):
                self._measured[key] = try_out(work, careful=self.careful)
        elif key not in self._measured:
            self._measured[key] = try_out(work, careful=self.careful)
        return self._measured[key]

    def footprint(self, setup: Setup, work: Work) -> Footprint:
        """Return what its steps compute and keep."""
        key = _key(setup, work, None)
        if key not in self._counted:
            self._counted[key] = footprint(work)
        return self._counted[key]


def worth_trying(setup: Setup, works: list[Work]) -> bool:
    """Tell whether the trainings on images are so long that trials of all of them take little of their time."""
    on_images = [work for work in works if work.train.subdomains]
    kinds = {_key(setup, work, None) for work in on_images}
    return _SHARE * sum(work.times * work.steps for work in on_images) >= _TURNS * len(kinds)


def _key(setup: Setup, work: Work, threads: int | None) -> str:
    """Return all that the cost of a step depends on."""
    sections = {"data", "model"} | (set() if work.stage == "global" else {"decomposition", "aggregation", "compose"})
    config = setup.config.model_dump(mode="json", include=sections)
    config["data"].pop("fold")
    training = setup.config.training.model_dump(mode="json", include=_OF_TRAINING)
    compute = setup.config.compute.model_dump(mode="json", include={"precision", "backend", "memory", "device"})
    return json.dumps([config, training, compute, str(work.alike or work.stage), threads])
