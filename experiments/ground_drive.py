"""Drive along recorded routes through drawn ground, tile by tile, on canvases that forget nothing.

A world begins with the recorded 80 x 80 m around a recorded ego, in that ego's frame. `drive` moves a view along the
route and draws what it needs; `crops` cuts squares of 25.6 m beside the route out of what was drawn, or out of the
recording at the same places.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from outpainting.ground_plan import groups_of_cells, patterns_of
from outpainting.ground_tokenizer import GroundTokenizer
from outpainting.ground_towns import GroundTowns
from outpainting.outpaint import route_features, tile_key
from torch import Tensor, nn

SIZE = 1280
"""Edge of a canvas [tokens]: 2 km."""

TOKEN, COLUMN, TILE, CROP = 1.6, 0.4, 16, 64


class World:
    """One world: tokens, plan, what is known of both, the route in the first ego's frame."""

    def __init__(
        self, towns: GroundTowns, tokenizer: GroundTokenizer, table: Tensor, start: tuple[int, int, int], seed: int,
        *, nothing: bool = False, place: bool = True,
    ) -> None:  # fmt: skip
        """Begin at `start` (town, ego, step) of `towns`; `nothing`: with nothing known."""
        self.town, ego, step = start
        self.frame, self.seed = towns.poses(ego)[step].double(), seed
        self.place = towns.place(self.town) if place else -1
        self.codes, self.known = (torch.zeros(SIZE, SIZE, dtype=kind) for kind in (torch.int16, torch.bool))
        self.plan, self.planned = (
            torch.zeros(SIZE // 2, SIZE // 2, dtype=kind) for kind in (torch.int16, torch.bool)
        )
        if not nothing:
            c, q = SIZE // 2, SIZE // 4
            kinds = towns.cut(torch.tensor([self.town]), self.frame[None], 208)
            view = slice(c - 25, c + 25)
            self.codes[view, view], self.known[view, view] = (
                tokenizer.look_up(kinds[:, 4:-4, 4:-4])[0].short(),
                True,
            )
            plan = table[patterns_of(groups_of_cells(kinds, towns.palette))][0, 1:-1, 1:-1]
            view = slice(q - 12, q + 12)
            self.plan[view, view], self.planned[view, view] = plan.short(), True
        self.start = self.known.clone()
        yaw = float(self.frame[2])
        turn = torch.tensor(
            [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]], dtype=torch.float64
        )
        self.route = ((towns.route(ego).double() - self.frame[:2]) @ turn).float()
        self.path = self.route[int(self.route.norm(dim=-1).argmin()) :]
        steps = (self.path[1:] - self.path[:-1]).norm(dim=-1)
        self.along = torch.cat((torch.zeros(1), steps.cumsum(0)))

    @property
    def length(self) -> float:
        """Of the route ahead [m]."""
        return float(self.along[-1])

    def pose(self, s: float) -> tuple[float, float, float]:
        """x, y [m] and yaw [rad] on the route after `s` [m]."""
        k = int(torch.searchsorted(self.along, s).clamp(1, len(self.path) - 1))
        a, b = self.path[k - 1], self.path[k]
        share = (s - float(self.along[k - 1])) / max(1e-3, float(self.along[k] - self.along[k - 1]))
        x, y = (a + share * (b - a)).tolist()
        return x, y, math.atan2(float(b[1] - a[1]), float(b[0] - a[0]))

    def needed(self, s: float, half: float, *, plan: bool) -> list[tuple[int, int]]:
        """Corners of the tiles with hidden tokens within `half` [m] along and across the way, the nearest first."""
        known, token = (self.planned, 2 * TOKEN) if plan else (self.known, TOKEN)
        (x, y, yaw), c = self.pose(s), len(known) // 2
        reach = math.ceil(half * 1.5 / token / TILE) + 1
        i0, j0 = math.floor(x / token / TILE), math.floor(y / token / TILE)
        middle, found = torch.arange(TILE) + 0.5, []
        for i in range(i0 - reach, i0 + reach + 1):
            for j in range(j0 - reach, j0 + reach + 1):
                a, b = c + i * TILE, c + j * TILE
                hidden = ~known[a : a + TILE, b : b + TILE]
                if hidden.any():
                    dx, dy = (
                        ((i * TILE + middle) * token - x)[:, None],
                        ((j * TILE + middle) * token - y)[None],
                    )
                    u, v = math.cos(yaw) * dx + math.sin(yaw) * dy, math.cos(yaw) * dy - math.sin(yaw) * dx
                    inside = (u.abs() < half) & (v.abs() < half) & hidden
                    if inside.any():
                        found.append((float((u**2 + v**2)[inside].min()), a, b))
        return [(a, b) for _, a, b in sorted(found)]


