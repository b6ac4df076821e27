"""Train the entries on recorded tracks: who came into view of recorded ego motions."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from occsora_sim.checkpoint import write_tensors
from occsora_sim.models.entries import KIND, Entries, EntriesConfig
from occsora_sim.models.entry_view import view_image
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.source import each_scene
from occsora_sim.training.entry_samples import EntrySampler, Samples
from occsora_sim.training.loop import LoopConfig, run

_START_WEIGHT = 0.3
"""Of a start from nothing: it holds thirty times as many entries as a frame."""


@dataclass(frozen=True, kw_only=True)
class EntriesTraining:
    """Options of the training of the entries.

    Attributes:
        scenes: what to train on (any spec that `open_scenes` takes; voxel sequences, which have no tracks, are passed
            over).
        out: folder for checkpoints, curves and the weights.
        model: the network.
        loop: steps, batch, learning rate...

    """

    scenes: str = "traffic:0-119+arterial:0-31+roundabout:0-31+motorway:0-31"
    out: Path = Path("runs/entries")
    model: EntriesConfig = field(default_factory=EntriesConfig)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=3000, batch=16, lr=2e-3, log_every=50, checkpoint_every=500)
    )


def entries_loss(entries: Entries, samples: Samples) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of samples on the device of `entries`, and what to log."""
    config = entries.config
    image = view_image(
        samples.users, samples.ground, samples.pose, samples.new, samples.route, config.grid, config.margin
    )
    condition = entries.conditions(
        samples.prompt, samples.vehicles, samples.speed, samples.new, samples.route
    )
    weight = torch.where(samples.start, _START_WEIGHT, 1.0)
    return entries.loss(image, condition, samples.entered, weight)


def train_entries(options: EntriesTraining) -> Path:
    """Train, and write `out`/entries.safetensors (EMA weights); returns its path.

    Raises:
        SceneError: the scenes cannot be read, or hold no tracks to train on.
        CheckpointError: `out` holds the state of another training.

    """
    torch.manual_seed(options.loop.seed)
    device = torch.device(options.loop.device)
    entries = Entries(options.model).to(device)
    scenes = [scene for scene in each_scene(options.scenes) if isinstance(scene, Scene)]
    scenes.sort(key=lambda scene: scene.name)  # towns come as they are ready
    sampler = EntrySampler(scenes, options.model.grid)
    entries.sizes.copy_(sampler.sizes())
    entries.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        return entries_loss(entries, sampler.draw(options.loop.batch, generator).to(device))

    run(entries, loss, options.loop, options.out).copy_to(entries)
    path = options.out / "entries.safetensors"
    header = {
        "kind": KIND,
        "config": options.model.to_header(),
        "trained_on": options.scenes,
        "recipe": {"entries": asdict(options.loop)},
    }
    write_tensors(path, entries.state_dict(), header)
    return path
