"""Is the trajectory prompt obeyed? Manoeuvres from the same start, and the motion that the frames themselves show.

The ego's motion is registered from what stands still in a chunk's first and last frame, without any pose. A generated
world keeps what it has once shown in a record and looks it up along the prompt, so the registration checks that whole
chain (prompt, frames, record, writing, reading) and the ground that is newly drawn; it does not prove that the network
alone would have kept the street in place.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from occsora_sim.cluster import Alone, Crew, Told, batches
from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import compose, relative
from occsora_sim.grid import FRAME_SECONDS, FREE
from occsora_sim.scenes.start import Start
from occsora_sim.scoring.allocator import give_back
from occsora_sim.scoring.motion_error import (
    MAX_DEGREES,
    MAX_VOXELS,
    MIN_REGISTERED,
    chunk_motion,
    motion_error,
)
from occsora_sim.scoring.registration import Registration, RegistrationConfig, register
from occsora_sim.vehicle import Vehicle, bicycle_rollout
from occsora_sim.worlds.protocol import World

MANOEUVRES = ("straight", "left", "right", "brake", "keep")
"""The prompts; see `manoeuvre`."""

SWAPS = {"straight": "left", "left": "right", "right": "brake", "brake": "straight"}
"""Whose prompt each motion is held against in the swap test. "keep" is left out: it may truly be "straight"."""

TURN_SPEED, TURN_LATERAL, TURN_CURVATURE = 5.0, 2.5, 0.12
"""Turns: the speed aimed at [m/s], the lateral acceleration [m/s2] and the curvature [1/m] that bound them."""

CONTROL_SECONDS = 3.0
"""Length of a rollout [s]."""

MIN_UNLIKE = 0.05
"""Worlds differ when at least this share of the voxels that either of them fills is unlike in every pair."""


def manoeuvre(name: str, speed: Tensor, turn: Tensor, frames: int, vehicle: Vehicle) -> Tensor:
    """Ego poses that a manoeuvre asks for, driven by the kinematic bicycle.

    "straight" pulls away at 1.5 m/s2 with the wheels straight; "left" and "right" bring the speed to TURN_SPEED at 2
    m/s2 and turn as tightly as TURN_LATERAL and TURN_CURVATURE allow; "brake" brakes at 4 m/s2; "keep" goes on at the
    present speed and turn.

    Args:
        name: one of MANOEUVRES.
        speed: (b,) [m/s].
        turn: (b,) present yaw rate [rad/s].
        frames: how many poses, FRAME_SECONDS apart.
        vehicle: the car and its limits.

    Returns:
        (b, frames, 3) in the present ego frame.

    Raises:
        ConfigurationError: there is no such manoeuvre.

    """
    pulls = {"straight": 1.5, "brake": -4.0, "keep": 0.0}
    if name not in MANOEUVRES:
        raise ConfigurationError(f"manoeuvre {name!r} is unknown; there are {', '.join(MANOEUVRES)}")
    pose, poses = torch.zeros(len(speed), 3, dtype=speed.dtype, device=speed.device), []
    kept = torch.where(speed > 0.5, turn / speed.clamp(min=0.5), 0.0).clamp(-TURN_CURVATURE, TURN_CURVATURE)
    for _ in range(frames):
        if name in ("left", "right"):
            pull = ((TURN_SPEED - speed) / FRAME_SECONDS).clamp(-2.0, 2.0)
            tight = (TURN_LATERAL / speed.clamp(min=1.0) ** 2).clamp(max=TURN_CURVATURE)
            curvature = tight if name == "left" else -tight
        else:
            pull = torch.full_like(speed, pulls[name])
            curvature = kept if name == "keep" else torch.zeros_like(speed)
        steering = torch.atan(vehicle.wheelbase * curvature)
        moved, speeds = bicycle_rollout(vehicle, speed, pull[:, None], steering[:, None])
        pose, speed = compose(pose, moved[:, 0]), speeds[:, 0]
        poses.append(pose)
    return torch.stack(poses, dim=1)


def starting_motion(start: Start) -> tuple[float, float]:
    """Speed [m/s] and yaw rate [rad/s] over the last frame of a start's history; 0 where it has one frame alone."""
    if len(start.ego_pose) < 2:
        return 0.0, 0.0
    before, now = start.ego_pose[-2:].double()
    moved = relative(before, now)
    return float(moved[0].clamp(min=0.0)) / FRAME_SECONDS, float(moved[2]) / FRAME_SECONDS


