"""The driving task as functions of a state: begin episodes, step them, pick and put rows. No Gymnasium."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from occsora_sim.envs.casting import SEEN, Casting
from occsora_sim.envs.config import DriveConfig
from occsora_sim.envs.motion import (
    check_actions,
    check_manoeuvres,
    clamp_actions,
    clamp_manoeuvres,
    starting_motion,
)
from occsora_sim.envs.observation import look, own_copy, route_ahead
from occsora_sim.envs.plan import plan
from occsora_sim.envs.reward import reward_terms, sum_terms
from occsora_sim.envs.road_user_edit import RoadUserEdit
from occsora_sim.envs.state import DriveState, Origin, Outcome
from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import wrap_angle
from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.scenes.start import Start
from occsora_sim.scoring.episode import advance, begin_episodes
from occsora_sim.worlds.protocol import World


class DriveSimulation:
    """Rolls any number of episodes on in one world call.

    Args:
        config: the options.
        world: the world that is driven.
        starts: where episodes may begin.
        max_steps: an episode is truncated after so many steps, if not by its time before.

    """

    def __init__(
        self, config: DriveConfig, world: World, starts: Sequence[Start], max_steps: int | None = None
    ) -> None:
        self.config, self.world, self.starts = config, world, tuple(starts)
        self.max_steps = max_steps
        self.frames = (
            world.frames_per_chunk if config.frames_per_decision is None else config.frames_per_decision
        )
        if not 1 <= self.frames <= world.frames_per_chunk:
            raise ConfigurationError(
                f"frames_per_decision={self.frames}: this world makes 1 to {world.frames_per_chunk} in a step"
            )
        if not self.starts:
            raise ConfigurationError("scenes: no start to begin an episode at")
        self.device = torch.device(getattr(world, "device", "cpu"))
        self.casting = Casting(config, world, self.starts)
        self.discrete = config.action == "manoeuvre"
        self.action_size = 3 * self.frames if config.action == "trajectory" else 2

    def check(self, actions: object, rows: int, ignore: Sequence[int] = ()) -> np.ndarray:
        """Actions for `rows` episodes as the action space means them: (b, a) float64, or (b,) int64 manoeuvres.

        The rows `ignore` may hold anything.

        Raises:
            ActionError: wrong shape, not a number, or outside the space.

        """
        if self.discrete:
            return check_manoeuvres(actions, rows, ignore)
        return check_actions(actions, rows, self.action_size, ignore)

    def clamp(self, actions: object, rows: int) -> torch.Tensor:
        """Actions for `rows` episodes brought into the action space, on the world's device: (b, a) float64, or (b,)
        int64. What is no number counts as 0. A check would have to wait for the device.

        Raises:
            ActionError: wrong shape, or no numbers at all.

        """
        if self.discrete:
            return clamp_manoeuvres(actions, rows, self.device)
        return clamp_actions(actions, rows, self.action_size, self.device)

    def launch(
        self,
        generators: Sequence[np.random.Generator],
        chosen: Sequence[int | str] | None = None,
        prompts: Sequence[Mapping[str, Any]] | None = None,
        drawn: Sequence[set[int]] | None = None,
        edits: Sequence[RoadUserEdit] = (),
    ) -> DriveState:
        """Begin an episode with each generator: draw its start and seed, and tell the world its scene prompt.

        Args:
            generators: of all that is drawn, one for each episode.
            chosen: as the others, see `Casting.draw`.
            prompts: for each episode "place" and "vehicles" that it is given instead of the configuration's.
            drawn: of each generator the starts that it has drawn.
            edits: what shall become of road users at each of the starts.

        Raises:
            ConfigurationError: a start that does not exist, or a scene prompt or an edit that cannot be.

        """
        return self.begin(*self.casting.draw(generators, chosen, prompts, drawn, edits))

    def begin(
        self, starts: Sequence[Start], seeds: Sequence[int], numbers: Sequence[int] | None = None
    ) -> DriveState:
        """Begin len(starts) episodes, the world's randomness from `seeds`; `numbers` are the starts' indices, if they
        have any.
        """
        numbers = [-1] * len(starts) if numbers is None else numbers
        world = self.world.reset(starts, seeds)
        device = world.occupancy.device
        starts = [
            start if len(start.occupancy) else replace(start, occupancy=world.occupancy[row, -1:])
            for row, start in enumerate(starts)
        ]
        frames, poses = [], []
        length = max(SEEN, self.frames)
        for row, start in enumerate(starts):
            count = len(start.occupancy)  # of frames; one that began from nothing has more poses
            past = [start.occupancy[:-1].to(device), world.occupancy[row, -1:]]
            track = [start.ego_pose[-count:-1].to(device), world.ego_pose[row, -1:]]
            if count < length:  # a short history is repeated at its beginning
                past.insert(0, start.occupancy[:1].to(device).expand(length - count, -1, -1, -1))
                track.insert(0, start.ego_pose[-count:][:1].to(device).expand(length - count, -1))
            frames.append(torch.cat(past)[-length:])
            poses.append(torch.cat(track)[-length:])
        seen, seen_poses = torch.stack(frames), torch.stack(poses).float()
        return DriveState(
            world=world,
            episodes=begin_episodes(starts, device, self.config.score),
            frames=seen[:, -self.frames :],
            poses=seen_poses[:, -self.frames :],
            seen=seen,
            seen_poses=seen_poses,
            motion=starting_motion(starts, self.config.vehicle).to(device),
            start=torch.tensor(numbers, device=device),
            origin=torch.arange(len(starts), device=device),
            known=tuple(
                Origin(name=start.name, number=number, prompt=start.prompt)
                for start, number in zip(starts, numbers, strict=True)
            ),
        )

    def step(self, state: DriveState, actions: np.ndarray | torch.Tensor) -> tuple[DriveState, Outcome]:
        """Drive on with `actions` as `check` or `clamp` return them: (b, action_size) in [-1, 1], or (b,) manoeuvres.
        Nothing here waits for the device but what the world waits for.
        """
        config = self.config
        trajectory, speeds, steering = plan(state, actions, self.frames, config)
        world = self.world.step(state.world, trajectory.float())
        occupancy, poses = world.occupancy, world.ego_pose
        episodes, score = advance(
            state.episodes, occupancy, poses, speeds.float(), self.world.grid, config.vehicle, config.score,
            getattr(world, "users", None),
        )  # fmt: skip
        before = torch.cat((state.motion[:, :1], speeds), dim=1)  # (b, f + 1)
        last = trajectory[:, -1]
        origin = trajectory[:, -2] if self.frames > 1 else torch.zeros_like(last)
        turn = wrap_angle(last[:, 2] - origin[:, 2])
        motion = torch.stack(
            (speeds[:, -1], before.diff(dim=1)[:, -1] / FRAME_SECONDS, turn / FRAME_SECONDS, steering), dim=-1
        )
        truncated = episodes.frames * FRAME_SECONDS >= config.seconds - 1e-6
        if (seconds_left := getattr(self.world, "seconds_left", None)) is not None:
            truncated = truncated | (seconds_left(world) < self.frames * FRAME_SECONDS - 1e-6)
        if self.max_steps is not None:
            truncated = truncated | (episodes.frames >= self.max_steps * self.frames)
        terms = reward_terms(score, self.frames * FRAME_SECONDS, config.reward)
        outcome = Outcome(
            reward=sum_terms(terms),
            terms=terms,
            terminated=(score.nc < 1) | score.outside | score.goal,
            truncated=truncated,
            trajectory=trajectory,
            score=score,
        )
        length = state.seen.shape[1]
        state = DriveState(
            world=world,
            episodes=episodes,
            frames=occupancy,
            poses=poses,
            seen=torch.cat((state.seen, occupancy), dim=1)[:, -length:],
            seen_poses=torch.cat((state.seen_poses, poses), dim=1)[:, -length:],
            motion=motion,
            start=state.start,
            origin=state.origin,
            known=state.known,
        )
        return state, outcome

    def select(self, state: DriveState, rows: Sequence[int]) -> DriveState:
        """The episodes `rows`."""
        index = list(rows)
        return DriveState(
            world=self.world.select(state.world, index),
            episodes=state.episodes.select(index),
            frames=state.frames[index],
            poses=state.poses[index],
            seen=state.seen[index],
            seen_poses=state.seen_poses[index],
            motion=state.motion[index],
            start=state.start[index],
            origin=state.origin[index],
            known=state.known,
        )

    def replace(self, state: DriveState, rows: Sequence[int], other: DriveState) -> DriveState:
        """`state` with the episodes `rows` taken from `other`, in order."""
        index = list(rows)
        put = {}
        for name in ("frames", "poses", "seen", "seen_poses", "motion", "start"):
            put[name] = getattr(state, name).clone()
            put[name][index] = getattr(other, name)
        origins = list(state.origins)
        for row, origin in zip(index, other.origins, strict=True):
            origins[row] = origin
        return DriveState(
            world=self.world.replace(state.world, index, other.world),
            episodes=state.episodes.replace(index, other.episodes),
            origin=torch.arange(len(origins), device=state.origin.device),
            known=tuple(origins),
            **put,
        )

    def route(self, state: DriveState) -> torch.Tensor:
        """The route ahead (b, 20, 2) [m], in the ego frame."""
        return route_ahead(state)

    def look(self, state: DriveState) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """The observation on the world's device, each part with the batch axis first, and the ids of the road users in
        it; the occupancy is the state's own memory.
        """
        return look(state, self.config, self.world.grid)

    def observe(self, state: DriveState) -> dict[str, np.ndarray]:
        """The observation as arrays of the receiver's own, to be written into at will."""
        return {name: own_copy(value) for name, value in self.look(state)[0].items()}
