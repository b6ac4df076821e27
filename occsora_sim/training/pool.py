"""A pool: what a stage learns from, drawn once. A frozen dataclass of tensors, kept in a file while the stage runs."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar, get_type_hints

import torch
from torch import Tensor

Pool = TypeVar("Pool")
"""A frozen dataclass whose fields are tensors or dataclasses of tensors."""


def tensors_of(pool: Any) -> dict[str, Tensor]:
    """The tensors of a pool by name; those of a dataclass within it as "field.name"."""
    tensors: dict[str, Tensor] = {}
    for field in fields(pool):
        value = getattr(pool, field.name)
        if isinstance(value, Tensor):
            tensors[field.name] = value
        else:
            tensors |= {f"{field.name}.{name}": part for name, part in tensors_of(value).items()}
    return tensors


def pool_of(kind: type[Pool], tensors: dict[str, Tensor], device: torch.device | str) -> Pool:
    """The pool of type `kind` that `tensors_of` took apart, on `device`."""
    parts: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        if name in tensors:
            parts[name] = tensors[name].to(device)
        else:
            inner = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
            parts[name] = pool_of(hint, inner, device)
    return kind(**parts)
