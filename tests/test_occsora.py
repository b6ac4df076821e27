"""Claims about OccSora's own design: embedding, axial attention, tokenizer and world model."""

import dataclasses
import json
import math
from importlib import resources
from pathlib import Path

import pytest
import torch

from occsora_sim.errors import ActionError, CheckpointError, ConfigurationError
from occsora_sim.grid import CAR, DRIVEABLE, FREE, MANMADE
from occsora_sim.models.axial import AxialResidualBlock, AxisAttention
from occsora_sim.models.embedding import ClassEmbedding
from occsora_sim.models.occsora_patches import fold
from occsora_sim.models.occsora_tokenizer import OccSoraTokenizer, strides
from occsora_sim.models.occsora_world import OccSora, OccSoraConfig, pose_steps
from occsora_sim.models.weights import load_occsora
from occsora_sim.presets import paper, paper_tiny

SMALL_WORLD = paper_tiny()
SMALL = SMALL_WORLD.tokenizer
PATCHES = dataclasses.replace(
    SMALL, patches=True, outer=8, quantiser="finite", levels=(8, 8, 8), latent_channels=3, loss_patches=64
)
"""As `paper-small`: maps of patches, finite levels, a loss that looks at some patches."""

LEVELS = dataclasses.replace(
    SMALL_WORLD,
    tokenizer=PATCHES,
    latent_scale=1.5,
    answers="levels",
    schedule="cosine",
    groups=("frame", "ahead"),
)
"""As `paper-small`: the denoiser answers levels."""


def street(rows: int = 1) -> torch.Tensor:
    """Clips (rows, 8, 32, 32, 16): a road along x, a wall, a car that drives 2 voxels a frame."""
    clip = torch.full((rows, 8, 32, 32, 16), FREE, dtype=torch.uint8)
    clip[:, :, :, 8:24, 2] = DRIVEABLE
    clip[:, :, :, :4, 2:12] = MANMADE
    for row in range(rows):
        for t in range(8):
            clip[row, t, 2 * t + row : 2 * t + row + 8, 12:17, 3:7] = CAR
    return clip


def small_world() -> OccSora:
    torch.manual_seed(0)
    return OccSora(SMALL_WORLD)


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_the_embedding_gives_each_class_back():
    embedding = ClassEmbedding(18, 18)
    torch.nn.init.eye_(embedding.vectors)
    labels = torch.arange(2 * 2 * 3 * 3 * 4).remainder(18).view(2, 2, 3, 3, 4).to(torch.uint8)
    features = embedding.encode(labels)
    assert features.shape == (2, 4 * 18, 2, 3, 3)
    assert torch.equal(embedding.decode(features).argmax(-1), labels.long())


@pytest.mark.parametrize("rare", [0.0, 9.0])
def test_patches_that_hold_a_road_user_are_that_much_likelier_in_the_loss(rare):
    clip = street()
    tokenizer = OccSoraTokenizer(dataclasses.replace(PATCHES, loss_patches=20_000, rare=rare))
    _, labels = tokenizer._some(tokenizer.encode(clip), clip, *seeded(0))
    holds = (fold(clip) == CAR).any(-1).float().mean()
    wanted = (1 + rare) * holds / (1 + rare * holds)
    drawn = (labels.view(20_000, -1) == CAR).any(-1).float().mean()
    assert float(drawn) == pytest.approx(float(wanted), rel=0.08)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_attention_along_an_axis_stays_in_its_row(axis):
    attention = AxisAttention(8, 2, axis)
    x = torch.randn(1, 3, 4, 5, 8, generator=torch.Generator().manual_seed(0))
    moved = x.clone()
    moved[0, 1, 2, 3] += 1.0
    changed = (attention(moved) - attention(x)).abs().amax(-1)[0] > 1e-6
    expected = torch.zeros(3, 4, 5, dtype=torch.bool)
    place: list[int | slice] = [1, 2, 3]
    place[axis - 1] = slice(None)
    expected[tuple(place)] = True
    assert torch.equal(changed, expected)


def test_attention_is_the_textbooks():
    attention = AxisAttention(4, 1, 1)
    x = torch.randn(1, 6, 1, 1, 4, generator=torch.Generator().manual_seed(0))
    q, k, v = attention.qkv(x[0, :, 0, 0]).chunk(3, dim=-1)
    expected = attention.out((q @ k.T / math.sqrt(4)).softmax(-1) @ v)
    torch.testing.assert_close(attention(x)[0, :, 0, 0], expected)


