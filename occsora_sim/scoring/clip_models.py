"""Both families as makers of clips: they take the same recorded clip apart, and draw along the same trajectory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from occsora_sim.errors import ConfigurationError, SceneError
from occsora_sim.geometry import relative
from occsora_sim.grid import Grid
from occsora_sim.models.occsora_world import OccSora, OccSoraConfig, pose_steps
from occsora_sim.models.weights import load_occsora, read_config
from occsora_sim.scenes.recorded import Recorded
from occsora_sim.scenes.start import Start
from occsora_sim.scoring.allocator import give_back
from occsora_sim.scoring.real_clips import drawn_clips
from occsora_sim.worlds.diffusion import DiffusionWorld, load_world

GIVEN = 4
"""Frames that a closed-loop world is given of a recorded clip; nobody is scored on them."""


@dataclass(frozen=True, kw_only=True)
class RecordedClip:
    """What was there along one recorded motion.

    Attributes:
        labels: (t, x, y, z) uint8, each frame in its own ego frame.
        poses: (t, 3) float32 world poses of the ego [m, m, rad].

    """

    labels: Tensor
    poses: Tensor


@dataclass(frozen=True, kw_only=True)
class DrawnClip:
    """A clip that a model drew.

    Attributes:
        frames: (t - GIVEN + 1, x, y, z) uint8: from the last of the GIVEN poses on.
        seconds: that it took [s].
        seconds_in_full: with all steps of the model's schedule, multiplied up where fewer were taken [s].

    """

    frames: Tensor
    seconds: float
    seconds_in_full: float


class ClipModel(Protocol):
    """What makes clips."""

    @property
    def preset(self) -> str:
        """The name of its preset."""

    @property
    def parameters(self) -> int:
        """How many numbers were learned."""

    @property
    def grid(self) -> Grid:
        """The voxel grid."""

    @property
    def frames(self) -> int | None:
        """Frames in its clips; None: any number."""

    def reconstruct(self, clip: RecordedClip) -> Tensor:
        """The clip through the model's latents, from frame GIVEN on, (t - GIVEN, x, y, z) uint8."""

    def draw(self, poses: Tensor, seed: int) -> DrawnClip:
        """A clip of which nothing is known but the ego's poses (t, 3) [m, m, rad]."""


class WholeClips:
    """OccSora's own model: the whole clip is encoded, the whole clip is drawn.

    Args:
        model: tokenizer and denoiser.
        steps: of the diffusion, respaced; None: all of the schedule.

    """

    def __init__(self, model: OccSora, steps: int | None = None) -> None:
        config = model.config
        if steps is not None and not 1 <= steps <= config.diffusion_steps:
            raise ConfigurationError(
                f"clips: {steps} steps, but the schedule of {config.preset} has 1 to {config.diffusion_steps}"
            )
        self.model, self.steps = model.eval(), steps
        self.preset, self.grid, self.frames = config.preset, config.grid, config.tokenizer.frames
        self.parameters = _count(model)

    @torch.no_grad()
    def reconstruct(self, clip: RecordedClip) -> Tensor:
        """See `ClipModel`."""
        tokenizer = self.model.tokenizer
        labels = clip.labels[None].to(tokenizer.embedding.vectors.device)
        return tokenizer.draw(tokenizer.quantise(tokenizer.encode(labels)).latent)[0, GIVEN:].cpu()

    def draw(self, poses: Tensor, seed: int) -> DrawnClip:
        """See `ClipModel`."""
        all_steps = self.model.config.diffusion_steps
        begin = time.perf_counter()
        generator = torch.Generator().manual_seed(seed)
        latents = self.model.sample_latents(pose_steps(poses[None]), [generator], self.steps)
        latents = latents.cpu().to(latents.device)  # a GPU has finished when its answer is here
        diffused = time.perf_counter()
        frames = self.model.tokenizer.draw(latents)[0].cpu()
        end = time.perf_counter()
        full = (diffused - begin) * all_steps / (self.steps or all_steps) + end - diffused
        return DrawnClip(frames=frames[GIVEN - 1 :], seconds=end - begin, seconds_in_full=full)


