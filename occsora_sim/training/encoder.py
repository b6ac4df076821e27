"""Train the occupancy encoder: tell two looks at one moment from other moments and from spoiled copies.

InfoNCE (van den Oord et al. 2018, equation 4) with a second look, half a second on and from a bent path, as the
positive; the other moments of the batch (of a part of it, where it is taken in parts) are negatives, and so are copies
of the looks that are spoiled the way generated frames are, so that the features tell a good frame from a bad one and
not only one street from another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.grid import FREE, OCC3D, Grid
from occsora_sim.models.columns import UNSEEN, is_dynamic
from occsora_sim.models.occupancy_encoder import OccupancyEncoder, OccupancyEncoderConfig, save_encoder
from occsora_sim.recipe import recipe_of
from occsora_sim.training.fraying import fray
from occsora_sim.training.loop import LoopConfig, run
from occsora_sim.training.prefetch import open_windows
from occsora_sim.training.processes import Part, rank
from occsora_sim.training.stages import Stage, Stages

_TEMPERATURE = 0.2


@dataclass(frozen=True, kw_only=True)
class EncoderTraining:
    """Options of `train encoder`.

    Attributes:
        scenes: what to train on (any spec that `open_scenes` takes).
        out: folder for checkpoints, curves and the encoder.
        loop: steps, batch, learning rate...

    """

    scenes: str = "traffic:0-95"
    out: Path = Path("runs/encoder")
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=600, batch=12, lr=1e-3))


def train_encoder(options: EncoderTraining, grid: Grid = OCC3D) -> Path:
    """Train, and write `out`/encoder.safetensors (EMA weights); returns its path.

    Raises:
        CheckpointError: `out` holds a training with other options.

    """
    path = options.out / "encoder.safetensors"
    stages = Stages(
        options.out,
        options.loop.minutes,
        recipe_of("train encoder", options),
        [Stage(name="encoder", steps=options.loop.steps, main=True)],
        weights=path,
    )
    if stages.finished:
        return path
    torch.manual_seed(options.loop.seed)  # initial weights
    encoder = OccupancyEncoder(OccupancyEncoderConfig(height=grid.shape[2])).to(options.loop.device)
    source = open_windows(options.scenes, grid, options.loop, history=2, future=1, seed=options.loop.seed)

    def loss(step: int, part: Part, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        windows = source.draw(options.loop.batch, step, part)
        one, two = windows.labels[:, 1], windows.labels[:, 2]  # the future path of a third is bent
        return contrast(encoder, one, two, spoil(one, windows.poses[:, 1], grid, generator))

    run(encoder, loss, options.loop, stages.begin("encoder")).copy_to(encoder)
    if rank() == 0:
        save_encoder(encoder.eval(), path, {"trained_on": options.scenes, "steps": options.loop.steps})
    return path


def contrast(
    encoder: OccupancyEncoder, one: Tensor, two: Tensor, spoiled: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """InfoNCE of two looks (n, x, y, z) uint8 at n moments, beside spoiled copies of the first, and what to log."""
    n = len(one)
    features = F.normalize(encoder(torch.cat((one, two, spoiled))).float(), dim=1)
    a, rest = features[:n], features[n:]
    target = torch.arange(n, device=one.device)
    logits = a @ rest.T / _TEMPERATURE  # (n, 2 n): the second looks, then the spoiled copies
    back = torch.cat((rest[:n] @ a.T, rest[:n] @ rest[n:].T), dim=1) / _TEMPERATURE
    loss = 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(back, target))
    right = (logits.detach().argmax(1) == target).float().mean()
    return loss, {"encoder/loss": float(loss.detach()), "encoder/right": float(right)}


def spoil(frames: Tensor, poses: Tensor, grid: Grid, generator: torch.Generator) -> Tensor:
    """Copies of frames (n, x, y, z) uint8 seen from poses (n, 3), each spoiled in one of four ways: frayed, the road
    users gone, filled voxels dissolved in patches, or ground shifted beyond a line.
    """
    out = frames.clone()
    frayed = fray(frames[:, None], poses[:, None], 1.0, grid, generator)[:, 0]
    way = torch.randint(4, (len(frames),), generator=generator)
    for row, kind in enumerate(way.tolist()):
        if kind == 0:
            out[row] = frayed[row]
        elif kind == 1:
            out[row] = torch.where(is_dynamic(frames[row]), FREE, frames[row])
        elif kind == 2:
            coarse = torch.rand(1, 1, *(size // 8 for size in grid.shape[:2]), generator=generator)
            patches = F.interpolate(coarse, size=grid.shape[:2])[0, 0] < 0.15
            specks = torch.rand(grid.shape, generator=generator) < 0.5
            gone = (patches[..., None] & specks).to(frames.device)
            out[row] = torch.where(gone, FREE, frames[row])
        else:
            cut = int(torch.randint(grid.shape[0] // 4, 3 * grid.shape[0] // 4, (), generator=generator))
            shift = int(torch.randint(3, 12, (), generator=generator))
            out[row, cut:] = frames[row, cut:].roll(shift, dims=1)
    return torch.where(out == UNSEEN, FREE, out)
