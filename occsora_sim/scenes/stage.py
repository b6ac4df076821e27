"""A town in which something is to happen: its traffic filmed, with or without events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from occsora_sim.scenes.demand import Recording
from occsora_sim.scenes.dressing import Standing
from occsora_sim.scenes.ego_motion import rear_axles
from occsora_sim.scenes.live_town import sumo_options
from occsora_sim.scenes.sumo_pool import Users, Worker
from occsora_sim.scenes.town import Network, TownConfig
from occsora_sim.scenes.traffic import Streets, tracks_of


@dataclass(frozen=True, kw_only=True)
class Film:
    """Traffic as it went, nobody led. k road users, then what stands still; T steps.

    Attributes:
        config: of the town.
        streets: the town.
        recording: the road users.
        tracks: their boxes, as in a scene; then the boxes that stand still.
        pose: (k, T, 3) their rear axles: x, y [m], yaw [rad].
        speed: (k, T) [m/s].
        lanes: for each step, the lane of each vehicle.

    """

    config: TownConfig
    streets: Streets
    recording: Recording
    tracks: dict[str, np.ndarray]
    pose: np.ndarray
    speed: np.ndarray
    lanes: list[dict[str, str]]

    @property
    def network(self) -> Network:
        """The town's network."""
        return self.streets.network

    @property
    def valid(self) -> np.ndarray:
        """When each road user is there, (k, T) bool."""
        return self.recording.valid

    def lane(self, who: int, step: int) -> str:
        """The lane of a vehicle, "" where it has none."""
        return self.lanes[step].get(self.recording.names[who], "")

    def seen_from(self, who: int, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where all road users' centres are, seen from a vehicle's rear axle: ahead [m], to the left [m], and by how
        much they are turned [rad]; (k,) each, NaN for who is not there.
        """
        x, y, yaw = self.pose[who, step]
        state = self.tracks["track_state"][: len(self.speed), step].astype(np.float64)
        dx, dy = state[:, 0] - x, state[:, 1] - y
        turn = (state[:, 2] - yaw + np.pi) % (2 * np.pi) - np.pi
        ahead, left = np.cos(yaw) * dx + np.sin(yaw) * dy, np.cos(yaw) * dy - np.sin(yaw) * dx
        there = self.valid[:, step]
        return tuple(np.where(there, value, np.nan) for value in (ahead, left, turn))  # type: ignore[return-value]


def film(
    worker: Worker,
    seed: int,
    config: TownConfig,
    streets: Streets,
    events: Sequence[dict[str, Any]],
    standing: list[Standing],
) -> Film:
    """Run the town of a seed with events, and with things that stand in it.

    Raises:
        SceneError: SUMO failed.

    """
    end = config.warm_up + config.duration
    text = json.dumps(list(events))
    frames, lanes = worker.record(
        str(streets.net.parent), sumo_options(streets, seed), text, config.warm_up, end, config.dt
    )
    recording = _recording(frames, lanes, streets)
    tracks = tracks_of(recording, streets.sizes, standing, config)
    count = len(recording.names)
    speed = np.linalg.norm(tracks["track_state"][:count, :, 3:].astype(np.float64), axis=-1)
    return Film(
        config=config,
        streets=streets,
        recording=recording,
        tracks=tracks,
        pose=rear_axles(tracks)[:count],
        speed=speed,
        lanes=lanes,
    )


def _recording(frames: Sequence[Users], lanes: Sequence[dict[str, str]], streets: Streets) -> Recording:
    kinds = {user[0]: user[1] for users in frames for user in users}
    index = {name: row for row, name in enumerate(kinds)}
    shape = (len(kinds), len(frames))
    front, angle, valid = np.zeros((*shape, 2)), np.zeros(shape), np.zeros(shape, dtype=bool)
    last: dict[str, str] = {}
    for step, users in enumerate(frames):
        for name, _, x, y, degrees in users:
            row = index[name]
            front[row, step], angle[row, step], valid[row, step] = (x, y), degrees, True
        last |= lanes[step]
    angle = np.where(valid, np.pi / 2 - np.radians(angle), 0.0)
    return Recording(
        names=tuple(kinds),
        kinds=tuple(kinds.values()),
        front=front,
        angle=(angle + np.pi) % (2 * np.pi) - np.pi,
        valid=valid,
        lanes=tuple(last.get(name, "") for name in kinds),
        routes=tuple(streets.routes.get(name, ()) for name in kinds),
    )
