"""Claims on the anchor: what stands keeps its outline, what moves is left to be carried, and far away it is renewed."""

import pytest
import torch

from occsora_sim.geometry import to_frame, to_world
from occsora_sim.grid import BICYCLE, CAR, DRIVEABLE, FREE, PEDESTRIAN, TRUCK, Grid
from occsora_sim.models.anchor import STANDSTILL, Anchor, draw_standing, hold_still, keep_standing
from occsora_sim.models.columns import is_dynamic
from occsora_sim.models.warp import warp

GRID = Grid(shape=(32, 32, 8), voxel=0.5, lower=(-8.0, -8.0, -1.0))
HERE = torch.zeros(1, 3)


def frame() -> torch.Tensor:
    labels = torch.full((1, *GRID.shape), FREE, dtype=torch.uint8)
    labels[..., GRID.ground] = DRIVEABLE
    labels[:, 8:16, 10:14, 3:6] = CAR
    labels[:, 20:21, 24:25, 3:6] = PEDESTRIAN
    return labels


def test_a_standing_car_seen_from_turning_egos_is_what_one_resampling_makes_of_it():
    begin = frame()
    anchor, last, pose = Anchor.of(begin, HERE, 2), begin, HERE
    still = torch.zeros(1, 1, 32, 32, 2)
    for k in range(1, 13):  # a dozen chunks, each resampled from the one before
        target = torch.tensor([[0.13 * k, 0.07 * k, 0.03 * k]])
        standing, others = draw_standing(anchor, last, pose, still, target[:, None], GRID)
        assert not (others == CAR).any()
        once = warp(begin, HERE, target[:, None], GRID, fill=FREE)
        assert torch.equal(standing == CAR, once == CAR)
        last, pose = torch.where(is_dynamic(standing[:, 0]), standing[:, 0], FREE), target


def seen_from(poses: torch.Tensor, where: tuple[float, float], label: int = CAR) -> torch.Tensor:
    """Frames (1, n, x, y, z) at poses (n, 3) of a world with a car of 4.1 m by 1.9 m, slanting, at a place."""
    points = to_world(GRID.centres_xy(), poses[:, None, None])
    x, y = to_frame(points, torch.tensor([*where, 0.3])).unbind(-1)
    labels = torch.full((len(poses), *GRID.shape), FREE, dtype=torch.uint8)
    labels[..., 3:6][(x.abs() < 2.05) & (y.abs() < 0.95)] = label
    return labels[None]


PAST = torch.tensor([[0.0, 0.0, 0.0], [-0.63, 0.02, 0.03], [-1.21, 0.11, 0.07], [-1.86, 0.3, 0.1]])
AHEAD = torch.tensor([[0.71, -0.12, -0.05]])


@pytest.mark.parametrize("label", [CAR, BICYCLE])
def test_frames_in_which_it_stood_tell_an_outline_finer_than_the_newest_alone(label: int):
    frames, truth, wrong = seen_from(PAST, (2.1, 1.3), label), seen_from(AHEAD, (2.1, 1.3), label), []
    for many in (1, 4):
        anchor = Anchor(labels=frames[:, :many], pose=PAST[None, :many])
        standing, others = draw_standing(
            anchor, frames[:, 0], HERE, torch.zeros(1, 1, 32, 32, 2), AHEAD[:, None], GRID
        )
        left = label == BICYCLE and many == 1  # one frame may miss a bicycle's columns: left to bodies
        assert bool((others == label).any()) == left
        wrong.append(int((standing != truth).any(-1).sum()))
    assert wrong[1] < wrong[0]


def test_older_frames_say_nothing_of_one_who_has_just_come_to_a_stand():
    newest = seen_from(PAST[:1], (2.1, 1.3))
    frames = torch.cat((newest, seen_from(PAST[1:], (0.6, 0.9))), dim=1)  # a metre and a half short of it
    still = torch.zeros(1, 1, 32, 32, 2)
    once, _ = draw_standing(Anchor.of(newest[:, 0], HERE, 1), newest[:, 0], HERE, still, AHEAD[:, None], GRID)
    standing, _ = draw_standing(
        Anchor(labels=frames, pose=PAST[None]), newest[:, 0], HERE, still, AHEAD[:, None], GRID
    )
    assert torch.equal(standing, once)


def test_worlds_with_anchors_of_one_and_of_several_frames_do_not_change_one_another():
    several, still = seen_from(PAST, (2.1, 1.3), BICYCLE), torch.zeros(1, 1, 32, 32, 2)
    one = Anchor.of(several[:, 0], HERE, 4)
    many = Anchor(labels=several, pose=PAST[None])
    both = Anchor(labels=torch.cat((one.labels, many.labels)), pose=torch.cat((one.pose, many.pose)))
    rows = [draw_standing(a, several[:, 0], HERE, still, AHEAD[:, None], GRID) for a in (one, many)]
    last, pose, nowhere, ahead = (
        part.repeat(2, *(1,) * (part.ndim - 1)) for part in (several[:, 0], HERE, still, AHEAD[:, None])
    )
    together = draw_standing(both, last, pose, nowhere, ahead, GRID)
    for k in (0, 1):
        assert torch.equal(together[k], torch.cat((rows[0][k], rows[1][k])))


