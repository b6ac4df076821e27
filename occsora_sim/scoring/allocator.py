"""What the C library's allocator holds of memory that is free."""

from __future__ import annotations

import ctypes
from typing import Any


def give_back() -> None:
    """Return to the system what is free. For a report's loop, after each chunk of a generated world.

    A chunk's tensors of a few MB each leave the heap of glibc full of holes, which it keeps: over hundreds of chunks
    the process grows to several times what is in use. This costs some 30 ms, a chunk of the full grid more than a
    second. Where the C library is another one nothing happens.
    """
    if _TRIM is not None:
        _TRIM(0)


def _find_trim() -> Any | None:
    """`malloc_trim`; None where the C library has none."""
    try:
        return getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):  # no such library, as on Windows
        return None


_TRIM = _find_trim()
