"""The machine in words."""

from __future__ import annotations

import platform

import pytest
import torch

from ddcnn.machine import device_name, processor


def test_the_processor_has_a_name() -> None:
    assert processor() == device_name(torch.device("cpu"))
    assert processor() or not platform.processor()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_gpu_has_a_name() -> None:
    assert device_name(torch.device("cuda")) == torch.cuda.get_device_name()
