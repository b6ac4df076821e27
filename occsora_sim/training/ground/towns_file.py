"""Towns' static ground in a file, so that it is rasterised once for many trainings."""

from __future__ import annotations

import json
from pathlib import Path

from occsora_sim.checkpoint import read_tensors, write_tensors
from occsora_sim.training.ground.towns import GroundTowns


def save_towns(towns: GroundTowns, path: Path) -> None:
    """Write towns: their palette, columns and the egos' poses and routes."""
    write_tensors(
        path, towns.tensors, {"kind": "ground_towns", "names": json.dumps(towns.names), "cell": towns.cell}
    )


def load_towns(path: Path) -> GroundTowns:
    """Read towns.

    Raises:
        CheckpointError: the file is unusable or of another kind.

    """
    tensors, header = read_tensors(path, kind="ground_towns")
    return GroundTowns(tensors, json.loads(header["names"]), float(header["cell"]))
