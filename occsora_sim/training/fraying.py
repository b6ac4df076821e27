"""Spoil known ground the way a model that draws it does, so that the next chunk is drawn well beside it."""

from __future__ import annotations

import torch
from torch import Tensor

from occsora_sim.geometry import rotate, to_world
from occsora_sim.grid import Grid
from occsora_sim.models.columns import UNSEEN

_TABLE = 128  # cells after which the pattern repeats; more than a third of a view of the Occ3D grid
_FINE, _COARSE = 1.5, 6.0  # largest spread of a voxel's and of a block's shift [voxels]
_BLOCK = 8  # columns along the edge of a block: a latent cell


def fray(static: Tensor, poses: Tensor, share: float, grid: Grid, generator: torch.Generator) -> Tensor:
    """Shift columns of the record about in a `share` of the windows.

    In a closed loop the record is what the model itself drew earlier: edges that are frayed by a voxel or two, here
    and there a piece as large as a latent cell that belongs elsewhere. A model that has only met clean ground goes on
    fraying; one that has met this, with clean ground still asked of it beyond, does not (the reason for which GameNGen,
    Valevski et al. 2024, section 3.2.1, spoils its context). Each window draws how strongly; the pattern is fixed to
    the world, so that the frames of a window agree.

    Args:
        static: (b, f, x, y, z) uint8, the record in each frame, UNSEEN where there is none.
        poses: (b, f, 3) world poses of the frames [m, m, rad].
        share: of the windows that are frayed, in [0, 1].
        grid: the voxel grid.
        generator: of the draws, on the CPU.

    Returns:
        (b, f, x, y, z) uint8.

    """
    b, f, nx, ny, nz = static.shape
    chosen = torch.rand(b, generator=generator) < share
    strength = torch.rand(b, 2, generator=generator)
    if not chosen.any():
        return static
    fine = torch.randn(_TABLE, _TABLE, 2, generator=generator) * _FINE
    coarse = torch.randn(_TABLE // _BLOCK, _TABLE // _BLOCK, 2, generator=generator) * _COARSE
    moved = torch.rand(
        _TABLE // _BLOCK, _TABLE // _BLOCK, generator=generator
    )  # one block in ten at the most
    rows = torch.nonzero(chosen)[:, 0]
    where = rows.to(static.device)
    world = to_world(grid.centres_xy(static.device), poses[where][:, :, None, None])  # (r, f, x, y, 2)
    cell = torch.floor(world / grid.voxel).long() % _TABLE
    block = cell // _BLOCK
    strong = strength[rows].to(static.device)[:, None, None, None]
    shift = fine.to(static.device)[cell[..., 0], cell[..., 1]] * strong[..., :1]
    lifted = moved.to(static.device)[block[..., 0], block[..., 1]] < 0.1 * strong[..., 1]
    shift = shift + coarse.to(static.device)[block[..., 0], block[..., 1]] * lifted[..., None]
    shift = rotate(shift, -poses[where][:, :, None, None, 2])  # into each frame's axes
    at = torch.stack(torch.meshgrid(torch.arange(nx), torch.arange(ny), indexing="ij"), dim=-1).to(
        static.device
    )
    source = (at + shift.round().long()).clamp(min=0)
    x, y = source[..., 0].clamp(max=nx - 1), source[..., 1].clamp(max=ny - 1)
    frame = torch.arange(len(rows) * f, device=static.device).view(-1, f, 1, 1)
    known = static[where]
    frayed = known.reshape(-1, nz).index_select(0, ((frame * nx + x) * ny + y).flatten()).view_as(known)
    out = static.clone()
    # What was never shown stays so, and nothing becomes unseen.
    out[where] = torch.where((known == UNSEEN) | (frayed == UNSEEN), known, frayed)
    return out