def test_a_car_that_drives_off_is_left_to_advection_and_leaves_nothing_behind():
    labels = frame()
    displacement = torch.zeros(1, 1, 32, 32, 2)
    displacement[:, :, 8:16, 10:14, 0] = 2.0
    labels[:, 4:8, 24:28, 3:6] = TRUCK
    standing, others = draw_standing(
        Anchor.of(labels, HERE, 2), labels, HERE, displacement, HERE[:, None], GRID
    )
    assert not (standing == CAR).any() and (standing == TRUCK).sum() == 48
    assert torch.equal(others == CAR, labels == CAR) and not (others == TRUCK).any()


def test_a_pedestrian_who_stands_is_never_resampled_but_left_to_advection():
    labels, still = frame(), torch.zeros(1, 1, 32, 32, 2)
    standing, others = draw_standing(Anchor.of(labels, HERE, 2), labels, HERE, still, HERE[:, None], GRID)
    assert not (standing == PEDESTRIAN).any()
    assert torch.equal(others == PEDESTRIAN, labels == PEDESTRIAN)


def test_a_car_that_has_gone_from_the_newest_frame_is_not_drawn_again():
    gone = frame()
    gone[gone == CAR] = FREE
    still = torch.zeros(1, 1, 32, 32, 2)
    standing, _ = draw_standing(Anchor.of(frame(), HERE, 2), gone, HERE, still, HERE[:, None], GRID)
    assert not (standing == CAR).any()


def test_what_creeps_stands_and_what_walks_goes_on():
    displacement = torch.zeros(1, 2, 4, 4, 2)
    displacement[:, 1, 0, 0, 0] = 0.9 * STANDSTILL  # after one second
    displacement[:, 0, 0, 0, 0] = 0.2
    displacement[:, 1, 1, 1, 1] = 1.1 * STANDSTILL
    held = hold_still(displacement)
    assert not held[:, :, 0, 0].any()
    assert torch.equal(held[:, :, 1, 1], displacement[:, :, 1, 1])


def test_the_anchor_is_renewed_world_by_world_once_the_ego_has_gone_far():
    old, new = frame(), torch.full_like(frame(), FREE)
    anchor = Anchor.of(old.repeat(3, 1, 1, 1), HERE.repeat(3, 1), 4)
    poses = torch.tensor([[3.0, 0.0, 0.1], [16.0, 0.0, 0.0], [0.0, 0.0, 0.6]])
    renewed = anchor.renew(new.repeat(3, 1, 1, 1), poses)
    for k in range(4):
        assert torch.equal(renewed.labels[0, k], old[0]) and torch.equal(renewed.pose[0, k], HERE[0])
    for row in (1, 2):
        for k in range(4):
            assert torch.equal(renewed.labels[row, k], new[0])
            assert torch.equal(renewed.pose[row, k], poses[row])


def test_a_car_that_has_moved_on_by_less_than_its_length_is_not_drawn_in_both_places():
    moved = torch.full((1, *GRID.shape), FREE, dtype=torch.uint8)
    moved[:, 11:19, 10:14, 3:6] = CAR  # three of its eight columns further
    still = torch.zeros(1, 1, 32, 32, 2)
    standing, others = draw_standing(Anchor.of(frame(), HERE, 2), moved, HERE, still, HERE[:, None], GRID)
    assert not (standing == CAR).any()
    assert torch.equal(others == CAR, moved == CAR)


def test_a_standing_car_half_out_of_view_is_still_the_anchor_s():
    begin, still = frame(), torch.zeros(1, 1, 32, 32, 2)
    ahead = torch.tensor([[6.0, 0.0, 0.0]])  # four columns of the car are behind the view
    now = warp(begin, HERE, ahead[:, None], GRID, fill=FREE)[:, 0]
    assert 0 < (now == CAR).sum() < (begin == CAR).sum()
    standing, _ = draw_standing(Anchor.of(begin, HERE, 2), now, ahead, still, ahead[:, None], GRID)
    assert torch.equal(standing[:, 0] == CAR, now == CAR)


def test_a_standing_car_neither_grows_nor_wears_off_in_a_drawn_frame():
    prior = frame()[:, None]
    drawn = prior.clone()
    drawn[:, :, 16:18, 10:14, 3:6] = CAR  # it has grown
    drawn[:, :, 8:10, 10:12, 3:6] = FREE  # and lost a corner
    drawn[:, :, 24:30, 20:24, 3:6] = TRUCK  # and another has come
    nowhere, known = torch.zeros(1, 1, 32, 32, 2), torch.ones(1, 1, 32, 32, dtype=torch.bool)
    kept = keep_standing(drawn, prior, nowhere, known)
    assert torch.equal(kept == CAR, prior == CAR)
    assert torch.equal(kept == TRUCK, drawn == TRUCK)
    assert torch.equal(
        keep_standing(drawn, prior, nowhere + 1.0, known), drawn
    )  # one that moves is the decoder's
    new = keep_standing(drawn, prior, nowhere, ~known)
    assert (new[:, :, 16:18, 10:14, 3:6] == CAR).all()  # on new ground it may be drawn on
