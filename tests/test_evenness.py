"""Teeth and crumbs on new ground go; edges, corners, posts, road users and what was seen stay."""

import torch

from occsora_sim.grid import CAR, DRIVEABLE, FREE, MANMADE, SIDEWALK
from occsora_sim.models.evenness import evened

GROUND, WALL = 2, 4


def place() -> torch.Tensor:
    """(1, 16, 16, 8): road with a pavement along one side, and a house upon it."""
    frame = torch.full((1, 16, 16, 8), FREE, dtype=torch.uint8)
    frame[..., GROUND] = DRIVEABLE
    frame[:, :, 9:, GROUND] = SIDEWALK
    frame[:, 4:12, 11:16, GROUND + 1 :] = MANMADE
    return frame


EVERYWHERE = torch.ones(1, 16, 16, dtype=torch.bool)


def test_what_is_even_stays():
    assert torch.equal(evened(place(), EVERYWHERE), place())


def test_teeth_notches_and_crumbs_go():
    frayed = place()
    frayed[:, 5, 8, GROUND] = SIDEWALK  # a tooth of the kerb
    frayed[:, 10, 9, GROUND] = DRIVEABLE  # a notch in it
    frayed[:, 7, 10, WALL] = MANMADE  # a tooth of the wall
    assert torch.equal(evened(frayed, EVERYWHERE), place())


def test_posts_stay():
    frame = place()
    frame[:, 3, 4, GROUND + 1 :] = MANMADE
    assert torch.equal(evened(frame, EVERYWHERE), frame)


def test_road_users_neither_vanish_nor_spread():
    frame = place()
    frame[:, 3:9, 3:5, 3:6] = CAR  # two columns wide
    frame[:, 9, 3, 3:6] = CAR
    assert torch.equal(evened(frame, EVERYWHERE), frame)


def test_seen_ground_and_the_border_of_the_view_stay():
    frayed = place()
    frayed[:, 5, 8, GROUND] = SIDEWALK
    assert torch.equal(evened(frayed, ~EVERYWHERE), frayed)
    frayed = place()
    frayed[:, 0, 8, GROUND] = SIDEWALK
    assert torch.equal(evened(frayed, EVERYWHERE), frayed)


def test_frames_of_a_batch_do_not_meet():
    frayed = place()
    frayed[:, 5, 8, GROUND] = SIDEWALK
    both = evened(torch.cat((frayed, place())), EVERYWHERE.expand(2, -1, -1))
    assert torch.equal(both, torch.cat((place(), place())))
