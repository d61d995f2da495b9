"""Let PyTorch's exporters work without telling about themselves: what matters is checked afterwards."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

_LOGGERS = ("torch.onnx", "torch.export", "torch.fx", "torch.fx.experimental.symbolic_shapes", "onnxscript", "onnx_ir")


@contextmanager
def quietly() -> Iterator[None]:
    """Silence warnings and loggers, and start no thread for a progress bar that is never shown."""
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        if (bars := _bars()) is not None:  # torch.fx makes one, switched off, whose monitor would stay
            stack.callback(setattr, bars, "monitor_interval", bars.monitor_interval)
            bars.monitor_interval = 0
        yield


def _bars() -> Any:
    try:
        return importlib.import_module("tqdm").tqdm
    except ImportError:
        return None
