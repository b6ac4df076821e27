"""Road users' motion: estimated from the last frames, then used to carry their voxels into the future.

This is motion compensation as in a video codec, for what moves by itself: a small network reads the last frames
(warped into the newest ego frame) and gives each road user's column its velocity; `advect` moves the columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from occsora_sim.geometry import relative, rotate, to_world
from occsora_sim.grid import BICYCLE, FREE, MOTORCYCLE, NUM_CLASSES, PEDESTRIAN, Grid
from occsora_sim.models.columns import is_dynamic

_SPEED_SCALE = 10.0  # [m/s]; brings velocities to the order of one


class MotionEstimator(nn.Module):
    """Velocities of road users from their bird's-eye images in the last frames: a three-level U-Net."""

    def __init__(self, frames: int = 3, width: int = 32, embedding: int = 4) -> None:
        super().__init__()
        self.frames = frames
        self.embedding = nn.Embedding(NUM_CLASSES, embedding)
        w1, w2, w3 = width, width * 3 // 2, width * 2
        self.down1 = nn.Conv2d(frames * (embedding + 1), w1, 4, stride=2, padding=1)
        self.down2 = nn.Conv2d(w1, w2, 4, stride=2, padding=1)
        self.down3 = nn.Conv2d(w2, w3, 4, stride=2, padding=1)
        self.middle = nn.ModuleList(nn.Conv2d(w3, w3, 3, padding=1) for _ in range(3))
        self.up3 = nn.Conv2d(w3 + w2, w2, 3, padding=1)
        self.up2 = nn.Conv2d(w2 + w1, w1, 3, padding=1)
        self.head = nn.Conv2d(w1, 2, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Velocities from `images` (b, h, x, y, 2) uint8 (`road_user_image`, oldest first, all in the newest ego
        frame): (b, x, y, 2) float32 [m/s] in that frame's axes; zero where no road user stands now.
        """
        labels, height = images[..., 0].int(), images[..., 1:].float() / 4
        present = labels > 0
        features = torch.cat(
            (self.embedding(labels) * present[..., None], height), dim=-1
        )  # (b, h, x, y, e + 1)
        x = features.permute(0, 1, 4, 2, 3).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        x1 = F.gelu(self.down1(x))
        x2 = F.gelu(self.down2(x1))
        x3 = F.gelu(self.down3(x2))
        for layer in self.middle:
            x3 = x3 + F.gelu(layer(x3))
        x2 = F.gelu(self.up3(torch.cat((F.interpolate(x3, size=x2.shape[-2:]), x2), dim=1)))
        x1 = F.gelu(self.up2(torch.cat((F.interpolate(x2, size=x1.shape[-2:]), x1), dim=1)))
        raw = F.interpolate(self.head(x1), size=x.shape[-2:], mode="bilinear") * _SPEED_SCALE
        return raw.permute(0, 2, 3, 1) * present[:, -1, ..., None]

    def loss(self, images: Tensor, velocity: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Huber loss [m/s] against the true `velocity` (b, x, y, 2) on the road users' columns, each class's columns
        weighted alike per object size (small ones count more); logs the mean end-point error.
        """
        present = images[:, -1, ..., 0] > 0
        if not present.any():
            return self(images).sum() * 0, {"motion/error_mps": 0.0}
        predicted = self(images)[present]
        error = (predicted - velocity[present]).norm(dim=-1)
        weight = 1 / _area(images[:, -1, ..., 0])[present]
        loss = (F.huber_loss(error, torch.zeros_like(error), reduction="none") * weight).sum() / weight.sum()
        return loss, {"motion/error_mps": float(error.detach().mean())}


def _area(labels: Tensor) -> Tensor:
    """Road users' columns in the 5 x 5 neighbourhood, (b, x, y) -> (b, x, y) float32, at least 1."""
    return F.avg_pool2d((labels > 0).float()[:, None], 5, 1, 2)[:, 0].mul(25).clamp(min=1)


def smooth_velocity(velocity: Tensor, images: Tensor) -> Tensor:
    """Mean velocity over the 7 x 7 neighbours of the same kind (vehicles, or pedestrians and cyclists), so that an
    object moves as one piece.

    velocity (b, x, y, 2) [m/s], images (b, x, y, 2) uint8 of the same frame -> (b, x, y, 2).
    """
    labels = images[..., 0]
    small = (labels[..., None] == small_labels(labels.device)).any(-1)
    masks = torch.stack((small, (labels > 0) & ~small), dim=1).float()  # (b, 2, x, y)
    parts = velocity.permute(0, 3, 1, 2)[:, None] * masks[:, :, None]  # (b, kind, 2, x, y)
    stacked = torch.cat((parts, masks[:, :, None]), dim=2).flatten(1, 2).contiguous()
    mean = F.avg_pool2d(stacked, 7, 1, 3).unflatten(1, (2, 3))
    smooth = (mean[:, :, :2] / mean[:, :, 2:].clamp(min=1e-6) * masks[:, :, None]).sum(1)
    return smooth.permute(0, 2, 3, 1)


def columns_label(columns: Tensor) -> Tensor:
    """The road user's label of columns (m, z) uint8: (m,)."""
    return (columns * is_dynamic(columns)).amax(dim=-1)


def small_labels(device: torch.device) -> Tensor:
    """Labels of road users of a few columns each, (3,) uint8."""
    return torch.tensor([PEDESTRIAN, BICYCLE, MOTORCYCLE], dtype=torch.uint8, device=device)


def advect(
    labels: Tensor, velocity: Tensor, pose: Tensor, target_pose: Tensor, seconds: Tensor, grid: Grid
) -> tuple[Tensor, Tensor]:
    """Carry the road users' columns of a frame along their velocities into future ego frames.

    Args:
        labels: (b, x, y, z) uint8, the newest frame.
        velocity: (b, x, y, 2) [m/s] in the axes of that frame.
        pose: (b, 3) world pose of the frame.
        target_pose: (b, f, 3) world poses of the ego at the future instants.
        seconds: (f,) [s] from the frame to each instant.
        grid: the voxel grid.

    Returns:
        labels (b, f, x, y, z) uint8 of the road users alone, FREE elsewhere, and their velocity (b, f, x, y, 2)
        [m/s] in the axes of each target frame.

    Each column is splatted as 3 x 3 sub-columns and a target column is filled where at least four land. Thirds
    have no ties, so a shifted straight edge never counts on both sides. Pedestrians and cyclists, a few columns each,
    are moved by their columns' centres instead: they never vanish and never grow.
    """
    b, f = target_pose.shape[:2]
    nx, ny, nz = grid.shape
    dynamic = is_dynamic(labels)
    row, i, j = torch.nonzero(dynamic.any(dim=-1), as_tuple=True)  # (m,)
    moved = torch.full((b * f * nx * ny, nz), FREE, dtype=torch.uint8, device=labels.device)
    flow = torch.zeros(b * f * nx * ny, 2, device=labels.device)
    if len(row):
        speed = velocity[row, i, j]
        thirds = torch.arange(-1, 2, device=labels.device) * (grid.voxel / 3)
        points = grid.centres_xy(labels.device)[i, j][:, None] + torch.cartesian_prod(
            thirds, thirds
        )  # (m, 9, 2)
        points = points[:, None] + speed[:, None, None] * seconds[:, None, None]  # (m, f, 9, 2)
        inverse = relative(target_pose, pose[:, None])[
            row
        ]  # (m, f, 3): the source frame seen from the targets
        points = to_world(points, inverse[:, :, None])
        voxel = torch.floor((points - points.new_tensor(grid.lower[:2])) / grid.voxel).long()
        inside = (voxel >= 0).all(-1) & (voxel[..., 0] < nx) & (voxel[..., 1] < ny)
        frame = row[:, None, None] * f + torch.arange(f, device=labels.device)[:, None]  # (m, f, 1)
        cell = ((frame * nx + voxel[..., 0]) * ny + voxel[..., 1])[inside]
        source = torch.arange(len(row), device=labels.device)[:, None, None].expand(-1, f, 9)[inside]
        step = torch.arange(f, device=labels.device)[:, None].expand(len(row), f, 9)[inside]
        small = (columns_label(labels[row, i, j])[:, None] == small_labels(labels.device)).any(-1)
        votes = torch.where(
            small[:, None], labels.new_tensor([0, 0, 0, 0, 4, 0, 0, 0, 0]), labels.new_tensor(1)
        )
        votes = votes[:, None].expand(-1, f, 9)[inside]
        cell, source, step = cell[votes > 0], source[votes > 0], step[votes > 0]
        count = torch.bincount(cell, weights=votes[votes > 0].float(), minlength=b * f * nx * ny)
        winner = torch.full((b * f * nx * ny,), -1, dtype=torch.int64, device=labels.device)
        winner.scatter_reduce_(0, cell, source * f + step, reduce="amax")
        filled = torch.nonzero(count >= 4)[:, 0]
        source, step = winner[filled] // f, winner[filled] % f
        columns = labels[row[source], i[source], j[source]]
        moved[filled] = torch.where(is_dynamic(columns), columns, torch.full_like(columns, FREE))
        flow[filled] = rotate(speed[source], inverse[source, step, 2])
    return moved.view(b, f, nx, ny, nz), flow.view(b, f, nx, ny, 2)