class ChainedClips:
    """A closed-loop world: chunk after chunk.

    A recorded clip is encoded chunk by chunk, each after the GIVEN true frames before it. A drawn one starts from
    nothing: the first frames along the first GIVEN poses, the rest along the others. The way that the poses take is
    the route, so that a world knows as much of the future as OccSora does, which is shown the whole trajectory.
    """

    frames: int | None = None

    def __init__(self, world: DiffusionWorld) -> None:
        config = world.model.config
        if config.history != GIVEN:
            raise ConfigurationError(
                f"clips: {config.preset} needs a history of {config.history} frames, not {GIVEN}; give other weights"
            )
        self.world, self.preset, self.grid = world, config.preset, world.grid
        self.parameters = _count(world.model)

    def reconstruct(self, clip: RecordedClip) -> Tensor:
        """See `ClipModel`."""
        f, length = self.world.frames_per_chunk, len(clip.poses)
        if (length - GIVEN) % f:
            raise ConfigurationError(
                f"clips: {length - GIVEN} frames cannot be cut into chunks of {f}; give weights of another preset"
            )
        world = self.world.variant(follow_route=False)
        frames = []
        for k in range(GIVEN, length, f):
            start = Start(
                occupancy=clip.labels[k - GIVEN : k],
                ego_pose=clip.poses[k - GIVEN : k].float(),
                route=torch.zeros(0, 2),
            )
            trajectory = relative(clip.poses[k - 1 : k], clip.poses[k : k + f])[None].float()
            state = world.reset([start], [0])
            frames.append(world.reconstruct(state, trajectory, clip.labels[None, k : k + f]).occupancy[0])
            give_back()
        return torch.cat(frames).cpu()

    def draw(self, poses: Tensor, seed: int) -> DrawnClip:
        """See `ClipModel`."""
        f = self.world.frames_per_chunk
        begin = time.perf_counter()
        local = relative(poses[GIVEN - 1 : GIVEN], poses).float()
        start = Start(
            occupancy=torch.zeros((0, *self.grid.shape), dtype=torch.uint8),
            ego_pose=local[:GIVEN],
            route=way(local),
        )
        state = self.world.reset([start], [seed])
        frames = [state.occupancy[0, -1:].cpu()]
        for k in range(GIVEN, len(local), f):
            state = self.world.step(state, relative(local[k - 1 : k], local[k : k + f])[None])
            frames.append(state.occupancy[0].cpu())
        seconds = time.perf_counter() - begin
        return DrawnClip(frames=torch.cat(frames), seconds=seconds, seconds_in_full=seconds)


def open_clip_model(
    path: Path, *, steps: int = 4, paper_steps: int | None = None, device: str = "cpu"
) -> ClipModel:
    """The maker of clips in a weights file of either family.

    Args:
        path: the file.
        steps: calls of the network for a tile of new ground, of a closed-loop world.
        paper_steps: of OccSora's own model; None: all of its schedule.
        device: where.

    Raises:
        CheckpointError: the file is missing, damaged, foreign or of another kind.
        ConfigurationError: it has fewer steps, or cannot be given GIVEN frames.

    """
    if isinstance(read_config(path), OccSoraConfig):
        return WholeClips(load_occsora(path, device=device)[0], paper_steps)
    return ChainedClips(load_world(path, device=device, steps=steps))


def recorded_clips(scenes: Sequence[Recorded], count: int, grid: Grid, frames: int) -> Iterator[RecordedClip]:
    """`count` clips of the scenes' expert egos, as many of each scene; fewer where there are fewer. Each is voxelised
    when it is asked for, as one of 16 s fills 20 MB.

    Raises:
        SceneError: there is no scene, or one has no expert ego recorded for long enough.

    """
    if not scenes:
        raise SceneError("clips: there is no scene; give one or more")
    for number, scene in enumerate(scenes):
        if share := count // len(scenes) + (number < count % len(scenes)):
            for labels, poses in drawn_clips(scene, grid, frames, share):
                yield RecordedClip(labels=labels.cpu(), poses=poses.float())


def way(poses: Tensor) -> Tensor:
    """The way through poses (t, 3) as a route (r, 2) float32, a point a metre [m]; none where the ego hardly moves."""
    points = poses[:, :2].double().numpy()
    metres = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))))
    if metres[-1] < 2.0:
        return torch.zeros(0, 2)
    at = np.arange(0.0, metres[-1], 1.0)
    return torch.from_numpy(np.stack([np.interp(at, metres, points[:, k]) for k in (0, 1)], axis=-1)).float()


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
