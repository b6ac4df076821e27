"""Short clips of recorded traffic: what the frames of a world are held against, and how much those vary themselves."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from occsora_sim.errors import SceneError
from occsora_sim.grid import FRAME_SECONDS, Grid
from occsora_sim.models.occupancy_encoder import OccupancyEncoder
from occsora_sim.scenes.offers import usable
from occsora_sim.scenes.recorded import Recorded, drawer_of
from occsora_sim.scoring.census import Census, take_census
from occsora_sim.scoring.feature_distance import kernel_distance
from occsora_sim.scoring.frequencies import (
    class_counts,
    filled_frequencies,
    frequencies,
    jensen_shannon,
    roughness,
)

WIDEN = 1.5
"""The range from the 5th to the 95th percentile is widened about its middle by this factor."""

RARE = 0.25
"""Classes that fewer of the clips show than this are allowed up to the largest share that a clip shows."""

DRAWS = 200
"""Random draws behind each floor."""


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Figures of n clips.

    Attributes:
        counts: (n, NUM_CLASSES) int64 voxels of each class.
        roughness: (n,) float64, see `frequencies.roughness`.
        census: of their road users.
        features: (n, t, d) float64 of an occupancy encoder; d is 0 where none was asked.
        town: (n,) int64, which scene each clip is of.

    """

    counts: Tensor
    roughness: Tensor
    census: Census
    features: Tensor
    town: Tensor

    def select(self, rows: Tensor) -> Clips:
        """The clips `rows`: indices, or a bool for each."""
        return replace(
            self,
            counts=self.counts[rows],
            roughness=self.roughness[rows],
            census=self.census.select(rows),
            features=self.features[rows],
            town=self.town[rows],
        )


def measure_clips(
    clips: Tensor, poses: Tensor, grid: Grid, town: int = 0, encoder: OccupancyEncoder | None = None
) -> Clips:
    """Figures of clips (n, t, x, y, z) uint8 of one scene, seen from world poses (n, t, 3) [m, m, rad]."""
    n, t = clips.shape[:2]
    features = torch.zeros(n * t, 0, dtype=torch.float64)
    if encoder is not None:
        features = encoder.encode(clips.flatten(0, 1))
    return Clips(
        counts=class_counts(clips).cpu(),
        roughness=roughness(clips).cpu(),
        census=take_census(clips, poses, grid),
        features=features.view(n, t, -1),
        town=torch.full((n,), town),
    )


def real_clips(
    scenes: Sequence[Recorded],
    grid: Grid,
    frames: int,
    per_scene: int = 48,
    encoder: OccupancyEncoder | None = None,
) -> Clips:
    """Clips of `frames` frames along the expert egos' recorded motions, spread evenly over egos and time. A
    `SceneWarning` names the scenes that hold none.

    Raises:
        SceneError: no scene has an expert ego recorded for long enough.

    """
    reasons = ["" if _places(scene, frames) else _too_short(frames) for scene in scenes]
    parts = []
    for town in usable(scenes, reasons, "clip"):
        for labels, poses in drawn_clips(scenes[town], grid, frames, per_scene):
            parts.append(measure_clips(labels[None], poses[None], grid, town, encoder))
    return join(parts)


def _places(scene: Recorded, frames: int) -> list[tuple[int, int]]:
    """Ego and first step of every clip that can be chosen."""
    stride = round(FRAME_SECONDS / scene.dt)
    places = []
    for ego, kind in enumerate(scene.ego_kind):
        valid = np.flatnonzero(scene.ego_valid[ego])
        if kind == "expert" and len(valid) > (frames - 1) * stride:
            places += [
                (ego, k) for k in range(valid[0], valid[-1] - (frames - 1) * stride + 1, frames * stride)
            ]
    return places


def _too_short(frames: int) -> str:
    return f"no expert ego is recorded for {frames * FRAME_SECONDS:g} s"


