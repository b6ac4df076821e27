"""Entries: who comes into view in a frame. How likely where, of which class, heading where, how fast.

Who enters is a marked point process: a small network reads the surroundings from above and says for each cell how often
road users of each group have their centre there when they come into view, and the marks of one that has. Placing road
users by a map's heat and marks is how traffic generators do it (TrafficGen, Feng et al. 2023, one after another; here
all at once). A world that begins with nobody is the same question with all of the view new.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from occsora_sim.constants import constant
from occsora_sim.counter_random import uniforms
from occsora_sim.errors import CheckpointError
from occsora_sim.grid import DYNAMIC, OCC3D, Grid
from occsora_sim.models.entry_candidates import seen_before, stay_clear, with_past
from occsora_sim.models.entry_marks import NUMBERS, Marks
from occsora_sim.models.entry_view import (
    CHANNELS,
    GROUPS,
    POOL,
    group_of,
    in_frame,
    in_view,
    kind_of,
    vehicles_at,
    view_image,
)
from occsora_sim.models.one_hot import one_hot
from occsora_sim.road_users import RoadUsers
from occsora_sim.scene_prompt import PLACES
from occsora_sim.vehicle import Vehicle

STEP_SLOTS, START_SLOTS = 8, 64
"""Most that enter in a frame, and where there was nobody before."""

SIZES = 32
"""Sizes of each class that entries are drawn from."""

_TRIES = 4
"""Draws of the marks of a candidate."""

_HIT, _SIZE, _MARKS = 0x4E0, 0x4E1, 0x4E2
"""Uses of random numbers (`counter_random`)."""


@dataclass(frozen=True, kw_only=True)
class EntriesConfig:
    """Size of the network.

    Attributes:
        grid: the voxels around the ego; their square is the view.
        width: channels at 1.6 m cells; two and three times as many at 3.2 and 6.4 m.
        marks: width of the networks that draw the marks.
        margin: cells of 0.8 m around the view.

    """

    grid: Grid = field(default_factory=lambda: OCC3D)
    width: int = 32
    marks: int = 128
    margin: int = 10

    def to_header(self) -> dict[str, Any]:
        """A JSON-serialisable form; `from_header` is its inverse."""
        return asdict(self)

    @staticmethod
    def from_header(header: dict[str, Any]) -> EntriesConfig:
        """The configuration stored in a checkpoint.

        Raises:
            CheckpointError: a field is unknown or missing.

        """
        try:
            grid: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in header["grid"].items()
            }
            return EntriesConfig(grid=Grid(**grid), **{k: v for k, v in header.items() if k != "grid"})
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"weights: the configuration of the entries does not fit this release ({error})"
            ) from error


@dataclass(frozen=True, kw_only=True)
class Entered:
    """m road users that came into view in b frames; what the network is trained on.

    Attributes:
        row: (m,) int64, the frame of each.
        label: (m,) uint8.
        place: (m, 3) in the ego frame [m, m, rad]; centres in view.
        speed: (m,) [m/s].

    """

    row: Tensor
    label: Tensor
    place: Tensor
    speed: Tensor


class Block(nn.Module):
    """A residual convolution whose channels the condition scales and shifts (FiLM, Perez et al. 2018)."""

    def __init__(self, width: int, condition: int, dilation: int = 1, *, normed: bool = True) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width, affine=False) if normed else nn.Identity()
        self.film = nn.Linear(condition, 2 * width)
        self.conv = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(b, c, x, y) and (b, d) -> (b, c, x, y)."""
        scale, shift = self.film(condition)[..., None, None].chunk(2, dim=1)
        return x + self.conv(F.gelu(torch.addcmul(shift, self.norm(x), 1 + scale)))


