"""A vector scene: map polygons, lanes, road users' tracks and ego motions. Voxels are made from it on demand."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A recorded place and what moved in it. All arrays are numpy; ragged lists are flat with offsets.

    The world frame is metric, x east, y north, z up, flat ground at z = 0. Time step k is at k * dt seconds.

    Attributes:
        name: unique, for reports ("traffic-12").
        dt: time between two track states [s].
        polygon_points: (p, 2) float32 [m], the corners of all polygons, one after another.
        polygon_offsets: (n + 1,) int64; polygon i owns points[offsets[i]:offsets[i + 1]]. Later ones paint over.
        polygon_class: (n,) uint8, label of each polygon.
        polygon_z: (n, 2) float32, lower and upper height [m]; ground polygons have upper <= 0.2 (one voxel layer).
        lane_points: (l, 2) float32 [m], centre lines in driving direction, one after another.
        lane_offsets: (m + 1,) int64.
        lane_width: (m,) float32 [m].
        track_state: (k, T, 5) float32: box centre x, y [m], yaw [rad], velocity x, y in the world frame [m/s].
        track_valid: (k, T) bool.
        track_size: (k, 3) float32: length, width, height [m]; boxes stand on the ground.
        track_class: (k,) uint8, a label of `grid.DYNAMIC` (or another label for loose objects).
        ego_pose: (e, T, 3) float32, possible ego motions: x, y [m], yaw [rad] of the rear axle's centre.
        ego_valid: (e, T) bool; each motion's valid steps are contiguous.
        ego_track: (e,) int64, the track that this ego replaces (never voxelised for it), or -1.
        ego_kind: e names: "expert", "late_brake", "drift", "leave_lane", "near_miss", "standstill".
        route_points: (r, 2) float32 [m], the route of each ego, one after another, about one point a metre.
        route_offsets: (e + 1,) int64.
        attributes: what made the scene (seed, kind of place, density, versions), for `scenes info`.

    """

    name: str
    dt: float
    polygon_points: np.ndarray
    polygon_offsets: np.ndarray
    polygon_class: np.ndarray
    polygon_z: np.ndarray
    lane_points: np.ndarray
    lane_offsets: np.ndarray
    lane_width: np.ndarray
    track_state: np.ndarray
    track_valid: np.ndarray
    track_size: np.ndarray
    track_class: np.ndarray
    ego_pose: np.ndarray
    ego_valid: np.ndarray
    ego_track: np.ndarray
    ego_kind: tuple[str, ...]
    route_points: np.ndarray
    route_offsets: np.ndarray
    attributes: dict[str, str] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Number of time steps."""
        return self.track_valid.shape[1]

    def route(self, ego: int) -> np.ndarray:
        """The route of ego motion `ego`, shape (r, 2) [m]."""
        return self.route_points[self.route_offsets[ego] : self.route_offsets[ego + 1]]
