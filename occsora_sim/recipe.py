"""The options that a training was begun with: a resume file holds them, and no other training goes on from it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from occsora_sim.errors import CheckpointError


def recipe_of(command: str, *options: Any, unused: Collection[str] = ()) -> dict[str, Any]:
    """A command and the fields of its dataclasses of options, as they are given on the command line
    ({"command": "train encoder", "--lr": 6e-4, ...}), in types that JSON knows.

    Dataclasses within them lie flat; a file is known by its name and its content (see `mark_of`). Fields named in
    `unused` are left out.
    """
    recipe: dict[str, Any] = {"command": command}
    for part in options:
        for field in fields(part):
            value = getattr(part, field.name)
            if is_dataclass(value):
                recipe |= recipe_of(command, value, unused=unused)
            elif field.name not in unused:
                recipe[option_name(field.name)] = _plain(value)
    return recipe


def option_name(name: str) -> str:
    """`lr_floor` as it is given on the command line: `--lr-floor`."""
    return "--" + name.replace("_", "-")


def mark_of(path: Path) -> str:
    """A file's name and the start of its SHA-256, so that other weights at the same place are other weights; the path
    where there is no such file.
    """
    if not path.is_file():
        return str(path)
    with path.open("rb") as file:
        return f"{path.name} (sha256 {hashlib.file_digest(file, 'sha256').hexdigest()[:12]})"


def check_recipe(
    path: Path, theirs: Mapping[str, Any] | None, ours: Mapping[str, Any], *, free: Collection[str]
) -> None:
    """See that the training whose resume file is `path` was begun with the options that are given now.

    Args:
        path: for the message.
        theirs: the options that it was begun with; None where the file does not say.
        ours: those that are given now.
        free: names of options that may change on the way.

    Raises:
        CheckpointError: an option differs; the message names it, both values and what to do.

    """
    if theirs is None:
        raise CheckpointError(
            f"{path}: was begun by another version of occsora-sim; use another --out or delete the file"
        )
    for name in dict.fromkeys((*ours, *theirs)):
        was, now = theirs.get(name), ours.get(name)
        if name in free or was == now:
            continue
        begun = f"without {name}" if was is None else f"with {name} {was}"
        given = "without" if now is None else f"with {name} {now}" if was is None else str(now)
        raise CheckpointError(
            f"{path}: was begun {begun}, not {given}; use the same options or another --out"
        )


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return mark_of(value)
    return list(value) if isinstance(value, tuple) else value
