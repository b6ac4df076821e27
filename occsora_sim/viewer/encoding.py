"""A rollout as the compact data that the page decodes: columns as codes into a palette, deflated."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from occsora_sim.errors import SceneError
from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.rendering.rollout import Rollout, header_of, kind_of

LONGEST = 80
"""Letters of a text that the page shows at most."""

_MOST_TERMS, _LARGEST = 12, 1e12
_ALIGNED = 8  # typed arrays begin at multiples of their items' size


def pack(meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """JSON values and arrays as one deflated block: the header's length (8 bytes), the header, the arrays.

    The header is `{"meta": meta, "arrays": {name: [dtype, shape, offset from the header's end]}}`; all little-endian.

    Raises:
        SceneError: `meta` holds numbers that are not finite.

    """
    table: dict[str, list[Any]] = {}
    data = bytearray()
    for name, value in arrays.items():
        table[name] = [value.dtype.name, value.shape, len(data)]
        data += np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()
        data += bytes(-len(data) % _ALIGNED)
    try:
        header = json.dumps({"meta": meta, "arrays": table}, allow_nan=False).encode()
    except ValueError as error:
        raise SceneError("rollout: its grid holds numbers that are not finite") from error
    header += b" " * (-len(header) % _ALIGNED)
    return zlib.compress(len(header).to_bytes(8, "little") + header + data, level=6)


def encode_rollout(rollout: Rollout) -> bytes:
    """What the page shows of a rollout, or of a piece of one.

    Raises:
        SceneError: numbers that are not finite.

    """
    palette, codes = column_codes(rollout.occupancy)
    arrays = {
        "palette": palette,
        "codes": codes,
        "ego_pose": rollout.ego_pose.astype(np.float32),
        "planned": rollout.planned.astype(np.float32),
        "route": rollout.route.astype(np.float32),
    }
    if rollout.users is not None:
        users = rollout.users
        arrays |= {
            "user_pose": users.pose, "user_size": users.size, "user_velocity": users.velocity,
            "user_label": users.label, "user_id": users.id.astype(np.float64), "user_valid": users.valid.view(np.uint8),
        }  # fmt: skip
    header = header_of(rollout)
    grid = rollout.grid
    meta = {
        "grid": {"shape": grid.shape, "voxel": grid.voxel, "lower": grid.lower},
        "frame_seconds": FRAME_SECONDS,
        "kind": kind_of(rollout),
        "texts": {
            name: str(header[name])[:LONGEST] for name in ("agent", "name", "seed", "ended") if name in header
        },
        "score": _numbers(header.get("score")),
        "terms": [_numbers(step) for step in rollout.steps],
    }
    return pack(meta, arrays)


def column_codes(occupancy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Occupancy (t, x, y, z) uint8 as a palette of columns (p, z) uint8 and codes (t, x, y), uint8 where they fit."""
    t, x, y, z = occupancy.shape
    columns = occupancy.reshape(-1, z)
    words = np.zeros((len(columns), -(-z // 8) * 8), np.uint8)
    words[:, :z] = columns
    codes = np.zeros(len(columns), np.int64)
    for word in words.view(np.uint64).T:
        _, part = np.unique(word, return_inverse=True)
        _, codes = np.unique(codes * (int(part.max()) + 1) + part, return_inverse=True)
    _, first = np.unique(codes, return_index=True)
    return columns[first], codes.astype(np.min_scalar_type(len(first) - 1)).reshape(t, x, y)


def _numbers(values: Any) -> dict[str, float]:
    """The numbers, finite and of a usual size, of a dictionary that somebody else may have written, by name."""
    if not isinstance(values, Mapping):
        return {}
    found = {
        str(name)[:LONGEST]: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and -_LARGEST < value < _LARGEST
    }
    return dict(list(found.items())[:_MOST_TERMS])
