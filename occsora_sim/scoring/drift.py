"""Does a long rollout stay a street? The frames of chained rollouts against recorded clips of the same towns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from occsora_sim.cluster import Alone, Crew, batches
from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import CLASSES, DYNAMIC, FRAME_SECONDS
from occsora_sim.models.occupancy_encoder import OccupancyEncoder
from occsora_sim.scenes.recorded import Recorded
from occsora_sim.scenes.start import Start
from occsora_sim.scoring.feature_distance import kernel_distance
from occsora_sim.scoring.frequencies import frequencies
from occsora_sim.scoring.long_rollout import WINDOW, Look, merge, roll
from occsora_sim.scoring.motion_error import motion_error
from occsora_sim.scoring.real_clips import (
    RARE,
    WIDEN,
    Clips,
    beyond,
    distances,
    floors,
    outside_share,
    real_clips,
    spread,
)
from occsora_sim.scoring.registration import RegistrationConfig
from occsora_sim.worlds.protocol import World

TIMES = (2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""Instants that are looked at [s]."""

ACCURACY = (0.05, 0.1)
"""Errors of the registration itself on recorded frames lie below this [m], [degree]."""

PROTOCOL = (
    "egos follow their routes by pure pursuit, blind to road users, at a speed that lasts for the whole rollout; at "
    f"each instant the {WINDOW} frames that end there; recorded clips of as many frames along the expert egos of "
    f"the same scenes; bounds: 5th to 95th percentile of the clips' shares, widened by {WIDEN:g} about the middle (up "
    f"to the largest share where fewer than {100 * RARE:g} % of the clips show the class); distance: Jensen-Shannon "
    "divergence, base 2, over the shares of all voxels and of the filled ones"
)


