"""Train the traffic model: on recorded tracks, some of them nudged off their way."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from occsora_sim.models.traffic import TrafficConfig, TrafficModel
from occsora_sim.scenes.source import open_scenes
from occsora_sim.training.loop import LoopConfig, run
from occsora_sim.training.traffic_rollouts import RolloutSampler
from occsora_sim.training.traffic_windows import TrafficSampler, TrafficWindows, targets


@dataclass(frozen=True, kw_only=True)
class TrafficTraining:
    """Options of `train traffic`.

    Attributes:
        scenes: what to train on: any source with tracks (towns, ScenarioNet logs).
        out: folder for checkpoints, curves and the weights.
        model: sizes of the model.
        rollouts: steps on the model's own rollouts, after those on the recording.
        rollout_frames: length of each of them; checkpoints must fall on multiples of it.
        loop: steps, batch, learning rate... of those on the recording.

    """

    scenes: str = "traffic:0-119+arterial:0-31+roundabout:0-31+motorway:0-31"
    out: Path = Path("runs/traffic")
    model: TrafficConfig = field(default_factory=TrafficConfig)
    rollouts: int = 2000
    rollout_frames: int = 10
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=6000, batch=16, lr=1e-3, warmup=100))


def traffic_loss(
    model: TrafficModel, windows: TrafficWindows, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """The head's loss of what recorded road users do next."""
    motion, known = targets(windows)
    open_place = torch.rand(len(windows.place), generator=generator) < model.config.place_dropout
    seen = model(windows.users, windows.ego, windows.crops, windows.place.masked_fill(open_place, -1))
    with torch.autocast(seen.device.type, enabled=False):
        flat = replace(
            motion, more=motion.more.flatten(), turn=motion.turn.flatten(), stand=motion.stand.flatten()
        )
        loss, logs = model.head.loss(seen.flatten(0, 1), flat, known.flatten(), generator)
    return loss, {"train/loss": loss.detach(), **{f"train/{name}": value for name, value in logs.items()}}


def train_traffic(options: TrafficTraining, sampler: TrafficSampler | None = None) -> TrafficModel:
    """Train, from nothing or from where an earlier run stopped; returns the model with its averaged weights."""
    torch.manual_seed(options.loop.seed)
    model = TrafficModel(options.model).to(options.loop.device)
    source = sampler or TrafficSampler(open_scenes(options.scenes), seed=options.loop.seed)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        return traffic_loss(model, source.draw(options.loop.batch, step), generator)

    run(model, loss, options.loop, options.out).copy_to(model)
    if options.rollouts:
        own = RolloutSampler(model, source, options.rollout_frames)

        def closed(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            return traffic_loss(model, own.draw(options.loop.batch, step), generator)

        loop = replace(options.loop, steps=options.rollouts, minutes=0.0, lr=options.loop.lr / 3)
        run(model, closed, loop, options.out / "rollouts").copy_to(model)
    return model
