"""`occsora-sim bench`: the world, the environment, the voxeliser, the paper's sampler and peers on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from occsora_sim.commands.output import output_file, write_json
from occsora_sim.commands.paper_cost import paper_seconds
from occsora_sim.commands.peers import peer_rates
from occsora_sim.commands.step_costs import step_figures, timed
from occsora_sim.device import check_device
from occsora_sim.errors import ConfigurationError

if TYPE_CHECKING:
    from occsora_sim.scenes.start import Start
    from occsora_sim.worlds.diffusion import DiffusionWorld

SPEED = 5.0
"""Of the cars that are driven straight on [m/s]."""

VOXELISED = (1, 8, 64)
"""Frames that the voxeliser is asked for at once."""

FRAMES = 320
"""Frames that it makes of each scene while it is timed."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `bench`.

    Attributes:
        weights: weights of the generated world; by default the shipped ones.
        preset: time this closed-loop preset with untrained weights instead; they cost the same time.
        scenes: where the cars start: a file, a folder or `traffic:A-B`; by default the shipped scenes.
        batches: how many worlds, and environments, at once.
        ahead: how far along its route the ground of a world is drawn before it is timed [m], as the environment's
            option says; up to 200.
        chunks: how many chunks each measurement takes the mean of.
        skip_paper: leave out OccSora's own model at full size (it takes some minutes on a CPU).
        device: cpu, cuda, cuda:1...
        seed: of the starts and the worlds.
        json: also write the figures to this file.

    """

    weights: Path | None = None
    preset: str | None = None
    scenes: str | None = None
    batches: tuple[int, ...] = (1, 16)
    ahead: float = 0.0
    chunks: int = 8
    skip_paper: bool = False
    device: str = "cpu"
    seed: int = 0
    json: Path | None = None

    def __post_init__(self) -> None:
        if not self.batches or min(*self.batches, self.chunks, 1) < 1:
            raise ConfigurationError(f"--batches {self.batches} and --chunks {self.chunks} must be 1 or more")
        if self.weights is not None and self.preset is not None:
            raise ConfigurationError(
                "--weights and --preset exclude each other; the weights name their preset"
            )


def run(options: Options) -> None:
    """Measure, print a table, write --json."""
    from rich.console import Console
    from rich.table import Table

    check_device(options.device)
    if options.json:
        output_file(options.json)
    figures = measure(options)
    table = Table("what", "figure", title=f"preset {figures['preset']} on {figures['device']}")
    for row in figures["world"]:
        table.add_row(f"world, batch {row['batch']}", f"{row['frames_per_second']:.2f} frames/s")
    table.add_row("environment alone, arrays", f"{figures['env_steps_per_second']:.2f} steps/s")
    for row in figures["env"]:
        operations = figures["operations_per_step"][str(row["batch"])]
        table.add_row(
            f"environment, tensors, batch {row['batch']}",
            f"{row['steps_per_second']:.2f} steps/s, {operations} operations a step",
        )
        shares = (f"{part} {1e3 * seconds:.1f}" for part, seconds in row["seconds_by_part"].items())
        table.add_row("", f"ms a step: {', '.join(shares)}")
        of = f"{row['share_of_matrix_product']:.1%} of the matrix product, {row['share_of_copy']:.1%} of the copy"
        table.add_row("", of)
        used = f"{row['flops_per_step'] / 1e9:.2f} GFLOP, {row['bytes_per_step'] / 1e6:.0f} MB at most"
        table.add_row("", f"a step of one environment: {used}")
    ceilings = figures["ceilings"]
    table.add_row(
        "the machine: matrix product, copy",
        f"{ceilings['flops_per_second'] / 1e9:.0f} GFLOP/s, {ceilings['bytes_per_second'] / 1e9:.1f} GB/s",
    )
    for row in figures["peers"]:
        said = f"{row['steps_per_second']:.1f} steps/s" if "steps_per_second" in row else row["failed"]
        table.add_row(f"{row['package']} {row['version']}, {row['env']}, one", said)
    table.add_row("host waits a step", f"{figures['host_waits_per_step']}")
    table.add_row("memory of an environment", f"{figures['env'][-1]['memory_mb']:.1f} MB")
    for row in figures["voxeliser"]:
        table.add_row(
            f"voxeliser, batch {row['batch']}, {'one core' if options.device == 'cpu' else options.device}",
            f"{row['frames_per_second']:.0f} frames/s",
        )
    if not options.skip_paper:
        source = figures["paper_estimated_from"]
        table.add_row(
            f"preset {source['preset']}, {source['diffusion_steps']} steps (multiplied up from "
            f"{source['steps_timed']} measured ones)",
            f"{figures['paper_seconds_per_clip']:.0f} s per clip of {source['frames']} frames",
        )
        table.add_row("world, batch 1, against it", f"{figures['speedup_vs_paper']:.0f} times the frames/s")
    Console().print(table)
    if options.json:
        write_json(options.json, figures)


def measure(options: Options) -> dict[str, Any]:
    """All figures, as the JSON file holds them."""
    from occsora_sim.envs.config import DriveConfig
    from occsora_sim.envs.drive import DriveEnv
    from occsora_sim.envs.starts import open_starts

    world = open_world(options)
    starts = open_starts(
        DriveConfig(world=world, scenes=options.scenes, starts=max(options.batches), seed=options.seed), world
    )
    rates = [
        {"batch": batch, "frames_per_second": world_rate(world, starts, batch, options)}
        for batch in options.batches
    ]
    env = DriveEnv(world=world, scenes=starts, seconds=1e6)
    figures: dict[str, Any] = {
        "device": options.device,
        "preset": world.model.config.preset,
        "world": rates,
        "env_steps_per_second": env_rate(env, options),
        **step_figures(world, starts, options.batches, options.chunks, options.seed),
        "voxeliser": voxeliser_rates(starts, options),
        "peers": peer_rates(seed=options.seed),
        "paper_seconds_per_clip": None,
        "speedup_vs_paper": None,
    }
    if not options.skip_paper:
        seconds, source = paper_seconds(options.device, options.seed)
        alone = world_rate(
            world, starts, 1, options
        )  # again, close in time: the two share the machine's mood
        figures |= {
            "paper_seconds_per_clip": seconds,
            "speedup_vs_paper": alone * seconds / source["frames"],
            "paper_estimated_from": source,
        }
    return figures


def open_world(options: Options) -> DiffusionWorld:
    """The world to time: of a weights file, or an untrained one of a preset."""
    from occsora_sim.worlds.diffusion import DiffusionWorld, load_world

    if options.preset is None:
        return load_world(options.weights, device=options.device, ahead=options.ahead)
    from occsora_sim.models.world_model import WorldModel
    from occsora_sim.presets import closed_loop_preset

    return DiffusionWorld(
        WorldModel(closed_loop_preset(options.preset)).to(options.device), ahead=options.ahead
    )


def world_rate(world: DiffusionWorld, starts: Sequence[Start], batch: int, options: Options) -> float:
    """Frames per second, over all worlds of a batch that drive straight on."""
    import torch

    rows = [starts[row % len(starts)] for row in range(batch)]
    state = world.reset(rows, [options.seed + row for row in range(batch)])
    from occsora_sim.grid import FRAME_SECONDS

    frames = world.frames_per_chunk
    ahead = torch.zeros(batch, frames, 3)
    ahead[..., 0] = SPEED * FRAME_SECONDS * torch.arange(1, frames + 1)
    state = world.step(state, ahead)  # the first call of a kind is slower

    def work() -> None:
        nonlocal state
        for _ in range(options.chunks):
            state = world.step(state, ahead)

    return options.chunks * batch * frames / timed(work, options.device)


def env_rate(env: Any, options: Options) -> float:
    """Environment steps per second, one episode at a time, coasting; what `reset` takes is left out."""
    import numpy as np

    action = np.zeros(env.action_space.shape, dtype=np.float32)
    env.reset(seed=options.seed)
    ended, seconds = False, 0.0

    def work() -> None:
        nonlocal ended
        _, _, terminated, truncated, _ = env.step(action)
        ended = terminated or truncated

    for _ in range(options.chunks):
        if ended:
            env.reset()
        seconds += timed(work, options.device)
    return options.chunks / seconds


def voxeliser_rates(starts: Sequence[Start], options: Options) -> list[dict[str, Any]]:
    """Frames per second of the voxeliser at full grid, from many of the scenes' egos and times.

    On a CPU: of one core, the time that others keep it busy not counted. Voxel sequences have nothing to voxelise.
    """
    import torch

    from occsora_sim.scenes.scene import Scene
    from occsora_sim.scenes.voxeliser import Voxeliser, frames_per_second

    scenes = {id(start.source[0]): start.source[0] for start in starts}
    voxelisers = [
        Voxeliser(scene, device=options.device) for scene in scenes.values() if isinstance(scene, Scene)
    ]
    if not voxelisers:
        return []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rates = []
        for batch in VOXELISED:
            each = [
                frames_per_second(one, batch, repeats=max(1, FRAMES // batch), seed=options.seed)
                for one in voxelisers
            ]
            mean = len(each) / sum(1 / rate for rate in each)
            rates.append({"batch": batch, "scenes": len(each), "frames_per_second": mean})
        return rates
    finally:
        torch.set_num_threads(threads)
