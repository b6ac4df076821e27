"""The files that a training goes on from: written whole, the one before kept, and damage found before any is used."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from occsora_sim.checkpoint import read_tensors, write_tensors
from occsora_sim.errors import CheckpointError
from occsora_sim.training.report import say

_SUM = "crc32"


def resume_file(folder: Path) -> Path:
    """What the stage whose folder this is goes on from."""
    return folder / "resume.safetensors"


def previous_file(folder: Path) -> Path:
    """The checkpoint before that."""
    return folder / "previous.safetensors"


def pool_file(folder: Path) -> Path:
    """What a stage learns from, drawn once."""
    return folder / "pool.safetensors"


def write(path: Path, tensors: dict[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a header with a checksum of both, whole or not at all.

    Raises:
        CheckpointError: the file cannot be written.

    """
    write_tensors(path, tensors, {**header, _SUM: _checksum(tensors, header)})


def write_next(folder: Path, tensors: dict[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write a checkpoint; the one of before becomes the previous one. At any moment one of them is there and whole.

    Raises:
        CheckpointError: the file cannot be written; those that are there are untouched.

    """
    resume, following = resume_file(folder), folder / "next.safetensors"
    write(following, tensors, header)
    if resume.exists():
        os.replace(resume, previous_file(folder))
    os.replace(following, resume)


def read(path: Path, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file that `write` wrote, or one without a checksum, as earlier trainings wrote them.

    Raises:
        CheckpointError: the file is damaged, or foreign, of another version or kind.

    """
    tensors, header = read_tensors(path, kind=kind)
    found = header.pop(_SUM, None)
    if found is not None and found != _checksum(tensors, header):
        raise CheckpointError(f"{path}: damaged (its checksum is wrong); get it again") from ValueError(found)
    return tensors, header


def kept(
    path: Path, *, kind: str, source: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and header of a file that was made of the same `source`; none where it has to be made: it is not there,
    is of another source, or is damaged, which a line says.

    Raises:
        CheckpointError: it is another thing.

    """
    if not path.exists():
        return None
    if fault := _fault(path, kind):
        say(f"{fault}; it is made again")
        return None
    tensors, header = read(path, kind=kind)
    return (tensors, header) if header.get("source") == dict(source) else None


def repair(folder: Path) -> None:
    """See that what a stage goes on from is sound, and say in a line what is not.

    The checkpoint before takes the place of a damaged one; without one before, the stage begins anew. A damaged pool is
    removed, to be drawn again, and so is what was being written when a process was killed.

    Raises:
        CheckpointError: both checkpoints are damaged, or are no checkpoints of this release.

    """
    for left in [*folder.glob(".*.tmp.safetensors"), folder / "next.safetensors"]:
        left.unlink(missing_ok=True)
    pool, resume, previous = pool_file(folder), resume_file(folder), previous_file(folder)
    if pool.exists() and (fault := _fault(pool, "pool")):
        say(f"{fault}; it is drawn again")
        pool.unlink()
    fault = _fault(resume, "resume") if resume.exists() else "missing"
    if fault and previous.exists():
        if (worse := _fault(previous, "resume")) is not None:
            raise CheckpointError(f"{fault}, and so is the one before: {worse}; delete both to begin anew")
        if resume.exists():
            say(f"{fault}; going on from the checkpoint before it")
        os.replace(previous, resume)
    elif fault and resume.exists():
        say(f"{fault}; there is none before it, beginning anew")
        resume.unlink()


def _fault(path: Path, kind: str) -> str | None:
    """What is wrong with a damaged file; one that is another thing is refused."""
    try:
        read(path, kind=kind)
    except CheckpointError as error:
        if error.__cause__ is None:  # nothing failed: it was read, and is not ours
            raise
        return str(error).rpartition(";")[0]
    return None


def _checksum(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> int:
    total = zlib.crc32(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        total = zlib.crc32(f"{name} {value.dtype} {tuple(value.shape)}".encode(), total)
        total = zlib.crc32(value.flatten().view(torch.uint8).numpy(), total)  # type: ignore[arg-type]
    return total
