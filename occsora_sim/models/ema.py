"""Exponential moving average of a module's trained parameters."""

from __future__ import annotations

import torch
from torch import nn

from occsora_sim.errors import CheckpointError, ConfigurationError


class EMA:
    """Averages the parameters that are trained; buffers (running statistics) are copied as they are.

    The decay warms up as min(decay, (1 + n) / (10 + n)) after n updates, so that the random start is
    forgotten within a few steps instead of 1 / (1 - decay) of them.
    """

    def __init__(self, module: nn.Module, decay: float = 0.9999) -> None:
        if not 0.0 <= decay < 1.0:
            raise ConfigurationError(f"ema: decay {decay} must be at least 0 and below 1")
        self.decay = decay
        self.updates = 0
        self._average = {name: tensor.detach().clone() for name, tensor in _averaged(module).items()}
        self._copied = {name: tensor.detach().clone() for name, tensor in _copied(module).items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take one step towards the present parameters of `module`, the one this was made for."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        present = _averaged(module)
        # One fused call over all parameters: a loop costs more than the arithmetic on small models.
        torch._foreach_lerp_(
            list(self._average.values()), [present[name].detach() for name in self._average], 1.0 - decay
        )
        buffers = _copied(module)
        for name, tensor in self._copied.items():
            tensor.copy_(buffers[name])

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the trained parameters and the buffers of `module` with the averaged ones."""
        targets = dict(module.named_parameters()) | dict(module.named_buffers())
        for name, tensor in (self._average | self._copied).items():
            targets[name].copy_(tensor)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Tensors alone, so that safetensors can hold them."""
        return {"updates": torch.tensor(self.updates), **self._average, **self._copied}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Restore what `state_dict` gave.

        Raises:
            CheckpointError: names or shapes are not those of this average.

        """
        own = self._average | self._copied
        wrong = set(state) ^ {"updates", *own}
        wrong |= {name for name in own if name in state and own[name].shape != state[name].shape}
        if wrong:
            raise CheckpointError(
                f"ema: the state does not fit this model (first odd one: {min(wrong)}); "
                "use the preset that made it"
            )
        self.updates = int(state["updates"])
        for name, tensor in own.items():
            tensor.copy_(state[name])


def _averaged(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in module.named_parameters() if tensor.requires_grad}


def _copied(module: nn.Module) -> dict[str, torch.Tensor]:
    kept = module.state_dict(
        keep_vars=True
    )  # leaves out what a checkpoint leaves out, such as fixed positions
    return {name: tensor for name, tensor in module.named_buffers() if name in kept}
