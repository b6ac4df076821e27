"""The device that a command computes on."""

from __future__ import annotations

from occsora_sim.device import check_device

__all__ = ["check_device"]
