"""Who comes into view: learned from maps, drawn where there was nobody to be seen, and clear of everything."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from occsora_sim.grid import CAR, DRIVEABLE, DYNAMIC, FREE, MANMADE, OCC3D, PEDESTRIAN, SIDEWALK, Grid
from occsora_sim.models.arrivals import arrive, without_uncarried
from occsora_sim.models.newcomers import CELL, CHANNELS, Expected, Newcomers, Present, surroundings
from occsora_sim.training.growth import with_traffic
from occsora_sim.training.newcomers import Maps, hide, newcomer_loss, road_users
from occsora_sim.training.windows import Windows
from occsora_sim.worlds.diffusion import DiffusionWorld
from occsora_sim.worlds.protocol import Start

CELLS = (OCC3D.shape[0] // CELL, OCC3D.shape[1] // CELL)
CARS, PEOPLE = DYNAMIC.index(CAR), DYNAMIC.index(PEDESTRIAN)


class Certain(Newcomers):
    """Expects one road user of a class, its middle in the cell around a place [m], and nobody else."""

    def __init__(
        self, kind: int, x: float, y: float, speed: float = 0.0, heading: float = 0.0, grid: Grid = OCC3D
    ) -> None:
        super().__init__(8)
        self.kind, self.speed, self.heading = kind, speed, heading
        edge = CELL * grid.voxel
        self.cell = tuple(int((v - low) // edge) for v, low in zip((x, y), grid.lower, strict=False))
        self.cells = grid.shape[0] // CELL, grid.shape[1] // CELL
        self.size[CARS] = torch.tensor([4.4, 1.8, 3.0])
        self.size[PEOPLE] = torch.tensor([0.6, 0.6, 4.0])

    def forward(self, around, hidden, vehicles):
        b = len(around)
        chance = torch.full((b, len(DYNAMIC), *self.cells), -1e3)
        chance[:, self.kind, self.cell[0], self.cell[1]] = 1e3
        direction = torch.zeros(b, 2, *self.cells)
        direction[:, 0], direction[:, 1] = math.cos(self.heading), math.sin(self.heading)
        axis = torch.zeros(b, 2, *self.cells)
        axis[:, 0], axis[:, 1] = math.cos(2 * self.heading), math.sin(2 * self.heading)
        moves = torch.full((b, 3, *self.cells), 1e3 if self.speed else -1e3)
        return Expected(
            chance=chance,
            direction=direction,
            axis=axis,
            moves=moves,
            speed=torch.full((b, 3, *self.cells), self.speed),
        )


def street() -> torch.Tensor:
    """(1, 2, x, y, z): road everywhere."""
    frames = torch.full((1, 2, *OCC3D.shape), FREE, dtype=torch.uint8)
    frames[..., OCC3D.ground] = DRIVEABLE
    return frames


def poses(step: float = 0.0) -> torch.Tensor:
    """(1, 2, 3): the ego drives along x, `step` [m] a frame."""
    return torch.tensor([[[step, 0.0, 0.0], [2 * step, 0.0, 0.0]]])


def drawn(newcomers, frames=None, step=4.0, first=False, seed=0, line=None):
    frames = street() if frames is None else frames
    return arrive(
        newcomers, frames, torch.zeros(1, *OCC3D.shape[:2]), line, torch.zeros(1, 3), poses(step),
        torch.tensor([first]),
        torch.tensor([math.nan]), [torch.Generator().manual_seed(seed)], OCC3D,
    )  # fmt: skip


def middle(frame: torch.Tensor, label: int) -> torch.Tensor:
    """Mean place [m] of a class's columns (x, y, z)."""
    return OCC3D.centres_xy()[(frame == label).any(-1)].mean(0)


