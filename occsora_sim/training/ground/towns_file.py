"""Places' static ground in a file, so that it is rasterised once however often a training is interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from occsora_sim.checkpoint import read_header, read_tensors, write_tensors
from occsora_sim.training.ground.towns import GroundTowns


def save_towns(towns: GroundTowns, path: Path, source: Mapping[str, Any]) -> None:
    """Write places: their palette, columns and the egos' poses and routes; `source` says what they were made of."""
    header = {
        "kind": "ground_towns",
        "names": json.dumps(towns.names),
        "cell": towns.cell,
        "source": dict(source),
    }
    write_tensors(path, towns.tensors, header)


def load_towns(path: Path) -> GroundTowns:
    """Read places.

    Raises:
        CheckpointError: the file is unusable or of another kind.

    """
    tensors, header = read_tensors(path, kind="ground_towns")
    return GroundTowns(tensors, json.loads(header["names"]), float(header["cell"]))


def kept_towns(path: Path, source: Mapping[str, Any], make: Callable[[], GroundTowns]) -> GroundTowns:
    """The places of `path` where these were made of the same `source`; else those of `make`, which are then kept there.

    Raises:
        CheckpointError: the file is unusable.

    """
    if path.exists() and read_header(path, kind="ground_towns").get("source") == dict(source):
        return load_towns(path)
    towns = make()
    save_towns(towns, path, source)
    return towns
