"""Watching torch at work: calls that make the host wait for the device, and operations that the device is given.

Where there is no GPU, waits are told by what is called: a tensor counts as `there` when it was made with a device
named, moved to one, or computed from what is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from occsora_sim.device import watched

TO_THE_HOST = (
    "item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "_local_scalar_dense",
    "__array__", "nonzero", "argwhere", "unique", "unique_consecutive", "masked_select", "bincount",
    "repeat_interleave", "tensor", "new_tensor", "equal", "allclose", "is_nonzero",
)  # fmt: skip
"""What needs a value, or a number of values, on the host; or copies from there and waits for it."""


def moves_to_cpu(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """A copy to the host. (Where there is no GPU a device of a CPU is told by how it was named: `torch.device`.)"""
    return name == "to" and any(one == "cpu" for one in (*args, *kwargs.values()) if isinstance(one, str))


def by_mask(name: str, args: Sequence[Any]) -> bool:
    """Indexing by a mask, whose result is as large as the mask has ones: x[mask], x[mask] = values of a tensor."""
    if name not in ("__getitem__", "__setitem__", "index", "index_put", "index_put_", "where"):
        return False
    if name == "where":
        return len(args) == 1
    return any(isinstance(one, torch.Tensor) and one.dtype == torch.bool for one in tree_leaves(args[1:2]))


def by_list(name: str, args: Sequence[Any]) -> bool:
    """Indexing by a list of numbers, which is copied from the host."""
    return name in ("__getitem__", "__setitem__") and any(isinstance(one, list) for one in _entries(args[1]))


def _entries(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


class Watch(TorchFunctionMode):
    """Counts the calls of torch, and notes those that mix tensors of two places or wait for the device.

    Attributes:
        calls: how many.
        mixed: names of those that mixed.
        waits: names of those that waited.

    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.mixed: list[str] = []
        self.waits: list[str] = []

    def __enter__(self) -> Watch:
        self._token = watched.set(True)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        watched.reset(self._token)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        there = [getattr(one, "there", False) for one in given]
        if name != "__get__":  # of a property, as .shape
            self.calls += 1
            if any(there) and any(not yes and one.ndim for yes, one in zip(there, given, strict=True)):
                self.mixed.append(name)
            waits = name in TO_THE_HOST or moves_to_cpu(name, args, kwargs) or by_mask(name, args)
            made_from_a_list = name == "tensor" and kwargs.get("device") is not None
            if made_from_a_list or (any(there) and (waits or by_list(name, args))):
                self.waits.append(name)
        out = func(*args, **kwargs)
        named = kwargs.get("device") is not None or (
            name == "to" and any(isinstance(one, torch.device) for one in args)
        )
        for one in tree_leaves(out):
            if isinstance(one, torch.Tensor) and (named or any(there)):
                setattr(one, "there", True)  # noqa: B010
        return out


class Operations(TorchDispatchMode):
    """Counts the operations that are given to the device, by name; views are none."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """How many there were."""
        return self.names.total()

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.names[str(func)] += 1
        return func(*args, **(kwargs or {}))


def tensors_in(held: Any) -> Iterator[torch.Tensor]:
    """Every tensor in a value: in dataclasses, modules, dictionaries, lists and tuples, however deep."""
    if isinstance(held, torch.Tensor):
        yield held
    elif isinstance(held, torch.nn.Module):
        yield from (*held.parameters(), *held.buffers())
    elif is_dataclass(held):
        for entry in fields(held):
            yield from tensors_in(getattr(held, entry.name))
    elif isinstance(held, dict | list | tuple):
        for one in held.values() if isinstance(held, dict) else held:
            yield from tensors_in(one)


def mark(*held: Any) -> None:
    """Let every tensor in some values count as `there`."""
    for one in tensors_in(held):
        setattr(one, "there", True)  # noqa: B010
