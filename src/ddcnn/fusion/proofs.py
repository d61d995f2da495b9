"""`Proofs`: of which networks it has been proved that they run fused as they would alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from ddcnn.fusion.structural_equality import code, structure
from ddcnn.machine import device_name


class Proofs:
    """Certificates of what has been proved, to be kept with a run, so that nothing is proved twice.

    A certificate is the SHA-256 of the structure and code of the network, the shape of a sample, the backend, the
    version of PyTorch and the name of the processor or GPU: on another machine, or with another PyTorch, networks are
    proved again. The number of networks is not in it: the rules of the operator table take N as an axis of any length,
    so that a group of another size, or a subset after an early stop, runs the same rules.

    Parameters
    ----------
    certificates
        From another run, or another process.
    """

    def __init__(self, certificates: Iterable[str] = ()) -> None:
        self._known = set(certificates)

    def holds(self, module: nn.Module, shape: Sequence[int], backend: str, device: torch.device) -> bool:
        """Tell whether networks like this one have been proved, for samples (C, *s) on this device."""
        return _certificate(module, shape, backend, device) in self._known

    def add(self, module: nn.Module, shape: Sequence[int], backend: str, device: torch.device) -> None:
        """Take note that networks like this one have been proved."""
        self._known.add(_certificate(module, shape, backend, device))

    def update(self, others: Proofs) -> None:
        """Take over what others know."""
        self._known |= others._known

    def certificates(self) -> list[str]:
        """Return all of them, as JSON takes them."""
        return sorted(self._known)


def _certificate(module: nn.Module, shape: Sequence[int], backend: str, device: torch.device) -> str:
    facts = [
        repr(structure(module)),
        code(module),
        list(shape),
        backend,
        torch.__version__,
        device.type,
        device_name(device),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
