"""Moving vehicles are drawn as boxes of their own size, whatever carrying and decoding have made of them."""

import math

import pytest
import torch

from occsora_sim.grid import BUS, CAR, DRIVEABLE, DYNAMIC, FREE, MANMADE, OCC3D
from occsora_sim.models.boxes import as_boxes

SIZE = torch.ones(len(DYNAMIC), 3)
SIZE[DYNAMIC.index(CAR)] = torch.tensor([4.4, 1.8, 3.0])


def street() -> torch.Tensor:
    frames = torch.full((1, *OCC3D.shape), FREE, dtype=torch.uint8)
    frames[..., OCC3D.ground] = DRIVEABLE
    return frames


def car(frames: torch.Tensor, x: float, y: float, angle: float = 0.0, label: int = CAR) -> torch.Tensor:
    """A car of 4.4 by 1.8 m put with its middle at x, y [m]; which columns are its."""
    dx, dy = (OCC3D.centres_xy() - torch.tensor([x, y])).unbind(-1)
    c, s = math.cos(angle), math.sin(angle)
    mine = ((c * dx + s * dy).abs() <= 2.2) & ((c * dy - s * dx).abs() <= 0.9)
    frames[0, mine, 3:6] = label
    return mine


def moving() -> torch.Tensor:
    return torch.zeros(1, *OCC3D.shape[:2], dtype=torch.bool)


@pytest.mark.parametrize("degrees", [0, 20, 45, 90])
def test_a_box_stays_a_box(degrees):
    frames = street()
    mine = car(frames, 10.1, 3.3, math.radians(degrees))
    out = as_boxes(frames, moving(), SIZE, OCC3D)
    there = (out[0] == CAR).any(-1)
    assert int((there ^ mine).sum()) <= 0.1 * int(mine.sum())
    assert (out[0][there][:, 3:6] == CAR).all() and (out[0] == DRIVEABLE).sum() == (frames == DRIVEABLE).sum()


def test_a_box_carried_and_redrawn_fifty_times_does_not_grow():
    """Each time six columns are added at its sides, as carrying and decoding do."""
    frames, generator = street(), torch.Generator().manual_seed(0)
    columns = int(car(frames, 0.0, 0.0).sum())
    for _ in range(50):
        there = (frames[0] == CAR).any(-1)
        beside = torch.nn.functional.max_pool2d(there[None].float(), 3, 1, 1)[0] > 0
        edge = (beside & ~there).nonzero()
        for i, j in edge[torch.randperm(len(edge), generator=generator)[:6]].tolist():
            frames[0, i, j, 3:6] = CAR
        frames = as_boxes(frames, moving(), SIZE, OCC3D)
    there = (frames[0] == CAR).any(-1)
    assert columns <= int(there.sum()) <= 1.3 * 4.4 * 1.8 / 0.16, "without, it would have three hundred more"
    assert OCC3D.centres_xy()[there].mean(0).norm() < 1.5


def test_a_star_becomes_a_car_and_the_house_beside_it_stays():
    frames = street()
    car(frames, 0.0, 0.0)
    car(frames, 0.0, 0.0, math.radians(60))
    car(frames, 0.0, 0.0, math.radians(120))
    frames[0, 90:112, 104:110, 3:8] = MANMADE
    frames[0, 90:112, 104:110][..., 3:6] = MANMADE
    out = as_boxes(frames, moving(), SIZE, OCC3D)
    columns = int((out[0] == CAR).any(-1).sum())
    assert columns <= 1.3 * 4.4 * 1.8 / 0.16
    assert (out == MANMADE).sum() == (frames == MANMADE).sum()


def test_who_turns_is_a_box_though_the_columns_it_turns_about_stand():
    frames = street()
    star = car(frames, 0.0, 0.0) | car(frames, 0.0, 0.0, math.radians(60))
    pivot = moving()
    pivot[0, 99:102, 99:102] = True
    whole = as_boxes(frames, moving(), SIZE, OCC3D)
    assert torch.equal(as_boxes(frames, pivot & star, SIZE, OCC3D), whole)
    assert not torch.equal(whole, frames)


def test_who_stands_is_cut_merged_a_crumb_or_of_unknown_size_stays_as_it_is():
    for case in ("stands", "cut", "merged", "crumb", "unknown"):
        frames = street()
        stands = moving()
        if case == "stands":
            stands = (car(frames, 0.0, 0.0) | car(frames, 0.0, 0.0, 1.0))[None]
        elif case == "cut":
            car(frames, 39.0, 0.0, 0.4)
        elif case == "merged":
            car(frames, 0.0, 0.0)
            car(frames, 4.4, 0.3)
        elif case == "crumb":
            frames[0, 100:104, 100:103, 3:6] = CAR
        else:
            car(frames, 0.0, 0.0, 0.3, BUS)
        assert torch.equal(as_boxes(frames, stands, SIZE, OCC3D), frames), case