def control_report(
    world: World,
    starts: Sequence[Start],
    *,
    seconds: float = CONTROL_SECONDS,
    seed: int = 0,
    batch: int = 4,
    vehicle: Vehicle | None = None,
    config: RegistrationConfig | None = None,
    on_start: Callable[[int], None] | None = None,
    crew: Crew[World] | None = None,
) -> dict[str, Any]:
    """Roll each start under every manoeuvre; compare the registered motion of each chunk with its prompt.

    "obeyed": for every manoeuvre the median error over its chunks is below one voxel and MAX_DEGREES, and at least
    MIN_REGISTERED of them can be registered. "swap_fails": the same motions held against the prompt of another
    manoeuvre (SWAPS) pass that check nowhere; it is false too where too little is registered to tell. "unlike": for
    each pair of manoeuvres but "keep", the share of voxels that differ among those that either world fills in its last
    frame, mean over the starts; "differ" where all of them reach MIN_UNLIKE.

    Args:
        world: any world.
        starts: where to begin; all manoeuvres of a start share its seed.
        seconds: length of a rollout [s], rounded to whole chunks.
        seed: of the first start; the next ones count on.
        batch: starts rolled at once.
        vehicle: the car that the prompts are driven by.
        config: of the registration.
        on_start: told how many starts are done.
        crew: who rolls; by default this process.

    Raises:
        ConfigurationError: no start, or less than a chunk.

    """
    f = world.frames_per_chunk
    chunks = round(seconds / (f * FRAME_SECONDS))
    if not starts or chunks < 1 or batch < 1:
        raise ConfigurationError(
            f"control: {len(starts)} starts, {seconds:g} s and batch {batch}; give a start or more, at least "
            f"{f * FRAME_SECONDS:g} s, and a batch of 1 or more"
        )
    measured: dict[str, list[Registration]] = {name: [] for name in MANOEUVRES}
    asked: dict[str, list[Tensor]] = {name: [] for name in MANOEUVRES}
    unlike: dict[str, list[float]] = {}
    units = [
        ([starts[row] for row in rows], [seed + row for row in rows]) for rows in batches(len(starts), batch)
    ]
    work = partial(_roll, chunks=chunks, vehicle=vehicle or Vehicle(), config=config)
    done = 0
    for (part, _), (found, wanted, differing) in zip(
        units, (crew or Alone(world)).map(work, units), strict=True
    ):
        for name in MANOEUVRES:
            measured[name] += found[name]
            asked[name] += wanted[name]
        for pair, share in differing.items():
            unlike.setdefault(pair, []).extend(share)
        done += len(part)
        if on_start:
            on_start(done)
    voxel = world.grid.voxel
    seen = {name: Registration.cat(measured[name]) for name in MANOEUVRES}
    prompt = {name: torch.cat(asked[name]) for name in MANOEUVRES}
    table = {name: motion_error(seen[name], prompt[name], voxel) for name in MANOEUVRES}
    swapped = {f"{a} as {b}": motion_error(seen[a], prompt[b], voxel) for a, b in SWAPS.items()}
    enough = all(error["registered"] >= MIN_REGISTERED for error in swapped.values())
    shares = {pair: sum(values) / len(values) for pair, values in unlike.items()}
    return {
        "starts": len(starts),
        "seconds": chunks * f * FRAME_SECONDS,
        "chunk_seconds": f * FRAME_SECONDS,
        "bounds": {
            "metres": MAX_VOXELS * voxel,
            "degrees": MAX_DEGREES,
            "registered": MIN_REGISTERED,
            "unlike": MIN_UNLIKE,
        },
        "manoeuvres": table,
        "obeyed": all(error["obeyed"] for error in table.values()),
        "swapped": swapped,
        "swap_fails": enough and not any(error["obeyed"] for error in swapped.values()),
        "unlike": shares,
        "differ": min(shares.values()) >= MIN_UNLIKE,
    }


