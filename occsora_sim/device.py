"""The device that is computed on, and what to install where it is missing."""

from __future__ import annotations

import functools
from contextvars import ContextVar

import torch

from occsora_sim.errors import ConfigurationError

CUDA_INDEX = "https://download.pytorch.org/whl/cu130"
"""PyTorch's index of builds with CUDA 13.0; those of other versions lie beside it."""


def check_device(name: str) -> str:
    """`name` when torch can compute on it ("cpu", "cuda", "cuda:1", "mps").

    Raises:
        ConfigurationError: there is no such device here; the message says what to install.

    """
    if str(name).startswith("cuda") and torch.cuda._is_in_bad_fork():
        raise ConfigurationError(
            f"device '{name}' cannot be used in a process forked from one that has used it; begin processes with the "
            "context 'spawn'"
        )
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ConfigurationError(f"device '{name}' cannot be used here: {_reason(str(name))}") from error
    if device.type == "meta":
        raise ConfigurationError("device 'meta' holds no numbers; use cpu or cuda")
    return name


def _reason(name: str) -> str:
    found = ["cpu"]
    if torch.cuda.is_available():
        found += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    there = f"there is {', '.join(found)}"
    if not name.startswith("cuda") or torch.cuda.is_available():
        return there
    if torch.version.cuda is None and torch.version.hip is None:
        version = torch.__version__.split("+")[0]
        return (
            f"this PyTorch ({torch.__version__}) was built without CUDA, {there}; install a build with CUDA: "
            f"pip install --force-reinstall torch=={version} --index-url {CUDA_INDEX}"
        )
    return f"PyTorch finds no GPU or no driver for it, {there}; install the GPU's driver (nvidia-smi must list it)"


watched: ContextVar[bool] = ContextVar("watched", default=False)
"""Whether a `watch.Watch` takes the host for a device that it would have to wait for."""


def is_host(device: torch.device) -> bool:
    """Whether what lies on `device` can be read without waiting."""
    return device.type == "cpu" and not watched.get()


@functools.cache
def fast_bfloat16(device: torch.device) -> bool:
    """Whether a network runs faster in bfloat16 on `device`: on a CPU with units for it (AMX, or AVX-512's; lab
    book, 2026-11-30), on a GPU where it has them.
    """
    if device.type == "cpu":
        asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        return any(getattr(torch.cpu, name, lambda: False)() for name in asked)
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
