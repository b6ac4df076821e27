"""The code for pedestrians, bicycles and motorcycles: it can say every column, and says little where nothing is new."""

import pytest
import torch

from occsora_sim.grid import BICYCLE, CAR, DRIVEABLE, FREE, MANMADE, NUM_CLASSES, OCC3D, PEDESTRIAN
from occsora_sim.models.columns import UNSEEN
from occsora_sim.models.compensated_tokenizer import CompensatedTokenizerConfig
from occsora_sim.models.small_road_users import SmallRoadUsers, fold, unfold
from occsora_sim.models.world_model import WorldModel, WorldModelConfig
from occsora_sim.presets import tiny
from occsora_sim.scenes.file import save_scene
from occsora_sim.scenes.source import open_scenes
from occsora_sim.training.growth import with_small_road_users
from occsora_sim.training.known import window_context
from occsora_sim.training.small_code import code_loss, draw_pool
from occsora_sim.training.windows import WindowSampler

WEIGHT = torch.ones(NUM_CLASSES)


def street(*people: tuple[int, int, int, int]) -> torch.Tensor:
    """(1, 16, 16, 16): a road with (label, x, y, height) on columns."""
    frame = torch.full((1, 16, 16, 16), FREE, dtype=torch.uint8)
    frame[..., OCC3D.ground] = DRIVEABLE
    for label, x, y, height in people:
        frame[0, x, y, OCC3D.ground + 1 : OCC3D.ground + 1 + height] = label
    return frame


def test_columns_of_cells_unfold_and_fold_back():
    image = torch.arange(2 * 16 * 24 * 3).view(2, 16, 24, 3)
    assert torch.equal(fold(unfold(image)), image)
    assert torch.equal(unfold(image)[0, 1, 2, 9], image[0, 8 + 1, 16 + 1])


def test_a_fresh_one_draws_whom_the_prior_lets_expect_and_nobody_else():
    prior = street((PEDESTRIAN, 3, 4, 4), (BICYCLE, 9, 9, 3))
    drawn = street((PEDESTRIAN, 12, 12, 4))
    drawn[0, 5:8, 5:8, 3:6] = CAR
    small = SmallRoadUsers()
    code = torch.randn(1, small.channels, 2, 2)
    found = small.draw(drawn, code, prior, street(), OCC3D)
    expected = prior.clone()
    expected[0, 5:8, 5:8, 3:6] = CAR
    assert torch.equal(found, expected)


def test_it_learns_to_say_where_everybody_is_and_who_has_gone():
    torch.manual_seed(0)
    small = SmallRoadUsers()
    priors = torch.cat(
        (street((PEDESTRIAN, 3, 4, 4)), street((PEDESTRIAN, 3, 4, 4)), street(), street((BICYCLE, 9, 9, 3)))
    )
    truths = torch.cat(
        (
            street((PEDESTRIAN, 4, 5, 4), (PEDESTRIAN, 4, 6, 4)),
            street(),
            street((BICYCLE, 9, 14, 3), (PEDESTRIAN, 0, 0, 3)),
            street((BICYCLE, 9, 9, 3)),
        )
    )
    optimiser = torch.optim.Adam(small.parameters(), lr=3e-3)
    for _ in range(400):
        mean, log_variance = small.encode(small.columns(truths), small.columns(priors))
        code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        loss = small.loss(code, truths, priors, WEIGHT) + 0.05 * mean.pow(2).sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        mean, _ = small.encode(small.columns(truths), small.columns(priors))
        found = small.draw(
            street().expand(4, -1, -1, -1), mean, priors, street().expand(4, -1, -1, -1), OCC3D
        )
        assert torch.equal(found, truths)
        told = mean.pow(2).sum(1)  # (4, 2, 2)
        assert told[3].max() < 0.2 * told[0, 0, 0], "where the prior is right there is little to say"


