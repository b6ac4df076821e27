"""Checkpoints: safetensors with the configuration in the metadata. They load alone and cannot run code."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from occsora_sim.atomic_file import atomic_path
from occsora_sim.bounded_json import parse_json
from occsora_sim.errors import CheckpointError
from occsora_sim.quantities import written

FORMAT = "occsora-sim/checkpoint"
VERSION = 1

MAX_BYTES = 1 << 33
"""Largest file [bytes]; the largest that a training goes on from has 3 GB."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What a file says of a tensor before it is read.

    Attributes:
        dtype: as safetensors names it: "F16", "F32", "U8"...
        shape: its sizes.

    """

    dtype: str
    shape: tuple[int, ...]


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    """Write tensors and a JSON-serialisable header; under a temporary name first, so no half file can be left.

    Raises:
        CheckpointError: the file cannot be written.

    """
    metadata = {"format": FORMAT, "version": str(VERSION), "header": json.dumps(header)}
    with atomic_path(path, CheckpointError) as temporary, temporary.open("wb") as file:
        file.write(save(_apart(tensors), metadata))
        file.flush()
        os.fsync(file.fileno())  # a disk that is full may say so only here


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


def read_outline(path: Path) -> tuple[dict[str, Outline], dict[str, Any]]:
    """The outline of each tensor, by name, and the header of a checkpoint of any kind; no tensor is read. Raises as
    `read_tensors`.
    """
    with _opened(path) as (file, header):
        slices = {name: file.get_slice(name) for name in file.keys()}
        outlines = {
            name: Outline(dtype=part.get_dtype(), shape=tuple(part.get_shape()))
            for name, part in slices.items()
        }
        return outlines, header


def _read(path: Path, kind: str, *, tensors: bool) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with _opened(path) as (file, header):
        if header.get("kind") != kind:
            raise CheckpointError(
                f"{path}: holds a {written(header.get('kind'))} checkpoint, a {kind!r} one is needed here"
            )
        return {name: file.get_tensor(name) for name in file.keys() if tensors}, header


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The open file of a checkpoint of this release, and its header."""
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such weights file; give the path of a .safetensors file of occsora-sim"
        )
    if path.stat().st_size > MAX_BYTES:
        raise CheckpointError(f"{path}: takes more than {MAX_BYTES} bytes, which no weights do; get it again")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(
                    f"{path}: was not written by occsora-sim; give weights that `occsora-sim train` made"
                )
            if metadata.get("version") != str(VERSION):
                raise CheckpointError(
                    f"{path}: checkpoint version {written(metadata.get('version'))}, this release reads {VERSION}; "
                    "train it anew"
                )
            header = parse_json(metadata["header"])
            if not isinstance(header, dict):
                raise ValueError("its header is no table")
            yield file, header
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(
            f"{path}: damaged or not a safetensors file ({reason}); get it again"
        ) from error
