"""Who is foretold to stand sets off or not: drawn, learned from both, and left alone elsewhere."""

import pytest
import torch

from occsora_sim.grid import BICYCLE, CAR, DRIVEABLE, FREE, OCC3D, PEDESTRIAN
from occsora_sim.models.columns import ground_image, road_user_image
from occsora_sim.models.departures import Departures, describe, moves, standing_road_users
from occsora_sim.models.motion import MotionEstimator
from occsora_sim.models.world_model import WorldModel, WorldModelConfig
from occsora_sim.presets import tiny
from occsora_sim.scenes.file import save_scene
from occsora_sim.scenes.source import open_scenes
from occsora_sim.training.departures import draw_standing
from occsora_sim.training.growth import with_traffic
from occsora_sim.training.windows import WindowSampler

Box = tuple[int, int, int, int, int]
"""Label, first column (x, y) and size in columns."""

FIRST, SECOND, WALKER = (CAR, 60, 98, 11, 5), (CAR, 110, 90, 11, 5), (PEDESTRIAN, 30, 30, 1, 1)


def street(*boxes: Box) -> torch.Tensor:
    frame = torch.full((1, *OCC3D.shape), FREE, dtype=torch.uint8)
    frame[..., OCC3D.ground] = DRIVEABLE
    for label, x, y, length, width in boxes:
        frame[0, x : x + length, y : y + width, 3:7] = label
    return frame


def going(frame: torch.Tensor, *ways: tuple[Box, float]) -> torch.Tensor:
    """Displacements (1, 2, x, y, 2) of those in `ways`, so many metres along x in a chunk; the others stand."""
    out = torch.zeros(1, 2, *OCC3D.shape[:2], 2)
    for (_, x, y, length, width), metres in ways:
        out[0, 0, x : x + length, y : y + width, 0] = metres / 2
        out[0, 1, x : x + length, y : y + width, 0] = metres
    return out


def levels_of(frame: torch.Tensor) -> tuple[MotionEstimator, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    motion = MotionEstimator(4, 2, 8)
    images = road_user_image(frame)[:, None].expand(-1, 4, -1, -1, -1)
    return motion, motion.levels(images, ground_image(frame, OCC3D))


def certain(motion: MotionEstimator, way: float, logit: float = 50.0) -> Departures:
    """Departures of which each is drawn, `way` metres along x a second."""
    departures = Departures(motion.channels)
    last = departures.network[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.bias.copy_(torch.tensor([logit, way / 4, 0.0, way / 2, 0.0]))
    return departures


def test_who_is_foretold_to_stand_is_found_one_by_one():
    frame = street(FIRST, SECOND, WALKER)
    standing = standing_road_users(going(frame, (SECOND, 3.0), (WALKER, 1.0)), road_user_image(frame))
    assert len(standing.owner) == 1
    assert len(standing.row) == 55
    assert standing.cell[:, 0].min() == 60
    assert len(standing_road_users(going(frame), road_user_image(frame)).owner) == 3
    beside = street(FIRST, (PEDESTRIAN, 71, 100, 1, 1), (BICYCLE, 59, 100, 1, 4))
    assert len(standing_road_users(going(beside), road_user_image(beside)).owner) == 3, "each for itself"
    nobody = street()
    assert len(standing_road_users(going(nobody), road_user_image(nobody)).owner) == 0


def test_what_moves_is_what_is_not_held_still():
    way = torch.tensor([[[0.1, 0.0], [0.39, 0.0]], [[0.2, 0.0], [0.0, -0.41]]])
    assert moves(way).tolist() == [False, True]


def test_a_vehicle_that_sets_off_goes_as_one_piece_and_nobody_else_does():
    frame = street(FIRST, SECOND, WALKER)
    motion, levels = levels_of(frame)
    foretold = going(frame, (SECOND, 3.0), (WALKER, 1.0))
    generators = [torch.Generator().manual_seed(0)]
    drawn = certain(motion, 1.2).draw(foretold, road_user_image(frame), levels, OCC3D, generators)
    assert torch.allclose(drawn[0, 1, 60:71, 98:103], torch.tensor([1.2, 0.0]))
    assert torch.allclose(drawn[0, 0, 60:71, 98:103], torch.tensor([0.6, 0.0]))
    drawn[0, :, 60:71, 98:103] = 0
    assert torch.equal(drawn, foretold)


def test_a_fresh_one_lets_everybody_stand():
    frame = street(FIRST, SECOND)
    motion, levels = levels_of(frame)
    generators = [torch.Generator().manual_seed(0)]
    drawn = Departures(motion.channels).draw(going(frame), road_user_image(frame), levels, OCC3D, generators)
    assert (drawn == 0).all()


def test_as_many_set_off_as_the_probability_says_alone_and_in_a_batch():
    frame = street(FIRST, SECOND)
    motion, levels = levels_of(frame)
    departures = certain(motion, 1.2, logit=-1.0986)  # a quarter

    def drawn(seeds: list[int]) -> torch.Tensor:
        n = len(seeds)
        many = [level.expand(n, -1, -1, -1) for level in levels]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        image, way = road_user_image(frame).expand(n, -1, -1, -1), going(frame).expand(n, -1, -1, -1, -1)
        return departures.draw(way, image, many, OCC3D, generators)

    together = drawn(list(range(200)))
    share = (together[:, 1, 65, 100, 0] > 0).float().mean()
    assert 0.15 < share < 0.35
    alone = torch.cat([drawn([seed]) for seed in range(5)])
    assert torch.equal(alone, together[:5])


def test_it_learns_who_sets_off_and_how_far():
    torch.manual_seed(0)
    frame = street(FIRST, SECOND)
    motion, levels = levels_of(frame)
    with torch.no_grad():
        standing = standing_road_users(going(frame), road_user_image(frame))
        known = describe(standing, levels, going(frame), OCC3D)
    assert known.shape == (2, motion.channels + 8)
    way = standing.of(going(frame, (SECOND, 1.4)))
    departures = Departures(motion.channels)
    optimiser = torch.optim.Adam(departures.parameters(), lr=3e-3)
    for _ in range(300):
        loss, _ = departures.loss(known, way)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    logit, foretold = departures(known)
    assert (logit > 0).tolist() == [False, True]
    assert foretold[1, :, 0].tolist() == pytest.approx([0.7, 1.4], abs=0.1)


def test_training_looks_at_vehicles_that_stand_and_at_what_they_did(tmp_path, straight_road):
    config = tiny()
    model = WorldModel(config)
    with torch.no_grad():  # a fresh estimator's foretold ways are noise
        for parameter in model.motion.head.parameters():
            parameter.zero_()
    cars = [(12.0, 0.0, 2.0), *((float(x), 4.0, 0.0) for x in range(0, 200, 15))]
    save_scene(straight_road(cars=cars), tmp_path / "road.safetensors")
    sampler = WindowSampler(open_scenes(str(tmp_path)), config.grid, history=4, future=2, seed=3)
    known, way = draw_standing(model, sampler, 8)
    assert len(known) == len(way) > 0
    assert moves(way).any()
    assert not moves(way).all()


def test_weights_from_before_get_departures_and_let_everybody_stand():
    config = tiny()
    old = WorldModel(WorldModelConfig(**{**vars(config), "departures": 0}))
    assert old.departures is None
    new = with_traffic(old)
    assert new.departures is not None
    assert with_traffic(new) is new
    assert new.config == config
    assert torch.equal(new.motion.head.weight, old.motion.head.weight)