@pytest.mark.slow
def test_it_learns_from_a_pool_of_frames_by_itself(tmp_path, straight_road):
    torch.manual_seed(0)
    model = WorldModel(tiny())
    save_scene(straight_road(cars=[(20.0, 0.0, 6.0)]), tmp_path / "road.safetensors")
    grid = model.config.grid
    sampler = WindowSampler(open_scenes(str(tmp_path)), grid, history=4, future=2, seed=3)
    pool = draw_pool(model, sampler, 5, 0.5, torch.Generator().manual_seed(0))
    assert pool.shape == (10, 4, *grid.shape[:2])
    assert pool.dtype == torch.uint8
    crowd = torch.zeros(32, 4, 16, 16, dtype=torch.uint8)
    crowd[:, 0, 5, 9], crowd[:, 1, 5, 9] = 1, 4  # a pedestrian whom nothing let expect
    small = model.tokenizer.small
    assert small is not None
    optimiser = torch.optim.Adam(small.parameters(), lr=3e-3)
    losses = []
    for step in range(600):
        loss, logs = code_loss(small, crowd, 4 * WEIGHT, torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(logs["code/of_cells_with_somebody"])
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_where_one_is_rubbed_out_the_record_shows_and_new_ones_fill_what_is_free():
    small = SmallRoadUsers()
    with torch.no_grad():  # says: a pedestrian of four voxels on column 0 of each cell, nobody elsewhere
        last = small.decoder[-1]
        assert isinstance(last, torch.nn.Linear)
        bias = last.bias.view(64, -1)
        bias[:, 0] = 50.0
        bias[0, 0], bias[0, 1] = 0.0, 50.0
    assert small.kind[PEDESTRIAN] == 1
    static = street()
    static[0, 8, 8, 5] = MANMADE
    static[0, 0, 8] = UNSEEN
    drawn = static.clone()
    drawn[0, 0, 8] = street()[0, 0, 8]
    prior = street((PEDESTRIAN, 3, 4, 4))
    found = small.draw(drawn, torch.zeros(1, small.channels, 2, 2), prior, static, OCC3D)
    expected = street(*((PEDESTRIAN, x, y, 4) for x in (0, 8) for y in (0, 8)))
    expected[0, 8, 8, 5] = MANMADE
    assert torch.equal(found, expected)
    told = torch.tensor([[[False, True], [True, True]]])  # the code is not listened to in the first cell
    found = small.draw(drawn, torch.zeros(1, small.channels, 2, 2), prior, static, OCC3D, told)
    assert torch.equal(found[0, :8, :8], prior[0, :8, :8])
    assert torch.equal(found[0, 8:], expected[0, 8:])


def test_weights_from_before_get_the_code_and_draw_all_else_as_they_did(tmp_path, straight_road):
    torch.manual_seed(0)
    config = tiny()
    before = CompensatedTokenizerConfig(**{**vars(config.tokenizer), "small_road_users": 0})
    old = WorldModel(WorldModelConfig(**{**vars(config), "tokenizer": before})).eval()
    torch.nn.init.normal_(old.denoiser.head.weight, std=0.1)
    assert old.tokenizer.small is None
    new = with_small_road_users(old).eval()
    assert new.config == config
    assert with_small_road_users(new) is new
    save_scene(straight_road(cars=[(20.0, 0.0, 6.0)]), tmp_path / "road.safetensors")
    sampler = WindowSampler(open_scenes(str(tmp_path)), config.grid, history=4, future=2, seed=3)
    windows = sampler.draw(2, 0)
    known = window_context(
        windows, old.motion, config.grid, [0, 1], generator=torch.Generator().manual_seed(0), corruption=0.5
    )
    prompt = torch.zeros(2, 2, 3)
    one, two = (model.sample(known, prompt, None, 1) for model in (old, new))
    small = (one == PEDESTRIAN) | (one == BICYCLE) | (one == 6)
    assert torch.equal(one[~small], two[~small])
