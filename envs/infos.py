"""What an environment says beside the observation: the info of each episode, as numbers and arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from occsora_sim.envs.config import DriveConfig
from occsora_sim.envs.observation import own_copy
from occsora_sim.envs.road_users import observe_road_users
from occsora_sim.envs.state import DriveState, Outcome
from occsora_sim.scoring.episode import StepScore

Infos = dict[str, Any]
"""By name tensors with the batch axis first, or dictionaries of these."""


def tell(
    state: DriveState,
    config: DriveConfig,
    outcome: Outcome | None = None,
    ids: torch.Tensor | None = None,
) -> Infos:
    """The infos of b episodes as tensors on the world's device, each (b, ...).

    ego_pose (3,), ego_poses (f, 3), speed [m/s], progress [m], start (its index among the simulation's starts, -1 for
    one from nothing). Where "road_users" are observed also road_user_ids (n,) int64, in their order: -1 where there are
    fewer; `ids` are these, if they are known already.

    After a step also reward_terms, terms (of the driving score), trajectory (f, 3) and episode_score: from the
    episode's beginning until now, so the last one is the episode's, whoever ends it.
    """
    summary = state.episodes.summary(config.score)
    told: Infos = {
        "ego_pose": state.poses[:, -1],
        "ego_poses": state.poses,
        "speed": state.motion[:, 0],
        "progress": summary["progress"],
        "start": state.start,
    }
    if "road_users" in config.observation:
        if ids is None:
            ids = observe_road_users(state.world.users, state.poses[:, -1], config.road_users)[1]
        told["road_user_ids"] = ids
    if outcome is not None:
        told["reward_terms"] = outcome.terms
        told["terms"] = {entry.name: getattr(outcome.score, entry.name) for entry in fields(StepScore)}
        told["trajectory"] = outcome.trajectory.float()
        told["episode_score"] = summary
    return told


def describe(state: DriveState, config: DriveConfig, outcome: Outcome | None = None) -> list[Infos]:
    """The info of each episode, as `tell` has it. All are numbers and arrays of the receiver's own: text could not be
    made a tensor.
    """
    return _rows(tell(state, config, outcome))


def array_infos(count: int, groups: Iterable[tuple[Sequence[int], Infos]]) -> Infos:
    """The infos of a vector environment of `count` rows, as Gymnasium has them: arrays (count, ...) that are zero where
    nothing is told, and for each name a mask `_name`.

    Args:
        count: rows of the vector environment.
        groups: rows, and what is told of them in their order; observations, "final_obs", become an array of objects.

    """
    infos: Infos = {}
    for rows, told in groups:
        if len(rows):
            _put(infos, list(rows), told, count)
    return infos


def _put(infos: Infos, rows: list[int], told: Infos, count: int) -> None:
    for name, value in told.items():
        if name == "final_obs":
            array = infos.setdefault(name, np.full(count, None, dtype=object))
            parts = {part: own_copy(values) for part, values in value.items()}
            array[rows] = [{part: values[k] for part, values in parts.items()} for k in range(len(rows))]
        elif isinstance(value, dict):
            _put(infos.setdefault(name, {}), rows, value, count)
        else:
            values = _numbers(value)
            infos.setdefault(name, np.zeros((count, *values.shape[1:]), values.dtype))[rows] = values
        infos.setdefault(f"_{name}", np.zeros(count, dtype=bool))[rows] = True


def _rows(told: Infos) -> list[Infos]:
    """Batched tensors by name as one dictionary for each row."""
    lists: dict[str, list[Any]] = {}
    for name, value in told.items():
        if isinstance(value, dict):
            lists[name] = _rows(value)
        else:
            lists[name] = value.tolist() if value.ndim == 1 else list(own_copy(value))
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _numbers(value: torch.Tensor) -> np.ndarray:
    """An array; single numbers as Python has them, float64."""
    array = value.cpu().numpy()
    return array.astype(np.float64) if array.ndim == 1 and array.dtype.kind == "f" else array
