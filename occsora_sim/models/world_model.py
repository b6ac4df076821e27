"""The closed-loop world model: ground that is outpainted, road users that move and enter."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from occsora_sim.errors import CheckpointError, ConfigurationError
from occsora_sim.grid import Grid
from occsora_sim.models.entries import Entries, EntriesConfig
from occsora_sim.models.ground.model import GroundConfig, GroundModel
from occsora_sim.models.traffic import TrafficConfig, TrafficModel

MOST_FRAMES = 64
"""Most frames of a start, and of a chunk."""


@dataclass(frozen=True, kw_only=True)
class WorldModelConfig:
    """Sizes of a closed-loop world model; it travels in the checkpoint.

    Attributes:
        preset: the name of the preset that this is.
        grid: the voxel grid.
        history: frames that a start needs.
        frames: f, frames per chunk.
        ground: sizes of the ground model.
        traffic: sizes of the traffic model.
        entries: sizes of the model of who comes into view.

    """

    preset: str = "small"
    grid: Grid = field(default_factory=Grid)
    history: int = 4
    frames: int = 2
    ground: GroundConfig = field(default_factory=GroundConfig)
    traffic: TrafficConfig = field(default_factory=TrafficConfig)
    entries: EntriesConfig = field(default_factory=EntriesConfig)

    def __post_init__(self) -> None:
        if not (2 <= self.history <= MOST_FRAMES and 1 <= self.frames <= MOST_FRAMES):
            raise ConfigurationError(
                f"world model: history {self.history} must be at least 2, frames {self.frames} at least 1, and neither "
                f"above {MOST_FRAMES}"
            )
        columns = self.ground.column, self.ground.height
        if columns != (self.grid.voxel, self.grid.shape[2]):
            raise ConfigurationError(
                f"world model: the ground's columns of {columns[0]:g} m and {columns[1]} layers are not those of the "
                f"grid, {self.grid.voxel:g} m and {self.grid.shape[2]}"
            )

    def to_header(self) -> dict[str, Any]:
        """A JSON-serialisable form; `from_header` is its inverse."""
        return asdict(self)

    @staticmethod
    def from_header(header: dict[str, Any]) -> WorldModelConfig:
        """The configuration stored in a checkpoint.

        Raises:
            CheckpointError: a field is unknown or missing.

        """
        try:
            grid: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in header["grid"].items()
            }
            parts = ("grid", "ground", "traffic", "entries")
            return WorldModelConfig(
                grid=Grid(**grid),
                ground=GroundConfig.from_header(header["ground"]),
                traffic=TrafficConfig.from_header(header["traffic"]),
                entries=EntriesConfig.from_header(header["entries"]),
                **{name: value for name, value in header.items() if name not in parts},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"weights: their configuration does not fit this release ({error})"
            ) from error


class WorldModel(nn.Module):
    """What a generated world is made of: ground that is drawn, and road users that move and enter."""

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.config = config
        self.ground = GroundModel(config.ground)
        self.traffic = TrafficModel(config.traffic)
        self.entries = Entries(config.entries)
