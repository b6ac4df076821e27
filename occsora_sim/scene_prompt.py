"""The scene prompt: what kind of place a generated world shall be, and how much traffic; either may be left open."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from occsora_sim.errors import ConfigurationError
from occsora_sim.quantities import settle

PLACES: tuple[str, ...] = ("grid", "organic", "arterial", "roundabout", "motorway")
"""Kinds of place; the position is the number that models know a kind by. New ones go to the end."""

MOST_VEHICLES = 60.0
"""Vehicles in view beyond which a prompt asks for what does not exist."""


@dataclass(frozen=True, kw_only=True)
class ScenePrompt:
    """What a generated world is asked to be.

    Attributes:
        place: one of PLACES; None leaves it open.
        vehicles: vehicles in view, parked ones too; None leaves it open.

    Raises:
        ConfigurationError: no such place, or a number that is negative, not finite or above MOST_VEHICLES.

    """

    place: str | None = None
    vehicles: float | None = None

    def __post_init__(self) -> None:
        settle(self, "scene prompt: ")
        if self.place is not None and self.place not in PLACES:
            raise ConfigurationError(
                f"scene prompt: place {self.place!r} is unknown; choose one of {', '.join(PLACES)}"
            )
        if self.vehicles is not None and not 0 <= self.vehicles <= MOST_VEHICLES:
            raise ConfigurationError(
                f"scene prompt: vehicles={self.vehicles:g} must be 0 to {MOST_VEHICLES:g} in view"
            )

    def tensor(self) -> Tensor:
        """(2,) float32: the number of the place (-1: open) and of vehicles (NaN: open)."""
        place = -1 if self.place is None else PLACES.index(self.place)
        return torch.tensor(
            [place, math.nan if self.vehicles is None else self.vehicles], dtype=torch.float32
        )
