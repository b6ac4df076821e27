"""The trajectory prompt: an MLP that turns the planned ego motion into a conditioning vector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from occsora_sim.errors import ActionError, ConfigurationError


@dataclass(frozen=True, kw_only=True)
class TrajectoryPromptConfig:
    """Sizes of the prompt's MLP; the defaults are OccSora's 64-128-128-256.

    Attributes:
        frames: f, poses in a prompt.
        features: k, numbers a pose (2: x, y; 3: x, y, yaw).
        hidden: widths of the hidden layers.
        out: width of the conditioning vector.

    """

    frames: int = 32
    features: int = 2
    hidden: tuple[int, ...] = (128, 128)
    out: int = 256

    def __post_init__(self) -> None:
        if min(self.frames, self.features, self.out, *self.hidden, 1) < 1:
            raise ConfigurationError(
                f"trajectory prompt: frames {self.frames}, features {self.features}, hidden {self.hidden} "
                f"and out {self.out} must all be at least 1"
            )


class TrajectoryPrompt(nn.Module):
    """Trajectory -> vector, with a trained vector that stands for "no prompt".

    The reference has no such vector: its unconditional branch repeats the prompt, so guidance does nothing.
    """

    def __init__(self, config: TrajectoryPromptConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        width = config.frames * config.features
        for hidden in config.hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU()]
            width = hidden
        layers.append(nn.Linear(width, config.out))
        self.mlp = nn.Sequential(*layers)
        # Zero is neutral: untrained, an unconditional row sees the noise level alone.
        self.null = nn.Parameter(torch.zeros(config.out))

    def forward(
        self, trajectory: torch.Tensor | None, keep: torch.Tensor | None = None, batch: int | None = None
    ) -> torch.Tensor:
        """Embed a batch of trajectories.

        Args:
            trajectory: (b, f, k) float; None: the null prompt for `batch` rows.
            keep: (b,) bool, False where the null prompt takes the trajectory's place; None keeps all.
            batch: rows wanted when `trajectory` is None.

        Returns:
            (b, out).

        Raises:
            ActionError: the trajectory does not have f poses of k numbers.

        """
        if trajectory is None:
            return self.null.expand(1 if batch is None else batch, -1)
        wanted = (self.config.frames, self.config.features)
        if trajectory.ndim != 3 or tuple(trajectory.shape[1:]) != wanted:
            raise ActionError(
                f"trajectory prompt: got shape {tuple(trajectory.shape)}, need (batch, {wanted[0]}, "
                f"{wanted[1]}); give one pose for each future frame"
            )
        embedding = self.mlp(trajectory.flatten(1).to(self.null.dtype))
        if keep is None:
            return embedding
        return torch.where(keep[:, None], embedding, self.null.to(embedding.dtype))


def keep_mask(
    batch: int, dropout: float, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """(batch,) bool, False with probability `dropout`: rows to train unprompted (Ho & Salimans 2022)."""
    draw = torch.rand(batch, generator=generator, device=generator.device if generator else "cpu")
    return (draw >= dropout).to(device)
