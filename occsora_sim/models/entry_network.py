"""The network that reads the surroundings from above and says how often road users come into view where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from occsora_sim.constants import constant
from occsora_sim.errors import CheckpointError
from occsora_sim.grid import OCC3D, Grid
from occsora_sim.models.entry_view import CHANNELS, GROUPS, POOL, Setting
from occsora_sim.models.one_hot import one_hot
from occsora_sim.scene_prompt import PLACES


@dataclass(frozen=True, kw_only=True)
class EntriesConfig:
    """Size of the network.

    Attributes:
        grid: the voxels around the ego; their square is the view.
        width: channels at 1.6 m cells; two and three times as many at 3.2 and 6.4 m.
        marks: width of the networks that draw the marks.
        margin: cells of 0.8 m around the view.

    """

    grid: Grid = field(default_factory=lambda: OCC3D)
    width: int = 32
    marks: int = 128
    margin: int = 10

    def to_header(self) -> dict[str, Any]:
        """A JSON-serialisable form; `from_header` is its inverse."""
        return asdict(self)

    @staticmethod
    def from_header(header: dict[str, Any]) -> EntriesConfig:
        """The configuration stored in a checkpoint.

        Raises:
            CheckpointError: a field is unknown or missing.

        """
        try:
            grid: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in header["grid"].items()
            }
            return EntriesConfig(grid=Grid(**grid), **{k: v for k, v in header.items() if k != "grid"})
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"weights: the configuration of the entries does not fit this release ({error})"
            ) from error


class Block(nn.Module):
    """A residual convolution whose channels the condition scales and shifts (FiLM, Perez et al. 2018)."""

    def __init__(self, width: int, condition: int, dilation: int = 1, *, normed: bool = True) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width, affine=False) if normed else nn.Identity()
        self.film = nn.Linear(condition, 2 * width)
        self.conv = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """(b, c, x, y), of `film` the scale, which 1 is added to, and the shift (b, c, 1, 1) -> (b, c, x, y)."""
        return x + self.conv(F.gelu(torch.addcmul(shift, self.norm(x), scale)))


class EntryNetwork(nn.Module):
    """The rates of those that come into view, by a U-Net of three levels."""

    def __init__(self, config: EntriesConfig) -> None:
        super().__init__()
        self.config = config
        w1, w2, w3, d = config.width, config.width * 2, config.width * 3, 64
        self.condition = nn.Sequential(nn.Linear(len(PLACES) + 8, d), nn.GELU(), nn.Linear(d, d), nn.GELU())
        self.stem = nn.Conv2d(CHANNELS, w1, 4, stride=2, padding=1)
        self.block1 = Block(w1, d, normed=False)  # a norm costs more than a convolution at this resolution
        self.down2 = nn.Conv2d(w1, w2, 4, stride=2, padding=1)
        self.block2 = Block(w2, d)
        self.down3 = nn.Conv2d(w2, w3, 4, stride=2, padding=1)
        self.block3 = nn.ModuleList(Block(w3, d, dilation) for dilation in (1, 2, 4))
        self.up2 = nn.Conv2d(w3, w2, 1)
        self.block4 = Block(w2, d)
        self.up1 = nn.Conv2d(w2, w1, 1)
        self.block5 = Block(w1, d, normed=False)
        self.rate = nn.Conv2d(w1, len(GROUPS), 1)
        nn.init.zeros_(self.rate.weight)
        nn.init.constant_(self.rate.bias, -9.0)  # type: ignore[arg-type]  # a fresh one expects nobody
        # As the images are, or each call would turn the weights.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor, condition: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logarithms of the rates [road users a cell] (b, len(GROUPS), i, j) of the cells of the view, and the features
        of the three levels for `features`; `image` of `view_image`, `condition` of `conditions`.
        """
        blocks = (self.block1, self.block2, *self.block3, self.block4, self.block5)
        kind = self.stem.weight.dtype
        films = self._films(blocks, self.condition(condition.to(kind)))
        x1 = self.block1(self.stem(image.to(kind)), *next(films))
        x2 = self.block2(self.down2(x1), *next(films))
        x3 = self.down3(x2)
        for block in self.block3:
            x3 = block(x3, *next(films))
        x2 = self.block4(x2 + F.interpolate(self.up2(x3), size=x2.shape[-2:]), *next(films))
        x1 = self.block5(x1 + F.interpolate(self.up1(x2), size=x1.shape[-2:]), *next(films))
        rim = self.config.margin // 2
        ni, nj = (side // (2 * POOL) for side in self.config.grid.shape[:2])
        rate = self.rate(x1)[..., rim : rim + ni, rim : rim + nj]
        return rate.float().clamp(-20, 3), (x1, x2, x3)

    @staticmethod
    def _films(blocks: Sequence[nn.Module], condition: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """What scales and shifts each block's channels, of all of them by one product."""
        films = [cast(nn.Linear, block.film) for block in blocks]
        out = F.linear(
            condition, *(torch.cat([getattr(film, name) for film in films]) for name in ("weight", "bias"))
        )
        parts = out[..., None, None].split(
            [film.out_features // 2 for film in films for _ in range(2)], dim=1
        )
        scales = torch.cat(parts[::2], dim=1) + 1
        return zip(scales.split([film.out_features // 2 for film in films], dim=1), parts[1::2], strict=True)

    def features(self, levels: tuple[Tensor, ...], row: Tensor, cell: Tensor) -> Tensor:
        """The features (..., f) of cells (..., 2) of the frames `row` (...)."""
        parts, at = [], cell + self.config.margin // 2
        for depth, x in enumerate(levels):
            # Levels of odd sides are one cell short at the far edge.
            last = constant(tuple(side - 1 for side in x.shape[2:]), cell.device, torch.int64)
            i, j = torch.minimum(at >> depth if depth else at, last).unbind(-1)
            parts.append(x.permute(0, 2, 3, 1)[row, i, j])
        return torch.cat(parts, dim=-1).float()

    @staticmethod
    def conditions(prompt: Tensor, vehicles: Tensor, setting: Setting) -> Tensor:
        """What holds for a whole frame, for `forward`: prompt (b, 2), see `ScenePrompt.tensor`; vehicles (b,), how many
        are in view; and its setting.
        """
        place, asked = one_hot(prompt[:, 0].long() + 1, len(PLACES) + 1), prompt[:, 1]
        given = ~asked.isnan()
        asked = torch.where(given, asked, vehicles)
        numbers = (
            asked / 20,
            given.float(),
            vehicles / 20,
            (asked - vehicles) / 10,
            setting.speed.float() / 10,
            setting.share,
            setting.led,
        )
        return torch.cat((place, torch.stack(numbers, dim=1)), dim=1)
