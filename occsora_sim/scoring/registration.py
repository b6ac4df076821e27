"""The ego's motion between two occupancy frames, recovered from what stands still in them and from nothing else.

No pose that a world was told or reports enters: two frames of labels go in, a planar rigid motion comes out. That makes
it a check of the whole way from a trajectory prompt to the frames that a world shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import rotate, to_world
from occsora_sim.grid import DYNAMIC, FLAT, FREE, NUM_CLASSES, VEGETATION, Grid

PAIRS_AT_ONCE = 8
"""Pairs of frames registered together; bounds the memory (about 40 MB a pair on the Occ3D grid)."""


@dataclass(frozen=True, kw_only=True)
class RegistrationConfig:
    """Where the motion is looked for, and when it counts as found.

    The bounds fit one second of driving. The search knows nothing of where in them the answer should lie.

    Attributes:
        reach: largest motion along x and along y, either way [m].
        turn: largest turn, either way [rad].
        turn_step: between the turns of the exhaustive search [rad].
        cell: of the exhaustive search [m]; rounded to whole voxels.
        blurs: standard deviations of the blurs under which the match is refined, one after another [m].
        apart: matches of the search this far from the best one are its rivals [m].
        similarity: least normalised correlation of a match that counts, in [-1, 1].
        distinctness: least amount by which it exceeds the best rival's; a straight street without any other feature, or
            a row of equal trees, has rivals as good as the truth.
        overlap: least share of the frame's shown columns that both frames must show.

    """

    reach: tuple[float, float] = (16.0, 8.0)
    turn: float = math.radians(40.0)
    turn_step: float = math.radians(2.0)
    cell: float = 0.8
    blurs: tuple[float, ...] = (1.0, 0.5)
    apart: float = 1.6
    similarity: float = 0.4
    distinctness: float = 0.02
    overlap: float = 0.25

    def __post_init__(self) -> None:
        lengths = (*self.reach, self.turn, self.turn_step, self.cell, self.apart, *self.blurs)
        if min(lengths) <= 0 or not self.blurs:
            raise ConfigurationError(f"registration: {self}: lengths and angles must be positive")


@dataclass(frozen=True, kw_only=True)
class Registration:
    """The motions between b pairs of frames.

    Attributes:
        motion: (b, 3) float32: pose of the later frame in the earlier one: x, y [m], yaw [rad]; NaN where not found.
        similarity: (b,) float32, normalised correlation of the two frames under the best match, in [-1, 1].
        distinctness: (b,) float32, by how much that exceeds the best match elsewhere.
        found: (b,) bool: whether similarity and distinctness suffice.

    """

    motion: Tensor
    similarity: Tensor
    distinctness: Tensor
    found: Tensor

    def rows(self, rows: slice) -> Registration:
        """The pairs `rows`."""
        return Registration(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @staticmethod
    def cat(parts: Sequence[Registration]) -> Registration:
        """The pairs of `parts`, one after another."""
        joined = {f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Registration)}
        return Registration(**joined)


def register(
    earlier: Tensor, later: Tensor, grid: Grid, config: RegistrationConfig | None = None
) -> Registration:
    """Recover the ego's motion from the earlier to the later frame.

    First every motion of the search window is tried, by normalised correlation of the frames' edges in the Fourier
    domain, one turn at a time (Padfield 2012, Masked object registration in the Fourier domain). The best match is then
    refined by Gauss-Newton on the blurred frames (Lucas and Kanade 1981), with Geman-McClure's weights against what
    does not fit. Road users are left out.

    Args:
        earlier: (b, x, y, z) uint8 labels in the ego frame of their instant.
        later: (b, x, y, z) uint8.
        grid: the voxel grid.
        config: the search window and the bounds of a match that counts.

    Raises:
        ConfigurationError: the frames do not fit each other or the grid.

    """
    config = config or RegistrationConfig()
    if earlier.shape != later.shape or earlier.ndim != 4 or tuple(earlier.shape[1:]) != grid.shape:
        raise ConfigurationError(
            f"registration: frames {tuple(earlier.shape)} and {tuple(later.shape)} must both be (b, "
            f"{', '.join(map(str, grid.shape))}); give frames of this grid"
        )
    if not len(earlier):
        none = torch.zeros(0, device=earlier.device)
        return Registration(motion=none.view(0, 3), similarity=none, distinctness=none, found=none.bool())
    parts = [
        _register(static_image(a), static_image(b), grid, config)
        for a, b in zip(earlier.split(PAIRS_AT_ONCE), later.split(PAIRS_AT_ONCE), strict=True)
    ]
    motion, similarity, distinctness = (torch.cat(field) for field in zip(*parts, strict=True))
    found = (similarity >= config.similarity) & (distinctness >= config.distinctness)
    found &= motion.isfinite().all(dim=1)
    motion = torch.where(found[:, None], motion, torch.nan)
    return Registration(motion=motion, similarity=similarity, distinctness=distinctness, found=found)


def static_image(frames: Tensor) -> Tensor:
    """What stands still, from above: (b, x, y, z) uint8 -> (b, c, x, y) float32 of 0 and 1.

    A channel for each class of the ground, one for vegetation, one for every other solid thing; the last says where
    anything is shown at all.
    """
    solid = torch.ones(256, dtype=torch.bool, device=frames.device)
    solid[list((*FLAT, *DYNAMIC, VEGETATION, FREE))] = False
    solid[NUM_CLASSES:] = False
    channels = [(frames == label).any(dim=-1) for label in (*FLAT, VEGETATION)]
    channels.append(solid[frames.int()].any(dim=-1))
    image = torch.stack(channels, dim=1)
    return torch.cat((image, image.any(dim=1, keepdim=True)), dim=1).float()


def _register(
    earlier: Tensor, later: Tensor, grid: Grid, config: RegistrationConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Motion (b, 3), similarity (b,) and distinctness (b,) of images (b, c, x, y)."""
    score, motions = _search(earlier, later, grid, config)  # (b, m), (m, 3)
    similarity, best = score.max(dim=1)
    motion = motions[best]
    away = (motions[:, :2] - motion[:, None, :2]).norm(dim=-1) >= config.apart
    distinctness = similarity - score.masked_fill(~away, -1.0).amax(dim=1)
    refined = motion
    for blur in config.blurs:
        refined = _refine(earlier, later, refined, blur, grid)
    astray = (refined[:, :2] - motion[:, :2]).norm(dim=-1) > config.apart
    return refined.masked_fill(astray[:, None], torch.nan), similarity, distinctness


