"""The driving task as functions of a state: begin episodes, step them, pick and put rows. No Gymnasium."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch

from occsora_sim.envs.birdseye import birdseye_image
from occsora_sim.envs.config import DriveConfig
from occsora_sim.envs.manoeuvre import manoeuvres_to_trajectory
from occsora_sim.envs.motion import (
    EGO_BOUNDS,
    check_actions,
    check_manoeuvres,
    controls_to_trajectory,
    offsets_to_trajectory,
    starting_motion,
)
from occsora_sim.envs.reward import reward_terms, sum_terms
from occsora_sim.envs.starts import prompted
from occsora_sim.envs.state import DriveState, Origin, Outcome
from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import relative
from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.scenes.blank import GENERATE, blank_start
from occsora_sim.scenes.start import Start
from occsora_sim.scoring.episode import StepScore, advance, begin_episodes
from occsora_sim.worlds.protocol import World

ROUTE_POINTS, ROUTE_SPACING, ROUTE_BOUND = 20, 2.0, 200.0
"""The observed route: points, distance between them [m], largest coordinate [m]."""

SEEN = 4
"""Frames that a state remembers at least: what a generated world needs to begin from what was seen."""


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
        prompted(self.starts[:1], config, world)  # says now whether the world takes the scene prompt
        self._numbers = {id(start): number for number, start in reversed(list(enumerate(self.starts)))}
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

    def draw(
        self, generators: Sequence[np.random.Generator], chosen: Sequence[int | str] | None = None
    ) -> tuple[list[Start], list[int]]:
        """A start and a world seed from each generator; `chosen` overrides the starts: indices, or "generate" for a
        start from nothing (`scenes.blank`).

        Raises:
            ConfigurationError: `chosen` names no start, or is not one for each.

        """
        picks: list[int | str] = [int(generator.integers(len(self.starts))) for generator in generators]
        seeds = [int(generator.integers(1 << 31)) for generator in generators]
        if chosen is not None:
            picks = list(chosen)
            if len(picks) != len(generators) or not all(self._is_start(pick) for pick in picks):
                raise ConfigurationError(
                    f"start={picks}: give an index from 0 to {len(self.starts) - 1} or {GENERATE!r} for each of "
                    f"{len(generators)} episodes"
                )
        starts = [
            blank_start(generator, self.world.grid, SEEN) if pick == GENERATE else self.starts[int(pick)]
            for generator, pick in zip(generators, picks, strict=True)
        ]
        return starts, seeds

    def _is_start(self, pick: object) -> bool:
        if isinstance(pick, str):
            return pick == GENERATE
        return isinstance(pick, int | np.integer) and 0 <= int(pick) < len(self.starts)

    def launch(
        self,
        generators: Sequence[np.random.Generator],
        chosen: Sequence[int | str] | None = None,
        prompts: Sequence[Mapping[str, Any]] | None = None,
    ) -> DriveState:
        """Begin an episode with each generator: draw its start and seed, and tell the world its scene prompt.

        Args:
            generators: of all that is drawn, one for each episode.
            chosen: as of `draw`.
            prompts: for each episode "place" and "vehicles" that it is given instead of the configuration's.

        Raises:
            ConfigurationError: a start that does not exist, or a scene prompt that cannot be.

        """
        starts, seeds = self.draw(generators, chosen)
        said = [{}] * len(starts) if prompts is None else prompts
        told = [
            prompted([start], self.config, self.world, prompt)[0]
            for start, prompt in zip(starts, said, strict=True)
        ]
        return self.begin(told, seeds, [self._numbers.get(id(start), -1) for start in starts])

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
            episodes=begin_episodes(starts, device),
            frames=seen[:, -self.frames :],
            poses=seen_poses[:, -self.frames :],
            seen=seen,
            seen_poses=seen_poses,
            motion=starting_motion(starts, self.config.vehicle).to(device),
            origins=tuple(
                Origin(name=start.name, number=number, prompt=start.prompt)
                for start, number in zip(starts, numbers, strict=True)
            ),
        )

    def step(self, state: DriveState, actions: np.ndarray) -> tuple[DriveState, Outcome]:
        """Drive on with `actions` as `check` returns them: (b, action_size) in [-1, 1], or (b,) manoeuvres."""
        config = self.config
        trajectory, speeds, steering = self.plan(state, actions)
        world = self.world.step(state.world, trajectory.float())
        occupancy, poses = world.occupancy, world.ego_pose
        episodes, score = advance(
            state.episodes, occupancy, poses, speeds.float(), self.world.grid, config.vehicle, config.score
        )
        before = torch.cat((state.motion[:, :1], speeds), dim=1)  # (b, f + 1)
        last = trajectory[:, -1]
        origin = trajectory[:, -2] if self.frames > 1 else torch.zeros_like(last)
        turn = relative(origin, last)[:, 2]
        motion = torch.stack(
            (speeds[:, -1], before.diff(dim=1)[:, -1] / FRAME_SECONDS, turn / FRAME_SECONDS, steering), dim=-1
        )
        truncated = episodes.frames * FRAME_SECONDS >= config.seconds - 1e-6
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
            origins=state.origins,
        )
        return state, outcome

    def plan(self, state: DriveState, actions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What `actions` ask for: the trajectory prompt (b, f, 3), speed (b, f) [m/s], last steering (b,) [rad]."""
        config, speed, episodes = self.config, state.motion[:, 0], state.episodes
        action = torch.as_tensor(np.asarray(actions), device=state.frames.device)
        if self.discrete:
            here = episodes.poses[:, -1]
            return manoeuvres_to_trajectory(
                action.long(), episodes.routes, episodes.near, here, speed, self.frames, config.vehicle
            )
        if config.action == "controls":
            return controls_to_trajectory(action.double(), speed, self.frames, config.vehicle)
        return offsets_to_trajectory(action.double(), self.frames, config.vehicle)

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
            origins=tuple(state.origins[row] for row in index),
        )

    def replace(self, state: DriveState, rows: Sequence[int], other: DriveState) -> DriveState:
        """`state` with the episodes `rows` taken from `other`, in order."""
        index = list(rows)
        put = {}
        for name in ("frames", "poses", "seen", "seen_poses", "motion"):
            put[name] = getattr(state, name).clone()
            put[name][index] = getattr(other, name)
        origins = list(state.origins)
        for row, origin in zip(index, other.origins, strict=True):
            origins[row] = origin
        return DriveState(
            world=self.world.replace(state.world, index, other.world),
            episodes=state.episodes.replace(index, other.episodes),
            origins=tuple(origins),
            **put,
        )

    def route(self, state: DriveState) -> torch.Tensor:
        """The route ahead (b, 20, 2) [m], in the ego frame."""
        episodes = state.episodes
        return episodes.routes.ahead(episodes.poses[:, -1], episodes.near, ROUTE_POINTS, ROUTE_SPACING)

    def observe(self, state: DriveState) -> dict[str, np.ndarray]:
        """The observation, each with the batch axis first; arrays of the receiver's own, to be written into at will."""
        parts: dict[str, np.ndarray] = {}
        route = self.route(state)
        for name in self.config.observation:
            if name == "occupancy":
                parts[name] = _own(state.frames)
            elif name == "birdseye":
                parts[name] = birdseye_image(state.frames, route, self.world.grid).cpu().numpy()
            elif name == "ego":
                parts[name] = np.clip(state.motion.cpu().numpy().astype(np.float32), -EGO_BOUNDS, EGO_BOUNDS)
            else:
                parts[name] = np.clip(route.cpu().numpy().astype(np.float32), -ROUTE_BOUND, ROUTE_BOUND)
        return parts

    def describe(self, state: DriveState, outcome: Outcome | None = None) -> list[dict[str, Any]]:
        """The info of each episode: ego_pose (3,), ego_poses (f, 3), speed [m/s], progress [m], start (its index among
        the simulation's starts, -1 for one from nothing).

        After a step also reward_terms, terms (of the driving score), trajectory (f, 3) and episode_score: from the
        episode's beginning until now, so the last one is the episode's, whoever ends it. All are numbers and arrays of
        the receiver's own: text could not be made a tensor.
        """
        summary = _rows(state.episodes.summary(self.config.score))
        poses, speed = _own(state.poses), state.motion[:, 0].tolist()
        infos: list[dict[str, Any]] = [
            {
                "ego_pose": poses[row, -1].copy(),
                "ego_poses": poses[row],
                "speed": speed[row],
                "progress": summary[row]["progress"],
                "start": state.origins[row].number,
            }
            for row in range(len(poses))
        ]
        if outcome is None:
            return infos
        terms = _rows(outcome.terms)
        score = _rows({entry.name: getattr(outcome.score, entry.name) for entry in fields(StepScore)})
        trajectory = _own(outcome.trajectory.float())
        for row, info in enumerate(infos):
            info |= {"reward_terms": terms[row], "terms": score[row], "trajectory": trajectory[row]}
            info["episode_score"] = summary[row]
        return infos


def _own(tensor: torch.Tensor) -> np.ndarray:
    """A NumPy copy that shares no memory with the state."""
    return tensor.cpu().numpy().copy()


def _rows(values: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
    """Batched tensors (b,) by name as one dictionary of numbers for each row."""
    lists = {name: value.tolist() for name, value in values.items()}
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
