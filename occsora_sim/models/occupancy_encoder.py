"""A small encoder of occupancy frames: the feature space in which real and generated frames are compared.

It is no part of a world model and never changes with one. Distances in its space compare only with distances in the
same space, so its name and digest stand beside every figure that it gave.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from occsora_sim.checkpoint import read_tensors, write_tensors
from occsora_sim.device import check_device
from occsora_sim.errors import CheckpointError, ConfigurationError
from occsora_sim.models.columns import ColumnEncoder

KIND = "occupancy_encoder"


@dataclass(frozen=True, kw_only=True)
class OccupancyEncoderConfig:
    """Sizes of an `OccupancyEncoder`.

    Attributes:
        height: z, layers of a frame.
        column: features of a column.
        width: channels at a quarter of the resolution; doubled at an eighth and at a sixteenth.
        features: d.

    """

    height: int = 16
    column: int = 16
    width: int = 32
    features: int = 32

    def __post_init__(self) -> None:
        if not all(1 <= size <= 512 for size in (self.height, self.column, self.width, self.features)):
            raise ConfigurationError(f"occupancy encoder: every size must be 1 to 512, got {self}")


class OccupancyEncoder(nn.Module):
    """Frames to features: columns, three strided convolutions, mean and spread over the ground plane."""

    def __init__(self, config: OccupancyEncoderConfig) -> None:
        super().__init__()
        self.config = config
        w = config.width
        self.columns = ColumnEncoder(config.height, config.column)
        self.quarter = nn.Conv2d(config.column, w, 4, stride=4)
        self.near = nn.Conv2d(w, w, 3, padding=1)
        self.eighth = nn.Conv2d(w, 2 * w, 2, stride=2)
        self.far = nn.Conv2d(2 * w, 2 * w, 3, padding=1)
        self.sixteenth = nn.Conv2d(2 * w, 4 * w, 2, stride=2)
        self.head = nn.Sequential(nn.Linear(14 * w, 4 * w), nn.GELU(), nn.Linear(4 * w, config.features))

    def forward(self, labels: Tensor) -> Tensor:
        """(n, x, y, z) uint8 -> (n, d) float32 on the unit sphere times the root of d."""
        a = F.gelu(self.quarter(self.columns(labels)))
        a = a + F.gelu(self.near(a))
        b = F.gelu(self.eighth(a))
        b = b + F.gelu(self.far(b))
        c = F.gelu(self.sixteenth(b))
        pooled = [part for level in (a, b, c) for part in (level.mean((2, 3)), level.std((2, 3)))]
        return F.normalize(self.head(torch.cat(pooled, dim=1)), dim=1) * self.config.features**0.5

    @torch.no_grad()
    def encode(self, frames: Tensor, batch: int = 16) -> Tensor:
        """Features (n, d) float64 of frames (n, x, y, z) uint8, a few at a time."""
        if not len(frames):
            return torch.zeros(0, self.config.features, dtype=torch.float64)
        return torch.cat([self(part).double().cpu() for part in frames.split(batch)])


def save_encoder(encoder: OccupancyEncoder, path: Path, header: dict[str, Any]) -> None:
    """Write an encoder in half precision, its configuration and `header` inside."""
    tensors = {name: value.half() for name, value in encoder.state_dict().items()}
    write_tensors(path, tensors, {"kind": KIND, "config": asdict(encoder.config), **header})


def load_encoder(path: Path, device: str = "cpu") -> tuple[OccupancyEncoder, dict[str, Any]]:
    """An encoder and its file's header.

    Raises:
        CheckpointError: the file is missing, damaged, foreign or of another kind.

    """
    tensors, header = read_tensors(path, kind=KIND)
    try:
        encoder = OccupancyEncoder(OccupancyEncoderConfig(**header["config"]))
        encoder.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: holds another encoder than it says; get it again") from error
    return encoder.to(check_device(device)).eval(), header
