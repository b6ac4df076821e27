"""Claims about the moving average of parameters, and about per-row noise."""

import pytest
import torch

from occsora_sim.errors import CheckpointError, ConfigurationError
from occsora_sim.models.ema import EMA
from occsora_sim.models.noise import randn


def line(value: float) -> torch.nn.Linear:
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(layer.weight, value)
    return layer


def test_average_follows_the_warm_up_worked_out_by_hand():
    layer = line(0.0)
    ema = EMA(layer, decay=0.15)
    torch.nn.init.constant_(layer.weight, 1.0)
    ema.update(layer)  # decay (1 + 0) / (10 + 0) = 0.1: 0 * 0.1 + 1 * 0.9
    assert ema.state_dict()["weight"].item() == pytest.approx(0.9)
    ema.update(layer)  # (1 + 1) / (10 + 1) is above 0.15: 0.9 * 0.15 + 1 * 0.85
    assert ema.state_dict()["weight"].item() == pytest.approx(0.985)
    assert layer.weight.item() == 1.0
    ema.copy_to(layer)
    assert layer.weight.item() == pytest.approx(0.985)


def test_state_survives_a_round_trip_and_goes_on_alike():
    first, second = line(0.0), line(5.0)
    ema, restored = EMA(first), EMA(second)
    torch.nn.init.constant_(first.weight, 1.0)
    ema.update(first)
    restored.load_state_dict(ema.state_dict())
    ema.update(first)
    restored.update(first)
    assert ema.state_dict().keys() == restored.state_dict().keys()
    for name, tensor in ema.state_dict().items():
        assert torch.equal(tensor, restored.state_dict()[name])


def test_a_stored_state_does_not_change_with_later_updates_of_the_parameters():
    layer = line(0.0)
    ema = EMA(layer)
    torch.nn.init.constant_(layer.weight, 3.0)
    assert ema.state_dict()["weight"].item() == 0.0


def test_buffers_are_copied_and_frozen_parameters_left_alone():
    norm = torch.nn.BatchNorm1d(2)
    norm.bias.requires_grad_(False)
    ema = EMA(norm)
    norm(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)))
    ema.update(norm)
    state = ema.state_dict()
    assert norm.running_mean is not None and torch.equal(state["running_mean"], norm.running_mean)
    assert state["num_batches_tracked"] == 1
    assert "bias" not in state


def test_a_foreign_state_is_refused():
    with pytest.raises(CheckpointError, match="bias"):
        EMA(line(0.0)).load_state_dict(EMA(torch.nn.Linear(1, 1)).state_dict())
    with pytest.raises(CheckpointError, match="weight"):
        EMA(line(0.0)).load_state_dict(EMA(torch.nn.Linear(2, 1, bias=False)).state_dict())
    with pytest.raises(ConfigurationError):
        EMA(line(0.0), decay=1.0)


def test_a_row_of_noise_depends_on_its_generator_alone():
    def seeded(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    batch = randn((3, 4, 5), seeded(7, 8, 7))
    assert torch.equal(batch[1:2], randn((1, 4, 5), seeded(8)))
    assert torch.equal(batch[0], batch[2])
    assert not torch.equal(batch[0], batch[1])
    one = seeded(7)
    assert not torch.equal(randn((1, 9), one), randn((1, 9), one))  # each call goes on
    with pytest.raises(ConfigurationError, match="generator"):
        randn((2, 3), seeded(1))
