"""Reading the record between its samples."""

import math
from dataclasses import replace

import pytest
import torch

from occsora_sim.geometry import to_world
from occsora_sim.grid import DRIVEABLE, FREE, PEDESTRIAN, SIDEWALK, Grid
from occsora_sim.models.columns import UNSEEN
from occsora_sim.models.record import Record
from occsora_sim.models.resampler import REACH, Resampler, Surroundings, surroundings
from occsora_sim.models.weights import load_world_model
from occsora_sim.scenes.file import save_scene
from occsora_sim.scenes.source import open_scenes
from occsora_sim.training.resampling import draw_places, together, turned
from occsora_sim.training.windows import WindowSampler
from occsora_sim.worlds.diffusion import default_weights

GRID = Grid(shape=(48, 48, 16), voxel=0.4, lower=(-9.6, -9.6, -1.0))


def kerb(pose: torch.Tensor, angle: float, off: float) -> torch.Tensor:
    """What an ego at pose (3,) sees of a road with pavement beyond a straight kerb `off` [m] from the origin: (1, x, y,
    z).
    """
    labels = torch.full((1, *GRID.shape), FREE, dtype=torch.uint8)
    points = to_world(GRID.centres_xy(), pose[None, None])
    beyond = points[..., 0] * math.cos(angle) + points[..., 1] * math.sin(angle) > off
    labels[..., GRID.ground] = torch.where(beyond, SIDEWALK, DRIVEABLE).to(torch.uint8)
    return labels


def drive(angle: float, off: float, *, step: float = 0.53, turn: float = 0.04) -> tuple[Record, torch.Tensor]:
    """The record of four frames of that kerb, and a pose a second later."""
    poses = torch.tensor([[k * step, 0.1 * k, k * turn] for k in range(6)])
    frames = torch.cat([kerb(pose, angle, off) for pose in poses[:4]])
    return Record.of(frames[None], poses[None, :4], GRID), poses[5]


def wrong(labels: torch.Tensor, pose: torch.Tensor, angle: float, off: float) -> int:
    """Columns of a reading (1, 1, x, y, z) that are not what is there."""
    read = labels[0, 0]
    seen = (read != UNSEEN).all(-1)
    return int(((read != kerb(pose, angle, off)[0]).any(-1) & seen).sum())


def examples(seed: int, count: int) -> tuple[Surroundings, torch.Tensor]:
    """Places along kerbs at random, and whether the nearest kind is right."""
    generator = torch.Generator().manual_seed(seed)
    parts, rights = [], []
    for _ in range(count):
        angle = float(torch.rand((), generator=generator)) * 2 * math.pi
        off = float(torch.rand((), generator=generator)) * 4 - 2
        record, pose = drive(angle, off, step=0.3 + 0.5 * float(torch.rand((), generator=generator)))
        answer = record.answer(pose[None, None], GRID)
        row, frame, i, j = answer.disputed.nonzero().unbind(1)
        near = surroundings(record, row, answer.place[row, frame, i, j])
        truth = kerb(pose, angle, off)[0][i, j]
        right = (near.columns[near.first] == truth).all(-1)
        both = near.second >= 0
        parts.append(
            replace(
                near,
                kind=near.kind[both],
                offset=near.offset[both],
                first=near.first[both],
                second=near.second[both],
            )
        )
        rights.append(right[both])
    places = together(parts, rights)
    return places.near, places.right


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.9])
def test_a_fresh_resampler_answers_with_the_nearest_sample(angle):
    record, pose = drive(angle, 0.7)
    poses = pose[None, None]
    assert torch.equal(Resampler(16, 16).read(record, poses, GRID), record.read(poses, GRID))


def test_places_are_disputed_along_the_kerb_alone():
    record, pose = drive(0.3, 0.7)
    disputed = record.answer(pose[None, None], GRID).disputed[0, 0]
    points = to_world(GRID.centres_xy(), pose[None, None])
    away = (points[..., 0] * math.cos(0.3) + points[..., 1] * math.sin(0.3) - 0.7).abs()
    assert disputed.any()
    assert (
        float(away[disputed].max()) < 0.9
    )  # one cell and a half, and how far a sample may lie from its cell's centre
    assert disputed[(away < 0.1) & (record.read(pose[None, None], GRID)[0, 0, ..., 0] != UNSEEN)].all()


def test_offsets_lead_to_where_the_samples_were_taken():
    pose = torch.tensor([[0.1, -0.3, 0.0]])
    record = Record.empty(pose, GRID).write(kerb(pose[0], 0.0, 0.4), pose, GRID)
    middle = torch.tensor([[24.0, 26.0]])  # a column's centre: two cells to a voxel
    index, offset, recorded = record.around(torch.zeros(1, dtype=torch.long), middle, 2)
    assert index.shape == recorded.shape == (1, 25)
    assert recorded.all()
    assert offset[0, 12].abs().max() == 0  # sampled at the very place
    # Every sample was taken at a column's centre, and those of cells between columns belong to one beside them.
    assert torch.allclose(((offset + middle) / 2).round() * 2, offset + middle, atol=0.02)