def test_who_is_expected_on_new_ground_arrives_whole_and_moves_as_the_world_turns():
    out, offsets = drawn(Certain(CARS, 36.0, 5.0, speed=5.0), step=4.0)
    last, before = (out[0, k] == CAR for k in (1, 0))
    assert 40 <= int(last.any(-1).sum()) <= 60, "4.4 by 1.8 m are about fifty columns"
    assert last.any(0).any(0).nonzero()[:, 0].tolist() == [3, 4, 5], "on the ground"
    x, y = middle(out[0, 1], CAR)
    assert abs(x - 36.0) < 1.0 and abs(y - 5.0) < 1.0, "within its cell"
    # Half a second before it was up to 3 m further back in the world, in a frame that lay 4 m behind.
    gone = middle(out[0, 1], CAR)[0] + 4.0 - middle(out[0, 0], CAR)[0]
    assert before.any() and 1.6 <= gone <= 3.4
    assert (offsets == 0).all(), "a car needs none"


def test_nobody_arrives_where_one_would_have_been_seen_before():
    for x in (0.0, 20.0, 29.0):
        out, _ = drawn(Certain(CARS, x, 5.0), step=4.0)
        assert torch.equal(out, street())
    out, _ = drawn(Certain(CARS, 36.0, 5.0), step=0.0)
    assert torch.equal(out, street()), "nothing new, and it stands"


def test_who_drives_into_a_view_that_stands_arrives_and_who_drives_out_of_it_does_not():
    coming, _ = drawn(Certain(CARS, -35.0, 5.0, speed=8.0), step=0.0)
    assert (coming[0, 1] == CAR).any()
    leaving, _ = drawn(Certain(CARS, -35.0, 5.0, speed=8.0, heading=math.pi), step=0.0)
    assert torch.equal(leaving, street())


def test_at_first_anybody_may_be_there_but_for_the_ego_s_place():
    out, _ = drawn(Certain(CARS, -20.0, 5.0), first=True, step=0.0)
    assert (out[0] == CAR).any()
    out, _ = drawn(Certain(CARS, 6.0, 0.5), first=True, step=0.0)
    assert torch.equal(out, street())


def test_where_somebody_stands_the_next_one_waits_behind():
    frames = street()
    x, y = (int((v + 40) / 0.4) for v in (36.0, 5.0))
    frames[:, 1, x - 5 : x + 6, y - 2 : y + 3, 3:6] = CAR  # half a second before it was out of view
    out, _ = drawn(Certain(CARS, 36.0, 5.0, speed=5.0), frames.clone(), step=8.0)
    new = (out[0, 1] == CAR).any(-1) & ~(frames[0, 1] == CAR).any(-1)
    assert 40 <= int(new.sum()) <= 60, "one more, whole"
    columns = new.nonzero()
    assert int(columns[:, 0].max()) < x - 5 - 2, "behind, with a gap of a metre"
    assert abs(float(columns[:, 1].float().mean()) - y) < 3, "in the same lane"


def test_nobody_comes_towards_the_ego_in_its_own_lane():
    route = torch.full((1, 120, 2), math.nan)
    route[0, :100, 0], route[0, :100, 1] = torch.arange(100.0), 0.0
    for y, heading, comes in ((0.5, math.pi, False), (0.5, 0.0, True), (3.7, math.pi, True)):
        certain = Certain(CARS, 36.0, y, speed=5.0, heading=heading)
        out, _ = drawn(certain, line=route)
        assert bool((out[0, 1] == CAR).any()) == comes
        assert (drawn(certain)[0][0, 1] == CAR).any(), "unless no route is asked for"
    on_foot, _ = drawn(Certain(PEOPLE, 36.0, 0.5, speed=1.0, heading=math.pi), line=route)
    assert (on_foot[0, 1] == PEDESTRIAN).any()


class AtCrossing(Certain):
    """As `Certain`; its mean direction is short and askew but in one lane."""

    def __init__(self, *args, lane: float, **options) -> None:
        super().__init__(*args, **options)
        self.lane = int((lane + 40) / (CELL * OCC3D.voxel))

    def forward(self, around, hidden, vehicles):
        expected = super().forward(around, hidden, vehicles)
        askew = torch.tensor([0.2, -0.4]).view(1, 2, 1, 1).expand_as(expected.direction).clone()
        askew[..., self.lane] = expected.direction[..., self.lane]
        return replace(expected, direction=askew)


