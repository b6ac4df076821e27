"""The replay world on a hand-built straight road."""

import pytest
import torch

from occsora_sim.errors import ActionError, ConfigurationError
from occsora_sim.geometry import compose
from occsora_sim.grid import CAR, DRIVEABLE, SIDEWALK, TINY
from occsora_sim.scenes.start import Start, make_start
from occsora_sim.worlds.replay import ReplayWorld


def ahead(distance, frames=2):
    return torch.tensor([[[distance * (frame + 1) / frames, 0.0, 0.0] for frame in range(frames)]])


def begin(scene, step=3, grid=TINY):
    world = ReplayWorld(grid)
    return world, world.reset([make_start(scene, 0, step, grid, history=2)], [0])


def car_columns(frame):
    """X indices of the columns that hold a car."""
    return (frame == CAR).any(dim=-1).nonzero()[:, 0]


def test_the_ego_itself_is_never_drawn(straight_road):
    world, state = begin(straight_road())
    assert not (state.occupancy == CAR).any()
    assert not (world.step(state, ahead(8.0)).occupancy == CAR).any()


def test_poses_are_composed_and_a_leader_at_the_same_speed_stays_in_place(straight_road):
    world, state = begin(straight_road(cars=[(12.0, 0.0, 8.0)]))
    after = world.step(state, ahead(8.0))
    torch.testing.assert_close(after.ego_pose[0], compose(state.ego_pose[0, -1].expand(2, 3), ahead(8.0)[0]))
    for frame in after.occupancy[0]:
        assert torch.equal(car_columns(frame), car_columns(state.occupancy[0, -1]))


def test_a_standing_ego_sees_the_leader_drive_off(straight_road):
    world, state = begin(straight_road(cars=[(8.0, 0.0, 8.0)]))
    after = world.step(state, ahead(0.0))
    moved = car_columns(after.occupancy[0, 1]).max() - car_columns(state.occupancy[0, 0]).max()
    assert moved * TINY.voxel == pytest.approx(8.0)


def test_a_turned_ego_sees_the_road_turned(straight_road):
    world, state = begin(straight_road())
    after = world.step(state, torch.tensor([[[0.0, 0.0, torch.pi / 2]]]))
    ground = after.occupancy[0, 0, :, :, TINY.ground]
    assert (ground[20:28, :] == DRIVEABLE).all() and (ground[:16, :] == SIDEWALK).all()


def test_time_stands_still_after_the_end(straight_road):
    world, state = begin(straight_road(cars=[(8.0, 0.0, 8.0)], steps=5), step=4)
    after = world.step(state, ahead(0.0))
    assert torch.equal(car_columns(after.occupancy[0, 1]), car_columns(state.occupancy[0, 0]))


def test_steps_leave_the_old_state_as_it_was(straight_road):
    world, state = begin(straight_road(cars=[(8.0, 0.0, 4.0)]))
    kept, first = state.occupancy.clone(), world.step(state, ahead(8.0))
    assert torch.equal(state.occupancy, kept)
    assert torch.equal(world.step(state, ahead(8.0)).occupancy, first.occupancy)


def test_rows_are_picked_put_and_branched(straight_road):
    scene = straight_road(cars=[(12.0, 0.0, 6.0)])
    world = ReplayWorld(TINY)
    starts = [make_start(scene, 0, step, TINY, history=2) for step in (2, 6, 10)]
    state = world.step(world.reset(starts, [0, 1, 2]), ahead(8.0).expand(3, -1, -1))
    branch = world.select(state, [1, 1])
    moved = world.step(branch, torch.cat((ahead(0.0), ahead(8.0))))
    alone = world.step(world.select(state, [1]), ahead(8.0))
    assert torch.equal(moved.occupancy[1], alone.occupancy[0])
    assert not torch.equal(moved.occupancy[0], moved.occupancy[1])
    mixed = world.replace(state, [0], world.reset(starts[2:], [0]))
    assert mixed.occupancy.shape[1] == 1 and torch.equal(mixed.ego_pose[0, -1], starts[2].ego_pose[-1])
    assert torch.equal(mixed.occupancy[1], state.occupancy[1, -1:])
    after = world.step(mixed, ahead(8.0).expand(3, -1, -1))
    both = world.step(state, ahead(8.0).expand(3, -1, -1))
    assert torch.equal(after.occupancy[1:], both.occupancy[1:])


@pytest.mark.parametrize(
    "bad", [torch.zeros(1, 3, 3), torch.zeros(2, 2, 3), torch.full((1, 2, 3), torch.nan)]
)
def test_bad_trajectories_are_refused_in_one_line(bad, straight_road):
    world, state = begin(straight_road())
    with pytest.raises(ActionError, match=r"^[^\n]+$"):
        world.step(state, bad)


def test_a_start_without_a_scene_or_of_another_grid_is_refused(straight_road):
    start = make_start(straight_road(), 0, 3, TINY, history=2)
    bare = Start(occupancy=start.occupancy, ego_pose=start.ego_pose, route=start.route)
    with pytest.raises(ConfigurationError, match="no recorded scene"):
        ReplayWorld(TINY).reset([bare], [0])
    with pytest.raises(ConfigurationError, match="grid"):
        ReplayWorld().reset([start], [0])
