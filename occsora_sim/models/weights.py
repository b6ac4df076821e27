"""World-model weights on disk: a checkpoint with its configuration, recipe and the name of its data."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from occsora_sim.checkpoint import read_tensors, write_tensors
from occsora_sim.errors import CheckpointError
from occsora_sim.models.world_model import WorldModel, WorldModelConfig


def _plain(value: Any) -> Any:
    """Dataclasses and paths as JSON types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return json.loads(json.dumps(value, default=str))


def save_world_model(
    model: WorldModel, path: Path, *, kind: str, trained_on: str, recipe: dict[str, Any]
) -> None:
    """Write a model; `kind` is "tokenizer" (its denoiser is left out) or "world_model"."""
    tensors = {
        k: v for k, v in model.state_dict().items() if kind == "world_model" or not k.startswith("denoiser.")
    }
    recipe = {name: _plain(part) for name, part in recipe.items()}
    header = {"kind": kind, "config": model.config.to_header(), "trained_on": trained_on, "recipe": recipe}
    write_tensors(path, tensors, header)


def load_world_model(
    path: Path, *, kind: str = "world_model", device: str = "cpu", preset: str | None = None
) -> tuple[WorldModel, dict[str, Any]]:
    """A model and its header.

    Raises:
        CheckpointError: the file is unusable, of another kind, or not of the wanted `preset`.

    """
    tensors, header = read_tensors(path, kind=kind)
    config = WorldModelConfig.from_header(header.get("config", {}))
    if preset is not None and config.preset != preset:
        raise CheckpointError(
            f"{path}: holds weights of the preset {config.preset!r}, not {preset!r}; choose one or the other"
        )
    model = WorldModel(config)
    wanted = {k for k in model.state_dict() if kind == "world_model" or not k.startswith("denoiser.")}
    if wanted != set(tensors):
        odd = sorted(wanted ^ set(tensors))[0]
        raise CheckpointError(
            f"{path}: its tensors do not fit its configuration (first odd one: {odd}); get it again"
        )
    try:
        model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(
            f"{path}: its tensors do not fit its configuration ({reason}); get it again"
        ) from error
    return model.to(device).eval(), header
