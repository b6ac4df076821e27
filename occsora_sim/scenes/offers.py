"""Where in a scene episodes can begin, or why none can."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from occsora_sim.errors import SceneError, SceneWarning
from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.scenes.recorded import Recorded

WANTED_FUTURE = 10.0
"""How long a recorded motion goes on after a start, where the scene is long enough [s]."""

LEAST_FUTURE = 1.0
"""Scenes in which no motion goes on for so long after a start are left out [s]."""

PINNED = "start"
"""Attribute of a scene with one beginning alone: the time step, of its first ego motion."""

NAMED = 12
"""Most scenes or files that one message names."""


@dataclass(frozen=True, kw_only=True)
class Offers:
    """What a scene offers.

    Attributes:
        steps: the steps (n,) at which each fitting ego motion can start, n >= 1.
        reason: why there are none; empty where there are some.

    """

    steps: dict[int, np.ndarray] = field(default_factory=dict)
    reason: str = ""

    def __len__(self) -> int:
        """Number of different starts."""
        return sum(map(len, self.steps.values()))


def find_offers(
    scene: Recorded,
    *,
    history: int = 4,
    kinds: Sequence[str] = ("expert",),
    future: float = WANTED_FUTURE,
    least_future: float = LEAST_FUTURE,
    speed: float = 1.0,
) -> Offers:
    """The steps of a scene at which an episode can start.

    Args:
        scene: to look through.
        history: frames that end at the start.
        kinds: of `Scene.ego_kind`, which ego motions to use.
        future: how long the motion goes on after the start [s]. In a scene that has none as long: half of the longest
            that it has, so that a short log offers more than its first instant.
        least_future: but never less than this, or `future` where that is shorter [s].
        speed: least mean speed of the motion over that future [m/s].

    """
    past = math.ceil((history - 1) * FRAME_SECONDS / scene.dt - 1e-6)
    if PINNED in scene.attributes:
        return _pinned(scene, past)
    wanted = max(math.ceil(future / scene.dt - 1e-6), 0)
    least = min(max(math.ceil(least_future / scene.dt - 1e-6), 0), wanted)
    spans: dict[int, tuple[int, int]] = {}  # first step with a history, last valid step
    for ego, kind in enumerate(scene.ego_kind):
        valid = np.flatnonzero(scene.ego_valid[ego])
        if kind in kinds and len(valid):
            spans[ego] = int(valid[0]) + past, int(valid[-1])
    if not spans:
        return Offers(reason=scene.attributes.get("lacks") or f"no ego motion of kind {', '.join(kinds)}")
    longest = max(last - first for first, last in spans.values())
    if longest < least:
        have, need = (longest + past) * scene.dt, (least + past) * scene.dt
        return Offers(
            reason=f"its ego motions last {have:g} s; {history} frames of history and {least * scene.dt:g} s after "
            f"them take {need:g} s"
        )
    ahead = wanted if longest >= wanted else max(least, math.ceil(longest / 2))
    offers = {}
    for ego, (first, last) in spans.items():
        steps = np.arange(first, last - ahead + 1)
        if ahead and len(steps):
            path = np.where(scene.ego_valid[ego][:, None], scene.ego_pose[ego, :, :2], 0.0)
            driven = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))))
            steps = steps[driven[steps + ahead] - driven[steps] >= speed * ahead * scene.dt]
        if len(steps):
            offers[ego] = steps
    if not offers:
        return Offers(reason=f"nothing moves at {speed:g} m/s for {ahead * scene.dt:g} s")
    return Offers(steps=offers)


def _pinned(scene: Recorded, past: int) -> Offers:
    """The one beginning of a scene that names it, with `past` steps before it."""
    named = str(scene.attributes[PINNED])
    step = int(named) if named.isdecimal() and len(named) < 10 else -1
    if (
        past <= step < scene.steps
        and len(scene.ego_kind)
        and scene.ego_valid[0, step - past : step + 1].all()
    ):
        return Offers(steps={0: np.array([step])})
    return Offers(reason=f"its ego motion is not known at its start, step {named}, and {past} steps before")


def usable(scenes: Sequence[Recorded], reasons: Sequence[str], what: str = "start") -> list[int]:
    """The numbers of the scenes that nothing speaks against; a `SceneWarning` names the others.

    Args:
        scenes: to choose from.
        reasons: why each offers nothing; empty for those that do.
        what: is looked for, for the message.

    Raises:
        SceneError: none does.

    """
    out = [f"{scene.name} ({reason})" for scene, reason in zip(scenes, reasons, strict=True) if reason]
    if len(out) == len(scenes):
        raise SceneError(
            f"none of the {len(scenes)} scenes offers a {what}: {first_of(out)}; use longer scenes or ask for less"
        )
    if out:
        warnings.warn(
            f"{len(out)} of {len(scenes)} scenes offer no {what} and are left out: {first_of(out)}",
            SceneWarning,
            stacklevel=3,
        )
    return [k for k, reason in enumerate(reasons) if not reason]


def first_of(things: Sequence[object], between: str = ", ") -> str:
    """The first NAMED of some things, for a message."""
    more = f"{between}and {len(things) - NAMED} more" if len(things) > NAMED else ""
    return between.join(map(str, things[:NAMED])) + more
