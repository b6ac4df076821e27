"""DiffusionWorld: the generated world. Ground is drawn once, road users move and enter as a learned model says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.constants import span
from occsora_sim.counter_random import uniforms
from occsora_sim.errors import ActionError, ConfigurationError
from occsora_sim.geometry import compose, relative
from occsora_sim.grid import FRAME_SECONDS, Grid
from occsora_sim.models.columns import without_road_users
from occsora_sim.models.entries import START_SLOTS, STEP_SLOTS
from occsora_sim.models.entry_view import Setting, ground_of, in_view
from occsora_sim.models.route_mask import route_mask
from occsora_sim.models.traffic_choice import choose, luck_of, uses
from occsora_sim.models.traffic_motion import apply, keep_on
from occsora_sim.models.weights import load_world_model
from occsora_sim.models.world_model import WorldModel
from occsora_sim.road_users import RoadUsers, each_frame, in_frames, join, of_ego, stack
from occsora_sim.vehicle import Vehicle
from occsora_sim.voxels.paint import paint_road_users
from occsora_sim.worlds.ahead import poses_along
from occsora_sim.worlds.ground import Ground, View
from occsora_sim.worlds.memory import DiffusionMemory, remember, road_users_in
from occsora_sim.worlds.protocol import Start, WorldState

Mode = Literal["sample", "mean"]

MARGIN = 12.0
"""How far beyond the view ground is drawn where a chunk has a budget of tiles [m]: an ego at 43 km/h comes as far in
it, and what is drawn does not depend on where it goes."""

FARTHEST, _STRIDE = 200.0, 16.0
"""How far ahead ground can be drawn without forgetting where the ego is, and steps on the way there [m]."""

REACH = 64.0
"""Road users are simulated within this distance of the ego [m]; it sees 40 m ahead and to each side."""


class _Chance(NamedTuple):
    """Uniform numbers for frames, of seed and frame `keys` (b, f, 2): of how road users move (b, f, n, draws, *), and
    of who enters (b, f, *).
    """

    keys: Tensor
    motions: Tensor
    entries: list[Tensor]


class DiffusionWorld:
    """A batch of generated worlds behind the World protocol.

    Args:
        model: the closed-loop world model; ground and entries are drawn with copies of it as it is now.
        mode: "sample" draws a future, "mean" takes the expectation (for forecasting scores): ground of which most is
            expected to be right, by one call of the network, road users by their likeliest motion, and nobody enters.
        steps: calls of the network for a tile of new ground.
        follow_route: let the model see the route, so that new streets lead along it.
        vehicle: the ego as the others see it.
        tiles: of new ground and of its plan that are drawn in a chunk, wanted or not, so that nothing waits for the
            device; what is wanted more shows the commonest column until it is drawn. None: in every frame as many as
            are wanted. 0, with `ahead`: none.
        ahead: how far along its route the ground of a world is drawn when it begins [m]; at most FARTHEST.

    """

    def __init__(
        self, model: WorldModel, *, mode: Mode = "sample", steps: int = 4, follow_route: bool = True,
        vehicle: Vehicle | None = None, tiles: int | None = None, ahead: float = 0.0,
    ) -> None:  # fmt: skip
        if mode not in ("sample", "mean") or steps < 1:
            raise ConfigurationError(
                f"diffusion world: mode {mode!r} must be 'sample' or 'mean', steps {steps} at least 1"
            )
        if not 0 <= ahead <= FARTHEST or (tiles is not None and tiles < (ahead == 0)):
            raise ConfigurationError(
                f"diffusion world: ahead={ahead:g} must be 0 to {FARTHEST:g} m, tiles={tiles} at least 1, or 0 with "
                "ahead"
            )
        self.model = model.eval()
        self.ground, self.entries = model.ground.quick(), model.entries.quick()
        self.mode, self.steps, self.follow_route, self.tiles = mode, steps, follow_route, tiles
        self.ahead = ahead
        self.vehicle = vehicle or Vehicle()
        self.device = next(model.parameters()).device
        self.grid: Grid = model.config.grid
        self.frames_per_chunk: int = model.config.frames
        self.takes_scene_prompts = True

    def variant(self, **options: Any) -> DiffusionWorld:
        """The same model with other options (`mode`, `steps`, `follow_route`, `vehicle`, `tiles`, `ahead`)."""
        names = ("mode", "steps", "follow_route", "vehicle", "tiles", "ahead")
        return DiffusionWorld(self.model, **{**{name: getattr(self, name) for name in names}, **options})

    # ------------------------------------------------------------------ protocol
    @torch.no_grad()
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
        memory, newest = remember(starts, seeds, self.model, self.device)
        blank = [row for row, start in enumerate(starts) if not len(start.occupancy)]
        state = _state(memory, newest[:, None], memory.poses[:, -1:])
        if blank:
            state = self.replace(state, blank, self._invent(self.select(state, blank)))
        return self._foreseen(state) if self.ahead else state

    @torch.no_grad()
    def step(self, state: WorldState, trajectories: Tensor) -> WorldState:
        """Roll every world on along `trajectories` (b, f, 3)."""
        memory = state.memory
        poses = self._poses(memory, trajectories)
        if self.tiles is None:
            return self._rolled(memory, poses, self._grounds(memory, poses))
        memory = replace(memory, ground=self._draw(memory, memory.poses[:, -1], MARGIN, self.tiles))
        return self._rolled(memory, poses, [memory.ground] * poses.shape[1])

    @torch.no_grad()
    def reconstruct(self, state: WorldState, trajectories: Tensor, future: Tensor) -> WorldState:
        """As `step`, of the true `future` (b, f, x, y, z) uint8: new ground as the tokenizer
        gives it back, road users as they are found in the voxels. The ceiling of both representations.
        """
        memory, grid = state.memory, self.grid
        poses, future = self._poses(memory, trajectories), future.to(self.device)
        users, frames = memory.users, []
        for pose, labels in zip(poses.unbind(1), future.unbind(1), strict=True):
            users = keep_on(users)
            record = memory.ground.seen
            seen = record.look(record.points(pose[:, None], grid), grid)[:, 0]
            drawn = self.model.ground.given_back(without_road_users(labels))
            ground = torch.where((seen > 0)[..., None], record.columns(seen), drawn)
            found = [road_users_in(row[None], at[None], grid) for row, at in zip(labels, pose, strict=True)]
            frames.append(paint_road_users(ground, stack(found), pose.double(), grid))
        kept = torch.cat((memory.poses, poses), dim=1)[:, -memory.poses.shape[1] :]
        memory = replace(memory, users=users, poses=kept)
        return _state(memory, torch.stack(frames, dim=1), poses)

    def select(self, state: WorldState, rows: Sequence[int]) -> WorldState:
        """The state of the worlds `rows` alone; rows may repeat."""
        index = torch.as_tensor(list(rows), dtype=torch.long, device=self.device)
        return _state(
            state.memory.map(lambda field: field[index]), state.occupancy[index], state.ego_pose[index]
        )

    def replace(self, state: WorldState, rows: Sequence[int], other: WorldState) -> WorldState:
        """`state` with the worlds `rows` taken from `other`, in order.

        Where the two hold chunks of unlike length, the result holds the newest frame of each.
        """
        index = torch.as_tensor(list(rows), dtype=torch.long, device=self.device)
        at = slice(None) if state.occupancy.shape[1] == other.occupancy.shape[1] else slice(-1, None)
        occupancy, poses = state.occupancy[:, at].clone(), state.ego_pose[:, at].clone()
        occupancy[index], poses[index] = other.occupancy[:, at], other.ego_pose[:, at]
        return _state(state.memory.replace(index, other.memory), occupancy, poses)

    # ------------------------------------------------------------------ one chunk
    def _rolled(
        self, memory: DiffusionMemory, poses: Tensor, grounds: Sequence[Ground], *, first: bool = False
    ) -> WorldState:
        """The worlds after the ego's `poses` (b, f, 3), the ground as it is when it comes to each. `first`: nobody is
        known yet.

        What stands still in the frames and what chance says of them are known before anyone moves; who comes into view
        in them as soon as all have moved for the first.
        """
        view = grounds[-1].read(poses, self.ground, self.grid)
        slots = START_SLOTS if first else STEP_SLOTS
        chance = self._chance(memory, poses.shape[1], slots)
        setting = self._setting(memory, view, poses, first) if chance else None
        kinds = grounds[-1].kinds(self.ground, self.grid)
        way, f = torch.cat((memory.poses, poses), dim=1), poses.shape[1]
        before = torch.stack([way[:, k : k - f] for k in range(f)], dim=1).flatten(0, 1)
        egos = each_frame(of_ego(before, self.vehicle, memory.users.pose.shape[2]), f)
        entering, then = [], []
        for k, pose in enumerate(poses.unbind(1)):
            moved = self._move(memory, egos[k], kinds, chance, k)
            users = memory.scripts.follow(moved, memory.key[:, 1])
            if chance and setting and not k:
                entering = self._entering(memory, users, setting, chance, slots)
            users = join(users, *entering[k : k + 1])
            users = users.nearest(pose[:, :2].double(), memory.users.label.shape[1], REACH)
            then.append(users)
            memory = replace(
                memory, ground=grounds[k], users=users, poses=way[:, k + 1 : way.shape[1] - f + k + 1],
                key=memory.key + span(2, self.device),
            )  # fmt: skip
        frames = view.columns()
        paint_road_users(
            frames.flatten(0, 1), in_frames(then), poses.double().flatten(0, 1), self.grid, in_place=True
        )
        return _state(memory, frames, poses)

    def _chance(self, memory: DiffusionMemory, frames: int, slots: int) -> _Chance | None:
        """What chance says of so many frames to come, in which at most `slots` enter; None where it says nothing."""
        if self.mode != "sample":
            return None
        keys = memory.key[:, None] + F.pad(span(frames, self.device)[:, None], (1, 0))
        most = memory.users.label.shape[1]
        users = min(most, memory.users.occupied().label.shape[1] + slots * (frames - 1))
        motions, *entries = uniforms(keys, {**uses(users), **self.entries.uses(slots)})
        return _Chance(keys, motions, entries)

    def _setting(self, memory: DiffusionMemory, view: View, poses: Tensor, first: bool) -> Setting:
        """What of the frames at `poses` (b, f, 3) decides who comes into view."""
        grid = self.grid
        before = torch.cat((memory.poses[:, -1:], poses[:, :-1]), dim=1)
        new = ~in_view(grid.centres_from(relative(before, poses)), grid)
        if first:
            new[:, 0] = True
        return Setting.of(
            view.each(ground_of(view.palette, grid)),
            poses,
            (poses - before)[..., :2].norm(dim=-1) / FRAME_SECONDS,
            new,
            route_mask(memory.route, poses, grid) if self.follow_route else None,
            self.entries.config.margin,
        )

    def _move(
        self, memory: DiffusionMemory, ego: RoadUsers, kinds: Tensor, chance: _Chance | None, frame: int
    ) -> RoadUsers:
        """The road users a frame later, in as many slots as are in use. They see where the ego was, never where its
        prompt will take it.
        """
        model, users = self.model.traffic, memory.users.occupied()
        everyone = join(users, ego)
        crops = memory.ground.crops(everyone.now, kinds, self.ground, self.grid)
        is_ego = torch.zeros_like(everyone.valid)
        is_ego[:, -1] = True
        seen = model(everyone, is_ego, crops, memory.scene[:, 0].long())[:, :-1]
        if chance is None:
            return apply(users, model.head.mean(seen))
        luck = luck_of(chance.motions[:, frame, : users.label.shape[1]])
        motion = choose(everyone, model.head.sample(seen, luck), crops[:, :-1])
        return apply(users, motion, everyone.travel[:, :-1])

    def _grounds(self, memory: DiffusionMemory, poses: Tensor) -> list[Ground]:
        """The ground when the ego comes to each of `poses` (b, f, 3): everything drawn that is in view there."""
        grounds = []
        for pose in poses.unbind(1):
            memory = replace(memory, ground=self._draw(memory, pose))
            grounds.append(memory.ground)
        return grounds

    def _draw(
        self, memory: DiffusionMemory, pose: Tensor, margin: float = 0.0, tiles: int | None = None
    ) -> Ground:
        """The ground with everything drawn, or a budget of `tiles`, that is in view at `pose` (b, 3) or at most
        `margin` [m] beyond.
        """
        route = memory.route if self.follow_route else torch.full_like(memory.route, torch.nan)
        return memory.ground.drawn(
            self.ground, self.grid, pose, route, memory.scene[:, 0].long(), memory.key[:, 0],
            steps=self.steps, expected=self.mode == "mean", margin=margin, tiles=tiles,
        )  # fmt: skip

    def _entering(
        self, memory: DiffusionMemory, users: RoadUsers, setting: Setting, chance: _Chance, slots: int
    ) -> list[RoadUsers]:
        """Who comes into view in each frame, at most so many, of `users` in the first."""
        return self.entries.enter(
            users, setting, prompt=memory.scene, key=chance.keys, slots=slots,
            vehicle=self.vehicle, guided=memory.asks, luck=chance.entries,
        )  # fmt: skip

    def _invent(self, state: WorldState) -> WorldState:
        """Worlds of which nothing was seen, with frames drawn up to their last pose."""
        memory = state.memory
        count = min(self.frames_per_chunk, memory.poses.shape[1] - 1)
        begin, poses = memory.poses[:, -count - 1 : -count], memory.poses[:, -count:]
        memory = replace(memory, poses=begin.expand_as(memory.poses))
        state = self._rolled(memory, poses, self._grounds(memory, poses), first=True)
        return _state(state.memory, state.occupancy[:, -1:], poses[:, -1:])

    def _foreseen(self, state: WorldState) -> WorldState:
        """With the ground drawn that the routes lead through."""
        memory = state.memory
        for pose in poses_along(memory.route, memory.poses[:, -1], self.ahead, _STRIDE).unbind(1):
            memory = replace(memory, ground=self._draw(memory, pose, MARGIN))
        return replace(state, memory=memory)

    def _poses(self, memory: DiffusionMemory, trajectories: Tensor) -> Tensor:
        """World poses (b, f, 3) along a prompt.

        Raises:
            ActionError: wrong shape, or not finite.

        """
        b, shape = len(memory.key), tuple(trajectories.shape)
        if len(shape) != 3 or shape[0] != b or shape[2] != 3 or not 1 <= shape[1] <= self.frames_per_chunk:
            raise ActionError(f"trajectories: shape {shape}, need ({b}, 1 to {self.frames_per_chunk}, 3)")
        # To ask is to wait. An environment asks before.
        if self.tiles is None and not torch.isfinite(trajectories).all():
            raise ActionError("trajectories: hold NaN or infinite numbers; give finite metres and radians")
        return compose(memory.poses[:, -1:], trajectories.to(self.device, torch.float32))


def _state(memory: DiffusionMemory, occupancy: Tensor, poses: Tensor) -> WorldState:
    return WorldState(occupancy=occupancy, ego_pose=poses, users=memory.users, memory=memory)


def default_weights() -> Path:
    """The path of the shipped weights."""
    return Path(str(resources.files("occsora_sim.assets") / "weights" / "small.safetensors"))


def load_world(
    weights: Path | str | None = None, *, device: str = "cpu", mode: Mode = "sample", steps: int = 4,
    follow_route: bool = True, vehicle: Vehicle | None = None, tiles: int | None = None, ahead: float = 0.0,
) -> DiffusionWorld:  # fmt: skip
    """A generated world from a weights file (default: the shipped weights).

    Raises:
        CheckpointError: the weights are missing, damaged, foreign or of another kind.
        ConfigurationError: the device cannot be used; the message says what to install.

    """
    model, _ = load_world_model(Path(weights) if weights is not None else default_weights(), device=device)
    return DiffusionWorld(
        model, mode=mode, steps=steps, follow_route=follow_route, vehicle=vehicle, tiles=tiles, ahead=ahead
    )
