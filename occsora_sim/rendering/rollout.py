"""A recorded rollout: what was driven and what the world looked like; saved, loaded and filmed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from occsora_sim.atomic_file import atomic_path
from occsora_sim.bounded_json import parse_json
from occsora_sim.bounded_npz import read_arrays
from occsora_sim.errors import SceneError
from occsora_sim.geometry import compose, relative, to_frame
from occsora_sim.grid import FRAME_SECONDS, NUM_CLASSES, OCC3D, Grid
from occsora_sim.quantities import written
from occsora_sim.rendering.birdseye import render_birdseye
from occsora_sim.rendering.camera_view import ChaseCamera
from occsora_sim.rendering.inbetween import Inbetween
from occsora_sim.rendering.recorded_users import PREFIX, RecordedUsers, users_in
from occsora_sim.rendering.video import compose_frame, write_video
from occsora_sim.scenes.recorded import GENERATED, LIVE_TRAFFIC

FORMAT = "occsora-sim rollout"
VERSION = 2
_READ = (1, 2)
"""Versions that can be read; the first has no road users."""

WORLDS = {"diffusion": GENERATED, "traffic": LIVE_TRAFFIC, "replay": "recorded"}
"""What a rollout's world shows, in words; `recorded` is also how a scene itself is shown."""

_FAR = 1e9  # no number of a rollout is as large [m, m/s, rad]
_LONGEST_TITLE = 200  # characters


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """t frames of one episode, FRAME_SECONDS apart.

    Attributes:
        occupancy: (t, x, y, z) uint8 labels, each frame in its own ego frame.
        ego_pose: (t, 3) float32 world poses: x, y [m], yaw [rad].
        actions: (s, ...) float32, one per environment step.
        rewards: (s,) float32, one per environment step.
        planned: (t, f, 3) float32: poses planned at each frame, relative to the ego's pose then; f may be 0.
        route: (r, 2) float32, the route in the world frame [m]; r may be 0.
        users: the road users of the t frames; None: nobody told them apart.
        steps: one dict per frame (or none at all): figures to show, by name. JSON values only.
        header: what made the rollout (world, agent, seed, score). JSON values only.
        grid: where the voxels lie.

    """

    occupancy: np.ndarray
    ego_pose: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    planned: np.ndarray
    route: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    users: RecordedUsers | None = None
    steps: tuple[dict[str, Any], ...] = ()
    header: dict[str, Any] = field(default_factory=dict)
    grid: Grid = OCC3D

    def __post_init__(self) -> None:
        t = len(self.occupancy)
        wanted = {
            "occupancy": (t, *self.grid.shape),
            "ego_pose": (t, 3),
            "planned": (t, *self.planned.shape[1:2], 3),
            "route": (*self.route.shape[:1], 2),
            "rewards": (len(self.actions),),
        }
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise SceneError(f"rollout: {name} has shape {getattr(self, name).shape}, expected {shape}")
        if t == 0:
            raise SceneError("rollout: it has no frames")
        if self.occupancy.dtype != np.uint8 or int(self.occupancy.max()) >= NUM_CLASSES:
            raise SceneError(f"rollout: occupancy must be uint8 labels below {NUM_CLASSES}")
        if not np.isfinite(self.ego_pose).all():
            raise SceneError("rollout: ego_pose holds values that are not finite")
        if self.users is not None and len(self.users.valid) != t:
            raise SceneError(f"rollout: road users of {len(self.users.valid)} frames for {t} frames")
        if len(self.steps) not in (0, t):
            raise SceneError(f"rollout: {len(self.steps)} steps for {t} frames; give one per frame, or none")

    @property
    def frames(self) -> int:
        """Number of frames t."""
        return len(self.occupancy)

    @property
    def seconds(self) -> float:
        """Time from the first to the last frame [s]."""
        return (self.frames - 1) * FRAME_SECONDS


