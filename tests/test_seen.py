"""What a start's frames saw is read from anywhere as the nearest sample of them all."""

import pytest
import torch

from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import compose, to_world
from occsora_sim.grid import FREE
from occsora_sim.models.columns import UNSEEN
from occsora_sim.models.seen import FINER, Seen, _rows, of_codes
from occsora_sim.presets import tiny

GRID = tiny().grid


def frames(count=2, steps=3):
    """Frames of a few kinds of columns, of which a corner was not seen, from poses that move and turn."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randint(0, FREE + 1, (7, GRID.shape[2]), generator=generator, dtype=torch.uint8)
    labels = kinds[torch.randint(0, 7, (count, steps, *GRID.shape[:2]), generator=generator)]
    labels[:, :, :3, :5] = UNSEEN
    step = torch.tensor([0.7, 0.1, 0.05])
    poses = [torch.tensor([[3.0, -2.0, 0.4], [100.0, 7.0, -2.0]])[:count]]
    for _ in range(steps - 1):
        poses.append(compose(poses[-1], step.expand(count, 3)))
    return labels, torch.stack(poses, dim=1)


def read(seen: Seen, pose: torch.Tensor) -> torch.Tensor:
    """Codes (b, x, y) of one frame at each of the poses (b, 3)."""
    return seen.look(seen.points(pose[:, None], GRID), GRID)[:, 0]


@pytest.mark.parametrize("offset", [(0.0, 0.0, 0.0), (1.3, 0.4, 0.2), (-4.0, 3.0, 2.5)])
def test_what_is_read_was_sampled_as_near_as_can_be(offset):
    """No two columns are the same, so what is read tells where it was taken."""
    _, poses = frames(count=1)
    number = torch.arange(3 * GRID.shape[0] * GRID.shape[1]).view(1, 3, *GRID.shape[:2], 1)
    labels = (number // 16 ** torch.arange(GRID.shape[2]) % 16).byte()
    places = to_world(GRID.centres_xy(), poses[0, :, None, None]).flatten(0, 2)
    seen = Seen.of(labels, poses, GRID)
    pose = compose(poses[:, -1], torch.tensor([offset]))
    codes = read(seen, pose)
    columns = seen.columns(codes)[0].long()
    taken = places[(columns * 16 ** torch.arange(GRID.shape[2])).sum(-1).clamp(max=len(places) - 1)]
    asked = to_world(GRID.centres_xy(), pose[0])
    away, nearest = (taken - asked).norm(dim=-1), torch.cdist(asked.flatten(0, 1), places).amin(1)
    known, nearest = codes[0] > 0, nearest.view(away.shape)
    farther = (away - nearest)[known] / GRID.voxel
    assert farther.max() <= 2**0.5 / FINER and farther.mean() < 0.02
    assert known[nearest < GRID.voxel * (0.5 - 1 / FINER)].all() and not known[nearest > GRID.voxel].any()


def test_far_away_nothing_was_seen():
    labels, poses = frames()
    seen = Seen.of(labels, poses, GRID)
    assert not read(seen, compose(poses[:, -1], torch.tensor([[500.0, 0.0, 0.0]] * 2))).any()


def test_the_newest_frame_is_read_exactly_and_a_point_says_what_its_cell_holds():
    labels, poses = frames(steps=1)
    seen = Seen.of(labels, poses, GRID)
    assert torch.equal(seen.columns(read(seen, poses[:, -1])), labels[:, -1])
    centres = GRID.centres_xy().expand(2, *GRID.shape[:2], 2)
    assert torch.equal(seen.look(centres, GRID), read(seen, poses[:, -1]))
    assert not seen.look(centres + 400.0, GRID).any()


def test_codes_of_each_world_are_its_own():
    table = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert of_codes(table, torch.tensor([[0, -1], [1, 2]], dtype=torch.int32)).tolist() == [[1, 3], [5, 6]]


def test_frames_that_are_no_labels_are_refused():
    noise = torch.randint(0, FREE, (1, 1, 200, 200, 16), dtype=torch.uint8)
    with pytest.raises(ConfigurationError, match=r"^start: its frames hold \d+ different columns[^\n]+$"):
        Seen.of(noise, torch.zeros(1, 1, 3), tiny().grid)


def test_centres_of_a_turned_frame_lie_where_its_pose_puts_them():
    poses = torch.tensor([[[3.0, -2.0, 0.7], [0.0, 0.0, 0.0]]])
    centres = GRID.centres_from(poses)
    torch.testing.assert_close(centres, to_world(GRID.centres_xy(), poses[:, :, None, None]))
    assert torch.equal(centres[0, 1], GRID.centres_xy())


def test_cells_of_thousands_of_worlds_are_told_apart():
    """A lattice has 1.6 million cells: from 1,311 worlds on more than 32 bits count."""
    assert _rows(torch.zeros(2000, 1), 1280**2)[-1].item() == 1999 * 1280**2
