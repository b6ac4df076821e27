"""Places' static ground in a file, so that it is rasterised once however often a training is interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from occsora_sim.training import checkpoints
from occsora_sim.training.ground.towns import GroundTowns


def save_towns(towns: GroundTowns, path: Path, source: Mapping[str, Any]) -> None:
    """Write places: their palette, columns and the egos' poses and routes; `source` says what they were made of."""
    header = {
        "kind": "ground_towns",
        "names": json.dumps(towns.names),
        "cell": towns.cell,
        "source": dict(source),
    }
    checkpoints.write(path, towns.tensors, header)


def load_towns(path: Path) -> GroundTowns:
    """Read places.

    Raises:
        CheckpointError: the file is unusable or of another kind.

    """
    return _towns(*checkpoints.read(path, kind="ground_towns"))


def kept_towns(path: Path, source: Mapping[str, Any], make: Callable[[], GroundTowns]) -> GroundTowns:
    """The places of `path` where these were made of the same `source`; else those of `make`, which are then kept there.

    Raises:
        CheckpointError: the file is another thing, or cannot be written.

    """
    if found := checkpoints.kept(path, kind="ground_towns", source=source):
        return _towns(*found)
    towns = make()
    save_towns(towns, path, source)
    return towns


def _towns(tensors: dict[str, Tensor], header: Mapping[str, Any]) -> GroundTowns:
    return GroundTowns(tensors, json.loads(header["names"]), float(header["cell"]))
