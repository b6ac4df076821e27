"""Roll a traffic model out beside the recording: true ground, recorded ego, who enters taken from the recording.

    python experiments/traffic_rollout.py assets/weights/small.safetensors --scenes traffic:500000-500003

Prints what road users do in the rollouts and in the recording, whole and by spans; --picture draws the ways of one.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from occsora_sim.counter_random import uniforms
from occsora_sim.geometry import relative
from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.models.ground_crop import ROAD, crop_points
from occsora_sim.models.traffic import TrafficModel
from occsora_sim.models.traffic_choice import choose, luck_of, uses
from occsora_sim.models.traffic_motion import apply
from occsora_sim.models.weights import load_world_model
from occsora_sim.road_users import RoadUsers
from occsora_sim.scenes.source import open_scenes
from occsora_sim.training.traffic_windows import _SHOWN, REACH, TrafficSampler


def overlap(users: RoadUsers) -> torch.Tensor:
    """(b, n) bool, whose box overlaps another's (separating axes)."""
    other = relative(users.now[:, :, None], users.now[:, None]).float()
    half = users.size[..., :2] / 2 * 0.95
    cos, sin = other[..., 2].cos().abs(), other[..., 2].sin().abs()
    reach_x = half[:, None, :, 0] * cos + half[:, None, :, 1] * sin
    reach_y = half[:, None, :, 0] * sin + half[:, None, :, 1] * cos
    apart = (other[..., 0].abs() > half[:, :, None, 0] + reach_x) | (
        other[..., 1].abs() > half[:, :, None, 1] + reach_y
    )
    both = users.valid[:, :, None] & users.valid[:, None] & ~torch.eye(users.valid.shape[1], dtype=torch.bool)
    return (~apart & ~apart.transpose(1, 2) & both).any(-1)


@torch.no_grad()
def rollout(
    model: TrafficModel | None, sampler: TrafficSampler, rows, frames: int, seed: int, hidden: bool = True
):
    """Yields RoadUsers (b, n) after each frame; without a model the recording."""
    windows = sampler.windows(rows)
    scenes = torch.tensor([row[0] for row in rows])
    users = windows.users
    rested = torch.zeros_like(users.rested)  # as the start of a world knows it, from the recording before it
    for b, (scene, _, now) in enumerate(rows):
        rested[b] = torch.from_numpy(sampler.tracks[scene].rested[now])[users.id[b].clamp(min=0)]
    users = replace(users, rested=rested)
    for k in range(1, frames + 1):
        at = [(scene, ego, now + k) for scene, ego, now in rows]
        recorded = sampler.windows(at)
        if model is None:
            yield recorded.users, recorded.ego
            continue
        # Slots of the recorded instant; those that were there before keep their simulated state.
        crops = _crops(sampler, scenes, users, rows, k - 1, hidden)
        seen = model(users, windows.ego, crops, windows.place)
        key = torch.tensor([[seed + r, k] for r in range(len(rows))])
        luck = luck_of(*uniforms(key, uses(seen.shape[1])))
        moved = apply(users, choose(users, model.head.sample(seen, luck), crops))
        users = _merge(moved, windows.ego, recorded)
        windows = replace(windows, ego=users[1])
        users = users[0]
        yield users, windows.ego


def _crops(sampler, scenes, users, rows, k, hidden):
    b, n = users.valid.shape
    pose = users.now.flatten(0, 1)
    row = torch.arange(b).repeat_interleave(n)
    crops = sampler.atlas.crops(scenes[row], pose)
    if hidden:
        shown = torch.zeros(crops.shape, dtype=torch.bool)
        for ago in (*_SHOWN, 40, 60):
            seen = torch.stack([sampler.tracks[s].pose_of(e, now + k - ago) for s, e, now in rows])
            shown |= (crop_points(pose, seen[row]).abs() < 40.0).all(-1)
        crops = torch.where(shown, crops, 0)
    return crops.view(b, n, *crops.shape[1:])


