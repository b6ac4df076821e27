"""Claims about frayed ground."""

import torch

from occsora_sim.grid import DRIVEABLE, FREE, MANMADE, Grid
from occsora_sim.models.columns import UNSEEN
from occsora_sim.training.fraying import fray

GRID = Grid(shape=(48, 48, 16), voxel=0.8, lower=(-19.2, -19.2, -1.0))


def street(windows: int = 6, frames: int = 2) -> torch.Tensor:
    """A road along x between houses, nothing known beyond x = 40."""
    static = torch.full((windows, frames, *GRID.shape), FREE, dtype=torch.uint8)
    static[..., :, 20:28, 0] = DRIVEABLE
    static[..., :, :14, :6] = MANMADE
    static[..., :, 34:, :6] = MANMADE
    static[..., 40:, :, :] = UNSEEN
    return static


def at(windows: int, frames: int, metres: float = 0.0) -> torch.Tensor:
    poses = torch.zeros(windows, frames, 3)
    poses[:, 1:, 0] = metres
    return poses


def test_a_share_of_the_windows_is_frayed_and_the_others_are_left():
    static = street(40)
    frayed = fray(static, at(40, 2), 0.5, GRID, torch.Generator().manual_seed(0))
    touched = (frayed != static).flatten(1).any(1)
    assert 10 <= int(touched.sum()) <= 30
    assert torch.equal(fray(static, at(40, 2), 0.0, GRID, torch.Generator().manual_seed(0)), static)
    assert (
        int((static[..., :40, 20:28, 0] == DRIVEABLE).sum()) == 40 * 2 * 40 * 8
    )  # the argument is left as it was


def test_edges_move_and_the_inside_stays():
    frayed = fray(street(), at(6, 2), 1.0, GRID, torch.Generator().manual_seed(0))
    moved = (frayed != street()).any(-1).float().mean((0, 1, 2))  # by y
    assert float(moved[[13, 14, 33, 34]].mean()) > 5 * float(moved[[2, 3, 44, 45]].mean())


def test_what_was_never_shown_stays_so_and_nothing_is_lost():
    frayed = fray(street(), at(6, 2), 1.0, GRID, torch.Generator().manual_seed(1))
    assert torch.equal(frayed == UNSEEN, street() == UNSEEN)


def test_the_frames_of_a_window_agree_about_the_world():
    static = street(frames=2)
    static[:, :, 40:] = static[:, :, :1]  # the same along x, so that both frames show the same street
    frayed = fray(static, at(6, 2, metres=4 * GRID.voxel), 1.0, GRID, torch.Generator().manual_seed(2))
    assert torch.equal(frayed[:, 0, 12:40], frayed[:, 1, 8:36])
    assert not torch.equal(frayed[:, 0, 12:40], static[:, 0, 12:40])
