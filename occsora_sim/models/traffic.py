"""The traffic model: what every road user does in the next frame, drawn together, from what each has seen until now.

A set transformer. Its tokens are road users and the ego, each in its own frame: nothing in it knows where the world's
origin is. Attention knows the others' relative poses (as QCNet and SMART: Zhou et al. 2023, Wu et al. 2024), and each
token sees a crop of the ground. It is causal: the ego is seen where it was, never where its prompt will take it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from occsora_sim.errors import CheckpointError, ConfigurationError
from occsora_sim.geometry import relative, rotate
from occsora_sim.grid import DYNAMIC, FRAME_SECONDS
from occsora_sim.models.ground_crop import KINDS, RAY_FEATURES, rays
from occsora_sim.models.traffic_heads import HEADS
from occsora_sim.models.traffic_motion import STANDS, travel_of
from occsora_sim.road_users import HISTORY, RoadUsers
from occsora_sim.scene_prompt import PLACES

_EDGES = 12
AHEAD = 4
"""Frames ahead that `TrafficModel.way` answers for."""

_FAR = 60.0
"""Road users farther apart than this do not see each other [m]."""


@dataclass(frozen=True, kw_only=True)
class TrafficConfig:
    """Sizes of a traffic model; it travels in the checkpoint.

    Attributes:
        hidden: width of a token.
        depth: blocks.
        heads: attention heads.
        edge: width of the relative features.
        history: poses that a token knows, the present one included.
        head: how an action is drawn, "tokens" or "flow" (`traffic_heads`).
        place_dropout: share of windows trained with the kind of place left open.

    """

    hidden: int = 128
    depth: int = 4
    heads: int = 4
    edge: int = 32
    history: int = HISTORY
    head: str = "tokens"
    place_dropout: float = 0.3

    def __post_init__(self) -> None:
        if self.head not in HEADS or self.hidden % self.heads or self.depth < 1 or self.history < 2:
            raise ConfigurationError(
                f"traffic model: head {self.head!r} must be one of {', '.join(HEADS)}, hidden {self.hidden} a multiple "
                f"of heads {self.heads}, depth {self.depth} at least 1, history {self.history} at least 2"
            )

    def to_header(self) -> dict[str, Any]:
        """A JSON-serialisable form; `from_header` is its inverse."""
        return asdict(self)

    @staticmethod
    def from_header(header: dict[str, Any]) -> TrafficConfig:
        """The configuration stored in a checkpoint.

        Raises:
            CheckpointError: a field is unknown or missing.

        """
        try:
            return TrafficConfig(**header)
        except TypeError as error:
            raise CheckpointError(
                f"weights: the traffic model does not fit this release ({error})"
            ) from error


class RelativeAttention(nn.Module):
    """Attention in which keys and values also depend on the pair: k_ij = k_j + A r_ij, v_ij = v_j + B r_ij.

    Neither is ever made for all pairs: q_i . A r_ij is (A^T q_i) . r_ij, and the sum of a_ij B r_ij is B applied to the
    sum of a_ij r_ij. So a pair costs as many products as r has features, not as many as a token has.
    """

    def __init__(self, hidden: int, heads: int, edge: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.to_key = nn.Parameter(torch.randn(heads, hidden // heads, edge) * edge**-0.5)
        self.to_value = nn.Parameter(torch.randn(heads, edge, hidden // heads) * edge**-0.5)
        self.out = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, edges: Tensor, seen: Tensor) -> Tensor:
        """Tokens x (b, n, c), edges (b, n, n, e), seen (b, n, n) bool -> (b, n, c)."""
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)  # (b, h, n, d)
        asks = torch.einsum("bhnd,hde->bnhe", q, self.to_key.to(q.dtype))
        logits = q @ k.transpose(-1, -2) + (asks @ edges.transpose(-1, -2)).transpose(1, 2)
        logits = (logits * q.shape[-1] ** -0.5).masked_fill(~seen[:, None], -3e4)
        share = logits.float().softmax(dim=-1).to(v.dtype)  # (b, h, n, n)
        about = share.transpose(1, 2) @ edges  # (b, n, h, e)
        mixed = (share @ v).transpose(1, 2) + torch.einsum("bnhe,hed->bnhd", about, self.to_value.to(v.dtype))
        return self.out(mixed.reshape(b, n, c))


class Block(nn.Module):
    """Attention and an MLP, each normalised before and added to what it reads."""

    def __init__(self, hidden: int, heads: int, edge: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.attention = RelativeAttention(hidden, heads, edge)
        self.mlp = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden))

    def forward(self, x: Tensor, edges: Tensor, seen: Tensor) -> Tensor:
        """As `RelativeAttention.forward`."""
        x = x + self.attention(self.norm1(x), edges, seen)
        return x + self.mlp(self.norm2(x))


class TrafficModel(nn.Module):
    """Draws the next frame of all road users."""

    def __init__(self, config: TrafficConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden
        self.crop = nn.Sequential(
            nn.Conv2d(KINDS, 48, 4, 4), nn.GELU(),
            nn.Conv2d(48, 64, 3, 2, 1), nn.GELU(),
            nn.Flatten(), nn.Linear(64 * 5 * 5, hidden),
        )  # fmt: skip
        self.own = nn.Sequential(nn.Linear(self.features, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.place = nn.Embedding(len(PLACES) + 1, hidden)  # the last is open
        self.pair = nn.Sequential(nn.Linear(_EDGES, 64), nn.GELU(), nn.Linear(64, config.edge))
        self.blocks = nn.ModuleList(Block(hidden, config.heads, config.edge) for _ in range(config.depth))
        self.norm = nn.LayerNorm(hidden)
        self.head = HEADS[config.head](hidden)
        self.way = nn.Linear(
            hidden, 2 * AHEAD
        )  # asked in training alone: where it will be, which says more than a step

    @property
    def features(self) -> int:
        """Numbers that a token knows of itself and of how far its ground goes on."""
        return 2 * (self.config.history - 1) + 3 + 3 + len(DYNAMIC) + 2 + RAY_FEATURES

    def forward(self, users: RoadUsers, ego: Tensor, crops: Tensor, place: Tensor) -> Tensor:
        """What each road user has seen.

        Args:
            users: b worlds with n slots.
            ego: (b, n) bool, which slots are the ego: seen, never moved.
            crops: (b, n, *CROP) uint8 kinds of ground around each (`ground_crop`).
            place: (b,) int64, the kind of place (`scene_prompt.PLACES`), -1 where it is open.

        Returns:
            (b, n, hidden) float32; of empty slots without meaning.

        """
        valid = users.valid
        edges, seen = self.pairs(users)
        # Empty slots see themselves alone, so that no row of the softmax is empty.
        seen = seen & valid[:, None] | torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
        kinds = torch.arange(KINDS, device=crops.device, dtype=torch.uint8)[:, None, None]
        images = (crops.flatten(0, 1)[:, None] == kinds).to(self.norm.weight.dtype)
        known = torch.cat((self.describe(users, ego), rays(crops)), dim=-1)
        x = self.own(known) + self.crop(images).view(*valid.shape, -1)
        x = x + self.place(place.remainder(len(PLACES) + 1))[:, None]
        pair = self.pair(edges)
        for block in self.blocks:
            x = block(x, pair, seen)
        return self.norm(x).float()

    def describe(self, users: RoadUsers, ego: Tensor) -> Tensor:
        """What a token knows of itself, in its own frame: (b, n, features - RAY_FEATURES) float32.

        Of its past it knows how far it came in each frame, not how it turned: a model that is shown its last turn
        repeats it, and drives straight on where the road bends (de Haan et al. 2019, "Causal confusion in imitation
        learning"). Where it stands on the road and how it heads say what it needs.
        """
        h = self.config.history
        pose, present = users.pose[:, :, -h:], users.present[:, :, -h:]
        came = (pose[..., 1:, :2] - pose[..., :-1, :2]).norm(dim=-1).float()  # (b, n, h - 1)
        known = (present[..., 1:] & present[..., :-1]).float()
        travel = travel_of(users)
        still = ((came < STANDS) | (known == 0)).all(-1) & (travel < STANDS)
        now = torch.stack((travel / 3, (travel < STANDS).float(), still.float()), dim=-1)
        size = users.size / users.size.new_tensor([5.0, 2.0, 2.0])
        table = torch.full((256,), len(DYNAMIC), dtype=torch.int64, device=ego.device)
        table[list(DYNAMIC)] = torch.arange(len(DYNAMIC), device=ego.device)
        kind = torch.where(ego, len(DYNAMIC) + 1, table[users.label.long()])
        kinds = F.one_hot(kind, len(DYNAMIC) + 2).float()
        return torch.cat((came / 3 * known, known, now, size, kinds), dim=-1)

    def pairs(self, users: RoadUsers) -> tuple[Tensor, Tensor]:
        """How road users see each other: features (b, n, n, _EDGES) of j in the frame of i, and which (b, n, n) do."""
        now = users.now
        other = relative(now[:, :, None], now[:, None]).float()
        speed = rotate((users.velocity[:, None] - users.velocity[:, :, None]).double(),
                       -now[:, :, None, 2].expand(-1, -1, now.shape[1])).float()  # fmt: skip
        x, y, yaw = other.unbind(-1)
        away = torch.hypot(x, y)
        gap = (away - (users.size[:, :, None, 0] + users.size[:, None, :, 0]) / 2) / 10
        soon = other[..., :2] + speed * 2 * FRAME_SECONDS
        parts = (
            x / 20, y / 20, x / (away + 1), y / (away + 1), torch.log1p(away) / 2, gap, yaw.cos(), yaw.sin(),
            speed[..., 0] / 5, speed[..., 1] / 5, torch.log1p(soon.norm(dim=-1)) / 2,
            users.size[:, None, :, 0].expand_as(away) / 5,
        )  # fmt: skip
        return torch.stack(parts, dim=-1), away < _FAR
