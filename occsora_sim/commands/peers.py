"""Other driving environments on the same machine, where they are installed: highway-env and MetaDrive."""

from __future__ import annotations

import importlib.util
import time
from importlib import metadata
from typing import Any

PEERS = {
    "highway-env": ("highway_env", "highway-fast-v0"),
    "metadrive-simulator": ("metadrive", "MetaDriveEnv"),
}
"""By the name of the package: its module, and the environment that is timed, with its own defaults."""

STEPS = 20
"""That are timed; an episode that ends begins anew, which is not."""


def peer_rates(steps: int = STEPS, seed: int = 0) -> list[dict[str, Any]]:
    """Steps a second of one environment of each that is installed, idle actions; one that does not start says why."""
    rows: list[dict[str, Any]] = []
    for package, (module, name) in PEERS.items():
        if importlib.util.find_spec(module) is None:
            continue
        row: dict[str, Any] = {"package": package, "version": metadata.version(package), "env": name}
        try:
            row["steps_per_second"] = _rate(_open(package, name), steps, seed)
        except Exception as error:  # somebody else's code, whose faults are not ours to end on
            row["failed"] = " ".join(str(error).split())[:120]
        rows.append(row)
    return rows


def _open(package: str, name: str) -> Any:
    if package == "highway-env":
        import gymnasium as gym
        import highway_env  # noqa: F401  (registers its ids)

        return gym.make(name)
    from metadrive.envs import MetaDriveEnv

    return MetaDriveEnv({"log_level": 50})


def _rate(env: Any, steps: int, seed: int) -> float:
    env.reset(seed=seed)
    action = env.action_space.sample() if not hasattr(env.action_space, "n") else 1  # highway-env: 1 idles
    spent = 0.0
    try:
        for _ in range(steps):
            begin = time.perf_counter()
            _, _, terminated, truncated, _ = env.step(action)
            spent += time.perf_counter() - begin
            if terminated or truncated:
                env.reset()
    finally:
        env.close()
    return steps / spent