@torch.no_grad()
def draw_tiles(
    worlds: Sequence[World],
    corners: Sequence[tuple[int, int]],
    painter: nn.Module,
    *,
    plan: bool,
    **options: Any,
) -> None:
    """Draw one tile in each of `worlds`."""
    config = painter.config
    edge, rows = (config.window - TILE) // 2, []
    for world, (a, b) in zip(worlds, corners, strict=True):
        codes, known = (world.plan, world.planned) if plan else (world.codes, world.known)
        x, y = (slice(k - edge, k - edge + config.window) for k in (a, b))
        middle = (torch.tensor([a, b]) + TILE / 2 - len(codes) / 2) * config.token
        route = world.route - middle
        near = int(route.norm(dim=-1).argmin())
        route = route[max(0, near - 96) :][:192]
        route = torch.cat((route, torch.full((192 - len(route), 2), math.nan)))
        half_x, half_y = (slice(k.start // 2, k.stop // 2) for k in (x, y))
        key = tile_key(torch.tensor([world.seed + (plan << 20)]), torch.tensor([[a, b]]))[0]
        rows.append((codes[x, y].long(), known[x, y], route, key, world.plan[half_x, half_y].long()))
    codes_, known_, routes, keys, plans = (torch.stack(column) for column in zip(*rows, strict=True))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        told = route_features(routes, config.window, config.token)
        place = torch.tensor([world.place for world in worlds])
        drawn, _ = painter.draw(codes_, known_, told, place, keys, plans if config.plan else None, **options)
    for world, (a, b), tile in zip(worlds, corners, drawn, strict=True):
        codes, known = (world.plan, world.planned) if plan else (world.codes, world.known)
        codes[a : a + TILE, b : b + TILE], known[a : a + TILE, b : b + TILE] = tile.short(), True


def drive(
    worlds: Sequence[World], upto: float, fine: nn.Module, plan: nn.Module | None, *, step: float = 6.0,
    half: float = 40.0, **options: Any,
) -> dict[str, float]:  # fmt: skip
    """Move every world's view along its route up to `upto` [m]; answers tiles drawn and CPU seconds for a tile."""
    spent, count = {"fine": 0.0, "plan": 0.0}, {"fine": 0, "plan": 0}

    def draw_all(live: list[World], painter: nn.Module, reach: float, *, is_plan: bool) -> None:
        name = "plan" if is_plan else "fine"
        while todo := [
            (world, tiles[0]) for world in live if (tiles := world.needed(s, reach, plan=is_plan))
        ]:
            begin = time.process_time()
            draw_tiles([w for w, _ in todo], [t for _, t in todo], painter, plan=is_plan, **options)
            spent[name] += time.process_time() - begin
            count[name] += len(todo)

    for s in np.arange(0.0, upto + step, step).tolist():
        live = [world for world in worlds if s <= world.length]
        if plan is not None:
            draw_all(live, plan, half + 26, is_plan=True)
        draw_all(live, fine, half, is_plan=False)
    return {
        f"{name} {what}": value
        for name in spent
        for what, value in (
            ("tiles", count[name]),
            ("CPU seconds a tile", spent[name] / max(1, count[name])),
        )
    }


def starts(
    towns: GroundTowns, count: int, length: float, rng: np.random.Generator, among: Sequence[int]
) -> list[tuple[int, int, int]]:
    """Towns, egos and steps from which a route goes on for `length` [m], its first 147 m away from where roads end."""
    found: list[tuple[int, int, int]] = []
    for _ in range(20_000):
        if len(found) == count:
            break
        town = int(among[rng.integers(len(among))])
        ego = towns.egos[town][rng.integers(len(towns.egos[town]))]
        step = 0 if length > 300 else int(rng.integers(len(towns.poses(ego))))
        route, place = towns.route(ego), towns.poses(ego)[step, :2]
        near = int((route - place).norm(dim=-1).argmin())
        part = route[near:]
        if len(part) < 3 or float((part[0] - place).norm()) > 3:
            continue
        along = (part[1:] - part[:-1]).norm(dim=-1).cumsum(0)
        begun = part[1:][along < 147].double()
        ends = towns.ends[town]
        if along[-1] < length or (len(ends) and float(torch.cdist(begun, ends).min()) < 45):
            continue
        if not any(other[1] == ego and abs(other[2] - step) < 20 for other in found):
            found.append((town, ego, step))
    return found


def places(
    world: World, rng: np.random.Generator, count: int, first: float, last: float, aside: float
) -> list[tuple[float, float]]:
    """Middles [m] of crops, never seen at the start, up to `aside` [m] beside the route from `first` to `last` [m]."""
    found: list[tuple[float, float]] = []
    for _ in range(50 * count):
        if len(found) == count:
            break
        s, off = rng.uniform(first, last), rng.uniform(-aside, aside)
        if s <= world.length:
            x, y, yaw = world.pose(s)
            x, y = (round(v / COLUMN) * COLUMN for v in (x - math.sin(yaw) * off, y + math.cos(yaw) * off))
            i, j = (SIZE // 2 + math.floor((v - CROP * COLUMN / 2) / TOKEN) for v in (x, y))
            if not world.start[i : i + 18, j : j + 18].any():
                found.append((x, y))
    return found


def drawn_crops(
    world: World, tokenizer: GroundTokenizer, middles: Sequence[tuple[float, float]]
) -> list[Tensor]:
    """Kinds (64, 64) of drawn ground around `middles`; crops that are not drawn throughout are left out."""
    found = []
    for x, y in middles:
        a, b = (round((v - CROP * COLUMN / 2) / COLUMN) + SIZE // 2 * 4 for v in (x, y))
        i, j = a // 4, b // 4
        if world.known[i : i + 17, j : j + 17].all():
            kinds = tokenizer.decode(world.codes[None, i : i + 17, j : j + 17].long())[0]
            found.append(kinds[a - 4 * i :][:CROP, b - 4 * j :][:, :CROP])
    return found


def recorded_crops(world: World, towns: GroundTowns, middles: Sequence[tuple[float, float]]) -> list[Tensor]:
    """Kinds (64, 64) of recorded ground at the same places, but for those where a road ends or the town does."""
    found, (x0, y0, yaw) = [], world.frame.tolist()
    for x, y in middles:
        at = torch.tensor(
            [[x0 + math.cos(yaw) * x - math.sin(yaw) * y, y0 + math.sin(yaw) * x + math.cos(yaw) * y, yaw]],
            dtype=torch.float64,
        )
        ends = towns.ends[world.town]
        if not len(ends) or float((ends - at[0, :2]).norm(dim=-1).min()) >= 20:
            kinds = towns.cut(torch.tensor([world.town]), at, CROP)[0]
            if (kinds == towns.nothing).float().mean() < 0.05:
                found.append(kinds)
    return found
