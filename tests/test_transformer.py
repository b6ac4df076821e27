"""Claims about the diffusion transformer and the trajectory prompt."""

import dataclasses
import json
from typing import Any

import pytest
import torch

from occsora_sim.errors import ActionError, ConfigurationError
from occsora_sim.models.block import Block, MixingMLP
from occsora_sim.models.positions import grid_positions
from occsora_sim.models.prompt import TrajectoryPrompt, TrajectoryPromptConfig, keep_mask
from occsora_sim.models.transformer import DiffusionTransformer, DiffusionTransformerConfig

CONFIG = DiffusionTransformerConfig(
    in_channels=4, out_channels=6, context_channels=5, tokens=(2, 4, 6), hidden=32, depth=2, heads=4, patch=2
)


def inputs(config: DiffusionTransformerConfig, batch: int = 3) -> dict:
    generator = torch.Generator().manual_seed(0)
    t, h, w = config.tokens
    made = {
        "x": torch.randn(batch, config.in_channels, t, h, w, generator=generator),
        "noise": torch.rand(batch, generator=generator) * 900,
        "prompt": torch.randn(batch, config.prompt_frames, config.prompt_features, generator=generator),
    }
    if config.context_channels:
        made["context"] = torch.randn(batch, t, config.context_channels, h, w, generator=generator)
    return made


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
    assert answer.shape == (3, 6, 2, 4, 6)
    assert answer.abs().max() == 0


@pytest.mark.parametrize("name", ["x", "noise", "prompt", "context"])
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
    torch.testing.assert_close(block(x, condition, (1, 1, 5)), expected)


def test_patches_keep_their_place():
    # With dead blocks the transformer is a map of each patch on its own: a change stays inside its patch.
    model, given = shaken(CONFIG), inputs(CONFIG)
    for block in model.blocks:
        assert isinstance(block, Block)
        torch.nn.init.zeros_(block.modulation.weight)
        torch.nn.init.zeros_(block.modulation.bias)
    before = model(**given)
    given["x"][:, :, 1, 2, 4] += 1.0
    changed = (model(**given) - before).abs().amax(dim=(0, 1)) > 1e-6
    expected = torch.zeros(2, 4, 6, dtype=torch.bool)
    expected[1, 2:4, 4:6] = True
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
    for grid, width in (((1, 25, 25), 192), ((4, 5, 5), 32), ((1, 1, 3), 8)):
        positions = grid_positions(grid, width)
        assert positions.shape[1] == width
        distances = torch.cdist(positions, positions) + torch.eye(len(positions)) * 9
        assert distances.min() > 0.1


@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_it_learns_one_batch(stem):
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, patch=1, stem=stem, positions="learned", out_channels=4)
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


def test_the_paper_size_has_36_8_million_parameters():
    with torch.device("meta"):
        model = DiffusionTransformer(
            DiffusionTransformerConfig(
                in_channels=128,
                out_channels=256,
                tokens=(4, 25, 25),
                hidden=256,
                depth=28,
                heads=16,
                stem="conv",
                positions="learned",
                prompt_frames=32,
                prompt_features=2,
            )
        )
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(36.8e6, rel=0.02)


def test_configurations_survive_json():
    stored = json.loads(json.dumps(dataclasses.asdict(CONFIG)))
    stored = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
    assert DiffusionTransformerConfig(**stored) == CONFIG


@pytest.mark.parametrize(
    "change",
    [{"heads": 5}, {"patch": 4}, {"tokens": (0, 4, 4)}, {"depth": 0}, {"stem": "magic"}, {"stem": "conv"}],
)
def test_impossible_sizes_are_refused(change):
    with pytest.raises(ConfigurationError):
        dataclasses.replace(CONFIG, **change)


def test_inputs_that_do_not_fit_are_refused():
    model, given = DiffusionTransformer(CONFIG), inputs(CONFIG)
    with pytest.raises(ConfigurationError, match="context"):
        model(**{**given, "context": None})
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


MIXING = dataclasses.replace(CONFIG, patch=1, mixing=3)


def test_a_new_mixing_convolution_changes_nothing():
    model, plain = shaken(MIXING), DiffusionTransformer(dataclasses.replace(MIXING, mixing=0))
    for block in model.blocks:
        assert isinstance(block, Block) and isinstance(block.mlp, MixingMLP)
        torch.nn.init.zeros_(block.mlp.mix.weight)
        torch.nn.init.zeros_(block.mlp.mix.bias)  # type: ignore[arg-type]
    names = {"mlp.expand": "mlp.0", "mlp.reduce": "mlp.2"}
    weights = {}
    for key, value in model.state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        weights[key] = value
    plain.load_state_dict({key: value for key, value in weights.items() if ".mix." not in key})
    torch.testing.assert_close(model(**inputs(MIXING)), plain(**inputs(MIXING)))


def test_mixing_reaches_the_next_cell_and_no_further():
    mlp: Any = shaken(MIXING).blocks[0].mlp
    x = torch.zeros(1, 2 * 4 * 6, 32)
    x[0, 6 * 2 + 3] = 1.0  # t 0, h 2, w 3
    changed = (mlp(x, (2, 4, 6)) - mlp(torch.zeros_like(x), (2, 4, 6))).abs().amax(-1).view(2, 4, 6) > 1e-6
    wanted = torch.zeros(2, 4, 6, dtype=torch.bool)
    wanted[0, 1:4, 2:5] = True
    assert torch.equal(changed, wanted)


def test_a_cut_is_denoised_as_a_latent_of_its_size_at_its_place():
    model = shaken(MIXING)
    given = inputs(MIXING)
    given["x"], given["context"] = given["x"][..., 1:4, 2:6], given["context"][..., 1:4, 2:6]
    answer = model(**given, corner=torch.tensor([[1, 2]] * 3))
    small = DiffusionTransformer(dataclasses.replace(MIXING, tokens=(2, 3, 4)))
    small.load_state_dict(model.state_dict())
    positions: Any = model.positions
    small.positions = positions.view(2, 4, 6, -1)[:, 1:4, 2:6].flatten(0, 2)
    torch.testing.assert_close(answer, small(**given))
    whole = inputs(MIXING)
    torch.testing.assert_close(model(**whole, corner=torch.zeros(3, 2, dtype=torch.long)), model(**whole))


def test_a_cut_without_its_corner_is_refused():
    given = inputs(MIXING)
    given["x"], given["context"] = given["x"][..., :3, :], given["context"][..., :3, :]
    with pytest.raises(ConfigurationError, match="latent of shape"):
        shaken(MIXING)(**given)


def test_an_even_mixing_convolution_is_refused():
    with pytest.raises(ConfigurationError, match="odd"):
        dataclasses.replace(CONFIG, mixing=2)
