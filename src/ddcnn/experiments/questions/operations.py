"""How many floating-point operations an image costs: one global CNN against all local CNNs."""

from __future__ import annotations

import torch
from torch import nn

from ddcnn.network_factory import NetworkFactory
from ddcnn.planning import Operations
from ddcnn.seeds import own_random_numbers


def operations(networks: NetworkFactory) -> tuple[int, int]:
    """Return the operations of a forward pass of one image: of the global CNN, and of all local CNNs together.

    Convolutions and matrix products are counted, which are nearly all. Forward and backward pass have the same ratio.
    """
    by_shape: dict[tuple[int, ...], int] = {}
    total = 0
    for subdomain in networks.subdomains:
        channels = networks.channels + subdomain.added_channels
        shape = (channels, *subdomain.shape)
        if shape not in by_shape:
            by_shape[shape] = _counted(networks.local_module(subdomain.index), channels, subdomain.shape)
        total += by_shape[shape]
    return max(1, _counted(networks.global_module(), networks.channels, networks.image_size)), total


def _counted(module: nn.Module, channels: int, size: tuple[int, ...]) -> int:
    counter = Operations()
    with counter, torch.no_grad(), own_random_numbers():
        module.eval()(torch.zeros(1, channels, *size))
    return counter.total
