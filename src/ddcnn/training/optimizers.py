"""Optimisers and learning-rate schedules from a configuration."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from ddcnn.config import TrainingConfig


def build_optimizer(groups: Sequence[Sequence[nn.Parameter]], config: TrainingConfig) -> torch.optim.Optimizer:
    """Return an element-wise optimiser of groups of parameters, so that stacked networks are optimised as if alone."""
    trained = [{"params": list(group)} for group in groups]
    fused = all(p.device.type in ("cpu", "cuda") for group in groups for p in group) or None
    if config.optimizer == "sgd":
        nesterov = config.nesterov and config.momentum > 0
        return torch.optim.SGD(
            trained, config.peak_lr, config.momentum, weight_decay=config.weight_decay, nesterov=nesterov, fused=fused
        )
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(trained, config.peak_lr, weight_decay=config.weight_decay, fused=fused)


def schedule_factor(config: TrainingConfig, step: int, steps: int) -> float:
    """Return the factor on the learning rate at step 0..steps-1 of a whole training.

    ``onecycle``: up from 1/25 to 1 over the warm-up and down to 1e-4, both as half cosines (Smith and Topin 2018, as
    in fast.ai). ``cosine``: down to 0. ``step``: times gamma at each milestone. ``constant`` and ``plateau``: 1; a
    plateau is a matter of each network, see `ddcnn.training.loop`.

    >>> config = TrainingConfig(schedule="onecycle", warmup=0.25)
    >>> [round(schedule_factor(config, step, 9), 4) for step in (0, 1, 2, 5, 8)]
    [0.04, 0.52, 1.0, 0.5, 0.0001]
    """
    at = step / max(1, steps - 1)
    if config.schedule == "onecycle":
        if at < config.warmup:
            return _half_cosine(1 / 25, 1.0, at / config.warmup)
        return _half_cosine(1.0, 1e-4, (at - config.warmup) / (1 - config.warmup))
    if config.schedule == "cosine":
        return _half_cosine(1.0, 0.0, step / steps)
    if config.schedule == "step":
        return config.gamma ** sum(step >= milestone * steps for milestone in config.milestones)
    return 1.0


def _half_cosine(start: float, stop: float, at: float) -> float:
    return stop + (start - stop) * (1 + math.cos(math.pi * at)) / 2