def test_an_axial_block_sees_the_cross_and_the_neighbourhood_and_no_more():
    block = AxialResidualBlock(8, 2).eval()
    x = torch.randn(1, 8, 5, 9, 9, generator=torch.Generator().manual_seed(0))
    moved = x.clone()
    moved[0, :, 2, 4, 4] += 1.0
    changed = (block(moved) - block(x)).abs().amax(1)[0] > 1e-6
    assert changed[2, 4, 4] and changed[0, 4, 4] and changed[2, 0, 4] and changed[2, 4, 0]
    assert not changed[0, 0, 0] and not changed[2, 0, 0]


def test_strides_halve_each_axis_until_its_factor_is_met():
    assert strides((8, 8, 8)) == [(2, 2, 2)] * 3
    assert strides((2, 8, 4)) == [(2, 2, 2), (1, 2, 2), (1, 2, 1)]


def test_the_papers_networks_have_137_4_and_36_8_million_parameters():
    with torch.device("meta"):
        world = OccSora(paper())
    counts = [sum(p.numel() for p in part.parameters()) for part in (world.tokenizer, world.denoiser)]
    assert counts == [pytest.approx(137.4e6, rel=0.001), pytest.approx(36.8e6, rel=0.002)]
    assert world.tokenizer.config.latent_shape == (128, 4, 25, 25)


def test_the_papers_sizes_pass_a_clip_through():
    with torch.device("meta"):
        world = OccSora(paper())
        latent = world.latents(torch.empty(1, 32, 200, 200, 16, dtype=torch.uint8))
        assert latent.shape == (1, 128, 4, 25, 25)
        assert world.tokenizer.decode(latent).shape == (1, 32, 200, 200, 16, 18)
        answer = world.denoiser(latent, torch.zeros(1), torch.zeros(1, 32, 2))
    assert answer.shape == (1, 256, 4, 25, 25)


@pytest.mark.parametrize("factors", [(8, 8, 8), (1, 4, 4), (2, 8, 4)])
def test_shapes_come_back_for_other_factors(factors):
    config = dataclasses.replace(SMALL, factors=factors)
    tokenizer = OccSoraTokenizer(config).eval()
    latent = tokenizer.encode(street())
    assert latent.shape == (1, *config.latent_shape)
    assert tokenizer.decode(latent).shape == (1, 8, 32, 32, 16, 18)
    assert tokenizer.draw(latent).dtype == torch.uint8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "steps"),
    [
        (SMALL, 16),
        (dataclasses.replace(SMALL, quantiser="identity"), 16),
        (dataclasses.replace(PATCHES, loss_patches=0), 60),
    ],
)
def test_the_tokenizer_learns_a_clip(config, steps):
    torch.manual_seed(0)
    tokenizer = OccSoraTokenizer(dataclasses.replace(config, lovasz_points=20000))
    optimiser = torch.optim.AdamW(tokenizer.parameters(), lr=1e-2)
    clip, losses = street(), []
    for _ in range(steps):
        loss, logs = tokenizer.loss(clip)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(logs["loss"])
    assert losses[0] > 10 * math.log(18)  # untrained, no class is likelier than another
    assert losses[-1] < 0.3 * losses[0]
    assert logs["accuracy"] > 0.8
    expected = 10 * logs["cross_entropy"] + logs["lovasz"] + logs["quantisation"]
    assert logs["loss"] == pytest.approx(expected, rel=1e-4)


def test_patches_come_back_to_their_places_and_the_loss_sees_the_same():
    tokenizer = OccSoraTokenizer(dataclasses.replace(PATCHES, class_width=18)).eval()
    patch = torch.arange(2 * 2 * 2 * 16).remainder(18).view(1, 2, 2, 2, 16).byte()  # all voxels of a patch
    torch.nn.init.eye_(tokenizer.embedding.vectors)
    torch.nn.init.zeros_(tokenizer.decoder.head.weight)
    with torch.no_grad():
        tokenizer.decoder.head.bias.copy_(
            20 * torch.nn.functional.one_hot(patch.flatten().long(), 18).flatten()
        )
    clip = patch.repeat(1, 4, 16, 16, 1)
    latent = tokenizer.quantise(tokenizer.encode(clip)).latent
    assert latent.shape == (1, 3, 1, 4, 4)
    assert torch.equal(tokenizer.draw(latent), clip)
    assert torch.equal(tokenizer.decode(latent).argmax(-1), clip.long())
    _, logs = tokenizer.loss(clip, seeded(0)[0])
    assert logs["accuracy"] == 1 and logs["cross_entropy"] < 1e-6 and logs["lovasz"] < 1e-6
    assert tokenizer.loss((clip + 1) % 18, seeded(0)[0])[1]["accuracy"] == 0


