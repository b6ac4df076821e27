"""A vehicle that is carried on over known ground is not drawn larger than it was foretold."""

import pytest
import torch

from occsora_sim.grid import CAR, DRIVEABLE, FREE, OCC3D, PEDESTRIAN, TRUCK
from occsora_sim.models.foretold import as_foretold

NONE = torch.zeros(1, *OCC3D.shape[:2], dtype=torch.bool)


def street(*cars: tuple[int, int, int, int], label: int = CAR) -> torch.Tensor:
    """A frame with cars in columns from (i, j) to (i + length, j + width)."""
    frames = torch.full((1, *OCC3D.shape), FREE, dtype=torch.uint8)
    frames[..., OCC3D.ground] = DRIVEABLE
    for i, j, length, width in cars:
        frames[0, i : i + length, j : j + width, 3:6] = label
    return frames


TOLD = street((100, 100, 11, 5))


def test_a_second_one_drawn_against_the_carried_one_goes():
    drawn = street((100, 100, 11, 5), (104, 105, 11, 5))
    assert (as_foretold(drawn, TOLD, NONE) == TOLD).all()


def test_one_drawn_with_a_ragged_edge_stays_as_drawn():
    drawn = street((99, 100, 12, 6))
    assert (as_foretold(drawn, TOLD, NONE) == drawn).all(), "72 columns for 55"


def test_one_drawn_elsewhere_is_not_larger():
    drawn = street((103, 102, 11, 5))
    assert (as_foretold(drawn, TOLD, NONE) == drawn).all()


@pytest.mark.parametrize("columns", [(slice(104, 112), slice(108, 112)), (slice(None), slice(110, None))])
def test_what_touches_new_ground_may_come_out(columns):
    drawn, new = street((100, 100, 11, 5), (104, 105, 11, 5)), NONE.clone()
    new[0, columns[0], columns[1]] = True
    assert (as_foretold(drawn, TOLD, new) == drawn).all()


def test_what_the_edge_of_the_view_cuts_may_come_out():
    told, drawn = street((0, 100, 3, 5)), street((0, 100, 11, 5))
    assert (as_foretold(drawn, told, NONE) == drawn).all()


def test_others_and_the_ground_and_other_frames_are_left_alone():
    drawn = torch.cat((street((100, 100, 11, 5), (104, 105, 11, 5)), street((20, 20, 20, 6), label=TRUCK)))
    drawn[0, 60, 60, 3:6] = PEDESTRIAN
    told = torch.cat((TOLD, street((20, 20, 20, 6), label=TRUCK)))
    out = as_foretold(drawn, told, NONE.expand(2, -1, -1))
    assert (out[0, 60, 60, 3:6] == PEDESTRIAN).all() and (out[..., OCC3D.ground] == DRIVEABLE).all()
    assert (out[1] == drawn[1]).all() and int((out[0] == CAR).any(-1).sum()) == 55


def test_who_was_not_foretold_is_for_others_to_judge():
    drawn = street((100, 100, 30, 12))
    assert (as_foretold(drawn, street(), NONE) == drawn).all()
