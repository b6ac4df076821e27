"""From a recorded episode to a rollout that can be saved and filmed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from occsora_sim.agents import AnyAgent
    from occsora_sim.agents.episode import Episode
    from occsora_sim.envs.simulation import DriveSimulation
    from occsora_sim.grid import Grid
    from occsora_sim.rendering.rollout import Rollout

PLANNED_FRAMES = 6
"""Frames of the plan that are shown: an action's own, continued at their last motion."""

SHOWN = ("nc", "dac", "ttc", "comfort")
"""Terms of a step's score that the film shows."""


def rollout_of(episode: Episode, route: torch.Tensor, grid: Grid, header: dict[str, Any]) -> Rollout:
    """The rollout of an episode that was recorded.

    Args:
        episode: with its recording.
        route: (r, 2) in the world frame [m].
        grid: where the voxels lie.
        header: what made the episode; JSON values.

    """
    import numpy as np

    from occsora_sim.rendering.rollout import Rollout

    recording = episode.recording
    if recording is None:
        raise ValueError("the episode was not recorded; give run_episodes record=1")
    per_step = recording.trajectories.shape[1]
    steps: list[dict[str, Any]] = [{}]
    for terms, reward in zip(recording.terms, recording.rewards, strict=True):
        shown = {name: float(terms[name]) for name in SHOWN}
        steps += [{**shown, "reward": float(reward)}] * per_step
    steps[0] = {**dict.fromkeys(SHOWN, 1.0), "reward": 0.0}
    return Rollout(
        occupancy=recording.occupancy,
        ego_pose=recording.ego_pose.astype(np.float32),
        actions=recording.actions.astype(np.float32),
        rewards=recording.rewards.astype(np.float32),
        planned=plans(recording.trajectories),
        route=route.cpu().numpy().astype(np.float32),
        users=recording.users,
        steps=tuple(steps),
        header=header,
        grid=grid,
    )


def recorded_again(
    simulation: DriveSimulation, agent: AnyAgent, number: int, seed: int, header: dict[str, Any]
) -> Rollout:
    """Drive episode `number` of an evaluation, of this `seed`, once more and record it: of many episodes none but
    those to be looked at are ever kept in memory.

    The header gets the start's name, the seed, the end and the score.
    """
    from occsora_sim.agents.episode import run_episodes

    place = number % len(simulation.starts)
    (episode,) = run_episodes(simulation, agent, 1, seed=seed, record=1, starts=[place])
    header = header | {
        "name": episode.start,
        "seed": seed,
        "ended": episode.ended,
        "score": episode.summary,
    }
    return rollout_of(episode, simulation.starts[place].route, simulation.world.grid, header)


def plans(trajectories: Any, frames: int = PLANNED_FRAMES) -> Any:
    """What is planned at every frame: the rest of the action under way, continued at its last motion.

    Args:
        trajectories: (k, f, 3) numpy, the poses that each action asked for, relative to the ego before it.
        frames: how many poses.

    Returns:
        (1 + k f, frames, 3) float32 numpy, relative to the ego at each frame. The last frame, where nothing
        is planned yet, goes on as the action before it.

    """
    import torch

    from occsora_sim.geometry import compose, relative

    asked = torch.as_tensor(trajectories, dtype=torch.float32)
    steps, per_step = asked.shape[:2]
    poses = torch.cat((torch.zeros(steps, 1, 3), asked), dim=1)  # (k, 1 + f, 3)
    motion = relative(poses[:, -2], poses[:, -1])
    for _ in range(frames):
        poses = torch.cat((poses, compose(poses[:, -1], motion)[:, None]), dim=1)
    out = [relative(poses[:, m : m + 1], poses[:, m + 1 : m + 1 + frames]) for m in range(per_step + 1)]
    planned = torch.stack(out[:-1], dim=1).flatten(0, 1)  # (k f, frames, 3)
    return torch.cat((planned, out[-1][-1:])).numpy()