def drift_report(
    world: World,
    starts: Sequence[Start],
    scenes: Sequence[Recorded],
    *,
    seconds: float = 60.0,
    seed: int = 0,
    batch: int = 4,
    clips_per_scene: int = 48,
    config: RegistrationConfig | None = None,
    encoder: OccupancyEncoder | None = None,
    on_chunk: Callable[[int, int], None] | None = None,
    crew: Crew[World] | None = None,
) -> dict[str, Any]:
    """Roll the starts on for `seconds` and look at them at TIMES and at the end; see PROTOCOL.

    At each instant: `js`, the distance of the rollouts' pooled frames to the pooled real clips; `outside`, the
    classes whose pooled share leaves the bounds; `outside_share`, how many (rollout, class) pairs do, beside
    `recorded_outside_share`, how many of the recorded ones do when held against the other towns; `roughness` of the
    surfaces (see `frequencies`); `kernel`, the kernel distance of the frames' features (`feature_distance`);
    `road_users` in a frame, and their `census`; `motion`, the registered motion of the window's chunks against the
    prompt. An instant is "clean" when no class is outside, the roughness is within its bounds, `js` does not exceed
    the largest of the floor `same_size`, and the motion obeys the prompt; "stays_a_street" when all are.

    Args:
        world: any world.
        starts: where the rollouts begin; each has a route.
        scenes: real traffic of the same towns.
        seconds: length of the rollouts [s], rounded to whole chunks; the last instant that is looked at.
        seed: of the first start; the next ones count on.
        batch: rollouts at once.
        clips_per_scene: real clips of each scene.
        config: of the registration.
        encoder: in whose space the frames' kernel distance to the real ones is taken; None: it is not.
        on_chunk: told how many chunks are done, and of how many.
        crew: who rolls; by default this process.

    Raises:
        ConfigurationError: no start, or less than a window.

    """
    f = world.frames_per_chunk
    frames = f * round(seconds / (f * FRAME_SECONDS))
    if not starts or batch < 1 or frames < WINDOW:
        raise ConfigurationError(
            f"drift: {len(starts)} starts, {seconds:g} s and batch {batch}; give a start or more, at least "
            f"{WINDOW * FRAME_SECONDS:g} s, and a batch of 1 or more"
        )
    instants = [round(t / FRAME_SECONDS) for t in TIMES if round(t / FRAME_SECONDS) < frames] + [frames]
    real = real_clips(scenes, world.grid, WINDOW, clips_per_scene, encoder)
    groups, done = batches(len(starts), batch), 0

    def told() -> None:
        nonlocal done
        done += 1
        if on_chunk:
            on_chunk(done, len(groups) * frames // f)

    units = [([starts[row] for row in rows], [seed + row for row in rows]) for rows in groups]
    work = partial(roll, instants=instants, config=config, encoder=encoder)
    looks = list((crew or Alone(world)).map(work, units, told))
    floor = floors(real, len(starts), seed)
    table = {
        f"{at * FRAME_SECONDS:g}": _instant(merge([look[k] for look in looks]), real, floor, world.grid.voxel)
        for k, at in enumerate(instants)
    }
    bounds = spread(frequencies(real.counts))
    return {
        "rollouts": len(starts),
        "seconds": frames * FRAME_SECONDS,
        "window_seconds": WINDOW * FRAME_SECONDS,
        "protocol": PROTOCOL,
        "scenes": len(scenes),
        "recorded_clips": len(real.counts),
        "recorded": _figures(real) | {"roughness_bounds": [float(bound) for bound in spread(real.roughness)]},
        "recorded_outside_share": outside_share(real),
        "bounds": {name: [float(bound[k]) for bound in bounds] for k, name in enumerate(CLASSES)},
        "floor": floor,
        "times": table,
        "ratios": _ratios(table, floor["kernel"]),
        "stays_a_street": all(row["clean"] for row in table.values()),
    }


def _instant(look: Look, real: Clips, floor: dict[str, Any], voxel: float) -> dict[str, Any]:
    """The figures of one instant."""
    clips, bounds = look.clips, spread(frequencies(real.counts))
    figures = _figures(clips)
    pooled = beyond(frequencies(clips.counts.sum(dim=0)), bounds)
    outside = [name for name, out in zip(CLASSES, pooled.tolist(), strict=True) if out]
    js, most = distances(clips.counts, real.counts), floor["same_size"]
    kernel = None
    if clips.features.shape[-1]:
        kernel = kernel_distance(clips.features.flatten(0, 1), real.features.flatten(0, 1))
    motion = motion_error(look.found, look.asked, voxel)
    rough = bool(beyond(clips.roughness.mean(), spread(real.roughness)))
    return {
        "js": js,
        "kernel": kernel,
        "outside": outside,
        "outside_share": float(beyond(frequencies(clips.counts), bounds).double().mean()),
        "motion": motion,
        "metres_driven": float(look.metres.mean()),
        "clean": not outside
        and not rough
        and all(js[key] <= most[key]["max"] for key in js)
        and motion["obeyed"],
    } | figures


def _figures(clips: Clips) -> dict[str, Any]:
    """Shares of the classes, roughness and road users, over all clips."""
    users, total = clips.census.users.mean(dim=0), clips.census.users.sum(dim=1)
    low, high = spread(total)
    return {
        "shares": dict(zip(CLASSES, frequencies(clips.counts.sum(dim=0)).tolist(), strict=True)),
        "roughness": float(clips.roughness.mean()),
        "road_users": {
            "mean": float(total.mean()),
            "bounds": [float(low), float(high)],
            "per_class": {CLASSES[label]: float(users[label]) for label in DYNAMIC},
        }
        | clips.census.figures(),
    }


def _ratios(table: dict[str, Any], kernel_floor: dict[str, float] | None = None) -> dict[str, float | None]:
    """The last instant against an early one: the registered error against that at 2 s, the distance over filled voxels
    and the kernel distance against those at 4 s; null where there is no such instant or nothing was measured.

    Errors below ACCURACY count as that, and kernel distances (which are unbiased, hence at times negative) below the
    mean between real clips as that: what lies below is the measure's own noise, not the world's.
    """
    last = list(table.values())[-1]

    def ratio(early: str, value: Callable[[dict[str, Any]], float | None], least: float) -> float | None:
        below, above = value(table[early]) if early in table else None, value(last)
        return None if below is None or above is None else max(above, least) / max(below, least)

    return {
        "metres_to_2_s": ratio("2", lambda row: row["motion"]["metres"], ACCURACY[0]),
        "degrees_to_2_s": ratio("2", lambda row: row["motion"]["degrees"], ACCURACY[1]),
        "js_filled_to_4_s": ratio("4", lambda row: row["js"]["filled"], 1e-9),
        "kernel_to_4_s": ratio("4", lambda row: row["kernel"], (kernel_floor or {"mean": 1e-9})["mean"]),
    }


def frame_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """What the frames hold, as rows of text, the real clips' own last: instant, distances over all and over filled
    voxels [1/1000], classes outside, (rollout, class) pairs outside [%], kernel distance.
    """
    rows = [
        (
            f"{at} s",
            *(f"{1000 * row['js'][key]:.2f}" for key in ("all", "filled")),
            ", ".join(row["outside"]) or "none",
            f"{100 * row['outside_share']:.1f}",
            "-" if row["kernel"] is None else f"{row['kernel']:.3f}",
        )
        for at, row in report["times"].items()
    ]
    share, floor = report["recorded_outside_share"], report["floor"]["same_size"]
    spans = (
        f"{1000 * floor[key]['mean']:.2f} to {1000 * floor[key]['max']:.2f}" for key in ("all", "filled")
    )
    kernel = report["floor"]["kernel"]
    most = "-" if kernel is None else f"{kernel['mean']:.3f} to {kernel['max']:.3f}"
    return [*rows, ("recorded", *spans, "", "-" if share is None else f"{100 * share:.1f}", most)]


def street_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """How the street looks and moves, as rows of text, the real clips' own last: instant, roughness [%], road users in
    a frame, how many of them stand and how many touch another kind [%], registered error [m] and [degree], registered
    [%], clean.
    """
    rows = []
    for at, row in report["times"].items():
        motion = row["motion"]
        errors = ("-" if motion[key] is None else f"{motion[key]:.3f}" for key in ("metres", "degrees"))
        rows.append(
            (
                f"{at} s",
                f"{100 * row['roughness']:.1f}",
                f"{row['road_users']['mean']:.1f}",
                *_percent(row["road_users"]),
                *errors,
                f"{100 * motion['registered']:.0f}",
                "yes" if row["clean"] else "no",
            )
        )
    rough, users = report["recorded"]["roughness_bounds"], report["recorded"]["road_users"]["bounds"]
    spans = (f"{100 * rough[0]:.1f} to {100 * rough[1]:.1f}", f"{users[0]:.0f} to {users[1]:.0f}")
    return [*rows, ("recorded", *spans, *_percent(report["recorded"]["road_users"]), "", "", "", "")]


def _percent(users: dict[str, Any]) -> list[str]:
    """Road users that stand, and that touch one of another class [%]."""
    return ["-" if users[key] is None else f"{100 * users[key]:.0f}" for key in ("standing", "touching")]


def print_drift_report(report: dict[str, Any]) -> None:
    """Print both tables of a report, and its verdict."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    frames = Table(
        "time", "JSD all [1/1000]", "JSD filled [1/1000]", "classes outside", "pairs outside [%]", "kernel distance",
        title=f"Drift: {report['rollouts']} rollouts of {report['seconds']:g} s; {report['recorded_clips']} recorded "
        f"clips of {report['window_seconds']:g} s from {report['scenes']} scenes",
    )  # fmt: skip
    for row in frame_rows(report):
        frames.add_row(*row)
    street = Table(
        "time", "rough [%]", "road users", "stand [%]", "touch [%]", "error [m]", "error [degree]",
        "registered [%]", "clean",
    )  # fmt: skip
    for row in street_rows(report):
        street.add_row(*row)
    console.print(frames)
    console.print(street)
    console.print(f"stays a street: {report['stays_a_street']}")