def _merge(moved: RoadUsers, ego: torch.Tensor, recorded) -> tuple[RoadUsers, torch.Tensor]:
    """Simulated road users, the recorded ego, and whoever comes within reach in the recording and is not known."""
    out, flags = [], []
    for b in range(len(ego)):
        rec = recorded.users.select([b])
        me = rec.gather(torch.zeros(1, 1, dtype=torch.long))
        sim = moved.select([b])
        away = (sim.now[..., :2] - me.now[:, :, :2]).norm(dim=-1)
        keep = sim.valid & ~ego[b : b + 1] & (away < REACH)
        known = set(moved.id[b].tolist()) | _SEEN.setdefault(b, set())
        _SEEN[b] |= known
        new = torch.tensor([[int(i) not in known and j > 0 for j, i in enumerate(rec.id[0].tolist())]])
        new &= rec.valid & ((rec.now[..., :2] - me.now[:, :, :2]).norm(dim=-1) > 40)
        parts = [me, sim.gather(keep[0].nonzero()[:, 0][None]), rec.gather(new[0].nonzero()[:, 0][None])]
        from occsora_sim.road_users import join

        users = join(*parts)
        out.append(users)
        flags.append(users.label.shape[1])
    from occsora_sim.road_users import stack

    users = stack(out)
    flag = torch.zeros_like(users.valid)
    flag[:, 0] = True
    return users, flag