def save_rollout(rollout: Rollout, path: str | Path) -> None:
    """Write `rollout` as a compressed npz, whole or not at all; dicts go into a JSON header (uint8 bytes).

    Raises:
        ConfigurationError: the place cannot be written to.
        SceneError: the header or a step holds what JSON cannot.

    """
    header = {
        "format": FORMAT,
        "version": VERSION,
        "grid": {"shape": rollout.grid.shape, "voxel": rollout.grid.voxel, "lower": rollout.grid.lower},
        "header": rollout.header,
        "steps": rollout.steps,
    }
    try:
        text = json.dumps(header, default=_plain)
    except (TypeError, ValueError) as error:
        raise SceneError(f"{path}: the rollout's header is not JSON ({error})") from error
    users: dict[str, Any] = {} if rollout.users is None else rollout.users.arrays()
    with atomic_path(path) as temporary:
        content = io.BytesIO()  # zipfile hides a full disk behind errors of its own
        np.savez_compressed(
            content,
            header=np.frombuffer(text.encode(), dtype=np.uint8),
            occupancy=rollout.occupancy,
            ego_pose=rollout.ego_pose.astype(np.float32),
            actions=np.asarray(rollout.actions, dtype=np.float32),
            rewards=np.asarray(rollout.rewards, dtype=np.float32),
            planned=rollout.planned.astype(np.float32),
            route=rollout.route.astype(np.float32),
            **users,
        )
        temporary.write_bytes(content.getvalue())


def load_rollout(path: str | Path) -> Rollout:
    """Read a rollout written by `save_rollout`. Nothing in the file is executed.

    Raises:
        SceneError: the file is missing, truncated, pickled, foreign or inconsistent.

    """
    path = Path(path)
    if not path.is_file():
        raise SceneError(f"{path}: no such rollout; `occsora-sim drive --out DIR` writes one")
    try:
        arrays = read_arrays(path)
    except (OSError, ValueError) as error:
        raise SceneError(
            f"{path}: not a rollout, it {error}; write it again with `occsora-sim drive`"
        ) from error
    try:
        header = parse_json(arrays.pop("header").tobytes())
        if header["format"] != FORMAT:
            raise KeyError("format")
        if header["version"] not in _READ:
            raise SceneError(
                f"{path}: rollout version {written(header['version'])}, this program reads up to {VERSION}; update it"
            )
        grid = Grid(
            shape=tuple(header["grid"]["shape"]),
            voxel=header["grid"]["voxel"],
            lower=tuple(header["grid"]["lower"]),
        )
        steps = tuple(header["steps"])
        if not all(isinstance(part, dict) for part in (header["header"], *steps)):
            raise TypeError("its header is no table")
        if any(value.dtype.kind == "f" and (np.abs(value) >= _FAR).any() for value in arrays.values()):
            raise SceneError(f"rollout: it holds a number beyond {_FAR:g}")
        users = users_in(arrays)
        arrays = {name: value for name, value in arrays.items() if not name.startswith(PREFIX)}
        return Rollout(**arrays, users=users, steps=steps, header=header["header"], grid=grid)
    except SceneError as error:
        raise SceneError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SceneError(
            f"{path}: an npz, but no rollout (no usable header or array); see `save_rollout`"
        ) from error


def header_of(rollout: Rollout) -> Mapping[str, Any]:
    """The header, if it is one: a stranger may have written it."""
    return rollout.header if isinstance(rollout.header, Mapping) else {}


