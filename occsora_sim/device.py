"""The device that worlds and commands compute on."""

from __future__ import annotations

from occsora_sim.errors import ConfigurationError


def check_device(name: str) -> str:
    """`name` when torch can compute on it ("cpu", "cuda", "cuda:1", "mps").

    Raises:
        ConfigurationError: there is no such device here.

    """
    import torch

    if name.startswith("cuda") and torch.cuda._is_in_bad_fork():
        raise ConfigurationError(
            f"device '{name}' cannot be used in a process forked from one that has used it; begin processes with the "
            "context 'spawn'"
        )
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        found = ["cpu"]
        if torch.cuda.is_available():
            found += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        if torch.backends.mps.is_available():
            found.append("mps")
        raise ConfigurationError(
            f"device '{name}' cannot be used here; there is {', '.join(found)}"
        ) from error
    if device.type == "meta":
        raise ConfigurationError("device 'meta' holds no numbers; use cpu or cuda")
    return name
