"""The Gymnasium environments. Importing `occsora_sim` registers their ids."""

from __future__ import annotations


def register_environments() -> None:
    """Register `OccSora/Drive-v0` with Gymnasium."""
