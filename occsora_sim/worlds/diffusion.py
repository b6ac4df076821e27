"""DiffusionWorld: the generated world. A chunk is drawn from the compensated past and the trajectory prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from occsora_sim.errors import ActionError, ConfigurationError
from occsora_sim.geometry import compose, relative
from occsora_sim.grid import Grid
from occsora_sim.models.anchor import Anchor
from occsora_sim.models.arrivals import arrive
from occsora_sim.models.columns import (
    UNSEEN,
    is_dynamic,
    is_ground,
    road_user_image,
    without_road_users,
)
from occsora_sim.models.context import ROUTE
from occsora_sim.models.lane import open_lane
from occsora_sim.models.mending import as_it_stood, mended
from occsora_sim.models.patches import whole_vehicles
from occsora_sim.models.weights import load_world_model
from occsora_sim.models.world_model import WorldModel
from occsora_sim.vehicle import Vehicle
from occsora_sim.worlds.foresight import foresee
from occsora_sim.worlds.memory import DiffusionMemory, remember, tensors_of
from occsora_sim.worlds.protocol import Start, WorldState

Mode = Literal["sample", "mean"]


class DiffusionWorld:
    """A batch of generated worlds behind the World protocol.

    Args:
        model: the closed-loop world model.
        mode: "sample" draws a future, "mean" takes the denoiser's expectation (for forecasting scores).
        steps: denoising steps when sampling.
        follow_route: let the model see the route, so that new streets lead along it; its lane is drivable wherever
            nothing was drawn before.
        guidance: how much further than the model's own answer a scene prompt takes what is drawn; all but 1 cost a
            second call of the network at each step.
        vehicle: the ego as the others see it.
        rows_per_call: worlds per model call; None: all on a GPU, one on a CPU, where a batch brings no speed and
            one at a time makes a world's floats independent of its neighbours, bit for bit.

    """

    def __init__(
        self,
        model: WorldModel,
        *,
        mode: Mode = "sample",
        steps: int = 8,
        follow_route: bool = True,
        guidance: float = 1.0,
        vehicle: Vehicle | None = None,
        rows_per_call: int | None = None,
    ) -> None:
        if mode not in ("sample", "mean") or steps < 1 or not 0 <= guidance <= 20:
            raise ConfigurationError(
                f"diffusion world: mode {mode!r} must be 'sample' or 'mean', steps {steps} at least 1, guidance "
                f"{guidance:g} from 0 to 20"
            )
        self.model = model.eval()
        self.mode, self.steps, self.follow_route, self.guidance = mode, steps, follow_route, guidance
        self.vehicle = vehicle or Vehicle()
        self.device = next(model.parameters()).device
        self.rows_per_call = rows_per_call or (1 if self.device.type == "cpu" else 1 << 30)
        self.grid: Grid = model.config.grid
        self.frames_per_chunk: int = model.config.frames

    @property
    def takes_scene_prompts(self) -> bool:
        """Whether the weights were trained with scene prompts; others draw as if all were open."""
        return self.model.scene is not None

    def variant(self, **options: Any) -> DiffusionWorld:
        """The same with other options: `mode`, `steps`, `follow_route`, `guidance`, `vehicle`, `rows_per_call`."""
        names = ("mode", "steps", "follow_route", "guidance", "vehicle", "rows_per_call")
        mine = {name: getattr(self, name) for name in names}
        return DiffusionWorld(self.model, **{**mine, **options})

    # ------------------------------------------------------------------ protocol
    def reset(self, starts: Sequence[Start], seeds: Sequence[int]) -> WorldState:
        """Begin worlds from the histories of `starts`; those without a frame from nothing, the first chunk drawn along
        their last poses.

        Raises:
            ConfigurationError: not one seed per start, or a history that is too short or of another grid.

        """
        need, grid = self.model.config.history, self.grid
        if not starts or len(starts) != len(seeds):
            raise ConfigurationError(
                f"reset: got {len(starts)} starts and {len(seeds)} seeds; give one seed per start"
            )
        for start in starts:
            short = 0 < len(start.occupancy) < need or len(start.ego_pose) < need
            if short or tuple(start.occupancy.shape[1:]) != grid.shape:
                raise ConfigurationError(
                    f"start {start.name!r}: occupancy {tuple(start.occupancy.shape)}, need at least {need} frames of "
                    f"{grid.shape}; make it with this world's grid"
                )
        memory = remember(starts, seeds, grid, need, self.model.config.motion_frames, self.device)
        state = WorldState(occupancy=memory.last[:, None], ego_pose=memory.poses[:, -1:], memory=memory)
        blank = [row for row, start in enumerate(starts) if not len(start.occupancy)]
        if not blank:
            return state
        poses = torch.stack([starts[row].ego_pose[-need:] for row in blank]).to(self.device, torch.float32)
        return self.replace(state, blank, self._invent(self.select(state, blank), poses))

    @torch.no_grad()
    def _invent(self, state: WorldState, poses: Tensor) -> WorldState:
        """Worlds of which nothing was seen, with a chunk drawn that ends at the last of `poses` (b, t, 3)."""
        memory, f = state.memory, min(self.frames_per_chunk, poses.shape[1] - 1)
        before, along = poses[:, -f - 1 : -f], poses[:, -f:]
        memory = replace(memory, poses=before.expand(-1, memory.poses.shape[1], -1))
        drawn = self._advance(replace(state, memory=memory), relative(before, along), None)
        last, pose = drawn.occupancy[:, -1], poses[:, -1]
        return WorldState(
            occupancy=last[:, None],
            ego_pose=pose[:, None],
            memory=replace(drawn.memory, anchor=Anchor.of(last, pose, self.model.config.history)),
        )

    @torch.no_grad()
    def step(self, state: WorldState, trajectories: Tensor) -> WorldState:
        """Roll every world on along `trajectories` (b, f, 3)."""
        return self._advance(state, trajectories, None)

    @torch.no_grad()
    def reconstruct(self, state: WorldState, trajectories: Tensor, future: Tensor) -> WorldState:
        """As `step`, with the latent encoded from the true `future` (b, f, x, y, z) uint8 instead of denoised: what a
        perfect denoiser would draw (f must be `frames_per_chunk`).
        """
        return self._advance(state, trajectories, future.to(self.device))

    def select(self, state: WorldState, rows: Sequence[int]) -> WorldState:
        """The state of the worlds `rows` alone; rows may repeat."""
        index = torch.as_tensor(list(rows), dtype=torch.long)
        return WorldState(
            occupancy=state.occupancy[index.to(self.device)],
            ego_pose=state.ego_pose[index.to(self.device)],
            memory=state.memory.map(lambda field: field[index.to(field.device)]),
        )

    def replace(self, state: WorldState, rows: Sequence[int], other: WorldState) -> WorldState:
        """`state` with the worlds `rows` taken from `other`, in order.

        Where the two hold chunks of unlike length, the result holds the newest frame of each.
        """
        index = torch.as_tensor(list(rows), dtype=torch.long, device=self.device)

        def put(mine: Tensor, theirs: Tensor) -> Tensor:
            out = mine.clone()
            out[index.to(mine.device)] = theirs.to(mine.device)
            return out

        length = max(state.memory.route.shape[1], other.memory.route.shape[1])
        mine, theirs = (memory.lengthen(length) for memory in (state.memory, other.memory))
        rest = iter(tensors_of(theirs))
        memory = mine.map(lambda field: put(field, next(rest)))
        same = state.occupancy.shape[1] == other.occupancy.shape[1]
        at = slice(None) if same else slice(-1, None)
        return WorldState(
            occupancy=put(state.occupancy[:, at], other.occupancy[:, at]),
            ego_pose=put(state.ego_pose[:, at], other.ego_pose[:, at]),
            memory=memory,
        )

    # ------------------------------------------------------------------ one chunk
    def _advance(self, state: WorldState, trajectories: Tensor, future: Tensor | None) -> WorldState:
        memory, frames, b = state.memory, self.frames_per_chunk, len(state.memory.last)
        wanted = trajectories.ndim == 3 and trajectories.shape[0] == b and trajectories.shape[2] == 3
        if not wanted or not 1 <= trajectories.shape[1] <= frames:
            raise ActionError(
                f"trajectories: shape {tuple(trajectories.shape)}, need ({b}, 1 to {frames}, 3)"
            )
        trajectories = trajectories.to(self.device, torch.float32)
        if not torch.isfinite(trajectories).all():
            raise ActionError("trajectories: hold NaN or infinite numbers; give finite metres and radians")
        groups = []
        for begin in range(0, b, self.rows_per_call):
            rows = slice(begin, begin + self.rows_per_call)
            part = future[rows] if future is not None else None
            groups.append(
                self._draw(memory.map(lambda field, rows=rows: field[rows]), trajectories[rows], part)
            )
        return WorldState(
            occupancy=torch.cat([group.occupancy for group in groups]),
            ego_pose=torch.cat([group.ego_pose for group in groups]),
            memory=DiffusionMemory.merge([group.memory for group in groups]),
        )

    def _draw(self, memory: DiffusionMemory, trajectories: Tensor, future: Tensor | None) -> WorldState:
        """One chunk of some worlds in one model call."""
        grid, given = self.grid, trajectories.shape[1]
        prompt = _extend(trajectories, self.frames_per_chunk)
        poses = compose(memory.poses[:, -1:], prompt)
        generators = memory.generators() if self.mode == "sample" and future is None else None
        known, offsets = foresee(self.model, memory, poses, generators, self.follow_route, self.vehicle)
        if future is not None:
            labels = self.model.reconstruct(future, known)
        else:
            labels = self.model.sample(known, prompt, generators, self.steps, memory.scene, self.guidance)
        labels = whole_vehicles(labels.flatten(0, 1)).view_as(labels)
        if future is None:
            labels = as_it_stood(labels, known)
        if generators is not None:
            labels = mended(labels, known, self.model.newcomers, grid)
        if self.follow_route and future is None:
            labels = open_lane(labels, memory.route, poses, grid)
        record, drawn = memory.record, []
        for k in range(given):
            at = poses[:, k]
            static = known.static[:, k]
            if k:  # later frames are shown what the chunk's earlier ones have drawn
                static = torch.where(static == UNSEEN, record.read(at[:, None], grid)[:, 0], static)
            stands = is_dynamic(labels[:, k]) & ~is_ground(static)  # on the ground, and not in it
            frame = torch.where(stands | (static == UNSEEN), labels[:, k], static)
            record = record.write(without_road_users(frame), at, grid)
            drawn.append(frame)
        occupancy = torch.stack(drawn, dim=1)
        placed = None
        if generators is not None and self.model.newcomers is not None:
            occupancy, placed = arrive(
                self.model.newcomers,
                occupancy,
                known.auxiliary[:, given - 1, ROUTE],
                memory.route if self.follow_route else None,
                memory.poses[:, -1],
                poses[:, :given],
                (known.static == UNSEEN).flatten(1).all(1),
                memory.scene[:, 1],
                generators,
                grid,
            )
        images = road_user_image(occupancy)
        carried = images[..., 0] == road_user_image(known.prior[:, :given])[..., 0]
        offsets = offsets[:, :given] * carried[..., None]
        if placed is not None:
            offsets = torch.where(placed == 0, offsets, placed)
        new = memory.after(
            record=record,
            occupancy=occupancy,
            images=images,
            offsets=offsets,
            poses=poses[:, :given],
            generators=generators,
        )
        return WorldState(occupancy=occupancy, ego_pose=poses[:, :given], memory=new)


def _extend(trajectories: Tensor, frames: int) -> Tensor:
    """Go on with the last motion until `frames` poses are given: (b, g, 3) -> (b, frames, 3)."""
    while trajectories.shape[1] < frames:
        last = trajectories[:, -1:]
        before = trajectories[:, -2:-1] if trajectories.shape[1] > 1 else torch.zeros_like(last)
        trajectories = torch.cat((trajectories, compose(last, relative(before, last))), dim=1)
    return trajectories


def default_weights() -> Path:
    """The path of the shipped weights."""
    return Path(str(resources.files("occsora_sim.assets") / "weights" / "small.safetensors"))


def load_world(
    weights: Path | str | None = None, *, device: str = "cpu", mode: Mode = "sample", steps: int = 8,
    follow_route: bool = True, vehicle: Vehicle | None = None,
) -> DiffusionWorld:  # fmt: skip
    """A generated world from a weights file (default: the shipped weights), in which the others see `vehicle` (default:
    the recording car) as the ego.

    Raises:
        CheckpointError: the weights are missing, damaged, foreign or of another kind.

    """
    model, _ = load_world_model(Path(weights) if weights is not None else default_weights(), device=device)
    return DiffusionWorld(model, mode=mode, steps=steps, follow_route=follow_route, vehicle=vehicle)
