"""What ``auto`` means for the batch size and the learning rate, which depend on the images."""

from __future__ import annotations

from ddcnn.config import TrainingConfig

_MOST = 128
_STEPS = 8  # an epoch of fewer steps teaches little
_PIXELS = 2**23  # of a batch: the first layers of a CNN keep hundreds of bytes for each
_LEAST = 4  # batch norm measures on them
_RATE = {"sgd": 0.15 / _MOST, "adam": 1e-3 / _MOST**0.5, "adamw": 1e-3 / _MOST**0.5}


def with_batch_size(training: TrainingConfig, *, samples: int, pixels: int) -> TrainingConfig:
    """Return the configuration with nothing left at ``auto``.

    The batch size is a power of two: 128, or less so that an epoch has 8 steps and a batch at most 2^23 pixels, but 4
    at least. The learning rate is 0.15 for batches of 128, in proportion to the batch size, for SGD (Goyal et al.,
    arXiv 1706.02677), and 1e-3, in proportion to its root, for Adam (Malladi et al., arXiv 2205.10287).

    Parameters
    ----------
    samples, pixels
        Training images, and pixels of one of them.

    Examples
    --------
    >>> auto = TrainingConfig(batch_size="auto", lr="auto")
    >>> large = with_batch_size(auto, samples=140, pixels=128 * 128 * 64)
    >>> large.batch_size, large.lr
    (8, 0.009375)
    """
    batch, rate = training.batch_size, training.lr
    if batch is None:
        room = min(_MOST, samples // _STEPS, _PIXELS // pixels)
        batch = max(_LEAST, 2 ** (max(room, 1).bit_length() - 1))
    if rate is None:
        taken = min(batch, max(samples, 1))  # a batch has at most all samples
        rate = _RATE[training.optimizer] * (taken if training.optimizer == "sgd" else taken**0.5)
    return training.model_copy(update={"batch_size": batch, "lr": rate})
