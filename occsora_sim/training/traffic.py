"""Train what moves and enters: the traffic model on recorded tracks, then on its own rollouts; and the entries."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import relative
from occsora_sim.models.traffic import TrafficModel
from occsora_sim.models.weights import load_world_model, save_world_model
from occsora_sim.models.world_model import WorldModel
from occsora_sim.presets import closed_loop_preset
from occsora_sim.recipe import recipe_of
from occsora_sim.scenes.scene import Scene
from occsora_sim.training.entries import entries_loss, measure_kept
from occsora_sim.training.entry_samples import EntrySampler
from occsora_sim.training.loop import LoopConfig, run
from occsora_sim.training.muon import muon_of_blocks, muon_of_convolutions
from occsora_sim.training.processes import Part, open_share, parts, rank
from occsora_sim.training.stages import Stage, Stages
from occsora_sim.training.traffic_rollouts import RolloutSampler
from occsora_sim.training.traffic_windows import TrafficSampler, TrafficWindows, targets

_WAY = 5.0  # what ways are divided by [m]

_AGAIN = 3
"""One step in so many is on the recording, while the others are on the model's own rollouts: what it has learned there
is not to be forgotten."""


ROLLED = 0.6
"""Share of the weights after own rollouts in the result; the rest are those after the recording alone. Rollouts teach
to stay on the road and apart, and blur when who brakes: the average keeps both (Wortsman et al. 2022, arXiv 2109.01903;
lab book, 2026-11-29)."""


_ORTHOGONAL = 3.0
"""What the learning rate is multiplied by for Muon, which takes larger steps well."""


@dataclass(frozen=True, kw_only=True)
class TrafficTraining:
    """Options of `train traffic`.

    Attributes:
        scenes: what to train on: any source with tracks (towns, ScenarioNet logs).
        out: folder for checkpoints, curves and the weights.
        preset: small, base or tiny: the sizes.
        init: weights of a whole closed-loop model whose road users learn on, on logs of one's own, say; the result is
            such a model too.
        rollout_steps: steps on the model's own rollouts, after those on the recording.
        rollout_frames: length of each rollout.
        entry_steps: steps of the model of who comes into view.
        loop: steps, batch, learning rate... of the steps on the recording.

    """

    scenes: str = "traffic:0-119+arterial:0-31+roundabout:0-31+motorway:0-31"
    out: Path = Path("runs/traffic")
    preset: str = "small"
    init: Path | None = None
    rollout_steps: int = 6000
    rollout_frames: int = 10
    entry_steps: int = 5000
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=6000, batch=16, lr=1e-3, warmup=100))

    def __post_init__(self) -> None:
        if min(self.rollout_steps, self.entry_steps) < 0:
            raise ConfigurationError(
                f"train traffic: --rollout-steps {self.rollout_steps} and --entry-steps {self.entry_steps} must be 0 "
                "or more"
            )
        if self.rollout_frames < 1:
            raise ConfigurationError(
                f"train traffic: --rollout-frames {self.rollout_frames} must be 1 or more"
            )


def train_traffic(options: TrafficTraining) -> Path:
    """Train, and write `out`/traffic.safetensors, or with `init` `out`/world_model.safetensors (EMA weights); returns
    its path.

    Raises:
        SceneError: the scenes cannot be read, or hold no tracks.
        CheckpointError: the weights to begin with are unusable, or `out` holds a training with other options.

    """
    kind = "traffic" if options.init is None else "world_model"
    path = options.out / f"{kind}.safetensors"
    stages = Stages(
        options.out, options.loop.minutes, recipe_of("train traffic", options), _stages(options), weights=path
    )
    if stages.finished:
        return path
    model, before = _model(options)
    scenes = [scene for scene in open_share(options.scenes) if isinstance(scene, Scene)]
    if options.loop.steps or options.rollout_steps:
        _train_motion(options, model.traffic, TrafficSampler(scenes, seed=options.loop.seed), stages)
    if options.entry_steps:
        _train_entries(options, model, scenes, stages)
    if rank() == 0:
        recipe = {**before, "traffic": options}
        save_world_model(model, path, kind=kind, trained_on=options.scenes, recipe=recipe)
    return path


def _stages(options: TrafficTraining) -> list[Stage]:
    return [
        Stage(name="traffic", steps=options.loop.steps, share=0.4, main=True),
        Stage(
            name="rollouts", steps=options.rollout_steps, share=0.4, stride=_AGAIN * options.rollout_frames
        ),
        Stage(name="entries", steps=options.entry_steps, share=0.2),
    ]


def _model(options: TrafficTraining) -> tuple[WorldModel, dict[str, object]]:
    """What to train, and the recipe that it has so far."""
    if options.init is not None:
        model, header = load_world_model(options.init, device=options.loop.device)
        return model, {"init": header.get("recipe", {})}
    config = closed_loop_preset(options.preset)
    torch.manual_seed(options.loop.seed)  # initial weights
    return WorldModel(config).to(options.loop.device), {}


def _train_motion(
    options: TrafficTraining, model: TrafficModel, source: TrafficSampler, stages: Stages
) -> None:
    loop, device = options.loop, torch.device(options.loop.device)

    def recorded(step: int, part: Part, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        draw, count = (source.draw, loop.batch) if step % 2 else (source.draw_movers, 4 * loop.batch)
        return traffic_loss(model, draw(count, step, part).to(device), generator)

    loop = replace(loop, lr=_ORTHOGONAL * loop.lr)
    run(model, recorded, loop, stages.begin("traffic"), muon_of_blocks).copy_to(model)
    if not options.rollout_steps:
        return
    own = {
        part: RolloutSampler(model, source, options.rollout_frames, part) for part in parts(loop.accumulate)
    }

    def rolled(step: int, part: Part, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        number, rest = divmod(step, _AGAIN)
        if rest == _AGAIN - 1:
            return recorded(loop.steps + number, part, generator)
        windows = own[part].draw(loop.batch, number * (_AGAIN - 1) + rest)
        return traffic_loss(model, windows.to(device), generator)

    lower = replace(loop, steps=options.rollout_steps, lr=loop.lr / 2)
    begun = {name: value.clone() for name, value in model.named_parameters()}
    run(model, rolled, lower, stages.begin("rollouts"), muon_of_blocks).copy_to(model)
    for name, value in model.named_parameters():
        value.data.lerp_(begun[name].data, 1 - ROLLED)


def _train_entries(options: TrafficTraining, model: WorldModel, scenes: list[Scene], stages: Stages) -> None:
    entries, loop = model.entries, replace(options.loop, steps=options.entry_steps, lr=4 * options.loop.lr)
    sampler = EntrySampler(scenes, model.config.grid)
    entries.sizes.copy_(sampler.sizes())

    def loss(step: int, part: Part, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        samples = sampler.draw(part.size(loop.batch), generator)
        return entries_loss(entries, samples.to(torch.device(loop.device)))

    run(entries, loss, loop, stages.begin("entries"), muon_of_convolutions).copy_to(entries)
    if rank() == 0:
        measure_kept(entries, sampler)


def traffic_loss(
    model: TrafficModel, windows: TrafficWindows, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """The head's loss of what recorded road users do next, and the error of where they will be in the next frames: the
    road ahead shows in that long before it shows in the next step.
    """
    motion, known = targets(windows)
    open_place = torch.rand(len(windows.place), generator=generator) < model.config.place_dropout
    place = windows.place.masked_fill(open_place.to(windows.place.device), -1)
    seen = model(windows.users, windows.ego, windows.crops, place)
    with torch.autocast(seen.device.type, enabled=False):
        flat = replace(
            motion, more=motion.more.flatten(), turn=motion.turn.flatten(), stand=motion.stand.flatten()
        )
        loss, logs = model.head.loss(seen.flatten(0, 1), flat, known.flatten())
        there = relative(windows.users.now[:, :, None], windows.later)[..., :2].float() / _WAY
        goes = windows.known & (known & ~motion.stand)[..., None]
        off = (model.way(seen).unflatten(-1, there.shape[-2:]) - there).norm(dim=-1)
        way = (off * goes).sum() / goes.sum().clamp(min=1)
    logs = {**logs, "way_m": _WAY * way.detach()}
    return loss + way, {
        "traffic/loss": loss.detach(),
        **{f"traffic/{name}": value for name, value in logs.items()},
    }
