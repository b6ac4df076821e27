"""Checkpoints: safetensors with the configuration in the metadata. They load alone and cannot run code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from occsora_sim.errors import CheckpointError

FORMAT = "occsora-sim/checkpoint"
VERSION = 1


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    """Write tensors and a JSON-serialisable header; under a temporary name first, so no half file can be left.

    Raises:
        CheckpointError: the file cannot be written.

    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    metadata = {"format": FORMAT, "version": str(VERSION), "header": json.dumps(header)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(save(_apart(tensors), metadata))
            file.flush()
            os.fsync(file.fileno())  # a disk that is full may say so only here
        os.replace(temporary, path)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written ({error.strerror or error}); make room or choose another place"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """On the CPU, none a slice or sharing its memory with another, which the format refuses."""
    own, seen = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage()
        if memory.data_ptr() in seen or memory.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        seen.add(memory.data_ptr())
        own[name] = tensor
    return own


def read_tensors(path: Path, *, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and header of a checkpoint of the given `kind`.

    Raises:
        CheckpointError: the file is missing, truncated, foreign, of another version or of another kind.

    """
    return _read(path, kind, tensors=True)


def read_header(path: Path, *, kind: str) -> dict[str, Any]:
    """The header alone, which costs the same for every size of file; raises as `read_tensors`."""
    return _read(path, kind, tensors=False)[1]


def _read(path: Path, kind: str, *, tensors: bool) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such weights file; give the path of a .safetensors file of occsora-sim"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(
                    f"{path}: was not written by occsora-sim; give weights that `occsora-sim train` made"
                )
            if metadata.get("version") != str(VERSION):
                raise CheckpointError(
                    f"{path}: checkpoint version {metadata.get('version')}, this release reads {VERSION}; train it anew"
                )
            header = json.loads(metadata["header"])
            if header.get("kind") != kind:
                raise CheckpointError(
                    f"{path}: holds a {header.get('kind')!r} checkpoint, a {kind!r} one is needed here"
                )
            return {name: file.get_tensor(name) for name in file.keys() if tensors}, header
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: damaged or not a safetensors file ({reason}); get it again"
        ) from error
