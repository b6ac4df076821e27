"""Who the entries let in, beside who came into view in recorded towns.

    python experiments/entries.py runs/entries/entries.safetensors --picture entries.png

Frames of recorded ego motions: the model is told who is known there and draws who enters (one frame ahead). Then the
same frames with 3, 10 and 20 vehicles asked for; starts from nothing; and rollouts along the recorded ego motions in
which everybody keeps its velocity.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from occsora_sim.geometry import compose, relative
from occsora_sim.grid import FRAME_SECONDS, OCC3D
from occsora_sim.models.entries import START_SLOTS, STEP_SLOTS, Entries
from occsora_sim.models.entry_view import GROUND, GROUPS, group_of, vehicles_in_view
from occsora_sim.models.weights import load_world_model
from occsora_sim.road_users import SLOTS, RoadUsers, join
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.source import open_scenes
from occsora_sim.training.entry_samples import EntrySampler, Samples
from occsora_sim.training.entry_towns import REACH

NAMES = ("road", "other flat", "pavement", "terrain", "manmade", "vegetation", "barrier")
COLOURS = {
    11: (70, 70, 75),
    12: (140, 110, 90),
    13: (150, 150, 160),
    14: (90, 120, 80),
    15: (110, 60, 60),
    16: (40, 90, 40),
}
ASKED = (3.0, 10.0, 20.0)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """m entries: the frame (m,), label (m,), place in the ego frame (m, 3), speed (m,)."""

    row: Tensor
    label: Tensor
    place: Tensor
    speed: Tensor


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument("--scenes", default="traffic:500000-500003")
    parser.add_argument("--frames", type=int, default=1200)
    parser.add_argument("--starts", type=int, default=96)
    parser.add_argument("--rollouts", type=int, default=16)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    entries = load_world_model(options.weights)[0].entries
    scenes = [scene for scene in open_scenes(options.scenes) if isinstance(scene, Scene)]
    sampler = EntrySampler(scenes, OCC3D)
    rng = np.random.default_rng(0)
    for begins, count in ((False, options.frames), (True, options.starts)):
        numbers = rng.integers(len(sampler), size=count)
        ahead = rng.integers(17, size=count)
        print(
            f"\n{count} {'starts from nothing' if begins else 'frames'}, as many vehicles asked for as there will be"
        )
        compare(entries, sampler, scenes, numbers, begins, ahead)
        few = numbers[: count // 2]
        for wanted in ASKED:
            _, drawn = draw_all(entries, sampler, few, begins, 0 * few, wanted)
            print(f"asked for {wanted:2.0f}: {rates(drawn, len(few), begins)}", flush=True)
        if options.picture:
            paint(entries, sampler, numbers[:8], begins, options.picture)
    for asked in (None, *ASKED):
        seen = roll_out(entries, sampler, rng.integers(len(sampler), size=options.rollouts), asked)
        print(f"rollouts, vehicles in view at 0, 5, 10, 15, 20 s, asked for {asked}: {seen}", flush=True)


def draw_all(
    entries: Entries,
    sampler: EntrySampler,
    numbers: np.ndarray,
    begins: bool,
    ahead: np.ndarray,
    asked: float | None = None,
) -> tuple[list[Samples], Drawn]:
    """Who enters in frames, drawn; and the frames, 32 at a time."""
    all_samples, parts = [], []
    for at in range(0, len(numbers), 32):
        mine = numbers[at : at + 32]
        samples = sampler.frames(mine, np.full(len(mine), begins), ahead[at : at + 32])
        if asked is not None:
            samples.prompt[:, 1] = asked
        key = torch.stack((torch.full((len(mine),), 7), at + torch.arange(len(mine))), dim=1)
        came = enter(entries, samples, samples.users, key, begins)
        row, slot = came.valid.nonzero().unbind(1)
        local = relative(samples.pose[row], came.now[row, slot])
        parts.append((row + at, came.label[row, slot], local.float(), came.speed[row, slot]))
        all_samples.append(samples)
    row, label, place, speed = (torch.cat(values) for values in zip(*parts, strict=True))
    return all_samples, Drawn(row=row, label=label, place=place, speed=speed)


def enter(entries: Entries, samples: Samples, users: RoadUsers, key: Tensor, begins: bool) -> RoadUsers:
    """One call of the model."""
    return entries.enter(
        users, samples.setting(entries.config.margin), prompt=samples.prompt, key=key[:, None],
        slots=START_SLOTS if begins else STEP_SLOTS,
    )[0]  # fmt: skip


def rates(drawn: Drawn, frames: int, begins: bool) -> str:
    """How many of each group, a minute or a start."""
    counts = torch.bincount(group_of(drawn.label), minlength=len(GROUPS)) / frames
    unit = 1.0 if begins else 60 / FRAME_SECONDS
    return ", ".join(f"{name} {float(n) * unit:.1f}" for name, n in zip(GROUPS, counts, strict=True))


def compare(
    entries: Entries,
    sampler: EntrySampler,
    scenes: list[Scene],
    numbers: np.ndarray,
    begins: bool,
    ahead: np.ndarray,
) -> None:
    """Drawn beside recorded."""
    samples, drawn = draw_all(entries, sampler, numbers, begins, ahead)
    row = torch.cat([part.entered.row + 32 * k for k, part in enumerate(samples)])
    label, place, speed = (
        torch.cat([getattr(part.entered, name) for part in samples]) for name in ("label", "place", "speed")
    )
    recorded = Drawn(row=row, label=label, place=place, speed=speed)
    towns = np.searchsorted(sampler._first, numbers, side="right") - 1
    ground, pose = torch.cat([part.ground for part in samples]), torch.cat([part.pose for part in samples])
    for name, some in (("recorded", recorded), ("drawn", drawn)):
        print(f"{name:9s}{'a start' if begins else 'a minute'}: {rates(some, len(numbers), begins)}")
        group = group_of(some.label)
        for number, kind in enumerate(GROUPS):
            mine = group == number
            if mine.any():
                print(f"  {kind:11s}{marks(some, mine, ground, pose, scenes, towns)}")


def marks(
    some: Drawn, mine: Tensor, ground: Tensor, pose: Tensor, scenes: list[Scene], towns: np.ndarray
) -> str:
    """Where, on what, heading where, how fast those of a group come."""
    place, speed, row = some.place[mine], some.speed[mine], some.row[mine]
    depth = 40 - place[:, :2].abs().amax(1)
    column = ((place[:, :2] + 40) / OCC3D.voxel).long().clamp(0, 199)
    under = ground[row, column[:, 0], column[:, 1]]
    shares = {name: float((under == label).float().mean()) for label, name in zip(GROUND, NAMES, strict=True)}
    world = compose(pose[row], place.double())
    off, turn = [], []
    for k, at in zip(row.tolist(), world.numpy(), strict=True):
        scene = scenes[towns[k]]
        points, _inner = lanes(scene)
        distance = np.hypot(*(points[:, :2] - at[:2]).T)
        near = distance.argmin()
        if distance[near] < 2.5:
            turn.append(abs((at[2] - points[near, 2] + np.pi) % (2 * np.pi) - np.pi))
        off.append(distance[near])
    moving = speed > 0
    pace = np.percentile(speed[moving], (25, 50, 75, 90)) if moving.any() else np.zeros(4)
    q = np.percentile(depth, (25, 50, 75, 95))
    degrees = np.degrees(turn) if turn else np.zeros(1)
    on = ", ".join(f"{name} {100 * share:.0f}" for name, share in shares.items() if share > 0.005)
    along, against = 100 * (degrees < 15).mean(), 100 * (degrees > 165).mean()
    still = 100 * float((~moving).float().mean())
    parts = (
        f"n {len(speed)}",
        f"inside the edge 25/50/75/95 % {q.round(1)} m",
        f"on {on} %",
        f"within 15 deg of the lane {along:.0f} %, against it {against:.0f} %",
        f"standing {still:.0f} %, moving 25/50/75/90 % {pace.round(1)} m/s",
    )
    return "; ".join(parts)


def lanes(scene: Scene, cache: dict[str, tuple[np.ndarray, None]] = {}) -> tuple[np.ndarray, None]:  # noqa: B006
    """Points on the lanes each half metre with the direction there: (n, 3)."""
    if scene.name not in cache:
        parts = []
        for k in range(len(scene.lane_width)):
            line = scene.lane_points[scene.lane_offsets[k] : scene.lane_offsets[k + 1]].astype(float)
            for a, b in itertools.pairwise(line):
                n = max(1, int(np.hypot(*(b - a)) / 0.5))
                t = (np.arange(n) + 0.5)[:, None] / n
                yaw = np.full((n, 1), np.arctan2(*(b - a)[::-1]))
                parts.append(np.concatenate((a + t * (b - a), yaw), axis=1))
        cache[scene.name] = np.concatenate(parts), None
    return cache[scene.name]


def roll_out(entries: Entries, sampler: EntrySampler, numbers: np.ndarray, asked: float | None) -> str:
    """Mean vehicles in view each 5 s of rollouts from nothing along recorded ego motions."""
    users, seen, true = RoadUsers.empty(len(numbers)), [], []
    last = np.array([town_last(sampler, n) for n in numbers])
    for t in range(41):
        now = np.minimum(numbers + t, last)
        samples = sampler.frames(now, np.full(len(now), t == 0), np.zeros(len(now), dtype=int))
        samples.prompt[:, 1] = float("nan") if asked is None else asked
        if t:
            way = users.velocity.double() * FRAME_SECONDS
            users = users.moved(
                torch.cat((users.now[..., :2] + way, users.now[..., 2:]), dim=-1), users.velocity
            )
            distance = (users.now[..., :2] - samples.pose[:, None, :2]).norm(dim=-1)
            users = users.where(users.valid & (distance < REACH))
        key = torch.stack((torch.arange(len(now)), torch.full((len(now),), t)), dim=1)
        users = join(users, enter(entries, samples, users, key, t == 0))
        users = users.nearest(samples.pose[:, :2], SLOTS)
        if t % 10 == 0:
            seen.append(float(vehicles_in_view(users, samples.pose, OCC3D).mean()))
            true.append(float(np.mean([sampler.towns[k].frames[f].vehicles for k, f in where(sampler, now)])))
    return f"{np.round(seen, 1)} (recorded {np.round(true, 1)})"


def where(sampler: EntrySampler, numbers: np.ndarray) -> list[tuple[int, int]]:
    """Town and frame of sample numbers."""
    place = np.searchsorted(sampler._first, numbers, side="right") - 1
    return [(int(k), int(n - sampler._first[k])) for k, n in zip(place, numbers, strict=True)]


def town_last(sampler: EntrySampler, number: int) -> int:
    """The last frame of the ego motion that frame `number` is of."""
    ((town, frame),) = where(sampler, np.array([number]))
    return int(sampler._first[town]) + sampler.towns[town]._last[frame]


def paint(entries: Entries, sampler: EntrySampler, numbers: np.ndarray, begins: bool, path: Path) -> None:
    """Recorded (above) and drawn (below) entries over the ground; forwards is up. Those that are known are white."""
    samples = sampler.frames(numbers, np.full(len(numbers), begins), np.full(len(numbers), 8))
    key = torch.stack((torch.full((len(numbers),), 7), torch.arange(len(numbers))), dim=1)
    # Many draws over one another where few enter in one.
    draws = [
        enter(entries, samples, samples.users, key + torch.tensor([k, 0]), begins)
        for k in range(1 if begins else 60)
    ]
    sheet = Image.new("RGB", (len(numbers) * 404, 2 * 404))
    for n in range(len(numbers)):
        image = np.full((200, 200, 3), 20, dtype=np.uint8)
        for label, colour in COLOURS.items():
            image[samples.ground[n].numpy() == label] = colour
        if not begins:
            image[samples.new[n].numpy()] += 20
        for k in range(2):
            tile = Image.fromarray(image[::-1, ::-1].copy()).resize((400, 400), Image.Resampling.NEAREST)
            pen = ImageDraw.Draw(tile)
            for one in samples.users.valid[n].nonzero()[:, 0].tolist():
                box(
                    pen,
                    relative(samples.pose[n], samples.users.now[n, one]),
                    samples.users.size[n, one],
                    (255, 255, 255),
                )
            mine = samples.entered.row == n
            if k == 0:
                for place, label in zip(
                    samples.entered.place[mine], samples.entered.label[mine], strict=True
                ):
                    box(pen, place, (4.5, 1.9) if int(group_of(label)) == 0 else (1.2, 0.8), tint(label))
            else:
                for came in draws:
                    for one in came.valid[n].nonzero()[:, 0].tolist():
                        box(
                            pen,
                            relative(samples.pose[n], came.now[n, one]),
                            came.size[n, one],
                            tint(came.label[n, one]),
                        )
            sheet.paste(tile, (n * 404, k * 404))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path.with_stem(path.stem + ("-starts" if begins else "-frames")))


def tint(label: Tensor) -> tuple[int, int, int]:
    """A colour for each group."""
    return ((255, 150, 0), (0, 220, 255), (255, 60, 160))[int(group_of(label))]


def box(
    pen: ImageDraw.ImageDraw, place: Tensor, size: Tensor | tuple[float, float], colour: tuple[int, int, int]
) -> None:
    """An outline with a line from the centre to the front."""
    x, y, yaw = (float(v) for v in place)
    c, s, (a, b) = np.cos(yaw), np.sin(yaw), (float(size[0]) / 2, float(size[1]) / 2)
    corners = [
        (x + c * u * a - s * v * b, y + s * u * a + c * v * b)
        for u, v in ((1, 1), (1, -1), (-1, -1), (-1, 1))
    ]
    screen = [((40 - q) * 5, (40 - p) * 5) for p, q in [*corners, (x, y), (x + c * a * 1.3, y + s * a * 1.3)]]
    pen.polygon(screen[:4], outline=colour)
    pen.line(screen[4:], fill=colour)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
