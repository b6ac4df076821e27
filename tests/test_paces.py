"""Who is foretold to move goes on at a pace that is drawn: learned, as one piece, never backwards."""

import pytest
import torch

from occsora_sim.grid import BICYCLE, CAR, DRIVEABLE, FREE, OCC3D, PEDESTRIAN
from occsora_sim.models.columns import ground_image, road_user_image
from occsora_sim.models.motion import MotionEstimator
from occsora_sim.models.paces import EDGES, Paces, further, moving_vehicles
from occsora_sim.models.road_users import describe

STANDS, MOVES, RIDES, WALKS = (
    (CAR, 60, 98, 11, 5),
    (CAR, 110, 90, 11, 5),
    (BICYCLE, 20, 60, 4, 1),
    (PEDESTRIAN, 30, 30, 1, 1),
)


def street() -> torch.Tensor:
    frame = torch.full((1, *OCC3D.shape), FREE, dtype=torch.uint8)
    frame[..., OCC3D.ground] = DRIVEABLE
    for label, x, y, length, width in (STANDS, MOVES, RIDES, WALKS):
        frame[0, x : x + length, y : y + width, 3:7] = label
    return frame


def part(displacement: torch.Tensor, whom: tuple[int, int, int, int, int]) -> torch.Tensor:
    """Displacements (f, length, width, 2) of one."""
    _, x, y, length, width = whom
    return displacement[0, :, x : x + length, y : y + width]


def foretold() -> torch.Tensor:
    """Along y, in a chunk: the one car 3 m, the bicycle 2 m, the pedestrian 1 m; the other car stands."""
    out = torch.zeros(1, 2, *OCC3D.shape[:2], 2)
    for whom, metres in ((MOVES, 3.0), (RIDES, 2.0), (WALKS, 1.0)):
        part(out, whom)[..., 1] = torch.tensor([metres / 2, metres])[:, None, None]
    return out


@pytest.fixture
def seen() -> tuple[MotionEstimator, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    motion, frame = MotionEstimator(4, 2, 8), street()
    images = road_user_image(frame)[:, None].expand(-1, 4, -1, -1, -1)
    return motion, motion.levels(images, ground_image(frame, OCC3D))


def certain(motion: MotionEstimator, one: int) -> Paces:
    """Paces of which the class `one` is always drawn."""
    paces = Paces(motion.channels)
    last = paces.network[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.bias.fill_(-50.0)
        last.bias[one] = 50.0
    return paces


def drawn(paces: Paces, levels: tuple[torch.Tensor, ...], seeds: list[int]) -> torch.Tensor:
    n = len(seeds)
    image, way = (value.expand(n, *value.shape[1:]) for value in (road_user_image(street()), foretold()))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return paces.draw(way, image, [level.expand(n, -1, -1, -1) for level in levels], OCC3D, generators)


def test_those_on_wheels_who_move_are_asked_about():
    found = moving_vehicles(foretold(), road_user_image(street()))
    assert sorted(torch.bincount(found.user).tolist()) == [4, 55]


def test_the_difference_is_made_by_an_acceleration_and_others_keep_to_what_is_foretold(seen):
    motion, levels = seen
    one = EDGES.index(1.0)
    more = drawn(certain(motion, one), levels, [0])
    car = part(more, MOVES)
    assert torch.allclose(car, car[:, :1, :1].expand_as(car)), "in one piece"
    assert (car[..., 0] == 0).all(), "straight on"
    assert 1.0 <= float(car[1, 0, 0, 1]) <= 1.6
    assert float(car[0, 0, 0, 1]) == pytest.approx(float(car[1, 0, 0, 1]) / 4)
    assert part(more, RIDES).any()
    for other in (STANDS, WALKS):
        assert not part(more, other).any()


def test_nobody_goes_back(seen):
    motion, levels = seen
    way = foretold() + drawn(certain(motion, 0), levels, [0])
    for whom, half in ((MOVES, 0.75), (RIDES, 0.5)):
        assert torch.allclose(part(way, whom)[1], torch.zeros(2), atol=1e-6)
        assert torch.allclose(part(way, whom)[0, ..., 1], torch.tensor(half))


def test_a_fresh_one_keeps_to_what_is_foretold_to_a_decimetre(seen):
    motion, levels = seen
    assert drawn(Paces(motion.channels), levels, list(range(20))).abs().max() <= 0.1


def test_the_classes_come_as_often_as_the_probabilities_say_alone_and_in_a_batch(seen):
    motion, levels = seen
    paces = certain(motion, EDGES.index(1.0))
    last = paces.network[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.bias[EDGES.index(-1.6)] = 50.0 + 1.0986  # three times as probable
    together = drawn(paces, levels, list(range(200)))
    slower = (together[:, 1, 115, 92, 1] < 0).float().mean()
    assert 0.65 < float(slower) < 0.85
    alone = torch.cat([drawn(paces, levels, [seed]) for seed in range(5)])
    assert torch.equal(alone, together[:5])


def test_how_much_further_is_measured_along_what_is_foretold():
    way = torch.tensor([[[0.0, 1.0], [0.7, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    told = torch.tensor([[[0.0, 1.5], [0.0, 3.0]], [[0.0, 1.0], [0.0, 2.0]]])
    assert further(way, told).tolist() == pytest.approx([1.0, -2.0])


def test_it_learns_who_goes_how_much_further(seen):
    motion, levels = seen
    with torch.no_grad():
        users = moving_vehicles(foretold(), road_user_image(street()))
        known = describe(users, levels, foretold(), OCC3D)
    paces = Paces(motion.channels)
    optimiser = torch.optim.Adam(paces.parameters(), lr=3e-3)
    truth = torch.tensor([-0.8, 3.0])
    for _ in range(200):
        loss, _ = paces.loss(known, truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    likely = paces(known).argmax(dim=1).tolist()
    assert [EDGES[one] for one in likely] == [-1.0, 2.5]
    assert paces.loss(known, torch.tensor([-100.0, 100.0]))[0].isfinite(), (
        "beyond the last edges is in the last classes"
    )
