"""Newcomers: who comes into view. Where, of which class, heading where, how fast, all at once for a whole map.

A denoiser of a scene's latent draws what is everywhere; a road user is a handful of columns among 40,000, whole or
wrong. So who comes into view is a marked point process: a small network reads the map from above and says for each
cell how likely a road user of each class has its middle there, and its marks, heading and speed, if so. Placing road
users by a map's heat and marks is how traffic generators do it (TrafficGen, Feng et al. 2023, one after another; here
all at once). `arrivals` draws from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from occsora_sim.grid import (
    DRIVEABLE,
    DYNAMIC,
    FREE,
    OTHER_FLAT,
    PEDESTRIAN,
    SIDEWALK,
    SMALL,
    TERRAIN,
)
from occsora_sim.models.columns import UNSEEN, is_dynamic
from occsora_sim.models.patches import is_vehicle

CELL = 2
"""Edge of a cell of the maps [columns]."""

GROUND = (DRIVEABLE, OTHER_FLAT, SIDEWALK, TERRAIN)

CHANNELS = len(GROUND) + 4
"""Of `surroundings`: what lies on the ground, what is built, the route, vehicles and small road users."""

GROUPS = ("pedestrian", "two wheels", "vehicle")
"""Who move alike; a class's group is `Newcomers.group`."""

