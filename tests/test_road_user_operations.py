"""What a chunk's road users cost: how many operations are given to the device, however many worlds there are."""

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
from occsora_sim.road_users import RoadUsers, in_frames, join, of_ego
from occsora_sim.vehicle import Vehicle
from occsora_sim.voxels.paint import paint_road_users
from occsora_sim.watch import Operations, Watch, mark

MOST = 1959
"""Operations of the road users of a chunk: to move them in two frames, to let others enter, to paint them."""


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


def chunk(rows: int) -> tuple[Operations, Watch]:
    """What is seen of a chunk of two frames of so many worlds."""
    torch.manual_seed(0)
    model, entries, grid = TrafficModel(TrafficConfig()).eval(), Entries().eval(), OCC3D
    users, poses = traffic(rows), torch.zeros(rows, 4, 3)
    crops = torch.ones(rows, 13, *CROP, dtype=torch.uint8)
    columns = torch.full((rows, 2, *grid.shape), FREE, dtype=torch.uint8)
    columns[..., grid.ground] = DRIVEABLE
    route = torch.arange(80.0)[:, None].expand(rows, 80, 2).clone()
    prompt = torch.tensor([[-1.0, math.nan]]).repeat(rows, 1)
    place = torch.full((rows,), -1)
    key = torch.stack(
        (torch.arange(rows)[:, None].expand(rows, 2), torch.tensor([9, 10]).expand(rows, 2)), dim=2
    )
    new = torch.ones(rows, 2, *grid.shape[:2], dtype=torch.bool)
    mark((list(vars(users).values()), poses, crops, columns, route, prompt, place, key, new))
    with torch.no_grad(), Watch() as watch, Operations() as operations:
        motions, *entries_luck = uniforms(key, {**uses(12), **entries.uses(STEP_SLOTS)})
        setting = Setting.of(
            ground_of(columns, grid), poses[:, -2:], poses[:, :2, 0] + 5.0, new,
            route_mask(route, poses[:, -2:], grid), entries.config.margin,
        )  # fmt: skip
        entering: list[RoadUsers] = []
        then = []
        for k in range(2):
            everyone = join(users, of_ego(poses, Vehicle(), 4))
            seen = model(everyone, torch.zeros_like(everyone.valid), crops, place)[:, :-1]
            motion = choose(everyone, model.head.sample(seen, luck_of(motions[:, k])), crops[:, :-1])
            users = apply(users, motion, everyone.travel[:, :-1])
            entering = entering or entries.enter(users, setting, prompt=prompt, key=key, luck=entries_luck)
            users = join(users, entering[k]).nearest(poses[:, -1, :2].double(), 12, 64.0)
            then.append(users)
        paint_road_users(columns.flatten(0, 1), in_frames(then), poses[:, -2:].double().flatten(0, 1), grid)
    return operations, watch


def test_a_chunks_road_users_take_as_many_operations_for_any_batch():
    chunk(1)  # makes the constants
    alone, few, many = (chunk(rows)[0].count for rows in (1, 3, 6))
    assert alone <= few == many <= MOST


def test_a_chunks_road_users_wait_for_nothing():
    chunk(3)
    assert chunk(3)[1].waits == []
