"""Forked processes: a child computes with one thread, because the threads that it seems to have are its parent's."""

from __future__ import annotations

import os
import sys


def _one_thread() -> None:
    """Let torch compute without its pool of threads.

    A fork copies the pool's bookkeeping and none of its threads, so the first computation that is shared out among
    them would wait for ever. The setting is torch's own remedy (`torch.utils.data` makes it in every worker).
    """
    torch = sys.modules.get("torch")
    set_num_threads = getattr(
        torch, "set_num_threads", None
    )  # None: torch was being imported, or is not used
    if set_num_threads is not None:
        set_num_threads(1)


def register_fork_handler() -> None:
    """See to it that environments can be stepped in forked processes (Gymnasium's `AsyncVectorEnv`, pools)."""
    if hasattr(os, "register_at_fork"):  # elsewhere processes are always begun anew
        os.register_at_fork(after_in_child=_one_thread)