def _roll(
    world: World,
    unit: tuple[Sequence[Start], Sequence[int]],
    told: Told,
    *,
    chunks: int,
    vehicle: Vehicle,
    config: RegistrationConfig | None,
) -> tuple[dict[str, list[Registration]], dict[str, list[Tensor]], dict[str, list[float]]]:
    """Starts with their seeds under every manoeuvre, in one batch: by manoeuvre what is registered of each chunk and
    what its prompt asked for, and how unlike their last frames are (`_unlike`).
    """
    (part, seeds), f, names = unit, world.frames_per_chunk, list(MANOEUVRES)
    measured: dict[str, list[Registration]] = {name: [] for name in names}
    asked: dict[str, list[Tensor]] = {name: [] for name in names}
    state = world.reset(part, seeds)
    state = world.select(state, [row for _ in names for row in range(len(part))])
    motion = torch.tensor([starting_motion(start) for start in part], dtype=torch.float64)
    prompts = torch.cat([manoeuvre(n, motion[:, 0], motion[:, 1], f * chunks, vehicle) for n in names])
    poses = torch.cat((torch.zeros_like(prompts[:, :1]), prompts), dim=1)
    wanted, last = chunk_motion(poses, f), state.occupancy[:, -1]
    for k in range(chunks):
        trajectory = relative(poses[:, k * f, None], poses[:, k * f + 1 : (k + 1) * f + 1])
        state = world.step(state, trajectory.float())
        shown = register(last, state.occupancy[:, -1], world.grid, config)
        last = state.occupancy[:, -1]
        give_back()
        for index, name in enumerate(names):
            rows = slice(index * len(part), (index + 1) * len(part))
            measured[name].append(shown.rows(rows))
            asked[name].append(wanted[rows, k])
    return measured, asked, _unlike(last.unflatten(0, (len(names), len(part))))


def _unlike(frames: Tensor) -> dict[str, list[float]]:
    """For each pair of manoeuvres, of frames (m, b, x, y, z): the share of differing voxels of each start."""
    named = {name: frame for name, frame in zip(MANOEUVRES, frames, strict=True) if name in SWAPS}
    shares = {}
    for (a, one), (b, other) in itertools.combinations(named.items(), 2):
        filled = ((one != FREE) | (other != FREE)).flatten(1).sum(dim=1).clamp(min=1)
        shares[f"{a}, {b}"] = ((one != other).flatten(1).sum(dim=1) / filled).tolist()
    return shares


def control_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """The report as rows of text: prompt, error [m], error [degree], registered [%], obeyed."""
    rows = []
    for name, error in {**report["manoeuvres"], **report["swapped"]}.items():
        values = ("-" if error[key] is None else f"{error[key]:.3f}" for key in ("metres", "degrees"))
        rows.append((name, *values, f"{100 * error['registered']:.0f}", "yes" if error["obeyed"] else "no"))
    return rows


def print_control_report(report: dict[str, Any]) -> None:
    """Print the table of a report, and its verdicts."""
    from rich.console import Console
    from rich.table import Table

    console, bounds = Console(), report["bounds"]
    title = (
        f"Control: {report['starts']} starts of {report['seconds']:g} s; median error per chunk of "
        f"{report['chunk_seconds']:g} s, bounds {bounds['metres']:g} m and {bounds['degrees']:g} degrees"
    )
    table = Table(
        "motion (as prompt of)", "error [m]", "error [degree]", "registered [%]", "obeyed", title=title
    )
    for row in control_rows(report):
        table.add_row(*row)
    console.print(table)
    pair, share = min(report["unlike"].items(), key=lambda item: item[1])
    console.print(
        f"obeyed: {report['obeyed']}; a swapped prompt fails: {report['swap_fails']}; the worlds differ: "
        f"{report['differ']} (least: {pair}, {100 * share:.0f} % of the voxels)"
    )