def drawn_clips(scene: Recorded, grid: Grid, frames: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The `count` clips of a scene that `real_clips` measures, fewer where there are fewer: labels (t, x, y, z) uint8
    and world poses (t, 3) [m, m, rad].

    Raises:
        SceneError: the scene has no expert ego recorded for long enough.

    """
    stride, places = round(FRAME_SECONDS / scene.dt), _places(scene, frames)
    if not places:
        raise SceneError(f"{scene.name}: {_too_short(frames)}; use longer scenes")
    voxeliser = drawer_of(scene, grid)
    chosen = np.unique(np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int))
    for ego, first in (places[k] for k in chosen):
        steps = first + stride * np.arange(frames)
        exclude = torch.full((frames,), int(scene.ego_track[ego]))
        pose, time = torch.from_numpy(scene.ego_pose[ego, steps]), torch.from_numpy(steps * scene.dt)
        yield voxeliser.frames(pose, time, exclude), pose


def join(parts: Sequence[Clips]) -> Clips:
    """The clips of `parts`, one after another."""
    names = ("counts", "roughness", "features", "town")
    census = Census.cat([part.census for part in parts])
    return Clips(
        census=census, **{name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    )


def spread(values: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper bound (...) of values (n, ...) >= 0: 5th to 95th percentile, widened by WIDEN; see RARE."""
    low, high = torch.quantile(values, torch.tensor([0.05, 0.95], dtype=values.dtype), dim=0)
    middle, half = (low + high) / 2, WIDEN * (high - low) / 2
    rare = (values > 0).double().mean(dim=0) < RARE
    upper = torch.where(rare, torch.maximum(middle + half, values.amax(dim=0)), middle + half)
    return (middle - half).clamp(min=0.0), upper


def beyond(values: Tensor, bounds: tuple[Tensor, Tensor]) -> Tensor:
    """Bool (...): which values (...) lie outside the bounds, with a billionth to spare for rounding."""
    return (values < bounds[0] - 1e-9) | (values > bounds[1] + 1e-9)


def outside_share(clips: Clips) -> float | None:
    """Share of (clip, class) pairs outside the bounds that the other towns' clips set; None for a single town."""
    shares = frequencies(clips.counts)
    found = []
    for town in clips.town.unique():
        mine = clips.town == town
        if not mine.all():
            found.append(beyond(shares[mine], spread(shares[~mine])).double().mean())
    return float(torch.stack(found).mean()) if found else None


def distances(counts: Tensor, other: Tensor) -> dict[str, float]:
    """Jensen-Shannon divergence to base 2 of pooled clips (n, NUM_CLASSES) against others (m, NUM_CLASSES): `all` over
    the shares of all voxels, `filled` over the shares of those that are not free.
    """
    a, b = counts.sum(dim=0), other.sum(dim=0)
    return {
        "all": float(jensen_shannon(frequencies(a), frequencies(b))),
        "filled": float(jensen_shannon(filled_frequencies(a), filled_frequencies(b))),
    }


def floors(clips: Clips, size: int, seed: int = 0) -> dict[str, Any]:
    """Real against real, the distances that a perfect world could not go below; `mean`, `p95` and `max` of each.

    `kernel` is that of `same_size` in an encoder's space (null without one).
    `same_size`: `size` clips, drawn evenly over the towns, against the rest (as many as a report pools at one time);
    `halves`: disjoint random halves; `towns`: each town against each other one (null for a single town).
    """
    rng = np.random.default_rng(seed)
    n = len(clips.counts)
    towns = [np.flatnonzero((clips.town == town).numpy()) for town in clips.town.unique()]
    drawn: dict[str, list[dict[str, float]]] = {"same_size": [], "halves": [], "towns": []}
    kernels: list[float] = []
    for _ in range(DRAWS):
        queues = [list(rng.permutation(towns[k])) for k in rng.permutation(len(towns))]
        mixed = [clip for turn in itertools.zip_longest(*queues) for clip in turn if clip is not None]
        rows = torch.zeros(n, dtype=torch.bool)
        rows[mixed[: min(size, n - 1)]] = True
        drawn["same_size"].append(distances(clips.counts[rows], clips.counts[~rows]))
        if clips.features.shape[-1]:
            kernels.append(
                kernel_distance(clips.features[rows].flatten(0, 1), clips.features[~rows].flatten(0, 1))
            )
        half = torch.from_numpy(rng.permutation(n) < n // 2)
        drawn["halves"].append(distances(clips.counts[half], clips.counts[~half]))
    for a, b in itertools.combinations(towns, 2):
        drawn["towns"].append(distances(clips.counts[a], clips.counts[b]))
    floor: dict[str, Any] = {name: _summary(rows) if rows else None for name, rows in drawn.items()}
    return floor | {"kernel": {"mean": float(np.mean(kernels)), "max": max(kernels)} if kernels else None}


def _summary(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean, 95th percentile and largest of each distance."""
    return {
        key: {
            "mean": float(np.mean([row[key] for row in rows])),
            "p95": float(np.quantile([row[key] for row in rows], 0.95)),
            "max": float(np.max([row[key] for row in rows])),
        }
        for key in ("all", "filled")
    }
