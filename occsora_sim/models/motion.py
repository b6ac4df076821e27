"""Road users' motion: foretold from the last frames and the ground, then used to carry their voxels into the future.

This is motion compensation as in a video codec, for what moves by itself: a small network reads the last frames
(warped into the newest ego frame) and the ground beneath, and says how far each road user's column will have moved at
each frame of the chunk, bends and braking included; `advect` moves the columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from occsora_sim.geometry import relative, rotate, to_world
from occsora_sim.grid import FRAME_SECONDS, FREE, NUM_CLASSES, SMALL, Grid
from occsora_sim.models.columns import is_dynamic

_SPEED_SCALE = 10.0  # [m/s]; brings mean velocities to the order of one


class MotionEstimator(nn.Module):
    """Displacements of road users from their bird's-eye images in the last frames: a three-level U-Net.

    Args:
        frames: frames that it reads.
        future: f, frames ahead that it foretells.
        width: channels at half the resolution.
        embedding: numbers per class embedding.

    """

    def __init__(self, frames: int = 4, future: int = 2, width: int = 48, embedding: int = 4) -> None:
        super().__init__()
        self.frames, self.future = frames, future
        self.embedding = nn.Embedding(NUM_CLASSES, embedding)
        w1, w2, w3 = width, width * 3 // 2, width * 2
        self.down1 = nn.Conv2d(frames * (embedding + 1) + embedding, w1, 4, stride=2, padding=1)
        self.down2 = nn.Conv2d(w1, w2, 4, stride=2, padding=1)
        self.down3 = nn.Conv2d(w2, w3, 4, stride=2, padding=1)
        self.middle = nn.ModuleList(nn.Conv2d(w3, w3, 3, padding=d, dilation=d) for d in (1, 2, 4))
        self.up3 = nn.Conv2d(w3 + w2, w2, 3, padding=1)
        self.up2 = nn.Conv2d(w2 + w1, w1, 3, padding=1)
        self.head = nn.Conv2d(w1, 2 * future, 3, padding=1)

    @property
    def channels(self) -> int:
        """Numbers of all `levels` together."""
        return self.up2.out_channels + self.up3.out_channels + self.down3.out_channels

    def levels(self, images: Tensor, ground: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features at a half, a quarter and an eighth of the resolution, (b, c, x / 2, y / 2) and so on.

        Args:
            images: (b, h, x, y, 2) uint8 (`road_user_image`, oldest first, all in the newest ego frame).
            ground: (b, x, y) uint8, `ground_image` of the newest frame.

        """
        labels, height = images[..., 0].int(), images[..., 1:].float() / 4
        present = labels > 0
        features = torch.cat(
            (self.embedding(labels) * present[..., None], height), dim=-1
        )  # (b, h, x, y, e + 1)
        x = torch.cat(
            (features.permute(0, 1, 4, 2, 3).flatten(1, 2), self.embedding(ground.int()).permute(0, 3, 1, 2)),
            dim=1,
        ).contiguous(memory_format=torch.channels_last)
        x1 = F.gelu(self.down1(x))
        x2 = F.gelu(self.down2(x1))
        x3 = F.gelu(self.down3(x2))
        for layer in self.middle:
            x3 = x3 + F.gelu(layer(x3))
        x2 = F.gelu(self.up3(torch.cat((F.interpolate(x3, size=x2.shape[-2:]), x2), dim=1)))
        x1 = F.gelu(self.up2(torch.cat((F.interpolate(x2, size=x1.shape[-2:]), x1), dim=1)))
        return x1, x2, x3

    def foretell(self, levels: tuple[Tensor, Tensor, Tensor], images: Tensor) -> Tensor:
        """Displacements (b, f, x, y, 2) float32 [m] in the newest ego frame; zero where no road user stands now."""
        present = images[:, -1, ..., 0] > 0
        raw = F.interpolate(self.head(levels[0]), size=present.shape[1:], mode="bilinear").float()
        mean_velocity = raw.unflatten(1, (self.future, 2)).permute(0, 1, 3, 4, 2) * _SPEED_SCALE
        seconds = FRAME_SECONDS * torch.arange(1, self.future + 1, device=raw.device)
        return mean_velocity * seconds.view(1, -1, 1, 1, 1) * present[:, None, ..., None]

    def forward(self, images: Tensor, ground: Tensor) -> Tensor:
        """`foretell` of the `levels` of `images` and `ground`."""
        return self.foretell(self.levels(images, ground), images)

    def loss(self, images: Tensor, ground: Tensor, displacement: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Huber loss (bend at 0.1 m) against the true `displacement` (b, f, x, y, 2) [m] on the road users' columns,
        smoothed as it is used (`smooth_displacement`).

        Each object counts about alike: columns are weighted by the inverse of how many stand around them. Logs the
        mean end-point error of each frame ahead.
        """
        newest = images[:, -1]
        present = newest[..., 0] > 0
        smooth = smooth_displacement(self(images, ground), newest)
        predicted = smooth.permute(0, 2, 3, 1, 4)[present]  # (m, f, 2)
        if not len(predicted):
            return predicted.sum() * 0, {}
        error = (predicted - displacement.permute(0, 2, 3, 1, 4)[present]).square().sum(-1)
        error = (error + 1e-8).sqrt()  # a norm of zero has no gradient
        weight = 1 / _area(newest[..., 0])[present][:, None]
        bent = F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=0.1)
        loss = (bent * weight).sum() / (weight.sum() * self.future)
        means = error.detach().mean(0).tolist()
        return loss, {f"motion/error_{k + 1}_m": value for k, value in enumerate(means)}


def _area(labels: Tensor) -> Tensor:
    """Road users' columns in the 5 x 5 neighbourhood, (b, x, y) -> (b, x, y) float32, at least 1."""
    return F.avg_pool2d((labels > 0).float()[:, None], 5, 1, 2)[:, 0].mul(25).clamp(min=1)


def smooth_displacement(displacement: Tensor, images: Tensor) -> Tensor:
    """Mean displacement over the 5 x 5 neighbours of the same kind (vehicles, or pedestrians and cyclists), so that
    an object moves as one piece.

    displacement (b, f, x, y, 2) [m], images (b, x, y, 2) uint8 of the newest frame -> (b, f, x, y, 2).
    """
    f, labels = displacement.shape[1], images[..., 0]
    small = (labels[..., None] == small_labels(labels.device)).any(-1)
    masks = torch.stack((small, (labels > 0) & ~small), dim=1).float()  # (b, 2, x, y)
    parts = (
        displacement.permute(0, 1, 4, 2, 3).flatten(1, 2)[:, None] * masks[:, :, None]
    )  # (b, kind, 2 f, x, y)
    stacked = torch.cat((parts, masks[:, :, None]), dim=2).flatten(1, 2).contiguous()
    mean = F.avg_pool2d(stacked, 5, 1, 2).unflatten(1, (2, 2 * f + 1))
    smooth = (mean[:, :, :-1] / mean[:, :, -1:].clamp(min=1e-6) * masks[:, :, None]).sum(1)
    return smooth.unflatten(1, (f, 2)).permute(0, 1, 3, 4, 2)


def columns_label(columns: Tensor) -> Tensor:
    """The road user's label of columns (m, z) uint8: (m,)."""
    return (columns * is_dynamic(columns)).amax(dim=-1)


def small_labels(device: torch.device) -> Tensor:
    """Labels of road users of a few columns each, (3,) uint8."""
    return torch.tensor(SMALL, dtype=torch.uint8, device=device)


def advect(
    labels: Tensor, displacement: Tensor, pose: Tensor, target_pose: Tensor, grid: Grid
) -> tuple[Tensor, Tensor]:
    """Carry the road users' columns of a frame along their displacements into future ego frames.

    Args:
        labels: (b, x, y, z) uint8, the newest frame.
        displacement: (b, f, x, y, 2) [m] until each future instant, in the axes of that frame.
        pose: (b, 3) world pose of the frame.
        target_pose: (b, f, 3) world poses of the ego at the future instants.
        grid: the voxel grid.

    Returns:
        labels (b, f, x, y, z) uint8 of the road users alone, FREE elsewhere, and how far they have come
        (b, f, x, y, 2) [m] in the axes of each target frame.

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
        step_xy = displacement[row, :, i, j]  # (m, f, 2)
        thirds = torch.arange(-1, 2, device=labels.device) * (grid.voxel / 3)
        points = grid.centres_xy(labels.device)[i, j][:, None] + torch.cartesian_prod(
            thirds, thirds
        )  # (m, 9, 2)
        points = points[:, None] + step_xy[:, :, None]  # (m, f, 9, 2)
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
        flow[filled] = rotate(step_xy[source, step], inverse[source, step, 2])
    return moved.view(b, f, nx, ny, nz), flow.view(b, f, nx, ny, 2)
