"""A world model with random weights and made-up books, for what holds whatever the weights are."""

import torch

from occsora_sim.grid import DRIVEABLE, FREE, MANMADE, SIDEWALK, TERRAIN, VEGETATION
from occsora_sim.models.ground.model import GroundModel
from occsora_sim.models.ground.palette import GROUPS
from occsora_sim.models.world_model import WorldModel, WorldModelConfig
from occsora_sim.presets import tiny


def untrained_world_model(config: WorldModelConfig | None = None, seed: int = 0) -> WorldModel:
    """Random weights throughout: layers that begin with zeros speak too."""
    torch.manual_seed(seed)
    model = WorldModel(config or tiny())
    for parameter in model.parameters():
        if parameter.ndim > 1 and float(parameter.detach().abs().sum()) == 0:
            torch.nn.init.normal_(parameter, std=0.2)
    make_books(model.ground)
    return model


def make_books(ground: GroundModel) -> None:
    """Five kinds of columns; squares and patterns of random ones, the first five of one kind each."""
    made = torch.full_like(ground.palette, FREE)
    made[:, 2] = TERRAIN
    made[1, 2], made[2, 2] = DRIVEABLE, SIDEWALK
    made[3, 2:8] = MANMADE
    made[4, 5:9] = VEGETATION
    ground.palette.copy_(made)
    generator = torch.Generator().manual_seed(0)
    for painter, most in ((ground.fine, 5), (ground.plan, len(GROUPS))):
        book = torch.randint(0, most, painter.contents.shape, generator=generator, dtype=torch.uint8)
        book[:most] = torch.arange(most)[:, None]
        painter.contents.copy_(book)