_SPEED_SCALE = 10.0  # [m/s]
_COUNT_SCALE = 10.0  # [vehicles]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Who is expected on each cell of b frames, x / CELL by y / CELL cells.

    Attributes:
        chance: (b, len(DYNAMIC), x / CELL, y / CELL), logit that a road user of each class has its middle there.
        direction: (b, 2, ...), along which what is not on foot drives; not normalised.
        axis: (b, 2, ...), cosine and sine of twice the angle along which people walk, either way.
        moves: (b, len(GROUPS), ...), logit of who is there moving.
        speed: (b, len(GROUPS), ...) [m/s], if so.

    """

    chance: Tensor
    direction: Tensor
    axis: Tensor
    moves: Tensor
    speed: Tensor

    def cpu(self) -> Expected:
        """The same on the CPU."""
        return Expected(**{name: value.cpu() for name, value in vars(self).items()})


def surroundings(labels: Tensor, route: Tensor) -> Tensor:
    """What a newcomer's place hangs on: labels (b, x, y, z) uint8 and route mask (b, x, y) -> (b, CHANNELS, x / CELL,
    y / CELL) float32, shares of each cell's columns.
    """
    built = (labels != FREE) & (labels != UNSEEN) & ~is_dynamic(labels)
    for one in GROUND:
        built = built & (labels != one)
    planes = [(labels == one).any(-1) for one in GROUND]
    small = is_dynamic(labels) & ~is_vehicle(labels)
    planes += [built.any(-1), route > 0, is_vehicle(labels).any(-1), small.any(-1)]
    return F.avg_pool2d(torch.stack(planes, dim=1).float(), CELL)


class Newcomers(nn.Module):
    """The rates and marks of road users, given the surroundings, those in view and how many vehicles are asked for: a
    three-level U-Net.

    Args:
        width: channels at the cells' resolution.

    """

    size: Tensor
    group: Tensor

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        w1, w2, w3 = width, width * 3 // 2, width * 2
        self.stem = nn.Conv2d(CHANNELS + 3, w1, 3, padding=1)
        self.down2 = nn.Conv2d(w1, w2, 4, stride=2, padding=1)
        self.down3 = nn.Conv2d(w2, w3, 4, stride=2, padding=1)
        self.middle = nn.ModuleList(nn.Conv2d(w3, w3, 3, padding=d, dilation=d) for d in (1, 2, 4))
        self.up2 = nn.Conv2d(w3 + w2, w2, 3, padding=1)
        self.up1 = nn.Conv2d(w2 + w1, w1, 3, padding=1)
        self.head = nn.Conv2d(w1, len(DYNAMIC) + 4 + 2 * len(GROUPS), 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            assert self.head.bias is not None
            self.head.bias[: len(DYNAMIC)] = -14.0  # a fresh one expects nobody
        group = [0 if one == PEDESTRIAN else 1 if one in SMALL else 2 for one in DYNAMIC]
        self.register_buffer("group", torch.tensor(group), persistent=False)
        self.register_buffer("size", torch.ones(len(DYNAMIC), 3))  # see `begin_with`

    @torch.no_grad()
    def begin_with(self, size: Tensor, rate: Tensor) -> None:
        """Take the classes' mean sizes (len(DYNAMIC), 3), length and width [m] and height [voxels]; where nothing has
        been learned yet also their mean rates (len(DYNAMIC),) [road users a cell], alike everywhere.
        """
        self.size.copy_(size)
        if not self.head.weight.any():
            assert self.head.bias is not None
            self.head.bias[: len(DYNAMIC)] = rate.clamp(min=1e-7).logit()

    def forward(self, around: Tensor, hidden: Tensor, vehicles: Tensor) -> Expected:
        """Who is expected where.

        Args:
            around: (b, CHANNELS, x / CELL, y / CELL), `surroundings`, in which nobody is shown where `hidden`.
            hidden: (b, x / CELL, y / CELL) bool, the cells asked about.
            vehicles: (b,) how many vehicles there are in view, or shall be; NaN: open.

        """
        asked = ~vehicles.isnan()
        count = torch.where(asked, vehicles, 0.0) / _COUNT_SCALE
        planes = torch.stack((count, asked.float()), dim=1)[:, :, None, None].expand(
            -1, -1, *around.shape[2:]
        )
        x1 = F.gelu(self.stem(torch.cat((around, hidden[:, None].float(), planes), dim=1)))
        x2 = F.gelu(self.down2(x1))
        x3 = F.gelu(self.down3(x2))
        for layer in self.middle:
            x3 = x3 + F.gelu(layer(x3))
        x2 = F.gelu(self.up2(torch.cat((F.interpolate(x3, size=x2.shape[-2:]), x2), dim=1)))
        x1 = F.gelu(self.up1(torch.cat((F.interpolate(x2, size=x1.shape[-2:]), x1), dim=1)))
        out = self.head(x1).float()
        chance, direction, axis, moves, speed = out.split(
            (len(DYNAMIC), 2, 2, len(GROUPS), len(GROUPS)), dim=1
        )
        return Expected(
            chance=chance,
            direction=direction,
            axis=axis,
            moves=moves,
            speed=F.softplus(speed) * _SPEED_SCALE,
        )

    def loss(
        self, around: Tensor, hidden: Tensor, vehicles: Tensor, present: Present
    ) -> tuple[Tensor, dict[str, float]]:
        """Negative log likelihood [nats a road user] of who is `present` in the hidden cells: of the cells' occupancy,
        and of their marks by cross-entropy (whether they move), squared error (direction, axis) and Huber loss (speed).
        """
        expected = self(around, hidden, vehicles)
        target = torch.zeros_like(expected.chance)
        at = present.row, present.cell[:, 0], present.cell[:, 1]
        target[at[0], present.kind, at[1], at[2]] = 1.0
        entropy = F.binary_cross_entropy_with_logits(expected.chance, target, reduction="none")
        entropy = (entropy * hidden[:, None]).sum()
        some = max(1, len(present.row))
        group = self.group[present.kind]
        moves = present.velocity.norm(dim=-1)
        going = moves > STANDS
        still = F.binary_cross_entropy_with_logits(
            expected.moves[at[0], group, at[1], at[2]], going.float(), reduction="sum"
        )
        unit = present.velocity / moves.clamp(min=1e-6)[:, None]
        twice = torch.stack((unit[:, 0] ** 2 - unit[:, 1] ** 2, 2 * unit[:, 0] * unit[:, 1]), dim=1)
        on_foot = going & (group == 0)
        drives = going & (group > 0)
        direction = (expected.direction[at[0], :, at[1], at[2]] - unit)[drives].square().sum()
        axis = (expected.axis[at[0], :, at[1], at[2]] - twice)[on_foot].square().sum()
        speed = (expected.speed[at[0], group, at[1], at[2]] - moves)[going] / _SPEED_SCALE
        speed = F.huber_loss(speed, torch.zeros_like(speed), reduction="sum", delta=0.3)
        loss = (entropy + still + direction + axis + speed) / some
        named = {"entropy": entropy, "moves": still, "direction": direction, "axis": axis, "speed": speed}
        return loss, {
            "newcomers/loss": float(loss.detach()),
            **{f"newcomers/{name}": float(part.detach()) / some for name, part in named.items()},
        }


STANDS = 0.3
"""Who is slower stands [m/s]."""


@dataclass(frozen=True, kw_only=True)
class Present:
    """m road users of b frames.

    Attributes:
        row: (m,) the frame of each.
        kind: (m,) index in DYNAMIC.
        cell: (m, 2) the cell of its middle.
        velocity: (m, 2) [m/s] in the frame's axes.

    """

    row: Tensor
    kind: Tensor
    cell: Tensor
    velocity: Tensor