def test_drawn_latents_are_rounded_to_codes_before_they_are_decoded():
    torch.manual_seed(0)
    world = OccSora(dataclasses.replace(SMALL_WORLD, tokenizer=PATCHES)).eval()
    latent = torch.rand(1, *PATCHES.latent_shape, generator=seeded(1)[0]) * 2 - 1
    drawn = world.tokenizer.draw(latent)
    assert torch.equal(drawn, world.tokenizer.draw(world.tokenizer.quantiser.snap(latent)))
    assert (drawn != world.tokenizer.decode(latent).argmax(-1)).any()


def test_a_clip_encodes_alike_alone_and_in_a_batch():
    torch.manual_seed(0)
    tokenizer, clips = OccSoraTokenizer(SMALL).eval(), street(2)
    torch.testing.assert_close(tokenizer.encode(clips)[1:], tokenizer.encode(clips[1:]), rtol=1e-4, atol=1e-5)


def test_prompts_are_the_steps_between_poses():
    # Two metres ahead, then a quarter turn on the spot, then one metre along the new heading.
    poses = torch.tensor(
        [[[5.0, 1.0, 0.0], [7.0, 1.0, 0.0], [7.0, 1.0, math.pi / 2], [7.0, 2.0, math.pi / 2]]]
    )
    torch.testing.assert_close(
        pose_steps(poses), torch.tensor([[[0.0, 0.0], [2.0, 0.0], [0.0, 0.0], [1.0, 0.0]]]), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("config", [SMALL_WORLD, LEVELS], ids=["noise", "levels"])
def test_the_world_model_learns_one_batch_and_leaves_the_tokenizer_alone(config):
    torch.manual_seed(0)
    world = OccSora(config).train()
    before = {name: tensor.clone() for name, tensor in world.tokenizer.state_dict().items()}
    trained = [p for p in world.parameters() if p.requires_grad]
    assert len(trained) == len(list(world.denoiser.parameters()))
    optimiser = torch.optim.AdamW(trained, lr=1e-2)
    clips, trajectory, losses = street(2), torch.randn(2, 8, 2, generator=seeded(1)[0]), []
    for _ in range(25):
        # The same steps and noise each time, so that the loss is a function of the weights alone.
        loss, logs = world.loss(clips, trajectory, generator=seeded(3)[0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(logs["loss"])
    assert losses[-1] < 0.6 * losses[0]
    for name, tensor in world.tokenizer.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_latents_are_scaled_on_the_way_in_and_back_on_the_way_out():
    world = small_world().eval()
    clips = street()
    quantised = world.tokenizer.quantise(world.tokenizer.encode(clips)).latent
    torch.testing.assert_close(world.latents(clips), quantised / 10)
    # A new denoiser says "no noise": one step from the end then only undoes the loss of signal.
    noise = torch.randn(1, *SMALL.latent_shape, generator=seeded(1)[0])
    clean = noise / world.schedule.kept[-1].sqrt().float()
    expected = world.tokenizer.draw(clean * 10)
    drawn = world.sample(None, seeded(1), steps=1)
    assert (drawn == expected).float().mean() > 0.999
    assert (drawn != world.tokenizer.draw(clean)).any()


def test_some_clips_are_trained_on_the_null_prompt():
    for dropout in (0.0, 0.9):
        torch.manual_seed(0)
        world = OccSora(dataclasses.replace(SMALL_WORLD, prompt_dropout=dropout))
        torch.nn.init.normal_(world.denoiser.head.weight, generator=seeded(4)[0])
        torch.nn.init.normal_(world.denoiser.modulation.weight, generator=seeded(5)[0])
        world.loss(street(3), torch.zeros(3, 8, 2), generator=seeded(1)[0])[0].backward()
        gradient = world.denoiser.prompt.null.grad
        assert (gradient is not None and gradient.abs().max().item() > 0) == (dropout > 0)


def test_the_loss_depends_on_its_generator_alone():
    world, clips, trajectory = small_world(), street(2), torch.zeros(2, 8, 2)
    values = [world.loss(clips, trajectory, generator=seeded(seed)[0])[0].item() for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]


def test_sampling_gives_labels_and_a_row_is_the_same_alone_and_in_a_batch():
    world = small_world().eval()
    # A new denoiser answers zero; let it answer something, so that rows could meet.
    torch.nn.init.normal_(world.denoiser.head.weight, std=0.1, generator=seeded(4)[0])
    trajectory = torch.randn(2, 8, 2, generator=seeded(5)[0])
    both = world.sample(trajectory, seeded(1, 2), steps=4)
    assert both.shape == (2, 8, 32, 32, 16) and both.dtype == torch.uint8 and both.max() < 18
    alone = world.sample(trajectory[1:], seeded(2), steps=4)
    assert (both[1:] == alone).float().mean() > 0.999  # rounding may tip a voxel between two labels
    assert torch.equal(alone, world.sample(trajectory[1:], seeded(2), steps=4))
    assert (alone != world.sample(trajectory[1:], seeded(3), steps=4)).any()


def test_the_prompt_and_its_guidance_reach_the_sample():
    world = small_world().eval()
    generator = seeded(4)[0]
    for parameter in world.denoiser.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    left, right = torch.full((1, 8, 2), -5.0), torch.full((1, 8, 2), 5.0)
    samples = [
        world.sample(left, seeded(1), steps=3),
        world.sample(right, seeded(1), steps=3),
        world.sample(right, seeded(1), steps=3, guidance=1.0),
        world.sample(None, seeded(1), steps=3),
    ]
    for i, one in enumerate(samples):
        for other in samples[:i]:
            assert (one != other).any()


def test_configurations_survive_json():
    for config in (paper(), paper_tiny()):
        assert OccSoraConfig.from_header(json.loads(json.dumps(config.to_header()))) == config
    for damage in ({"depths": 3}, {"grid": 4}, {"tokenizer": {"codes": 0}}):
        with pytest.raises(CheckpointError, match="configuration"):
            OccSoraConfig.from_header(paper().to_header() | damage)


@pytest.mark.parametrize(
    "change",
    [
        {"frames": 6},
        {"factors": (3, 8, 8)},
        {"factors": (1, 1, 1)},
        {"heads": 3},
        {"quantiser": "magic"},
        {"loss_patches": 8},
        {"patches": True, "factors": (2, 8, 8)},
        {"quantiser": "finite", "levels": (8, 8)},
    ],
)
def test_impossible_tokenizers_are_refused(change):
    with pytest.raises(ConfigurationError, match="tokenizer"):
        dataclasses.replace(SMALL, **change)


def test_inputs_that_do_not_fit_are_refused():
    world = small_world()
    with pytest.raises(ConfigurationError, match="occupancy"):
        world.tokenizer.encode(street()[:, :4])
    with pytest.raises(ActionError, match="generator"):
        world.sample(torch.zeros(2, 8, 2), seeded(1), steps=1)
    with pytest.raises(ActionError, match="finite"):
        world.sample(torch.full((1, 8, 2), math.nan), seeded(1), steps=1)
    with pytest.raises(ConfigurationError, match="dropout"):
        OccSoraConfig(prompt_dropout=1.0)
    with pytest.raises(ConfigurationError, match="the same"):
        dataclasses.replace(paper(), tokenizer=SMALL)


@pytest.mark.slow
def test_the_shipped_weights_draw_a_street_under_the_trajectory():
    model, _ = load_occsora(
        Path(str(resources.files("occsora_sim.assets") / "weights" / "paper-small.safetensors"))
    )
    poses = torch.zeros(1, 32, 3)
    poses[0, :, 0] = 3.0 * torch.arange(32)  # straight on at 6 m/s
    clip = model.eval().sample(pose_steps(poses), seeded(0), steps=10)[0]
    ground = model.config.grid.ground
    road = (clip[:, 90:110, 98:103, ground] == DRIVEABLE).float().mean()  # 8 m by 2 m around the ego
    kinds = clip.flatten().bincount(minlength=FREE + 1)
    assert road > 0.8 and kinds[MANMADE] > 10_000 and kinds[CAR] > 100
