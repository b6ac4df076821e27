"""What `reset` is told: seeds and options, as people write them, made what the environments go by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from occsora_sim.envs.road_user_edit import RoadUserEdit, read_edits
from occsora_sim.errors import ConfigurationError
from occsora_sim.quantities import real, whole, written

PROMPTS = ("place", "vehicles")
"""Options that are the scene prompt of the episodes."""


@dataclass(frozen=True, kw_only=True)
class ResetOptions:
    """The options of one `reset`.

    Attributes:
        rows: the episodes that begin anew.
        start: for each row the index of its start or "generate"; None: starts are drawn.
        prompt: those of PROMPTS that were given.
        road_users: what shall become of road users at the starts.

    """

    rows: tuple[int, ...]
    start: tuple[int | str, ...] | None = None
    prompt: Mapping[str, Any] = field(default_factory=dict)
    road_users: tuple[RoadUserEdit, ...] = ()


def read_options(options: Mapping[str, Any] | None, count: int, *, vector: bool) -> ResetOptions:
    """The options of `reset` for `count` episodes.

    Args:
        options: `start`, one for all or one for each; `place` and `vehicles`; `road_users`, a list of mappings
            (`envs.road_user_edit`); of a vector environment also
            `reset_mask`, (count,) bool: the episodes that begin anew (Gymnasium's own option).
        count: of all episodes, those included that go on.
        vector: whether it is a vector environment's.

    Raises:
        ConfigurationError: an option that does not exist or cannot be.

    """
    given = dict(options or {})
    known = ("start", *PROMPTS, "road_users", *(("reset_mask",) if vector else ()))
    for name in given:
        if name not in known:
            raise ConfigurationError(f"reset: unknown option {written(name)}: choose from {', '.join(known)}")
    mask = given.get("reset_mask")
    rows = tuple(range(count)) if mask is None else _rows(mask, count)
    prompt = {name: given[name] for name in PROMPTS if name in given}
    if prompt.get("vehicles") is not None:
        prompt["vehicles"] = real(prompt["vehicles"], "reset: vehicles")
    edits = read_edits([] if given.get("road_users") is None else given["road_users"])
    chosen = given.get("start")
    if chosen is None:
        return ResetOptions(rows=rows, prompt=prompt, road_users=edits)
    starts = [chosen] * count if isinstance(chosen, str) or not np.ndim(chosen) else list(chosen)
    if len(starts) != count:
        raise ConfigurationError(
            f"reset: start={written(chosen)}: give one, or one for each of {count} episodes"
        )
    return ResetOptions(
        rows=rows, start=tuple(_start(starts[row]) for row in rows), prompt=prompt, road_users=edits
    )


def read_seeds(seed: Any, count: int) -> list[int | None]:
    """A seed for each of `count` episodes: `seed + i`, or `seed[i]`; None where the generator goes on.

    Raises:
        ConfigurationError: a seed that is no whole number, 0 or more, or not one for each.

    """
    if seed is None:
        return [None] * count
    if isinstance(seed, str) or not np.ndim(seed):
        first = whole(seed, "seed", least=0)
        return [first + row for row in range(count)]
    if len(seed) != count:
        raise ConfigurationError(f"seed: {len(seed)} seeds for {count} episodes; give one for each")
    return [None if value is None else whole(value, "seed", least=0) for value in seed]


def read_limit(value: Any) -> int | None:
    """`max_episode_steps`; None and Gymnasium's -1 are no limit.

    Raises:
        ConfigurationError: it is no whole number, 1 or more.

    """
    if value is None or np.array_equal(value, -1):
        return None
    return whole(value, "max_episode_steps", least=1)


def _start(chosen: object) -> int | str:
    """A start's index, or the word that stands for one."""
    try:
        return whole(chosen, "start")
    except ConfigurationError:
        return str(chosen)  # "generate"; any other is refused where the starts are known


def _rows(mask: object, count: int) -> tuple[int, ...]:
    """The rows that a `reset_mask` names."""
    found = np.asarray(mask)
    if found.shape != (count,) or found.dtype != np.bool_ or not found.any():
        raise ConfigurationError(
            f"reset: reset_mask={written(mask)}: give {count} truth values, at least one of them True"
        )
    return tuple(int(row) for row in np.flatnonzero(found))
