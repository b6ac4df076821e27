"""The lane of a route is drivable on ground that is drawn."""

import math

import torch

from occsora_sim.grid import BARRIER, CAR, DRIVEABLE, FREE, MANMADE, OCC3D, SIDEWALK, TERRAIN
from occsora_sim.models.lane import open_lane
from occsora_sim.scenes.start import Start
from occsora_sim.worlds.diffusion import DiffusionWorld


def meadow() -> torch.Tensor:
    """(1, 1, 200, 200, 16): terrain with a wall across and a pavement."""
    frame = torch.full((1, 1, *OCC3D.shape), FREE, dtype=torch.uint8)
    frame[..., OCC3D.ground] = TERRAIN
    frame[..., 120:125, :, OCC3D.ground :] = MANMADE
    frame[..., 140:150, :, OCC3D.ground] = SIDEWALK
    return frame


def route(*points: tuple[float, float]) -> torch.Tensor:
    return torch.tensor([[*points, (math.nan, math.nan)]])


AHEAD = route(*[(float(x), 0.2) for x in range(-50, 50)])
ORIGIN = torch.zeros(1, 1, 3)


def test_the_lane_is_road_and_clear_and_the_rest_stays():
    frame = meadow()
    opened = open_lane(frame, AHEAD, ORIGIN, OCC3D)
    lane = opened[0, 0, :, 96:105]
    assert (lane[..., OCC3D.ground] == DRIVEABLE).all()
    assert (lane[..., OCC3D.ground + 1 :] == FREE).all()
    assert torch.equal(opened[0, 0, :, :96], frame[0, 0, :, :96])
    assert torch.equal(opened[0, 0, :, 105:], frame[0, 0, :, 105:])


def test_road_users_stay_in_the_lane():
    frame = meadow()
    frame[0, 0, 130:140, 98:102, 3:6] = CAR
    opened = open_lane(frame, AHEAD, ORIGIN, OCC3D)
    assert (opened[0, 0, 130:140, 98:102, 3:6] == CAR).all()


def test_ground_at_another_height_becomes_road_there():
    frame = torch.full((1, 1, *OCC3D.shape), FREE, dtype=torch.uint8)
    frame[..., OCC3D.ground + 1] = SIDEWALK
    lane = open_lane(frame, AHEAD, ORIGIN, OCC3D)[0, 0, :, 96:105]
    assert (lane[..., OCC3D.ground + 1] == DRIVEABLE).all()
    assert (lane[..., OCC3D.ground] == FREE).all()


def street() -> torch.Tensor:
    """(1, 1, 200, 200, 16): terrain with a road 6.8 m wide along x, its right kerb 1.6 m beside the route."""
    frame = torch.full((1, 1, *OCC3D.shape), FREE, dtype=torch.uint8)
    frame[..., OCC3D.ground] = TERRAIN
    frame[..., 96:113, OCC3D.ground] = DRIVEABLE
    return frame


def test_a_neck_in_the_lane_beside_is_opened_on_either_side_and_wherever_the_route_leads():
    whole = street()
    drawn = whole.clone()
    drawn[:, :, 120:140, 105:113, OCC3D.ground] = SIDEWALK
    drawn[:, :, 125:130, 107:110, OCC3D.ground :] = MANMADE
    opened = open_lane(drawn, AHEAD, ORIGIN, OCC3D)
    assert (opened[0, 0, :, 96:112, OCC3D.ground] == DRIVEABLE).all()
    assert (opened[0, 0, :, 96:112, OCC3D.ground + 1 :] == FREE).all()
    there = open_lane(drawn.flip(3), route(*[(x, -y) for x, y in AHEAD[0, :-1].tolist()]), ORIGIN, OCC3D)
    assert torch.equal(there, opened.flip(3))
    turned = open_lane(drawn.transpose(2, 3), AHEAD.flip(-1), ORIGIN, OCC3D)
    assert torch.equal(turned, opened.transpose(2, 3))


def test_the_inside_of_a_bend_is_road_for_a_metre_more():
    corner = [(float(x), 0.2) for x in range(-30, 10)] + [
        (10.0, 0.2 - k) for k in range(1, 40)
    ]  # to the right
    frame = torch.full((1, 1, *OCC3D.shape), FREE, dtype=torch.uint8)
    frame[..., OCC3D.ground] = TERRAIN
    road = (open_lane(frame, route(*corner), ORIGIN, OCC3D)[0, 0] == DRIVEABLE).any(-1)

    def at(x: float, y: float) -> bool:
        return bool(road[int((x - OCC3D.lower[0]) / OCC3D.voxel), int((y - OCC3D.lower[1]) / OCC3D.voxel)])

    assert at(7.4, -2.6), "the corner is cut"
    assert not at(12.8, 3.0), "not on the outside"
    assert not at(-10.0, -2.4)
    assert not at(7.4, -20.0)


def test_a_crossing_street_widens_nothing_and_what_a_barrier_parts_stays_apart():
    whole = street()
    drawn = whole.clone()
    drawn[:, :, 120:135, :, OCC3D.ground] = DRIVEABLE
    assert torch.equal(open_lane(drawn, AHEAD, ORIGIN, OCC3D), drawn)
    drawn = street()
    drawn[:, :, :, 105:107, OCC3D.ground :] = BARRIER
    assert torch.equal(open_lane(drawn, AHEAD, ORIGIN, OCC3D), drawn)


def test_without_a_route_nothing_changes_and_worlds_of_a_batch_have_their_own():
    frame = meadow()
    none = route()
    assert torch.equal(open_lane(frame, none, ORIGIN, OCC3D), frame)
    both = open_lane(
        frame.expand(2, -1, -1, -1, -1),
        torch.cat((AHEAD, torch.full_like(AHEAD, math.nan))),
        ORIGIN.expand(2, -1, -1),
        OCC3D,
    )
    assert torch.equal(both[:1], open_lane(frame, AHEAD, ORIGIN, OCC3D))
    assert torch.equal(both[1:], frame)


def test_a_generated_world_draws_its_lane_where_the_route_leads_and_only_if_it_follows_it(
    untrained_model, monkeypatch
):
    grid = untrained_model.config.grid
    meadow = torch.full((2, *grid.shape), FREE, dtype=torch.uint8)
    meadow[..., grid.ground] = TERRAIN
    monkeypatch.setattr(untrained_model, "sample", lambda *_: meadow)
    ahead = torch.tensor([[float(x), 0.0] for x in range(-30, 60)])
    poses = torch.tensor([[2.0 * k, 0.0, 0.0] for k in range(-3, 1)])
    start = Start(
        occupancy=torch.zeros(0, *grid.shape, dtype=torch.uint8), ego_pose=poses, route=ahead, name="nothing"
    )
    trajectory = torch.tensor([[[4.0, 0.0, 0.0], [8.0, 0.0, 0.0]]])
    middle = grid.shape[1] // 2
    for follow, road in ((True, 1.0), (False, 0.0)):
        world = DiffusionWorld(untrained_model, steps=1, follow_route=follow)
        last = world.step(world.reset([start] * 2, range(2)), trajectory.expand(2, -1, -1)).occupancy[:, -1]
        assert (last[:, :, middle - 2 : middle + 2] == DRIVEABLE).any(-1).float().mean() == road