def test_where_ways_cross_one_comes_in_the_lane_beside_and_along_it():
    out, _ = drawn(AtCrossing(CARS, 34.0, 5.0, speed=5.0, lane=8.2))
    car = (out[0, 1] == CAR).any(-1).nonzero()
    sides = car.amax(0) - car.amin(0) + 1
    assert sides[0] >= 10 and sides[1] <= 6, "along the lane, not askew"
    assert abs(float(middle(out[0, 1], CAR)[1]) - 8.2) < 1.0
    far, _ = drawn(AtCrossing(CARS, 34.0, 5.0, speed=5.0, lane=20.0))
    assert abs(float(middle(far[0, 1], CAR)[1]) - 5.0) < 1.0, "no lane is near"


@pytest.mark.parametrize("obstacle", ["cars", "house", "pavement"])
def test_nobody_arrives_in_others_in_houses_or_beside_the_road(obstacle):
    frames = street()
    x, y = (int((v + 40) / 0.4) for v in (36.0, 5.0))
    if obstacle == "cars":
        frames[:, :, x - 30 :, y - 2 : y + 2, 3:6] = CAR
    elif obstacle == "house":
        frames[:, :, x - 2 : x + 2, y + 1 : y + 20, 3:12] = MANMADE
    else:
        frames[:, :, :, y - 8 : y + 8, OCC3D.ground] = SIDEWALK
    out, _ = drawn(Certain(CARS, 36.0, 5.0, speed=5.0), frames.clone())
    assert torch.equal(out, frames)
    if obstacle == "pavement":  # where a car may be parked
        out, _ = drawn(Certain(CARS, 36.0, 5.0), frames.clone())
        assert (out == CAR).any()


def test_a_pedestrian_keeps_its_place_between_the_columns():
    out, offsets = drawn(Certain(PEOPLE, 34.0, 6.0, speed=1.2))
    ways = []
    for k in range(2):
        columns = (out[0, k] == PEDESTRIAN).any(-1)
        assert 1 <= int(columns.sum()) <= 4
        ways.append((OCC3D.centres_xy() + offsets[0, k])[columns].mean(0))
    gone = float((ways[1] + torch.tensor([4.0, 0.0]) - ways[0]).norm())
    assert 0.4 < gone < 0.8, "half a second at 0.96 to 1.44 m/s, to the centimetre and not to the column"


def test_the_same_seed_draws_the_same_alone_and_in_a_batch():
    certain = Certain(CARS, 36.0, 5.0, speed=5.0)
    both, _ = arrive(
        certain, street().expand(2, -1, -1, -1, -1), torch.zeros(2, *OCC3D.shape[:2]), None, torch.zeros(2, 3),
        poses(4.0).expand(2, -1, -1), torch.tensor([False, False]), torch.full((2,), math.nan),
        [torch.Generator().manual_seed(seed) for seed in (0, 1)], OCC3D,
    )  # fmt: skip
    for seed in (0, 1):
        assert torch.equal(both[seed], drawn(certain, seed=seed)[0][0])
    assert not torch.equal(both[0], both[1])


def test_of_a_draw_only_those_stay_whom_the_past_lets_expect():
    frames, prior = street()[0], street()[0]
    frames[:, 60:70, 98:102, 3:6] = CAR  # carried, and drawn longer than it was
    prior[:, 60:66, 98:102, 3:6] = CAR
    frames[:, 120:125, 98:102, 3:6] = CAR  # nobody's
    out = without_uncarried(frames, prior)
    assert torch.equal(out[:, :100], frames[:, :100])
    assert (out[:, 100:] == street()[0][:, 100:]).all()


def test_fresh_newcomers_expect_nobody_and_models_from_before_have_none(untrained_model):
    old = type(untrained_model)(replace(untrained_model.config, newcomers=0, departures=0))
    grown = with_traffic(old)
    assert old.newcomers is None and grown.newcomers is not None and with_traffic(grown) is grown
    around = surroundings(street()[0], torch.zeros(2, *OCC3D.shape[:2]))
    expected = grown.newcomers(around, torch.ones(2, *CELLS, dtype=torch.bool), torch.tensor([math.nan, 5.0]))
    assert float(expected.chance.detach().sigmoid().sum()) < 0.2