def kind_of(rollout: Rollout) -> str:
    """What the rollout shows, in words: "generated", "live traffic", "recorded"; of other worlds the name."""
    world = str(header_of(rollout).get("world", ""))
    return WORLDS.get(world, world[:80] or "unknown")


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What is seen of a rollout at a time: a frame, or what lies between two.

    Attributes:
        frame: number of the frame before, or of this one.
        share: of the way to the next frame, in [0, 1).
        occupancy: (x, y, z) uint8, in the ego frame of `frame`.
        offset: how far the ego has moved since the frame: x, y [m], yaw [rad].
        heading: yaw of the ego in the world at the frame [rad].
        planned: (f, 3), route: (r, 2), history: (n, 3), in the ego's present frame.

    """

    frame: int
    share: float
    occupancy: np.ndarray
    offset: tuple[float, float, float]
    heading: float
    planned: np.ndarray
    route: np.ndarray
    history: np.ndarray


def moments(rollout: Rollout, smooth: int) -> Iterator[Moment]:
    """The frames of a rollout, and `smooth` - 1 moments between each two, in which ego and road users have moved on."""
    poses = torch.from_numpy(np.ascontiguousarray(rollout.ego_pose, dtype=np.float32))
    for k in range(rollout.frames):
        last = k == rollout.frames - 1
        motion = torch.zeros(3) if last else relative(poses[k], poses[k + 1])
        if not last and smooth > 1:
            way = Inbetween(rollout.occupancy[k], rollout.occupancy[k + 1], motion.numpy(), rollout.grid)
        for part in range(1 if last else smooth):
            share = part / smooth
            offset = motion * share
            pose = compose(poses[k], offset)
            planned = relative(offset, torch.from_numpy(rollout.planned[k].astype(np.float32))).numpy()
            yield Moment(
                frame=k,
                share=share,
                occupancy=way.at(share) if part else rollout.occupancy[k],
                offset=(float(offset[0]), float(offset[1]), float(offset[2])),
                heading=float(poses[k, 2]),
                planned=planned[planned[:, 0] > 0.5],
                route=to_frame(torch.from_numpy(rollout.route.astype(np.float32)), pose).numpy(),
                history=relative(pose, torch.cat((poses[: k + 1], pose[None]))).numpy(),
            )


def rollout_frames(rollout: Rollout, smooth: int = 4, title: str = "") -> Iterator[np.ndarray]:
    """The composed frames of a rollout's film, (592, 1280, 3) uint8 each.

    Args:
        rollout: what to show.
        smooth: pictures per occupancy frame; in between, the car, its camera and other road users move on.
        title: at the left of the header; a second line is drawn small. By default it is made from the header.

    """
    labels = [int(label) for label in np.unique(rollout.occupancy)]
    labels = [label for label in labels if label not in (0, NUM_CLASSES - 1)]
    title = title or _title(rollout.header)
    with ChaseCamera(grid=rollout.grid) as camera:
        for at in moments(rollout, max(1, int(smooth))):
            above = render_birdseye(
                at.occupancy,
                trajectory=at.planned,
                route=at.route,
                history=at.history,
                scale=max(1, round(600 / max(rollout.grid.shape[:2]))),
                grid=rollout.grid,
                offset=at.offset,
            )
            yield compose_frame(
                camera.render(at.occupancy, at.planned, at.route, heading=at.heading, offset=at.offset),
                above,
                title=title,
                time=(at.frame + at.share) * FRAME_SECONDS,
                speed=speed_at(rollout.ego_pose, at.frame, at.share),
                terms=_terms(rollout.steps[at.frame]) if rollout.steps else None,
                labels=labels,
            )


def rollout_video(rollout: Rollout, path: str | Path, *, smooth: int = 4, title: str = "") -> int:
    """Film a rollout in real time; returns the number of pictures. See `rollout_frames` and `write_video`."""
    return write_video(path, rollout_frames(rollout, smooth, title), fps=max(1, int(smooth)) / FRAME_SECONDS)


def _title(header: Mapping[str, Any]) -> str:
    parts = [str(header[key]) for key in ("world", "agent", "name") if header.get(key)]
    if "seed" in header:
        parts.append(f"seed {header['seed']}")
    return "occsora-sim\n" + "  ·  ".join(parts)[:_LONGEST_TITLE]


def speed_at(poses: np.ndarray, k: int, share: float) -> float:
    """Speed [m/s] of poses (t, 3) around frame `k` + `share`, interpolated so that the figure does not jump."""
    if len(poses) < 2:
        return 0.0
    speeds = np.linalg.norm(np.diff(poses[:, :2], axis=0), axis=1) / FRAME_SECONDS
    return float(np.interp(k + share, np.arange(len(speeds)) + 0.5, speeds))


def _terms(step: Mapping[str, Any]) -> dict[str, Any]:
    """What a step says that fits a header: numbers and short words."""
    return {
        key: value
        for key, value in step.items()
        if isinstance(value, (int, float)) or (isinstance(value, str) and len(value) <= 16)
    }


def _plain(value: Any) -> Any:
    """Numpy values as JSON ones."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
