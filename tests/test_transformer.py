"""Claims about the diffusion transformer and the trajectory prompt."""

import dataclasses
import json

import pytest
import torch

from occsora_sim.errors import ActionError, ConfigurationError
from occsora_sim.models.block import Attention, Block
from occsora_sim.models.positions import sinusoids
from occsora_sim.models.prompt import TrajectoryPrompt, TrajectoryPromptConfig, keep_mask
from occsora_sim.models.transformer import DiffusionTransformer, DiffusionTransformerConfig

CONFIG = DiffusionTransformerConfig(
    in_channels=4, out_channels=6, tokens=(2, 6, 7), hidden=32, depth=2, heads=4, prompt_frames=3
)


def inputs(config: DiffusionTransformerConfig, batch: int = 3) -> dict:
    generator = torch.Generator().manual_seed(0)
    t, h, w = config.tokens
    return {
        "x": torch.randn(batch, config.in_channels, t, h, w, generator=generator),
        "noise": torch.rand(batch, generator=generator) * 900,
        "prompt": torch.randn(batch, config.prompt_frames, config.prompt_features, generator=generator),
    }


def shaken(config: DiffusionTransformerConfig) -> DiffusionTransformer:
    """A transformer whose zero-initialised layers are not zero, as after training."""
    model = DiffusionTransformer(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return model


def test_a_new_transformer_answers_zero():
    model = DiffusionTransformer(CONFIG)
    answer = model(**inputs(CONFIG))
    assert answer.shape == (3, 6, 2, 6, 7)
    assert answer.abs().max() == 0


@pytest.mark.parametrize("name", ["x", "noise", "prompt"])
def test_every_input_matters(name):
    model, given = shaken(CONFIG), inputs(CONFIG)
    before = model(**given)
    given[name] = given[name].flip(0)
    after = model(**given)
    assert (before - after)[0].abs().max() > 1e-4
    torch.testing.assert_close(before[1], after[1])  # the middle row of three stays where it was


def test_a_block_modulates_and_gates_as_adaln_zero_does():
    block = Block(8, 2, 2.0)
    generator = torch.Generator().manual_seed(2)
    x, condition = torch.randn(2, 5, 8, generator=generator), torch.randn(2, 8, generator=generator)
    shift1, scale1, gate1, shift2, scale2, gate2 = block.modulation(condition)[:, None].chunk(6, dim=-1)
    middle = x + gate1 * block.attention(block.norm1(x) * (1 + scale1) + shift1)
    expected = middle + gate2 * block.mlp(block.norm2(middle) * (1 + scale2) + shift2)
    torch.testing.assert_close(block(x, condition), expected)


@pytest.mark.parametrize(
    ("group", "moved"), [("all", range(12)), ("frame", range(6, 12)), ("ahead", (1, 4, 7, 10))]
)
def test_a_token_is_seen_by_its_group(group, moved):
    attention = Attention(8, 2, group=group, sides=(2, 2))  # two frames of two by three tokens
    x = torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(2))
    changed = x.clone()
    changed[0, 7] += 1.0  # of the second frame, in the first row, the middle one
    assert [k for k in range(12) if (attention(x) - attention(changed))[0, k].abs().max() > 1e-5] == list(
        moved
    )
    torch.testing.assert_close(attention(x)[1], attention(changed)[1])


def test_a_frame_alone_attends_as_all_tokens_do():
    one, all_ = Attention(8, 2, group="frame"), Attention(8, 2)
    all_.load_state_dict(one.state_dict())
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(one(x), all_(x))


def test_cells_keep_their_place():
    # With dead blocks all that meets is what the stem's two convolutions join: a change reaches two cells far.
    model, given = shaken(CONFIG), inputs(CONFIG)
    for block in model.blocks:
        assert isinstance(block, Block)
        torch.nn.init.zeros_(block.modulation.weight)
        torch.nn.init.zeros_(block.modulation.bias)
    before = model(**given)
    given["x"][:, :, 1, 1, 4] += 1.0
    changed = (model(**given) - before).abs().amax(dim=(0, 1)) > 1e-6
    expected = torch.zeros(CONFIG.tokens, dtype=torch.bool)
    expected[:, :4, 2:] = True
    assert torch.equal(changed, expected)


def test_a_dropped_prompt_is_the_null_prompt():
    model, given = shaken(CONFIG), inputs(CONFIG)
    dropped = model(**given, keep=torch.tensor([True, False, True]))
    torch.testing.assert_close(dropped[[0, 2]], model(**given)[[0, 2]])
    torch.testing.assert_close(dropped[1], model(**{**given, "prompt": None})[1])
    dropped[1].sum().backward()
    assert model.prompt.null.grad is not None and model.prompt.null.grad.abs().max() > 0
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in model.prompt.mlp.parameters())


def test_rows_of_a_batch_do_not_meet():
    model, given = shaken(CONFIG), inputs(CONFIG)
    alone = model(**{name: value[1:2] for name, value in given.items()})
    torch.testing.assert_close(model(**given)[1:2], alone, rtol=1e-4, atol=1e-5)


def test_positions_are_all_different():
    for count, width in ((2500, 256), (100, 32), (3, 9)):
        positions = sinusoids(torch.arange(1, count + 1), width)
        assert positions.shape == (count, width)
        distances = torch.cdist(positions, positions) + torch.eye(count) * 9
        assert distances.min() > 0.1


def test_it_learns_one_batch():
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, out_channels=4)
    model, given = DiffusionTransformer(config), inputs(config)
    target = given["x"].roll(1, dims=-1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = (model(**given) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_default_is_the_papers_of_36_8_million_parameters():
    with torch.device("meta"):
        model = DiffusionTransformer(DiffusionTransformerConfig())
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(36.8e6, rel=0.02)


def test_configurations_survive_json():
    stored = json.loads(json.dumps(dataclasses.asdict(CONFIG)))
    stored = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
    assert DiffusionTransformerConfig(**stored) == CONFIG


@pytest.mark.parametrize(
    "change",
    [
        {"heads": 5},
        {"tokens": (0, 4, 4)},
        {"tokens": (4, 4)},
        {"depth": 0},
        {"groups": ()},
        {"groups": ("rows",)},
        {"mlp_ratio": 0.0},
        {"hidden": 33, "heads": 3},
    ],
)
def test_impossible_sizes_are_refused(change):
    with pytest.raises(ConfigurationError):
        dataclasses.replace(CONFIG, **change)


def test_inputs_that_do_not_fit_are_refused():
    model, given = DiffusionTransformer(CONFIG), inputs(CONFIG)
    with pytest.raises(ConfigurationError, match="latent"):
        model(**{**given, "x": given["x"][:, :3]})
    with pytest.raises(ActionError, match="trajectory"):
        model(**{**given, "prompt": given["prompt"][:, :1]})


def test_the_papers_prompt_is_64_128_128_256():
    prompt = TrajectoryPrompt(TrajectoryPromptConfig())
    shapes = [tuple(layer.weight.shape) for layer in prompt.mlp if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(128, 64), (128, 128), (256, 128)]
    assert prompt(torch.zeros(5, 32, 2)).shape == (5, 256)
    with pytest.raises(ConfigurationError):
        TrajectoryPromptConfig(frames=0)


def test_prompts_are_dropped_at_the_rate_asked_for():
    kept = keep_mask(20000, 0.1, torch.Generator().manual_seed(0))
    assert kept.float().mean().item() == pytest.approx(0.9, abs=0.01)