def _search(earlier: Tensor, later: Tensor, grid: Grid, config: RegistrationConfig) -> tuple[Tensor, Tensor]:
    """Normalised correlation (b, m) of every motion (m, 3) of the search window; -1 where the overlap is small."""
    device = earlier.device
    factor = max(1, round(config.cell / grid.voxel))
    cell = factor * grid.voxel
    # Edges alone: the difference of two blurs takes the large even surfaces away, whichever way they are turned.
    a, b = (F.avg_pool2d(_edges(image, cell / grid.voxel), factor) for image in (earlier, later))
    reach = [round(metres / cell) for metres in config.reach]
    size = [2 ** math.ceil(math.log2(n + r + 1)) for n, r in zip(a.shape[-2:], reach, strict=True)]
    coarse = Grid(shape=(a.shape[-2], a.shape[-1], 1), voxel=cell, lower=grid.lower)
    a_edges, a_shown = a[:, :-1], a[:, -1:]
    fa, fe, fs = (torch.fft.rfft2(z, s=size) for z in (a_edges, (a_edges**2).sum(1, keepdim=True), a_shown))
    least = config.overlap * b[:, -1:].sum(dim=(-2, -1), keepdim=True)
    steps = math.ceil(config.turn / config.turn_step)
    turns = torch.arange(-steps, steps + 1, device=device) * (config.turn / steps)
    scores = []
    for turn in turns:
        back = torch.stack((turn * 0, turn * 0, -turn)).expand(len(b), 3)
        turned = _sample(b, back, coarse)
        edges, shown = turned[:, :-1], turned[:, -1:]
        gb, ge, gs = (
            torch.fft.rfft2(z, s=size).conj() for z in (edges, (edges**2).sum(1, keepdim=True), shown)
        )
        spectra = torch.cat(((fa * gb).sum(1, keepdim=True), fe * gs, fs * ge, fs * gs), dim=1)
        maps = torch.fft.irfft2(spectra, s=size).roll(reach, dims=(-2, -1))
        product, energy_a, energy_b, overlap = maps[..., : 2 * reach[0] + 1, : 2 * reach[1] + 1].unbind(dim=1)
        energy = (energy_a.clamp(min=0) * energy_b.clamp(min=0)).sqrt()
        score = product / energy.clamp(min=1e-2)  # frames without an edge have no energy: score 0
        scores.append(torch.where(overlap[:, None] > least, score[:, None], -1.0)[:, 0])
    shift = [torch.arange(-r, r + 1, device=device) * cell for r in reach]
    motions = torch.stack(torch.meshgrid(turns, *shift, indexing="ij"), dim=-1)[..., [1, 2, 0]]
    return torch.stack(scores, dim=1).flatten(1), motions.reshape(-1, 3)


