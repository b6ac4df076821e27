"""World-model weights on disk: a checkpoint with its configuration, recipe and the name of its data."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from occsora_sim.checkpoint import read_header, read_outline, read_tensors, write_tensors
from occsora_sim.device import check_device
from occsora_sim.errors import CheckpointError, OccSoraError
from occsora_sim.models.occsora_world import OccSora, OccSoraConfig
from occsora_sim.models.world_model import WorldModel, WorldModelConfig
from occsora_sim.quantities import written

Config = WorldModelConfig | OccSoraConfig
"""A configuration of either family; its type says which."""

Model = TypeVar("Model", WorldModel, OccSora)

CLOSED_LOOP, OPEN_LOOP = "closed-loop", "open-loop"
"""The families: worlds that are driven, chunk after chunk, and OccSora's own, which draws whole clips."""

LARGEST_SIZE, MOST_CODES, MOST_PARAMETERS = 4096, 1 << 15, 1 << 28
"""Bounds of what a file may say of its model: any number of its configuration, codes, parameters."""


def _plain(value: Any) -> Any:
    """Dataclasses and paths as JSON types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return json.loads(json.dumps(value, default=str))


def save_world_model(
    model: WorldModel | OccSora, path: Path, *, kind: str, trained_on: str, recipe: dict[str, Any]
) -> None:
    """Write a model; `kind` is "traffic" (of a closed-loop model what moves and enters), "tokenizer" (of OccSora's
    own all but the denoiser) or "world_model".

    The latter is stored in half precision, for its size; it is computed in float32 again.
    """
    tensors = {k: _stored(v, kind) for k, v in model.state_dict().items() if _kept(k, kind)}
    recipe = {name: _plain(part) for name, part in recipe.items()}
    header = {
        "kind": kind,
        "family": OPEN_LOOP if isinstance(model, OccSora) else CLOSED_LOOP,
        "config": model.config.to_header(),
        "trained_on": trained_on,
        "recipe": recipe,
    }
    write_tensors(path, tensors, header)


def _stored(tensor: Tensor, kind: str) -> Tensor:
    """A finished model's floats as float16; what is still to be trained from stays as it is."""
    return tensor.half() if kind == "world_model" and tensor.is_floating_point() else tensor


def read_config(path: Path, *, kind: str = "world_model") -> Config:
    """The configuration of a weights file of either family; no tensor is read.

    Raises:
        CheckpointError: the file is unusable or of another kind.

    """
    return _config(path, read_header(path, kind=kind))


def load_world_model(
    path: Path, *, kind: str = "world_model", device: str = "cpu"
) -> tuple[WorldModel, dict[str, Any]]:
    """A closed-loop model and its header.

    Raises:
        CheckpointError: the file is unusable, of another kind, or of OccSora's own model.

    """
    config = read_config(path, kind=kind)
    if not isinstance(config, WorldModelConfig):
        raise CheckpointError(
            f"{path}: holds weights of the preset {config.preset!r}, which draws whole clips and cannot be driven; "
            "give weights of a closed-loop preset"
        )
    return _filled(WorldModel, config, path, kind, device)


def with_traffic(model: WorldModel, path: Path) -> WorldModel:
    """`model` with the traffic model and the entries of weights that `train traffic` wrote.

    Raises:
        CheckpointError: they are unusable or of another kind.

    """
    device = next(model.parameters()).device
    other, _ = load_world_model(path, kind="traffic", device=str(device))
    model.traffic, model.entries = other.traffic, other.entries
    model.config = replace(model.config, traffic=other.config.traffic, entries=other.config.entries)
    return model


def load_occsora(
    path: Path, *, kind: str = "world_model", device: str = "cpu", preset: str | None = None
) -> tuple[OccSora, dict[str, Any]]:
    """OccSora's own model and its header.

    Raises:
        CheckpointError: the file is unusable, of another kind, of a closed-loop model, or not of the wanted
            `preset`.

    """
    config = read_config(path, kind=kind)
    if preset is not None and config.preset != preset:
        raise CheckpointError(
            f"{path}: holds weights of the preset {config.preset!r}, not {preset!r}; choose one or the other"
        )
    if not isinstance(config, OccSoraConfig):
        raise CheckpointError(
            f"{path}: holds weights of the closed-loop preset {config.preset!r}; "
            "give weights of the preset 'paper'"
        )
    return _filled(OccSora, config, path, kind, device)


def _kept(name: str, kind: str) -> bool:
    """Whether a file of this kind holds the tensor `name`."""
    if kind == "traffic":
        return name.startswith(("traffic.", "entries."))
    return kind == "world_model" or not name.startswith("denoiser.")


def _config(path: Path, header: dict[str, Any]) -> Config:
    family, config = header.get("family"), header.get("config", {})
    try:
        _check_sizes(config)
        if family == CLOSED_LOOP:
            return WorldModelConfig.from_header(config)
        if family == OPEN_LOOP:
            return OccSoraConfig.from_header(config)
    except OccSoraError as error:
        raise CheckpointError(f"{path}: {_line(error)}") from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(
            f"{path}: its configuration cannot be ({_line(error)}); get it again"
        ) from error
    raise CheckpointError(
        f"{path}: holds a {written(family)} model, which this release does not know; update it"
    )


def _check_sizes(config: Any, name: str = "configuration") -> None:
    """See that no number of a configuration is larger than one of any model.

    Raises:
        ValueError: one is.

    """
    if isinstance(config, dict | list):
        for key, value in config.items() if isinstance(config, dict) else enumerate(config):
            _check_sizes(value, str(key))
    elif isinstance(config, int | float):
        most = MOST_CODES if name in ("codes", "patterns", "lovasz_points", "loss_patches") else LARGEST_SIZE
        if isinstance(config, bool) != (name == "patches") or not abs(config) <= most:
            raise ValueError(f"{name} is {written(config)}")


@contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Within the block, modules of this thread get `count` parameters at most. They are counted before they are filled,
    when they take no memory yet.

    Raises:
        ValueError: they would get more.

    """
    left, thread = count, threading.get_ident()

    def register(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal left
        if threading.get_ident() == thread:
            left -= parameter.numel()
            if left < 0:
                raise ValueError(f"more than {count} parameters")

    hook = register_module_parameter_registration_hook(register)
    try:
        yield
    finally:
        hook.remove()


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()[:200]


def _filled(
    family: type[Model], config: Any, path: Path, kind: str, device: str
) -> tuple[Model, dict[str, Any]]:
    """A model of this configuration with the file's weights, in evaluation; and the file's header."""
    held = sum(math.prod(part.shape) for part in read_outline(path)[0].values())
    try:
        with _at_most(
            held if kind == "world_model" else MOST_PARAMETERS
        ):  # other files hold a part of a model
            model = family(config)
    except (TypeError, ValueError, ArithmeticError, RuntimeError, MemoryError) as error:
        raise CheckpointError(
            f"{path}: its tensors do not fit its configuration ({_line(error)}); get it again"
        ) from error
    tensors, header = read_tensors(path, kind=kind)
    wanted = {k for k in model.state_dict() if _kept(k, kind)}
    if wanted != set(tensors):
        odd = sorted(wanted ^ set(tensors))[0]
        raise CheckpointError(
            f"{path}: its tensors do not fit its configuration (first odd one: {odd}); get it again"
        )
    try:
        model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: its tensors do not fit its configuration ({_line(error)}); get it again"
        ) from error
    return model.to(check_device(device)).eval(), header
