"""What a step of the environment costs: steps a second, operations, waits, seconds by part, memory."""

from __future__ import annotations

import importlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from occsora_sim.envs.vector import DriveVectorEnv
    from occsora_sim.scenes.start import Start
    from occsora_sim.worlds.diffusion import DiffusionWorld

WORLD_PARTS = {"_move": "traffic", "_entering": "traffic", "_draw": "ground", "step": "voxels"}
"""Methods of the generated world, and the part that each belongs to; what of a step none of the others takes makes
voxels.
"""

ENV_PARTS = {"advance": "score", "look": "observation"}
"""Functions that `envs.simulation` calls."""


def step_figures(
    world: DiffusionWorld, starts: Sequence[Start], batches: Sequence[int], steps: int, seed: int
) -> dict[str, Any]:
    """Of the vector environment whose output stays on the device: its rates, and what a step costs; as the JSON of
    `bench` holds them.

    Operations and waits are counted with a budget of one tile, or of none where ground is drawn ahead: without a budget
    they depend on what is known of the ground.
    """
    from occsora_sim.commands.ceilings import machine_ceilings, used_by

    rows: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    waits, ceilings = 0, machine_ceilings(str(world.device))
    for batch in batches:
        env = open_batch(world, starts, batch, seed)
        budget = int(world.ahead == 0) if world.tiles is None else world.tiles
        fixed = open_batch(world.variant(tiles=budget), starts, batch, seed)
        counts[str(batch)] = operations(fixed)
        rate, used = steps_per_second(env, steps), used_by(partial(env.step, coasting(env)))
        rows.append(
            {
                "batch": batch,
                "steps_per_second": rate,
                "seconds_by_part": seconds_by_part(env, max(1, steps // 4)),
                "flops_per_step": used["flops"] / batch,  # of one environment, like the bytes
                "bytes_per_step": used["bytes"] / batch,
                "share_of_matrix_product": used["flops"] * rate / batch / ceilings["flops_per_second"],
                "share_of_copy": used["bytes"] * rate / batch / ceilings["bytes_per_second"],
                "memory_mb": memory_per_environment(env),
            }
        )
        waits = max(waits, host_waits(fixed))
    return {
        "env": rows, "operations_per_step": counts, "host_waits_per_step": waits, "ceilings": ceilings,
    }  # fmt: skip


def open_batch(world: DiffusionWorld, starts: Sequence[Start], batch: int, seed: int) -> DriveVectorEnv:
    """A batch of episodes as a learner on the device has it, begun and once stepped: the first step is slower."""
    from occsora_sim.envs.vector import DriveVectorEnv

    env = DriveVectorEnv(
        num_envs=batch, world=world, scenes=list(starts), output="torch", observation="policy", seconds=1e6, pool=1,
    )  # fmt: skip
    env.reset(seed=seed)
    env.step(coasting(env))
    return env


def coasting(env: DriveVectorEnv) -> torch.Tensor:
    """Actions that keep speed and heading."""
    import torch

    return torch.zeros(env.num_envs, 2, device=env.simulation.device)


def steps_per_second(env: DriveVectorEnv, steps: int) -> float:
    """Steps a second, over all rows."""
    actions = coasting(env)

    def work() -> None:
        for _ in range(steps):
            env.step(actions)

    return steps * env.num_envs / timed(work, str(env.simulation.device))


def operations(env: DriveVectorEnv) -> int:
    """How many operations, views left out, a step gives to the device."""
    from occsora_sim.watch import Operations

    actions = coasting(env)
    with without_looking(env), Operations() as counted:
        env.step(actions)
    return counted.count


def host_waits(env: DriveVectorEnv) -> int:
    """How often a step makes the host wait for the device."""
    from occsora_sim.watch import Watch, mark

    actions = coasting(env)
    world: Any = env.simulation.world
    mark(env.episodes.state, vars(env.episodes), world.model, world.ground, actions)
    with without_looking(env), Watch() as watch:
        env.step(actions)
    return len(watch.waits)


@contextmanager
def without_looking(env: DriveVectorEnv) -> Iterator[None]:
    """While it lasts, a CPU does what a device does that is not the host."""
    episodes: Any = env.episodes
    before, episodes.looks = episodes.looks, False
    yield
    episodes.looks = before


def memory_per_environment(env: DriveVectorEnv) -> float:
    """What an episode under way holds on the device [MB]; what several share is shared out."""
    from occsora_sim.watch import tensors_in

    held = (one.untyped_storage() for one in tensors_in(env.episodes.state))
    return sum({part.data_ptr(): part.nbytes() for part in held}.values()) / 1e6 / env.num_envs


def seconds_by_part(env: DriveVectorEnv, steps: int) -> dict[str, float]:
    """Seconds that a step of the batch spends in each part; the device is waited for after each, so together they are
    more than an undisturbed step.
    """
    spent: dict[str, float] = defaultdict(float)
    actions, wait = coasting(env), waiting(env)
    simulation = importlib.import_module("occsora_sim.envs.simulation")
    with timing(env.simulation.world, WORLD_PARTS, spent, wait), timing(simulation, ENV_PARTS, spent, wait):
        begin = time.perf_counter()
        for _ in range(steps):
            env.step(actions)
        wait()
        whole = time.perf_counter() - begin
    spent["other"] = whole - sum(spent.values())
    return {part: seconds / steps for part, seconds in spent.items()}


@contextmanager
def timing(
    owner: Any, parts: dict[str, str], spent: dict[str, float], wait: Callable[[], None]
) -> Iterator[None]:
    """While it lasts, what calls of `owner`'s methods or functions take is added to the part that each belongs to; what
    one of them calls is not counted twice. Those that it lacks are left out.
    """
    open_calls: list[float] = []  # seconds of calls within each call under way

    def timed(call: Callable[..., Any], part: str) -> Callable[..., Any]:
        def wrapper(*args: Any, **options: Any) -> Any:
            open_calls.append(0.0)
            wait()
            begin = time.perf_counter()
            try:
                return call(*args, **options)
            finally:
                wait()
                seconds = time.perf_counter() - begin
                spent[part] += seconds - open_calls.pop()
                if open_calls:
                    open_calls[-1] += seconds

        return wrapper

    before = {name: vars(owner).get(name) for name in parts if hasattr(owner, name)}
    for name in before:
        setattr(owner, name, timed(getattr(owner, name), parts[name]))
    try:
        yield
    finally:
        for name, own in before.items():
            if own is None:
                delattr(owner, name)
            else:
                setattr(owner, name, own)


def waiting(env: DriveVectorEnv) -> Callable[[], None]:
    """A call that waits for the environment's device."""
    import torch

    device = env.simulation.device
    return (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)


def timed(work: Callable[[], Any], device: str) -> float:
    """Seconds that `work` takes, with what it started on a GPU."""
    import torch

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    wait()
    begin = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - begin
