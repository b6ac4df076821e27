"""What a frame's road users cost: how many operations are given to the device, however many worlds there are."""

import math
from dataclasses import replace

import torch

from occsora_sim.counter_random import uniforms
from occsora_sim.grid import CAR, DRIVEABLE, FREE, OCC3D
from occsora_sim.models.entries import STEP_SLOTS, Entries
from occsora_sim.models.entry_view import Setting, ground_of
from occsora_sim.models.ground_crop import CROP
from occsora_sim.models.route_mask import route_mask
from occsora_sim.models.traffic import TrafficConfig, TrafficModel
from occsora_sim.models.traffic_choice import choose, luck_of, uses
from occsora_sim.models.traffic_motion import apply
from occsora_sim.road_users import RoadUsers, join, of_ego
from occsora_sim.vehicle import Vehicle
from occsora_sim.voxels.paint import paint_road_users
from occsora_sim.watch import Operations, Watch, mark

MOST = 1420
"""Operations of a frame's road users: to move them, to let others enter, to paint them."""


def traffic(rows: int) -> RoadUsers:
    """Ten cars here and there in each of some worlds, and two empty slots."""
    generator = torch.Generator().manual_seed(rows)
    place = (torch.rand(rows, 12, 1, 3, generator=generator, dtype=torch.float64) - 0.5) * 60
    users = replace(
        RoadUsers.empty(rows, 12),
        label=torch.full((rows, 12), CAR, dtype=torch.uint8),
        size=torch.tensor([4.5, 1.8, 1.5]).expand(rows, 12, 3).clone(),
        pose=place.expand(-1, -1, 4, -1).clone(),
        present=torch.ones(rows, 12, 4, dtype=torch.bool),
    )
    return users.where(torch.arange(12).expand(rows, 12) < 10)


def frame(rows: int) -> tuple[Operations, Watch]:
    """What is seen of a frame of so many worlds."""
    torch.manual_seed(0)
    model, entries, grid = TrafficModel(TrafficConfig()).eval(), Entries().eval(), OCC3D
    users, poses = traffic(rows), torch.zeros(rows, 4, 3)
    crops = torch.ones(rows, 13, *CROP, dtype=torch.uint8)
    columns = torch.full((rows, *grid.shape), FREE, dtype=torch.uint8)
    columns[..., grid.ground] = DRIVEABLE
    route = torch.arange(80.0)[:, None].expand(rows, 80, 2).clone()
    prompt = torch.tensor([[-1.0, math.nan]]).repeat(rows, 1)
    place, key = torch.full((rows,), -1), torch.stack((torch.arange(rows), torch.full((rows,), 9)), dim=1)
    new = torch.ones(rows, *grid.shape[:2], dtype=torch.bool)
    mark((list(vars(users).values()), poses, crops, columns, route, prompt, place, key, new))
    with torch.no_grad(), Watch() as watch, Operations() as operations:
        ego = of_ego(poses, Vehicle(), 4)
        everyone = join(users, ego)
        seen = model(everyone, torch.zeros_like(everyone.valid), crops, place)[:, :-1]
        motions, *entries_luck = uniforms(key, {**uses(12), **entries.uses(STEP_SLOTS)})
        draws = model.head.sample(seen, luck_of(motions))
        moved = apply(users, choose(users, draws, crops[:, :-1], ego))
        setting = Setting.of(
            ground_of(columns, grid), poses[:, -1], poses[:, 0, 0] + 5.0, new,
            route_mask(route, poses[:, -1:], grid)[:, 0], entries.config.margin,
        )  # fmt: skip
        entered = entries.enter(moved, setting, prompt=prompt, key=key, luck=entries_luck)
        after = join(moved, entered).nearest(poses[:, -1, :2].double(), 12, 64.0)
        paint_road_users(columns, after, poses[:, -1].double(), grid)
    return operations, watch


def test_a_frames_road_users_take_as_many_operations_for_any_batch():
    frame(1)  # makes the constants
    alone, few, many = (frame(rows)[0].count for rows in (1, 3, 6))
    assert alone <= few == many <= MOST


def test_a_frames_road_users_wait_for_nothing():
    frame(3)
    assert frame(3)[1].waits == []