def test_a_resampler_learns_that_kerbs_are_straight():
    torch.manual_seed(0)
    near, right = examples(0, 120)
    resampler = Resampler(16, 48, depth=1)
    optimiser = torch.optim.Adam(resampler.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(1)
    for step in range(250):
        rows = torch.randint(len(right), (512,), generator=generator)
        some = replace(
            near,
            kind=near.kind[rows],
            offset=near.offset[rows],
            first=near.first[rows],
            second=near.second[rows],
        )
        loss, logs = resampler.loss(turned(some, step % 8), right[rows], torch.ones(len(rows)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert logs["resampler/loss"] > 0
    unseen, truth = examples(1, 30)
    with torch.no_grad():
        missed = ((resampler(unseen) > 0) != truth).float().mean()
    assert missed < 0.7 * (~truth).float().mean()


def test_shipped_weights_draw_kerbs_straighter_than_the_nearest_sample():
    model, _ = load_world_model(default_weights())
    assert model.resampler is not None
    mine = nearest = 0
    for angle in (0.2, 0.5, 0.9, 1.3, 2.0, 2.6):
        record, pose = drive(angle, 0.7)
        poses = pose[None, None]
        mine += wrong(model.resampler.read(record, poses, GRID), pose, angle, 0.7)
        nearest += wrong(record.read(poses, GRID), pose, angle, 0.7)
    assert nearest > 20
    assert mine < 0.8 * nearest


@pytest.fixture
def opinionated() -> Resampler:
    """One that takes the second kind about as often as the first."""
    torch.manual_seed(3)
    resampler = Resampler(16, 16)
    last = resampler.head[-1]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.normal_(last.weight)
    torch.nn.init.zeros_(last.bias)
    return resampler


def test_a_reading_is_a_column_of_the_record_or_unseen(opinionated):
    record, pose = drive(0.3, 0.7)
    poses = (pose + torch.tensor([3.0, 0.0, 0.0]))[None, None]
    plain, read = record.read(poses, GRID), opinionated.read(record, poses, GRID)
    assert torch.equal((read == UNSEEN).all(-1), (plain == UNSEEN).any(-1))
    assert (read == UNSEEN).any()
    assert not torch.equal(read, plain)
    kinds = {tuple(column) for column in plain.flatten(0, 3).unique(dim=0).tolist()}
    assert {tuple(column) for column in read.flatten(0, 3).unique(dim=0).tolist()} == kinds


def test_a_world_reads_the_same_alone_and_in_a_batch(opinionated):
    worlds = [drive(0.3, 0.7), drive(1.9, -0.4)]
    both = Record(
        **{
            name: torch.cat([getattr(record, name) for record, _ in worlds])
            for name in ("labels", "place", "stamp", "origin")
        },
        cell=worlds[0][0].cell,
    )
    poses = torch.stack([torch.stack((pose, pose + 0.1)) for _, pose in worlds])
    together = opinionated.read(both, poses, GRID)
    for row, (record, _) in enumerate(worlds):
        assert torch.equal(together[row : row + 1], opinionated.read(record, poses[row : row + 1], GRID))


@pytest.mark.parametrize("way", range(8))
def test_turned_surroundings_are_those_of_a_turned_street(way):
    record, pose = drive(0.3, 0.7)
    answer = record.answer(pose[None, None], GRID)
    row, frame, i, j = answer.disputed.nonzero().unbind(1)
    near = surroundings(record, row, answer.place[row, frame, i, j])
    other = turned(near, way)
    steps = torch.arange(-REACH, REACH + 1.0)
    cells = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1).flatten(0, 1)
    recorded = other.kind >= 0
    assert (
        (other.offset - cells).abs().amax(-1)[recorded] < 1.95
    ).all()  # each sample still lies by its cell
    assert torch.equal(other.kind.sort(dim=1).values, near.kind.sort(dim=1).values)
    distance = torch.where(recorded, other.offset.norm(dim=-1), 99.0)
    nearest = other.kind.gather(1, distance.argmin(dim=1, keepdim=True))[:, 0]
    assert torch.equal(nearest, near.first)
    if way in (0, 3, 4, 7):
        same = (turned(other, way).offset == near.offset).all()
        assert same


def test_places_to_learn_from_are_drawn_with_what_stands_there(tmp_path, straight_road):
    save_scene(straight_road(cars=[(20.0, 0.0, 6.0)]), tmp_path / "road.safetensors")
    sampler = WindowSampler(open_scenes(str(tmp_path)), GRID, history=4, future=2)
    places = draw_places(sampler, GRID, 6, torch.Generator().manual_seed(0))
    near = places.near
    n = len(places.right)
    assert n > 50
    assert near.kind.shape == (n, (2 * REACH + 1) ** 2)
    assert near.offset.shape == (n, (2 * REACH + 1) ** 2, 2)
    assert (near.first != near.second).all()
    assert (near.first >= 0).all()
    assert int(near.kind.max()) < len(near.columns)
    assert not (near.columns == PEDESTRIAN).any()
    assert 0.5 < float(places.right.float().mean()) < 1.0
    assert (places.weight >= 1).all()
