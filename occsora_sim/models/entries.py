"""Entries: who comes into view in a frame. How likely where, of which class, heading where, how fast.

Who enters is a marked point process: a small network reads the surroundings from above and says for each cell how often
road users of each group have their centre there when they come into view, and the marks of one that has. Placing road
users by a map's heat and marks is how traffic generators do it (TrafficGen, Feng et al. 2023, one after another; here
all at once). A world that begins with nobody is the same question with all of the view new.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from occsora_sim.constants import constant, span
from occsora_sim.counter_random import uniforms
from occsora_sim.device import fast_bfloat16
from occsora_sim.geometry import compose, relative
from occsora_sim.grid import DYNAMIC
from occsora_sim.models.entry_candidates import give_way, in_the_way, seen_before, with_past
from occsora_sim.models.entry_marks import NUMBERS, Marks
from occsora_sim.models.entry_network import EntriesConfig, EntryNetwork
from occsora_sim.models.entry_view import (
    GROUPS,
    POOL,
    Setting,
    expected,
    group_of,
    in_view,
    kind_of,
    vehicles_at,
    view_image,
)
from occsora_sim.road_users import RoadUsers, each_frame
from occsora_sim.vehicle import Vehicle

STEP_SLOTS, START_SLOTS = 8, 64
"""Most that enter in a frame, and where there was nobody before."""

SIZES = 32
"""Sizes of each class that entries are drawn from."""

GUIDANCE = 2.5
"""How much further than the network says the rates of vehicles go from those where no number is asked for to those
where one is: guidance without a classifier (Ho and Salimans 2022). What is on the ground says more of how many there
are than what is asked for, in recorded towns, where nobody asks."""

LANES = 2.0
"""What an entry along a lane of the map counts, beside one that was recorded."""

_TRIES = 4
"""Draws of the marks of a candidate."""

_HIT, _SIZE, _MARKS = 0x4E0, 0x4E1, 0x4E2
"""Uses of random numbers (`counter_random`)."""


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


def unasked(prompt: Tensor) -> Tensor:
    """Scene prompts (b, 2) that ask for no number of vehicles."""
    return torch.stack((prompt[:, 0], torch.full_like(prompt[:, 1], math.nan)), dim=1)


class Entries(EntryNetwork):
    """The network of the rates of those that come into view, and their marks."""

    sizes: Tensor
    kept: Tensor

    def __init__(self, config: EntriesConfig | None = None) -> None:
        super().__init__(config or EntriesConfig())
        self.marks = Marks(6 * self.config.width, self.config.marks)
        self.register_buffer("sizes", torch.ones(len(DYNAMIC), SIZES, 3))  # set by `training.entries`
        # Of those that the rates say, in a frame and in a start, by group: what is left when candidates have given way.
        self.register_buffer("kept", torch.ones(2, len(GROUPS)))

    def loss(
        self, image: Tensor, condition: Tensor, entered: Entered, weight: Tensor, lanes: Entered
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Negative log likelihood [nats an entry] of who `entered` b frames that count `weight` (b,), and of headings
        along `lanes`; its parts.
        """
        rate, levels = self(image, condition)
        row, group, weigh = entered.row, group_of(entered.label), weight[entered.row]
        cell, part = self._cells(entered.place)
        there = torch.zeros_like(rate, dtype=torch.bool)
        there[row, group, cell[:, 0], cell[:, 1]] = True
        expected = rate.exp()
        # Bernoulli: somebody is there with the chance 1 - exp(-rate).
        hit = torch.log((-torch.expm1(-expected)).clamp(min=1e-9))
        f = self.features(levels, row, cell)
        marks = self.marks.loss(f, kind_of(entered.label), part, entered.place[:, 2], entered.speed)
        parts = {name: (value * weigh).sum() for name, value in marks.items()}
        parts["cells"] = (torch.where(there, -hit, expected).sum((1, 2, 3)) * weight).sum()
        some = weigh.sum().clamp(min=1.0)
        cell, part = self._cells(lanes.place)
        f = self.features(levels, lanes.row, cell)
        along = self.marks.along(f, kind_of(lanes.label), part, lanes.place[:, 2])
        parts["lanes"] = LANES * along.sum() / max(1, len(lanes.row)) * some
        logs = {f"entries/{name}": value.detach() / some for name, value in parts.items()}
        logs["entries/expected"] = (expected.detach().sum((1, 2, 3)) * weight).sum() / some
        return sum(parts.values(), start=rate.new_zeros(())) / some, logs

    def quick(self) -> Entries:
        """A copy to draw with, whose network is in bfloat16 where the device is fast at that; its marks are not."""
        model = deepcopy(self).requires_grad_(False).eval()
        if fast_bfloat16(self.sizes.device):
            for name, part in model.named_children():
                if name != "marks":
                    part.bfloat16()
        return model

    def uses(self, slots: int) -> dict[int, tuple[int, ...]]:
        """What uniform numbers at most so many that enter take, by use, for `counter_random.uniforms`."""
        ni, nj = (side // (2 * POOL) for side in self.config.grid.shape[:2])
        return {_HIT: (len(GROUPS), ni, nj), _SIZE: (slots,), _MARKS: (_TRIES * slots, NUMBERS)}

    @torch.no_grad()
    def enter(
        self, users: RoadUsers, setting: Setting, *, prompt: Tensor, key: Tensor, slots: int = STEP_SLOTS,
        vehicle: Vehicle | None = None, guided: bool = True, luck: Sequence[Tensor] | None = None,
    ) -> list[RoadUsers]:  # fmt: skip
        """Draw who comes into view in each of f frames.

        Args:
            users: b worlds' road users as they stand in the first of them; none of them is given back. In the others
                they are expected to have gone straight on.
            setting: of b f frames.
            prompt: (b, 2) float32, see `ScenePrompt.tensor`.
            key: (b, f, 2) int64, seed and frame.
            slots: most that enter in a frame; START_SLOTS for a start from nothing.
            vehicle: the ego's size.
            guided: whether the numbers of vehicles that prompts ask for guide the rates (GUIDANCE), which takes twice
                the work; where none does, it changes nothing.
            luck: the numbers of `uses` of `key` for `slots` or more, (b, f, ...), if they are drawn already.

        Returns:
            Of each frame RoadUsers with `slots` slots, a past at constant speed along their heading, and ids that are
            other ones in each frame (from 2^16 on).

        """
        (b, f), pose = setting.speed.shape, setting.pose
        then = expected(users, f)
        there = relative(pose.double()[:, :, None], then).float().flatten(0, 1)
        frames, world_of = setting.rows(), span(b * f, key.device) // f
        rows = users.map(lambda value: value.index_select(0, world_of))
        chance, levels = self._chances(rows, frames, prompt.index_select(0, world_of), there, guided)
        luck = uniforms(key, self.uses(slots)) if luck is None else luck
        comes, kind, local, size, pace = self._drawn(
            chance, levels, [part.flatten(0, 1) for part in luck], slots
        )
        can = in_view(local, self.config.grid)
        can &= ~seen_before(local, pace, frames.new, frames.speed, self.config.grid)
        local, size, pace = (value.unflatten(0, (b, f)) for value in (local, size, pace))
        world = compose(pose.double()[:, :, None], local.double())
        near, both = in_the_way(world, size, pace, users, then, pose, setting.speed, vehicle or Vehicle())
        # Of the tries of each the first is kept that it can have come with.
        can = can.view(b, f, _TRIES, slots) & ~near.view(b, f, _TRIES, slots)
        first = can.byte().argmax(2) + _TRIES * span(f, key.device)[:, None]
        best = (first * slots + span(slots, key.device)).flatten(1)  # (b, f k)
        kind, pace, can = (value.reshape(b, -1).gather(1, best) for value in (kind, pace, can))
        wide = best[..., None]
        world, size, both = (
            value.reshape(b, -1, value.shape[-1]).gather(1, wide.expand(-1, -1, value.shape[-1]))
            for value in (world, size, both)
        )
        both = both.gather(2, best[:, None].expand(-1, f * slots, -1))
        comes = give_way(comes.view(b, -1) & can, both)
        label = constant(DYNAMIC, kind.device, torch.uint8)[kind]
        number = (((key[..., 1:] + 1) << 16) + slots + span(slots, key.device)).flatten(1)
        came = with_past(comes, label, size, world, pace, number, users.pose.shape[2])
        return each_frame(came.map(lambda value: value.unflatten(1, (f, slots)).flatten(0, 1)), f)

    def _chances(
        self, users: RoadUsers, setting: Setting, prompt: Tensor, there: Tensor, guided: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The chance (b, g, i, j) that one comes into each cell of b frames whose road users are at `there`, and the
        features of the network's levels.
        """
        image = view_image(users, setting, self.config.grid, self.config.margin, there)
        vehicles = vehicles_at(users, there, self.config.grid)
        told = self.conditions(prompt, vehicles, setting)
        if guided:
            rate, levels = self._guided(image, told, self.conditions(unasked(prompt), vehicles, setting))
        else:
            rate, levels = self(image, told)
        kept = self.kept[setting.new.flatten(1).all(1).long()]  # (b, g)
        return -torch.expm1(-rate.exp() / kept[..., None, None]), levels

    def _drawn(
        self, chance: Tensor, levels: tuple[Tensor, ...], luck: Sequence[Tensor], slots: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Of b frames who comes (b, k) bool, the first ones first, and what each would come as in _TRIES tries: kind,
        local pose, size and pace (b, _TRIES k, *).
        """
        drawn, lot, numbers = luck
        lot, numbers = lot[:, :slots], numbers[:, : _TRIES * slots]
        # Of those that hit, drawn / chance is uniform again: it says who comes first.
        priority = torch.where(drawn < chance, 1 - drawn / chance, -1.0).flatten(1)
        first, index = priority.topk(slots, dim=1)
        nj = chance.shape[3]
        per_group = chance.shape[2] * nj
        group, flat = index // per_group, index % per_group
        cell = torch.stack((flat // nj, flat % nj), dim=-1)
        row = span(len(flat), flat.device)[:, None].expand_as(flat)
        f = self.features(levels, row, cell)
        f, group, cell = f.repeat(1, _TRIES, 1), group.repeat(1, _TRIES), cell.repeat(1, _TRIES, 1)
        kind, part, yaw, pace = self.marks.draw(f, group, numbers)
        xy = (cell + part) * self._step + constant(self.config.grid.lower[:2], cell.device)
        size = self.sizes[kind, (lot * SIZES).long().repeat(1, _TRIES)]
        return first > 0, kind, torch.cat((xy, yaw[..., None]), dim=-1), size, pace

    def _guided(self, image: Tensor, condition: Tensor, free: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As `forward`, with the rates of vehicles further from those under the condition `free` than they are."""
        rates, levels = self(image.repeat(2, 1, 1, 1), torch.cat((condition, free)))
        rate, other = rates.chunk(2)
        guided = torch.lerp(other[:, :1], rate[:, :1], GUIDANCE).clamp(max=3)
        return torch.cat((guided, rate[:, 1:]), dim=1), tuple(level[: len(rate)] for level in levels)

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