_SEEN: dict[int, set] = {}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("weights", type=Path, nargs="?")
    parser.add_argument("--scenes", default="traffic:500000-500003")
    parser.add_argument("--rollouts", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--open", action="store_true")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sampler = TrafficSampler(open_scenes(options.scenes), nudged=0.0)
    frames = int(options.seconds / FRAME_SECONDS)
    rng = np.random.default_rng(1)
    rows = []
    spans = [s for s in sampler.spans if s[3] - s[2] > frames + 1]
    for _ in range(options.rollouts):
        scene, ego, first, last = spans[rng.integers(len(spans))]
        rows.append((scene, ego, int(rng.integers(first, last - frames))))
    model = load_world_model(options.weights)[0].traffic.eval() if options.weights else None
    for name, who in (("recorded", None), ("rolled out", model)):
        if name != "recorded" and model is None:
            continue
        _SEEN.clear()
        logs = list(rollout(who, sampler, rows, frames, 0, not options.open))
        report(name, logs, sampler, rows)
        if options.picture:
            draw(logs, sampler, rows, options.picture.with_stem(f"{options.picture.stem}-{name.split()[0]}"))


def report(name, logs, sampler, rows) -> None:
    """One line a span."""
    scenes = torch.tensor([row[0] for row in rows])
    stats: dict[str, list] = {}
    before: dict = {}
    for k, (users, ego) in enumerate(logs):
        here = users.valid & ~ego
        motor = torch.isin(users.label, torch.tensor([3, 4, 6, 10], dtype=torch.uint8)) & here
        speed = users.speed
        row = torch.arange(len(rows))[:, None].expand_as(here)
        kind = sampler.atlas.crops(scenes[row[motor]], users.now[motor])[:, 18, 0]
        moving = speed[motor] > 0.2
        fast = {}
        for b, i in (here & (speed > 5)).nonzero().tolist():
            fast[(b, int(users.id[b, i]))] = True
        ids = {(b, int(users.id[b, i])) for b, i in here.nonzero().tolist()}
        old = before.get(k - 2, {})
        still = [key in fast for key in old if key in ids]
        before[k] = fast
        moved = (users.now - users.pose[:, :, -2])[..., :2].norm(dim=-1)
        accel = (moved - (users.pose[:, :, -2] - users.pose[:, :, -3])[..., :2].norm(dim=-1)) / 0.25
        yaw = relative(users.pose[:, :, -2], users.now)[..., 2] / 0.5
        full = here & users.present.all(-1) & (moved > 0.05)
        values = {
            "n": here.sum(1).float().tolist(), "fast": [float((here & (speed > 5)).sum()), float(here.sum())],
            "still": [float(sum(still)), float(len(still))],
            "stand": [float((here & (speed < 0.2)).sum()), float(here.sum())],
            "off": [float((moving & (kind != ROAD)).sum()), float(moving.sum())],
            "overlap": [float((overlap(users) & here & (speed > 0.2)).sum()), float((here & (speed > 0.2)).sum())],
            "acc": accel[full].abs().tolist(), "yaw": yaw[full].abs().tolist(),
        }  # fmt: skip
        for span in ("all", "0-8" if k < 16 else "8-30" if k < 60 else "30-60"):
            for key, value in values.items():
                stats.setdefault(span, {}).setdefault(key, []).append(value)
    for span, values in stats.items():
        share = {key: 100 * sum(v[0] for v in values[key]) / max(1, sum(v[1] for v in values[key]))
                 for key in ("fast", "still", "stand", "off", "overlap")}  # fmt: skip
        n = np.mean([count for counts in values["n"] for count in counts])
        acc, yaw = np.concatenate(values["acc"]), np.concatenate(values["yaw"])
        print(
            f"{name:10s} {span:6s} n {n:5.1f}  "
            + "  ".join(f"{k} {v:5.1f}%" for k, v in share.items())
            + f"  |acc| 50/90/99: {np.percentile(acc, [50, 90, 99]).round(2)}"
            + f"  |yaw rate| {np.percentile(yaw, [50, 90, 99]).round(2)}"
        )


def draw(logs, sampler, rows, path) -> None:
    """The ways of the first rollouts over the ground."""
    from PIL import Image, ImageDraw

    palette = np.array(
        [[20, 20, 20], [120, 120, 130], [200, 180, 190], [170, 200, 150], [80, 90, 80]], np.uint8
    )
    sheet = []
    for b in range(min(4, len(rows))):
        scene, ego, now = rows[b]
        centre = sampler.tracks[scene].pose_of(ego, now + len(logs) // 2)
        origin = sampler.atlas._table[scene, :2]
        shape = sampler.atlas._table[scene, 2:4].long().tolist()
        first = int(sampler.atlas._table[scene, 4])
        kinds = sampler.atlas._kinds[first : first + shape[0] * shape[1]].view(*shape).numpy()
        cell = ((centre[:2] - origin) / 0.4).long().tolist()
        lo = [max(0, c - 200) for c in cell]
        image = palette[kinds[lo[0] : lo[0] + 400, lo[1] : lo[1] + 400]]
        picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 0, 2)[::-1])).resize((800, 800), 0)
        pen = ImageDraw.Draw(picture)

        def at(p, origin=origin, lo=lo, image=image):
            c = (p[:2] - origin.numpy()) / 0.4 - np.array(lo)
            return float(c[0] * 800 / image.shape[0]), float(800 - c[1] * 800 / image.shape[1])

        for k, (users, flag) in enumerate(logs):
            for i in users.valid[b].nonzero()[:, 0].tolist():
                if users.speed[b, i] < 0.05 and k < len(logs) - 1:
                    continue
                p = users.now[b, i].numpy()
                colour = (
                    (255, 255, 0)
                    if flag[b, i]
                    else (220, 30, 30)
                    if users.label[b, i] in (3, 4, 10)
                    else (30, 60, 230)
                )
                if k == len(logs) - 1:
                    l, w = users.size[b, i, :2].numpy() / 2
                    c, s = np.cos(p[2]), np.sin(p[2])
                    box = [
                        at(p[:2] + np.array([c * x - s * y, s * x + c * y]))
                        for x, y in ((l, w), (l, -w), (-l, -w), (-l, w))
                    ]
                    pen.polygon(box, outline=(0, 0, 0), fill=colour)
                else:
                    q = users.pose[b, i, -2].numpy()
                    pen.line([at(q), at(p)], fill=colour, width=2)
        sheet.append(np.asarray(picture))
    Image.fromarray(np.concatenate(sheet[:2], 1)).save(path) if len(sheet) < 4 else Image.fromarray(
        np.concatenate([np.concatenate(sheet[:2], 1), np.concatenate(sheet[2:4], 1)])
    ).save(path)


if __name__ == "__main__":
    main()
