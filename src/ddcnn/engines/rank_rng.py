"""Random numbers that differ from rank to rank, beside those that are the same on all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from ddcnn.engines.ranks import Ranks
from ddcnn.seeds import derive_seed, own_random_numbers


class RankRandomness:
    """Random stream of the local CNNs of a rank, for dropout for example.

    It follows from the seed that PyTorch's generator has, which is the same on all ranks, and from the rank; it starts
    anew when that generator is given another seed. Without other ranks it is that generator.

    Parameters
    ----------
    ranks
        Of which rank it is.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._seed: int | None = None
        self._cpu = torch.empty(0, dtype=torch.uint8)
        self._gpus: list[Tensor] = []

    def state(self) -> dict[str, Tensor]:
        """Return where it has come to."""
        if self._seed is None:
            return {}
        seed = torch.frombuffer(bytearray(self._seed.to_bytes(8, "little")), dtype=torch.uint8)
        return {"seed": seed, "cpu": self._cpu} | {f"gpu{i}": gpu for i, gpu in enumerate(self._gpus)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on where another came to; from nothing, begin anew."""
        self._seed = int.from_bytes(state["seed"].numpy().tobytes(), "little") if state else None
        self._cpu = state.get("cpu", self._cpu)
        self._gpus = [value for name, value in sorted(state.items()) if name.startswith("gpu")]

    @contextmanager
    def drawn(self, device: torch.device) -> Iterator[None]:
        """Let layers on a device draw from it, and leave PyTorch's generators as they were."""
        if self.ranks.alone:
            yield
            return
        gpus = [device] if device.type == "cuda" else []
        with own_random_numbers(device):
            seed = torch.initial_seed()
            if seed == self._seed:
                torch.set_rng_state(self._cpu)
                for gpu, state in zip(gpus, self._gpus, strict=True):
                    torch.cuda.set_rng_state(state, gpu)
            else:
                torch.manual_seed(derive_seed(seed, "rank", self.ranks.rank))
            yield
            self._seed, self._cpu = seed, torch.get_rng_state()
            self._gpus = [torch.cuda.get_rng_state(gpu) for gpu in gpus]