def _refine(earlier: Tensor, later: Tensor, motion: Tensor, blur: float, grid: Grid) -> Tensor:
    """Ten steps of Gauss-Newton from `motion` (b, 3) on images (b, c, x, y) blurred by `blur` [m]."""
    a, b = (_smooth(image[:, :-1], image[:, -1:], blur / grid.voxel) for image in (earlier, later))
    along_x = (a.roll(-1, -2) - a.roll(1, -2)) / (2 * grid.voxel)
    along_y = (a.roll(-1, -1) - a.roll(1, -1)) / (2 * grid.voxel)
    inner = torch.zeros_like(a[:1, :1])
    inner[..., 1:-1, 1:-1] = 1.0
    source = torch.cat((a, along_x, along_y, earlier[:, -1:] * inner), dim=1)
    damping = torch.diag(torch.tensor([1e-3, 1e-3, 1e-1], device=a.device))
    points = grid.centres_xy(a.device)
    for _ in range(10):
        there = _sample(source, motion, grid)
        value, dx, dy = there[:, :-1].chunk(3, dim=1)
        residual = value - b
        weight = (there[:, -1:] > 0.999) * later[:, -1:] * inner
        weight = weight / (1 + (residual / 0.15) ** 2) ** 2  # Geman and McClure
        lever = rotate(points, motion[:, None, None, 2])[:, None]  # (b, 1, x, y, 2)
        slope = torch.stack((dx, dy, dy * lever[..., 0] - dx * lever[..., 1]), dim=-1).flatten(1, 3)
        weighted = slope * weight.flatten(1)[..., None]
        normal = weighted.mT @ slope + damping
        gradient = (weighted * residual.flatten(1)[..., None]).sum(dim=1)
        motion = motion - torch.linalg.solve(normal, gradient)
    return motion


def _sample(image: Tensor, motion: Tensor, grid: Grid) -> Tensor:
    """Bilinear values of `image` (b, c, x, y) at the column centres carried by `motion` (b, 3); 0 outside."""
    points = to_world(grid.centres_xy(image.device), motion[:, None, None])
    extent = points.new_tensor(grid.shape[:2]) * grid.voxel
    unit = 2 * (points - points.new_tensor(grid.lower[:2])) / extent - 1
    return F.grid_sample(image, unit.flip(-1), align_corners=False)


def _edges(image: Tensor, sigma: float) -> Tensor:
    """Difference of two blurs of an image whose last channel says what is shown, and that channel."""
    value, shown = image[:, :-1], image[:, -1:]
    return torch.cat(
        ((_smooth(value, shown, sigma) - _smooth(value, shown, 4 * sigma)) * shown, shown), dim=1
    )


def _smooth(value: Tensor, shown: Tensor, sigma: float) -> Tensor:
    """Gaussian blur [voxels] over what is shown (normalised convolution, Knutsson and Westin 1993)."""
    return _blur(value * shown, sigma) / _blur(shown, sigma).clamp(min=1e-3)


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (b, c, x, y); `sigma` in voxels."""
    half = math.ceil(3 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-half, half + 1, device=image.device) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    flat = image.flatten(0, 1)[:, None]
    flat = F.conv2d(flat, kernel.view(1, 1, -1, 1), padding=(half, 0))
    return F.conv2d(flat, kernel.view(1, 1, 1, -1), padding=(0, half)).view_as(image)
