"""`LauncherEnvironment`: rank and number of processes, from the variables that the launcher sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.distributed as dist

from ddcnn.errors import ConfigError

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class LauncherEnvironment:
    """What the launcher told this process by environment variables.

    Attributes
    ----------
    rank, count
        Which of how many processes this is.
    local_rank, local_count
        The same on this machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> LauncherEnvironment:
        """Read the variables that ``torchrun`` sets; without them, one process is all.

        Raises
        ------
        ConfigError
            Some are missing, or they are not what they should be.
        """
        if environment.get("WORLD_SIZE", "1") == "1":
            return cls()
        if missing := [name for name in _NEEDED if not environment.get(name)]:
            count = environment["WORLD_SIZE"]
            raise ConfigError(f"WORLD_SIZE is {count}, but {', '.join(missing)} is not set; start with torchrun")
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        texts = dict(zip(names, (environment.get(name, "") for name in names), strict=True))
        texts["LOCAL_RANK"] = texts["LOCAL_RANK"] or texts["RANK"]
        texts["LOCAL_WORLD_SIZE"] = texts["LOCAL_WORLD_SIZE"] or texts["WORLD_SIZE"]
        found = cls(*(int(text) if text.isdecimal() else -1 for text in texts.values()))
        if not (0 <= found.rank < found.count and 0 <= found.local_rank < found.local_count):
            told = ", ".join(f"{name}={text}" for name, text in texts.items())
            raise ConfigError(f"ranks should count from 0 and stay below their number, got {told}; start with torchrun")
        return found

    @classmethod
    def of_group(cls, environment: Mapping[str, str]) -> LauncherEnvironment:
        """Ask PyTorch's process group, which is there, for this process; variables say what it has on its machine."""
        rank, count = dist.get_rank(), dist.get_world_size()
        local = (environment.get(name, "") for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
        local_rank, local_count = (int(text) if text.isdecimal() else -1 for text in local)
        known = 0 <= local_rank < local_count
        return cls(rank, count, *((local_rank, local_count) if known else (rank, count)))
