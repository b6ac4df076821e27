"""The Gymnasium environments. Importing `occsora_sim` registers their ids."""

from __future__ import annotations

DRIVE_ID = "OccSora/Drive-v0"
"""The driving environment, by `gymnasium.make` and, in one batch, by `gymnasium.make_vec`."""


def register_environments() -> None:
    """Register `OccSora/Drive-v0` with Gymnasium; the classes are named by strings and imported when made."""
    import gymnasium

    if DRIVE_ID not in gymnasium.registry:
        gymnasium.register(
            id=DRIVE_ID,
            entry_point="occsora_sim.envs.drive:DriveEnv",
            vector_entry_point="occsora_sim.envs.vector:DriveVectorEnv",
            order_enforce=False,  # the environment says itself, and says better, that it was not reset
        )
