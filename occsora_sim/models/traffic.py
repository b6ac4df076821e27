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

from occsora_sim.constants import constant
from occsora_sim.errors import CheckpointError, ConfigurationError
from occsora_sim.geometry import rotate
from occsora_sim.grid import DYNAMIC, FRAME_SECONDS
from occsora_sim.models.ground_crop import CROP, KINDS, RAY_FEATURES, rays
from occsora_sim.models.one_hot import one_hot
from occsora_sim.models.traffic_head import TokenHead
from occsora_sim.models.traffic_motion import STANDS
from occsora_sim.road_users import HISTORY, NEVER, RoadUsers
from occsora_sim.scene_prompt import PLACES

_SCALES = (20.0, 20.0, 1.0, 1.0, 2.0, 10.0, 1.0, 1.0, 5.0, 5.0, 2.0, 5.0)
"""What the features of a pair are divided by."""

_EDGES = len(_SCALES)
_PATCH = 4  # cells along the edge of the squares that a crop is first looked at in

_ROLES = len(DYNAMIC) + 2
_ROLE_OF = tuple(DYNAMIC.index(label) if label in DYNAMIC else len(DYNAMIC) for label in range(256))
"""Of each label what a token is: the last but one is none of DYNAMIC, the last the ego."""

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
        place_dropout: share of windows trained with the kind of place left open.

    """

    hidden: int = 128
    depth: int = 4
    heads: int = 4
    edge: int = 32
    history: int = HISTORY
    place_dropout: float = 0.3

    def __post_init__(self) -> None:
        if self.hidden % self.heads or self.depth < 1 or self.history < 2:
            raise ConfigurationError(
                f"traffic model: hidden {self.hidden} must be a multiple of heads {self.heads}, depth {self.depth} at "
                f"least 1, history {self.history} at least 2"
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

    def forward(self, x: Tensor, edges: Tensor, hidden: Tensor) -> Tensor:
        """Tokens x (b, n, c), edges (b, n, n, e), hidden (b, n, n) bool -> (b, n, c)."""
        b, n, c = x.shape
        # Heads first: the products with `to_key` and `to_value` are one for each head, however many worlds there are.
        q, k, v = (
            self.qkv(x).view(b, n, 3, self.heads, -1).permute(2, 3, 0, 1, 4).contiguous().unbind(0)
        )  # (h, b, n, d)
        asks = torch.bmm(q.flatten(1, 2), self.to_key.to(q.dtype)).unflatten(1, (b, n))  # (h, b, n, e)
        logits = q @ k.mT + (asks.permute(1, 2, 0, 3) @ edges.mT).permute(2, 0, 1, 3)
        logits = (logits * q.shape[-1] ** -0.5).masked_fill(hidden, -3e4)
        share = logits.float().softmax(dim=-1).to(v.dtype)  # (h, b, n, n)
        about = (share.permute(1, 2, 0, 3) @ edges).permute(2, 0, 1, 3).flatten(1, 2)  # (h, b n, e)
        mixed = share @ v + torch.bmm(about, self.to_value.to(v.dtype)).unflatten(1, (b, n))
        return self.out(mixed.permute(1, 2, 0, 3).reshape(b, n, c))


class Block(nn.Module):
    """Attention and an MLP, each normalised before and added to what it reads."""

    def __init__(self, hidden: int, heads: int, edge: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.attention = RelativeAttention(hidden, heads, edge)
        self.mlp = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden))

    def forward(self, x: Tensor, edges: Tensor, hidden: Tensor) -> Tensor:
        """As `RelativeAttention.forward`."""
        x = x + self.attention(self.norm1(x), edges, hidden)
        return x + self.mlp(self.norm2(x))


class TrafficModel(nn.Module):
    """Draws the next frame of all road users."""

    def __init__(self, config: TrafficConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden
        self.crop = nn.Sequential(
            nn.Conv2d(KINDS, 48, _PATCH, _PATCH), nn.GELU(),
            nn.Conv2d(48, 64, 3, 2, 1), nn.GELU(),
            nn.Flatten(), nn.Linear(64 * 5 * 5, hidden),
        )  # fmt: skip
        self.own = nn.Sequential(nn.Linear(self.features, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.place = nn.Embedding(len(PLACES) + 1, hidden)  # the last is open
        self.pair = nn.Sequential(nn.Linear(_EDGES, 64), nn.GELU(), nn.Linear(64, config.edge))
        self.blocks = nn.ModuleList(Block(hidden, config.heads, config.edge) for _ in range(config.depth))
        self.norm = nn.LayerNorm(hidden)
        self.head = TokenHead(hidden)
        self.way = nn.Linear(
            hidden, 2 * AHEAD
        )  # asked in training alone: where it will be, which says more than a step

    @property
    def features(self) -> int:
        """Numbers that a token knows of itself and of how far its ground goes on."""
        h = self.config.history
        return 2 * (h - 1) + 3 + 3 + _ROLES + h + (h - 2) + 2 + RAY_FEATURES

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
        known = torch.cat((self.describe(users, ego), rays(crops)), dim=-1)
        x = self.own(known) + self.look(crops)
        x = x + self.place(place.remainder(len(PLACES) + 1))[:, None]
        pair, hidden = self.pair(edges), ~seen
        for block in self.blocks:
            x = block(x, pair, hidden)
        return self.norm(x).float()

    def look(self, crops: Tensor) -> Tensor:
        """What is seen in crops (b, n, *CROP) uint8: the network `crop` of their kinds, (b, n, hidden).

        Its first convolution goes over squares side by side, so it is a sum of rows of a table: of each cell of a
        square the one that its kind picks.
        """
        first, (i, j), cells = self.crop[0], (side // _PATCH for side in CROP), _PATCH**2
        assert isinstance(first, nn.Conv2d) and first.bias is not None
        squares = crops.reshape(-1, i, _PATCH, j, _PATCH).transpose(2, 3).reshape(-1, cells).int()
        rows = constant(tuple(range(0, cells * KINDS, KINDS)), crops.device, torch.int32)
        table = first.weight.permute(2, 3, 1, 0).reshape(cells * KINDS, -1)
        features = F.embedding_bag(squares + rows, table, mode="sum") + first.bias
        image = features.view(-1, i, j, features.shape[-1]).permute(0, 3, 1, 2)
        return self.crop[1:](image).view(*crops.shape[:2], -1)

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
        went, travel = came * known, users.travel
        slow = travel < STANDS
        still = (went < STANDS).all(-1) & slow
        # Who sets off came 8 cm and then 35; in metres that is lost beside those who come 5 m. So is who brakes.
        far = torch.cat((went, travel[..., None]), dim=-1)
        paces, thirds = torch.log1p(far / STANDS) / 4, far / 3
        changes = (came.diff(dim=-1) * known[..., 1:] * known[..., :-1] * 4).clamp(-4, 4)
        size = users.size / constant((5.0, 2.0, 2.0), ego.device)
        role = constant(_ROLE_OF, ego.device, torch.int64)[users.label.int()].masked_fill(ego, _ROLES - 1)
        now = thirds[..., -1:], slow[..., None], still[..., None]
        # Who has stood for three seconds is like who is parked, but for this.
        never = users.rested >= NEVER
        rests = torch.stack((torch.log1p(users.rested.float()).masked_fill(never, 0.0) / 4, never), dim=-1)
        parts = thirds[..., :-1], known, *now, size, one_hot(role, _ROLES), paces, changes, rests
        return torch.cat(parts, dim=-1)

    def pairs(self, users: RoadUsers) -> tuple[Tensor, Tensor]:
        """How road users see each other: features (b, n, n, _EDGES) of j in the frame of i, and which (b, n, n) do."""
        now, length = users.now, users.size[..., 0]
        offset = now[:, None] - now[:, :, None]
        # From where it was, as in a rollout: the speed of this instant, which a recording may hold, betrays who speeds
        # up, and a model that has learned to read that never does so by itself.
        step = (now - users.pose[:, :, -2])[..., :2] / FRAME_SECONDS
        velocity = torch.where(users.present[:, :, -2, None], step, users.velocity)
        faster = velocity[:, None] - velocity[:, :, None]
        # Both, turned into the frame of i.
        both = rotate(torch.stack((offset[..., :2], faster), dim=-2), -now[:, :, None, None, 2]).float()
        place, speed = both.unbind(-2)
        soon = place + speed * 2 * FRAME_SECONDS
        far = torch.stack((place, soon), dim=-2).norm(dim=-1)  # now, and soon
        away, logs, turn = far[..., :1], torch.log1p(far), offset[..., 2:].float()
        gap = away - ((length[:, :, None] + length[:, None]) / 2)[..., None]
        parts = (
            place, place / (away + 1), logs[..., :1], gap, turn.cos(), turn.sin(), speed, logs[..., 1:],
            length[:, None, :, None].expand_as(away),
        )  # fmt: skip
        return torch.cat(parts, dim=-1) / constant(_SCALES, now.device), away[..., 0] < _FAR
