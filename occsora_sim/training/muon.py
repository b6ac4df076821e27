"""Muon (Jordan et al. 2024): steps of matrices made orthogonal, so that all directions are learned and not the steepest
few; everything else by AdamW. Where time is short, a transformer gets to the same loss in about half of the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from occsora_sim.training.loop import LoopConfig

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients that take singular values to about 1 in five rounds."""


class Muon(torch.optim.Optimizer):
    """Muon for `matrices`, AdamW for the `others`; one learning rate for both (Liu et al. 2025, section 2.2).

    Args:
        matrices: parameters of two or more axes that map features to features; the first axis is the output.
        others: embeddings, first and last layers, biases, norms.
        lr: learning rate.
        weight_decay: of both.
        betas: of AdamW.
        momentum: of Muon.

    """

    def __init__(
        self, matrices: Iterable[Tensor], others: Iterable[Tensor], *, lr: float, weight_decay: float,
        betas: tuple[float, float], momentum: float = 0.95,
    ) -> None:  # fmt: skip
        groups = [{"params": list(matrices), "matrix": True}, {"params": list(others), "matrix": False}]
        defaults = {"lr": lr, "weight_decay": weight_decay, "betas": betas, "momentum": momentum}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step; `closure` is not called."""
        for group in self.param_groups:
            update = self._orthogonal if group["matrix"] else self._adamw
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update(parameter, parameter.grad, group, self.state[parameter])

    def _orthogonal(
        self, parameter: Tensor, grad: Tensor, group: dict[str, Any], state: dict[str, Any]
    ) -> None:
        if not state:
            state["momentum"] = torch.zeros_like(grad)
        buffer = state["momentum"]
        buffer.mul_(group["momentum"]).add_(grad)
        change = orthogonal((grad + group["momentum"] * buffer).flatten(1)).view_as(parameter)
        rows, columns = parameter.shape[0], parameter[0].numel()
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        # As large as AdamW's steps usually are.
        parameter.add_(change, alpha=-group["lr"] * 0.2 * max(rows, columns) ** 0.5)

    def _adamw(self, parameter: Tensor, grad: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(grad), torch.zeros_like(grad)
        first, second = group["betas"]
        adamw(
            [parameter], [grad], [state["exp_avg"]], [state["exp_avg_sq"]], [], [state["step"]], foreach=False,
            amsgrad=False, beta1=first, beta2=second, lr=group["lr"], weight_decay=group["weight_decay"], eps=1e-8,
            maximize=False,
        )  # fmt: skip


def muon_of_body(config: LoopConfig, parameters: Mapping[str, nn.Parameter]) -> Muon:
    """Muon for the matrices of a model's `body`, AdamW for the rest, as `training.loop.run` takes it."""
    body = {name for name, p in parameters.items() if name.startswith("body.") and p.ndim > 1}
    return _muon(config, parameters, body)


def muon_of_blocks(config: LoopConfig, parameters: Mapping[str, nn.Parameter]) -> Muon:
    """Muon for the matrices of a transformer's `blocks`, AdamW for the rest."""
    blocks = {name for name, p in parameters.items() if "blocks." in name and p.ndim == 2}
    return _muon(config, parameters, blocks)


def muon_of_convolutions(config: LoopConfig, parameters: Mapping[str, nn.Parameter]) -> Muon:
    """Muon for the convolutions between the first, `stem`, and the last, `rate`; AdamW for the rest."""
    ends = ("stem.", "rate.")
    return _muon(
        config,
        parameters,
        {name for name, p in parameters.items() if p.ndim == 4 and not name.startswith(ends)},
    )


def _muon(config: LoopConfig, parameters: Mapping[str, nn.Parameter], matrices: set[str]) -> Muon:
    return Muon(
        [p for name, p in parameters.items() if name in matrices],
        [p for name, p in parameters.items() if name not in matrices],
        lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, config.beta2),
    )  # fmt: skip


def orthogonal(matrix: Tensor, rounds: int = 5) -> Tensor:
    """A matrix (m, n) with singular values near 1 and the same directions, by Newton and Schulz, in bfloat16."""
    a, b, c = _NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(rounds):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if tall else x).to(matrix.dtype)
