"""What the machine can do, and how much of it a step uses: arithmetic beside a matrix product, bytes beside a copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from occsora_sim.commands.step_costs import timed

REPEATS = 3
"""Of each measurement the fastest counts."""


def machine_ceilings(device: str) -> dict[str, float]:
    """Of a large float32 matrix product the operations a second, and of a large copy the bytes read and written a
    second; as the step has them: the same device, threads and precision.
    """
    large = device != "cpu"
    left = torch.rand(*[8192 if large else 1024] * 2, device=device)
    from_here = torch.zeros((1 << 30) if large else (1 << 26), dtype=torch.uint8, device=device)
    to_there, product = torch.empty_like(from_here), torch.empty_like(left)

    def rate(work: Callable[[], Any], amount: float) -> float:
        work()
        return amount / min(timed(work, device) for _ in range(REPEATS))

    return {
        "flops_per_second": rate(lambda: torch.mm(left, left, out=product), 2.0 * len(left) ** 3),
        "bytes_per_second": rate(lambda: to_there.copy_(from_here), 2.0 * from_here.nbytes),
    }


class _Bytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations read and write; those of views are none."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            held = (one for one in tree_leaves((args, kwargs, out)) if isinstance(one, torch.Tensor))
            self.count += sum(one.nbytes for one in held)
        return out


def used_by(work: Callable[[], Any]) -> dict[str, float]:
    """Arithmetic operations of the matrix products in `work`, and bytes that all its operations read and write. What an
    operation picks from counts whole, so of the bytes it is a bound from above.
    """
    with FlopCounterMode(display=False) as flops:
        work()
    with _Bytes() as moved:
        work()
    return {"flops": float(flops.get_total_flops()), "bytes": float(moved.count)}
