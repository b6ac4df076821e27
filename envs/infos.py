"""What an environment says beside the observation: the info of each episode, as numbers and arrays."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch

from occsora_sim.envs.config import DriveConfig
from occsora_sim.envs.road_users import observe_road_users
from occsora_sim.envs.simulation import own_copy
from occsora_sim.envs.state import DriveState, Outcome
from occsora_sim.scoring.episode import StepScore


def describe(state: DriveState, config: DriveConfig, outcome: Outcome | None = None) -> list[dict[str, Any]]:
    """The info of each episode: ego_pose (3,), ego_poses (f, 3), speed [m/s], progress [m], start (its index among
    the simulation's starts, -1 for one from nothing). Where "road_users" are observed also road_user_ids (n,) int64, in
    their order: -1 where there are fewer.

    After a step also reward_terms, terms (of the driving score), trajectory (f, 3) and episode_score: from the
    episode's beginning until now, so the last one is the episode's, whoever ends it. All are numbers and arrays of
    the receiver's own: text could not be made a tensor.
    """
    summary = _rows(state.episodes.summary(config.score))
    poses, speed = own_copy(state.poses), state.motion[:, 0].tolist()
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
    if "road_users" in config.observation:
        ids = observe_road_users(state.world.users, state.poses[:, -1], config.road_users)[1]
        for row, info in enumerate(infos):
            info["road_user_ids"] = ids[row]
    if outcome is None:
        return infos
    terms = _rows(outcome.terms)
    score = _rows({entry.name: getattr(outcome.score, entry.name) for entry in fields(StepScore)})
    trajectory = own_copy(outcome.trajectory.float())
    for row, info in enumerate(infos):
        info |= {"reward_terms": terms[row], "terms": score[row], "trajectory": trajectory[row]}
        info["episode_score"] = summary[row]
    return infos


def _rows(values: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
    """Batched tensors (b,) by name as one dictionary of numbers for each row."""
    lists = {name: value.tolist() for name, value in values.items()}
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