class Entries(nn.Module):
    """The rates of those that come into view, by a U-Net of three levels, and their marks."""

    sizes: Tensor

    def __init__(self, config: EntriesConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or EntriesConfig()
        w1, w2, w3, d = config.width, config.width * 2, config.width * 3, 64
        self.condition = nn.Sequential(nn.Linear(len(PLACES) + 8, d), nn.GELU(), nn.Linear(d, d), nn.GELU())
        self.stem = nn.Conv2d(CHANNELS, w1, 4, stride=2, padding=1)
        self.block1 = Block(w1, d, normed=False)  # a norm costs more than a convolution at this resolution
        self.down2 = nn.Conv2d(w1, w2, 4, stride=2, padding=1)
        self.block2 = Block(w2, d)
        self.down3 = nn.Conv2d(w2, w3, 4, stride=2, padding=1)
        self.block3 = nn.ModuleList(Block(w3, d, dilation) for dilation in (1, 2, 4))
        self.up2 = nn.Conv2d(w3, w2, 1)
        self.block4 = Block(w2, d)
        self.up1 = nn.Conv2d(w2, w1, 1)
        self.block5 = Block(w1, d, normed=False)
        self.rate = nn.Conv2d(w1, len(GROUPS), 1)
        nn.init.zeros_(self.rate.weight)
        nn.init.constant_(self.rate.bias, -9.0)  # type: ignore[arg-type]  # a fresh one expects nobody
        self.marks = Marks(w1 + w2 + w3, config.marks)
        self.register_buffer("sizes", torch.ones(len(DYNAMIC), SIZES, 3))  # set by `training.entries`

    def forward(self, image: Tensor, condition: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logarithms of the rates [road users a cell] (b, len(GROUPS), i, j) of the cells of the view, and the features
        of the three levels for `_features`; `image` of `view_image`, `condition` of `conditions`.
        """
        c = self.condition(condition)
        x1 = self.block1(self.stem(image.contiguous(memory_format=torch.channels_last)), c)
        x2 = self.block2(self.down2(x1), c)
        x3 = self.down3(x2)
        for block in self.block3:
            x3 = block(x3, c)
        x2 = self.block4(x2 + F.interpolate(self.up2(x3), size=x2.shape[-2:]), c)
        x1 = self.block5(x1 + F.interpolate(self.up1(x2), size=x1.shape[-2:]), c)
        rim = self.config.margin // 2
        ni, nj = (side // (2 * POOL) for side in self.config.grid.shape[:2])
        rate = self.rate(x1)[..., rim : rim + ni, rim : rim + nj]
        return rate.float().clamp(-20, 3), (x1, x2, x3)

    def _features(self, levels: tuple[Tensor, ...], row: Tensor, cell: Tensor) -> Tensor:
        """The features (..., f) of cells (..., 2) of the frames `row` (...)."""
        rim = self.config.margin // 2
        parts = []
        for depth, x in enumerate(levels):
            # Levels of odd sides are one cell short at the far edge.
            i, j = (((cell[..., axis] + rim) >> depth).clamp(max=x.shape[2 + axis] - 1) for axis in (0, 1))
            parts.append(x.permute(0, 2, 3, 1)[row, i, j])
        return torch.cat(parts, dim=-1).float()

    def loss(
        self, image: Tensor, condition: Tensor, entered: Entered, weight: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Negative log likelihood [nats an entry] of who `entered` b frames that count `weight` (b,); its parts."""
        rate, levels = self(image, condition)
        row, group, weigh = entered.row, group_of(entered.label), weight[entered.row]
        cell, part = self._cells(entered.place)
        there = torch.zeros_like(rate, dtype=torch.bool)
        there[row, group, cell[:, 0], cell[:, 1]] = True
        expected = rate.exp()
        # Bernoulli: somebody is there with the chance 1 - exp(-rate).
        hit = torch.log((-torch.expm1(-expected)).clamp(min=1e-9))
        f = self._features(levels, row, cell)
        marks = self.marks.loss(f, kind_of(entered.label), part, entered.place[:, 2], entered.speed)
        parts = {name: (value * weigh).sum() for name, value in marks.items()}
        parts["cells"] = (torch.where(there, -hit, expected).sum((1, 2, 3)) * weight).sum()
        some = weigh.sum().clamp(min=1.0)
        logs = {f"entries/{name}": value.detach() / some for name, value in parts.items()}
        logs["entries/expected"] = (expected.detach().sum((1, 2, 3)) * weight).sum() / some
        return sum(parts.values(), start=rate.new_zeros(())) / some, logs

    def conditions(
        self, prompt: Tensor, vehicles: Tensor, speed: Tensor, new: Tensor, route: Tensor | None
    ) -> Tensor:
        """What holds for a whole frame, for `forward`.

        Args:
            prompt: (b, 2), see `ScenePrompt.tensor`.
            vehicles: (b,) how many are in view.
            speed: (b,) of the ego [m/s].
            new: (b, x, y) bool.
            route: (b, x, y) or None; a row without any is one without a route.

        """
        place, asked = one_hot(prompt[:, 0].long() + 1, len(PLACES) + 1), prompt[:, 1]
        given = ~asked.isnan()
        asked = torch.where(given, asked, vehicles)
        share = new.flatten(1).float().mean(1)
        led = torch.zeros_like(share) if route is None else (route > 0).flatten(1).any(1).float()
        numbers = (
            asked / 20,
            given.float(),
            vehicles / 20,
            (asked - vehicles) / 10,
            speed.float() / 10,
            share,
            led,
        )
        return torch.cat((place, torch.stack(numbers, dim=1)), dim=1)

    @torch.no_grad()
    def enter(
        self, users: RoadUsers, *, ground: Tensor, pose: Tensor, speed: Tensor, new: Tensor, route: Tensor | None,
        prompt: Tensor, key: Tensor, slots: int = STEP_SLOTS, vehicle: Vehicle | None = None,
    ) -> RoadUsers:  # fmt: skip
        """Draw who comes into view.

        Args:
            users: b worlds' road users as they stand now; none of them is given back.
            ground: (b, x, y) uint8, the ground image of the view (`entry_view.ground_of`).
            pose: (b, 3) world poses of the ego.
            speed: (b,) of the ego [m/s].
            new: (b, x, y) bool, columns that were not in view a frame ago; all of them where nobody is known yet.
            route: (b, x, y), not 0 on the route; or None.
            prompt: (b, 2) float32, see `ScenePrompt.tensor`.
            key: (b, 2) int64, seed and frame.
            slots: most that enter; START_SLOTS for a start from nothing.
            vehicle: the ego's size.

        Returns:
            RoadUsers with `slots` slots, a past at constant speed along their heading, and ids that are other ones in
            each frame (from 2^16 on).

        """
        grid = self.config.grid
        there = in_frame(users, pose)
        image = view_image(users, ground, pose, new, route, grid, self.config.margin, there)
        vehicles = vehicles_at(users, there, grid)
        rate, levels = self(image, self.conditions(prompt, vehicles, speed, new, route))
        chance = -torch.expm1(-rate.exp())  # (b, g, i, j)
        shapes = {_HIT: chance.shape[1:], _SIZE: (slots,), _MARKS: (_TRIES * slots, NUMBERS)}
        drawn, lot, numbers = uniforms(key, shapes)
        # Of those that hit, drawn / chance is uniform again: it says who comes first.
        priority = torch.where(drawn < chance, 1 - drawn / chance, -1.0).flatten(1)
        first, index = priority.topk(slots, dim=1)
        nj = chance.shape[3]
        per_group = chance.shape[2] * nj
        group, flat = index // per_group, index % per_group  # (b, k)
        cell = torch.stack((flat // nj, flat % nj), dim=-1)
        row = torch.arange(len(key), device=key.device)[:, None].expand_as(flat)
        f = self._features(levels, row, cell)
        # Marks are drawn a few times: the first is kept that it can have come with.
        f, group, cell = f.repeat(1, _TRIES, 1), group.repeat(1, _TRIES), cell.repeat(1, _TRIES, 1)
        kind, part, yaw, pace = self.marks.draw(f, group, numbers)
        xy = (cell + part) * self._step + constant(grid.lower[:2], f.device)
        local = torch.cat((xy, yaw[..., None]), dim=-1)
        can = in_view(local, grid) & ~seen_before(local, pace, new, speed, grid)
        slot = torch.arange(slots, device=key.device)
        kept = can.view(-1, _TRIES, slots).byte().argmax(1) * slots + slot
        kind, pace, can = kind.gather(1, kept), pace.gather(1, kept), can.gather(1, kept)
        local = local.gather(1, kept[..., None].expand(-1, -1, 3))
        pick = (lot * SIZES).long()
        size = self.sizes[kind, pick]
        label = constant(DYNAMIC, kind.device, torch.uint8)[kind]
        comes = (first > 0) & can
        comes = stay_clear(comes, local, size, pace, users, there, speed, vehicle or Vehicle())
        return with_past(comes, label, size, local, pace, pose, key, users.pose.shape[2])

    @property
    def _step(self) -> float:
        """Edge of a cell [m]."""
        return 2 * POOL * self.config.grid.voxel

    def _cells(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """Of places (m, 2 or more) [m] in view the cell (m, 2) int64 and where in it they are (m, 2), 0 to 1."""
        grid = self.config.grid
        at = (place[:, :2] - place.new_tensor(grid.lower[:2])) / self._step
        most = at.new_tensor([side // (2 * POOL) - 1 for side in grid.shape[:2]])
        cell = torch.minimum(at.floor().clamp(min=0), most)
        return cell.long(), at - cell