def test_newcomers_learn_who_is_where_and_how_many():
    """Frames of a road beside a pavement, people on the pavement, walking along it; one car where one is asked for."""
    torch.manual_seed(0)
    labels = street()[0, :1, :64, :64]
    labels[:, :, :32, OCC3D.ground] = SIDEWALK
    around = surroundings(labels, torch.zeros(1, 64, 64))
    generator = torch.Generator().manual_seed(0)
    rows, kinds, cells, velocities, count = [], [], [], [], []
    for row in range(24):
        n = 3 + 12 * (row % 2)
        count.append(n)
        for k in range(n):
            x, y = torch.rand(2, generator=generator).tolist()
            rows.append(row)
            kinds.append(PEOPLE if k < 3 else CARS)
            cells.append((int(x * 32), int(y * 16) + (0 if k < 3 else 16)))
            velocities.append((1.2, 0.0) if k < 3 else (0.0, 0.0))
    first = torch.cat((torch.zeros(1, dtype=torch.long), torch.tensor(count).cumsum(0)))
    maps = Maps(
        around=(around * CELL**2).to(torch.uint8).expand(24, -1, -1, -1),
        vehicles=torch.tensor([float(n - 3) for n in count]),
        present=Present(
            row=torch.tensor(rows), kind=torch.tensor(kinds), cell=torch.tensor(cells),
            velocity=torch.tensor(velocities),
        ),
        first=first,
        size=torch.ones(len(DYNAMIC), 3),
    )  # fmt: skip
    newcomers = Newcomers(8)
    newcomers.begin_with(maps.size, maps.rate)
    optimiser = torch.optim.Adam(newcomers.parameters(), lr=1e-2)
    for step in range(200):
        loss, _ = newcomer_loss(newcomers, maps, 0.4, torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    hidden = torch.ones(1, 32, 32, dtype=torch.bool)
    with torch.no_grad():
        expected = newcomers(around, hidden, torch.tensor([math.nan]))
        people = expected.chance[0, PEOPLE].sigmoid()
        assert people[:, :15].sum() > 8 * people[:, 17:].sum()
        assert 1.5 < float(people.sum()) < 6, "three on each frame"
        cars = [
            newcomers(around, hidden, torch.tensor([asked])).chance[0, CARS].sigmoid().sum()
            for asked in (0.0, 12.0)
        ]
    assert cars[1] > 3 * cars[0]


def test_marks_of_those_who_are_there_are_learned():
    """People walk along 30 degrees, either way, cars drive along 90 degrees at 8 m/s, half of them."""
    way = torch.tensor([math.cos(math.pi / 6), math.sin(math.pi / 6)])
    velocity = torch.stack((1.2 * way, -1.2 * way, torch.tensor([0.0, 8.0]), torch.zeros(2)))
    present = Present(
        row=torch.zeros(4, dtype=torch.long),
        kind=torch.tensor([PEOPLE, PEOPLE, CARS, CARS]),
        cell=torch.tensor([[1, 1], [2, 2], [3, 3], [4, 4]]),
        velocity=velocity,
    )
    newcomers = Newcomers(8)
    around, hidden = torch.zeros(1, CHANNELS, 8, 8), torch.ones(1, 8, 8, dtype=torch.bool)
    bias = newcomers.head.bias
    assert bias is not None
    optimiser = torch.optim.Adam([bias], lr=0.1)
    for _ in range(200):
        loss, _ = newcomers.loss(around, hidden, torch.tensor([math.nan]), present)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    expected = newcomers(around, hidden, torch.tensor([math.nan]))
    c, s = expected.axis[0, :, 4, 4].tolist()
    assert math.degrees(math.atan2(s, c) / 2) == pytest.approx(30, abs=2)
    assert expected.direction[0, :, 4, 4].tolist() == pytest.approx([0, 1], abs=0.02)
    assert expected.moves[0, [0, 2], 4, 4].sigmoid().tolist() == pytest.approx([1, 0.5], abs=0.05)
    assert expected.speed[0, [0, 2], 4, 4].tolist() == pytest.approx([1.2, 8], abs=0.2)


def test_maps_turn_with_those_on_them():
    """What is on a patch of pavement is on it after any quarter turns, and moves along it as before."""
    labels = street()[0, :1]
    labels[:, 20:60, 140:150, OCC3D.ground] = SIDEWALK  # along x
    around = surroundings(labels, torch.zeros(1, *OCC3D.shape[:2]))
    maps = Maps(
        around=(around * CELL**2).to(torch.uint8),
        vehicles=torch.zeros(1),
        present=Present(
            row=torch.tensor([0]), kind=torch.tensor([PEOPLE]), cell=torch.tensor([[12, 72]]),
            velocity=torch.tensor([[1.0, 0.0]]),
        ),
        first=torch.tensor([0, 1]),
        size=torch.ones(len(DYNAMIC), 3),
    )  # fmt: skip

    class Looks(Newcomers):
        def loss(self, around, hidden, vehicles, present):
            for row, cell, velocity in zip(present.row, present.cell, present.velocity, strict=True):
                pavement = around[row, 2] > 0
                assert pavement[tuple(cell)]
                ahead = cell + 6 * velocity.round().long()
                behind = cell - 6 * velocity.round().long()
                assert pavement[tuple(ahead)] and not pavement[tuple(behind)], (
                    "it stands 2 cells from the near end"
                )
                seen.append(tuple(velocity.round().int().tolist()))
            return around.sum(), {}

    seen: list[tuple[int, ...]] = []
    for step in range(40):
        newcomer_loss(Looks(8), maps, 0.4, torch.Generator().manual_seed(step))
    assert set(seen) == {(1, 0), (0, 1), (-1, 0), (0, -1)}


def test_road_users_of_a_window_are_found_whole_with_velocity_and_size():
    labels = street()
    labels[0, 0, 50:61, 98:103, 3:6] = CAR
    labels[0, 0, 0:6, 20:25, 3:6] = CAR  # cut by the edge of the view
    labels[0, 0, 150, 60, 3:7] = PEDESTRIAN
    displacement = torch.zeros(1, 1, *OCC3D.shape[:2], 2)
    displacement[0, 0, 50:61, 98:103, 0] = 2.0
    windows = Windows(
        labels=labels, poses=torch.zeros(1, 2, 3), displacement=displacement, route=torch.zeros(1, 0, 2), history=1,
        scene=torch.zeros(1, 2),
    )  # fmt: skip
    row, marks = road_users(windows, OCC3D)
    assert row.tolist() == [0, 0]
    car, person = sorted(marks.tolist(), key=lambda mark: mark[1])
    assert car[:5] == [CARS, 27, 50, 4.0, 0.0]
    assert car[5:] == pytest.approx([4.4, 2.0, 3.0], abs=1e-3)
    assert person[:5] == [PEOPLE, 75, 30, 0.0, 0.0] and person[7] == 4.0


def test_what_is_hidden_is_all_a_half_or_a_rim():
    shares = hide(300, CELLS, 0.8, torch.Generator().manual_seed(0)).float().mean((1, 2))
    assert 0.25 < float((shares == 1).float().mean()) < 0.36
    assert float(shares.min()) >= 0 and float((shares < 0.9).float().mean()) > 0.5


def test_a_drawn_future_has_newcomers_and_the_expected_one_none(untrained_model):
    """Somebody walks in from beyond the edge of a street that is known, or out; it is drawn which."""
    model = copy.deepcopy(untrained_model)
    grid = model.config.grid
    model.newcomers = Certain(PEOPLE, grid.upper[0] - 1.2, 4.0, speed=3.0, grid=grid)
    frames = torch.full((4, *grid.shape), FREE, dtype=torch.uint8)
    frames[..., grid.ground] = DRIVEABLE
    begin = Start(occupancy=frames, ego_pose=torch.zeros(4, 3), route=torch.zeros(0, 2))
    seen = {}
    for mode in ("sample", "mean"):
        world = DiffusionWorld(model, mode=mode, steps=1)
        out = world.step(world.reset([begin] * 8, range(8)), torch.zeros(8, 2, 3)).occupancy[:, -1]
        seen[mode] = (out == PEDESTRIAN).flatten(1).any(1)
    assert seen["sample"].any() and not seen["sample"].all()
    assert not seen["mean"].any()
