"""Drives for a long time and prints whether anything grows: steps of each world, scenes scored, workers killed.

python scripts/soak.py steps --steps 5000                       # every world, with the shipped weights
python scripts/soak.py scenes --scenes traffic:500000-500063    # evaluate world, scene after scene
python scripts/soak.py workers --workers 64 --kills 10          # environments in processes that are killed at random

Memory is resident memory, that of SUMO's processes and of workers included, after what is free was given back. It is
flat where it stays within 5 % of what it was after a fifth of the time. Exit status: 0 flat, 1 not.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import occsora_sim  # noqa: F401  (registers the environment)
from occsora_sim.scoring.world_report import evaluate_world

FLAT = 0.05
"""Share that memory may grow by."""

LOST = (EOFError, BrokenPipeError, ConnectionResetError)
"""What Gymnasium's AsyncVectorEnv raises when one of its processes is gone."""


def megabytes(processes: Sequence[int] = ()) -> float:
    """Resident memory of this process and of `processes` [MB]."""
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", int)(0)  # what is free goes back to the system
    page = os.sysconf("SC_PAGE_SIZE")
    pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in (os.getpid(), *processes))
    return sum(pages) * page / 1e6


def verdict(what: str, seconds: float, memory: Sequence[float]) -> bool:
    """Print a line about a series of memory readings [MB], and say whether it is flat."""
    before, most = memory[len(memory) // 5], max(memory[len(memory) // 5 :])
    flat = most <= (1 + FLAT) * before
    growth = f"{before:.0f} MB, at most {most:.0f} MB after it ({100 * (most / before - 1):+.1f} %)"
    print(f"{what}: {seconds:.0f} s, {growth}: {'flat' if flat else 'GROWS'}", flush=True)
    return flat


def drive(env: gym.Env, steps: int, processes: Callable[[], Sequence[int]]) -> list[float]:
    """Drive for so many steps at random, a new episode after each; memory at twenty instants [MB]."""
    rng, memory, over = np.random.default_rng(0), [], True
    for step in range(steps):
        if over:
            env.reset(seed=step)
        _, _, terminated, truncated, _ = env.step(rng.uniform((-0.4, -0.05), (0.6, 0.05)).astype(np.float32))
        over = terminated or truncated
        if (step + 1) % max(1, steps // 20) == 0:
            memory.append(megabytes(processes()))
    return memory


def soak_steps(worlds: Sequence[str], steps: int, options: dict[str, Any]) -> bool:
    """Environment steps in each of the worlds."""
    flat = []
    for name in worlds:
        own = {**options, "weights": None} if name != "diffusion" else options
        env, begin = gym.make("OccSora/Drive-v0", world=name, **own), time.monotonic()
        world = env.unwrapped.simulation.world  # type: ignore[attr-defined]
        memory = drive(env, steps, getattr(world, "processes", list))
        flat.append(verdict(f"{name}, {steps} steps", time.monotonic() - begin, memory))
        env.close()
    return all(flat)


def soak_scenes(scenes: str, windows: int, weights: Path | None) -> bool:
    """Forecasts of one scene after another, as `evaluate world` scores them."""
    from occsora_sim.scenes.source import open_scenes
    from occsora_sim.worlds.diffusion import load_world

    opened, memory, begin = open_scenes(scenes), [], time.monotonic()
    print(f"{len(opened)} scenes opened: {megabytes():.0f} MB", flush=True)
    evaluate_world(
        load_world(weights),
        opened,
        windows_per_scene=windows,
        on_window=lambda done: memory.append(megabytes()),
    )
    return verdict(f"{len(opened)} scenes, {len(memory)} windows", time.monotonic() - begin, memory)


def soak_workers(workers: int, kills: int, between: int, make: Callable[[], gym.Env]) -> bool:
    """Environments in processes, `between` steps before each kill of one at random. When one is gone, which is told in
    a line, all of them begin anew: what the others hold belongs to the same batch.
    """
    rng, memory, replaced, begin = np.random.default_rng(0), [], 0, time.monotonic()
    for kill in range(kills + 1):
        envs = gym.vector.AsyncVectorEnv([make] * workers)
        pids = [int(process.pid or 0) for process in envs.processes]
        try:
            envs.reset(seed=0)
            for _ in range(between):
                envs.step(rng.uniform(-0.1, 0.1, envs.action_space.shape).astype(np.float32))
            memory.append(megabytes(pids))
            if kill < kills:
                os.kill(pids[rng.integers(workers)], signal.SIGKILL)
                envs.step(np.zeros(envs.action_space.shape, np.float32))
        except LOST:
            gone = wait(
                [process.sentinel for process in envs.processes]
            )  # a pipe may break before its process ends
            lost = next(k for k, process in enumerate(envs.processes) if process.sentinel in gone)
            print(
                f"environment {lost} of {workers}: its process {pids[lost]} was killed; all begin anew",
                flush=True,
            )
            replaced += 1
        envs.close(terminate=True)
    flat = verdict(
        f"{workers} workers, {kills} killed, {replaced} replaced", time.monotonic() - begin, memory
    )
    return flat and replaced == kills


def main() -> int:
    """Read the options and soak."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("steps", "scenes", "workers"))
    parser.add_argument("--worlds", nargs="+", default=["replay", "traffic", "diffusion"])
    parser.add_argument("--weights", type=Path, help="of the generated world; the shipped ones if left out")
    parser.add_argument("--scenes", help="a file, a folder or traffic:A-B; the shipped scenes if left out")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--windows", type=int, default=4, help="that are forecast of each scene")
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--between", type=int, default=10, help="steps before each kill")
    given = parser.parse_args()
    if given.what == "scenes":
        return not soak_scenes(given.scenes or "traffic:500000-500063", given.windows, given.weights)
    options = {"scenes": given.scenes, "weights": given.weights}
    if given.what == "steps":
        return not soak_steps(given.worlds, given.steps, options)
    shared = gym.make("OccSora/Drive-v0", world="replay", scenes=given.scenes, observation="policy")
    starts = list(shared.unwrapped.simulation.starts)  # type: ignore[attr-defined]  # read once, before the processes begin
    return not soak_workers(
        given.workers, given.kills, given.between,
        lambda: gym.make("OccSora/Drive-v0", world="replay", scenes=starts, observation="policy"),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
