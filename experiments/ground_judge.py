"""Tell drawn ground from recorded ground: the AUC of a small network on worlds and towns it was not trained on.

    python experiments/ground_judge.py runs/ground --scenes traffic:500000-500023
    python experiments/ground_judge.py runs/ground --scenes traffic:500000-500023 --candidate flow --worlds 10
    python experiments/ground_judge.py runs/ground --scenes traffic:500000-500023 --far 560 --worlds 6

The first half of the scenes is driven, the other half gives recorded crops. Prints AUC at 0.4 m, with the commonest
group of 1.6 m cells and of 3.2 m cells: of drawn against recorded ground in the first 80 m and, with --far, late; of
what the tokenizer gives back; of recorded against recorded. 0.5: cannot tell.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ground_drive import World, drawn_crops, drive, places, recorded_crops, starts
from ground_train import painter, tokens
from outpainting.ground_file import load_towns
from outpainting.ground_palette import GROUPS, group_of
from outpainting.ground_plan import plan_table
from outpainting.ground_towns import towns_of
from torch import Tensor, nn
from torch.nn import functional as F

from occsora_sim.checkpoint import read_tensors
from occsora_sim.scenes.source import open_scenes


class Judge(nn.Module):
    """Kinds or groups (n, s, s) -> how drawn they look (n,)."""

    def __init__(self, kinds: int, side: int) -> None:
        super().__init__()
        widths = (12, 24, 32, 48, 64)[: 5 if side >= 64 else 4 if side >= 16 else 3]
        strides = (1, 2, 2, 2) if side >= 64 else (1, 1, 2, 2)
        self.embedding = nn.Embedding(kinds, widths[0])
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=stride, padding=1)
            for a, b, stride in zip(widths[:-1], widths[1:], strides, strict=False)
        )
        self.answer = nn.Sequential(nn.Dropout(0.2), nn.Linear(2 * widths[-1], 1))

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        x = self.embedding(x.int()).permute(0, 3, 1, 2)
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.answer(torch.cat((x.mean((2, 3)), x.amax((2, 3))), dim=1))[:, 0]


def auc(positive: Tensor, negative: Tensor) -> float:
    """The chance that a score (m,) is above another (n,)."""
    above = (positive[:, None] > negative).float() + 0.5 * (positive[:, None] == negative).float()
    return float(above.mean())


def judged(drawn: tuple[Tensor, Tensor], recorded: tuple[Tensor, Tensor], kinds: int, steps: int) -> float:
    """AUC of crops (n, s, s) with their halves (n,) of 0 and 1: trained on one half, asked on the other, both ways."""
    values = []
    for half in (0, 1):
        torch.manual_seed(0)
        parts = [crops[halves == half] for crops, halves in (drawn, recorded)]
        model = Judge(kinds, parts[0].shape[-1])
        optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
        target = torch.cat((torch.ones(16), torch.zeros(16)))
        for _ in range(steps):
            batch = torch.cat([part[torch.randint(len(part), (16,))] for part in parts])
            batch = batch.flip(1) if torch.rand(1) < 0.5 else batch
            batch = batch.rot90(int(torch.randint(4, (1,))), (1, 2)).contiguous()
            loss = F.binary_cross_entropy_with_logits(model(batch), target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            scores = [model(crops[halves != half]) for crops, halves in (drawn, recorded)]
        values.append(auc(*scores))
    return sum(values) / 2


def cells(kinds: Tensor, palette: Tensor, size: int) -> Tensor:
    """The commonest group of cells of `size` columns: (n, s, s) -> (n, s / size, s / size) uint8."""
    groups = group_of(palette)[kinds.int()].unflatten(2, (-1, size)).unflatten(1, (-1, size))
    counts = [(groups == k).sum((2, 4)) for k in range(len(GROUPS))]
    return torch.stack(counts, dim=-1).argmax(-1).to(torch.uint8)


def report(
    name: str, drawn: tuple[Tensor, Tensor], recorded: tuple[Tensor, Tensor], palette: Tensor, steps: int
) -> None:
    """Print a row: AUC at three scales, and how much of each group is in the crops."""
    row = [f"{judged(drawn, recorded, len(palette), steps):.3f}"]
    for size in (4, 8):
        coarse = [(cells(crops, palette, size), halves) for crops, halves in (drawn, recorded)]
        row.append(f"{judged(coarse[0], coarse[1], len(GROUPS), steps):.3f}")
    groups = group_of(palette)[drawn[0].int()]
    shares = [
        f"{label} {100 * float((groups == k).float().mean()):.1f}" for k, label in enumerate(GROUPS[:-1])
    ]
    print(f"{name}: {len(drawn[0])} crops, AUC {' '.join(row)}; {', '.join(shares)} %", flush=True)


def labelled(rows: Sequence[tuple[int, list[Tensor]]]) -> tuple[Tensor, Tensor]:
    """Crops of towns, and each town's half."""
    halves = [town % 2 for town, crops in rows for _ in crops]
    return torch.stack([crop for _, crops in rows for crop in crops]), torch.tensor(halves)


def main() -> None:
    """Drive, cut, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", required=True)
    parser.add_argument("--candidate", choices=("two", "single", "flow"), default="two")
    parser.add_argument("--worlds", type=int, default=24)
    parser.add_argument("--crops", type=int, default=8)
    parser.add_argument(
        "--far", type=float, default=0, help="length of the drives [m]; 0: the first 80 m alone"
    )
    parser.add_argument(
        "--half", type=float, default=40, help="half the edge of what is drawn around the ego [m]"
    )
    parser.add_argument("--steps", type=int, default=12, help="calls of the network for a tile")
    parser.add_argument("--judge-steps", type=int, default=300)
    parser.add_argument(
        "--floor", action="store_true", help="recorded against recorded too, and the tokenizer"
    )
    args = parser.parse_args()
    tokenizer, patterns = tokens(args.out)
    palette = load_towns(args.out / "validate.safetensors").palette
    towns, table = towns_of(open_scenes(args.scenes), palette=palette), plan_table(patterns)
    middle, aside = len(towns.names) // 2, min(26.0, args.half - 6)

    def recorded(among: range, seed: int, count: int) -> tuple[Tensor, Tensor]:
        rng, rows = np.random.default_rng(seed), []
        for start in starts(towns, count, 110, rng, among):
            world = World(towns, tokenizer, table, start, 0)
            middles = places(world, rng, args.crops, 53, 107, aside)
            rows.append((world.town, recorded_crops(world, towns, middles)))
        return labelled(rows)

    others = recorded(range(middle, len(towns.names)), 1, 60)
    if args.floor:
        same = recorded(range(middle), 2, 30)
        report("recorded against recorded", same, others, palette, args.judge_steps)
        back = tokenizer.decode(tokenizer.look_up(same[0]))
        report("given back by the tokenizer", (back, same[1]), others, palette, args.judge_steps)
    names = ("plan", "fine") if args.candidate == "two" else (args.candidate,)
    painters = []
    for name in names:
        weights, _ = read_tensors(args.out / name / "outpainter.safetensors", kind="outpainter")
        painters.append(painter(name, args.out).eval())
        painters[-1].load_state_dict(weights)
    plan, fine = painters if len(painters) == 2 else (None, painters[0])
    rng = np.random.default_rng(11)
    worlds = [
        World(towns, tokenizer, table, start, seed)
        for seed, start in enumerate(starts(towns, args.worlds, max(110, args.far), rng, range(middle)))
    ]
    print(drive(worlds, max(72.0, args.far - 10), fine, plan, half=args.half, steps=args.steps))
    spans = [("first 80 m", 53.0, 72.0 + args.half - 13)]
    if args.far:
        spans.append(("late", args.far - 80.0, args.far))
    for name, first, last in spans:
        rows = [
            (
                world.town,
                drawn_crops(world, tokenizer, places(world, rng, args.crops, first, last, aside)),
            )
            for world in worlds
        ]
        report(f"{args.candidate}, {name}", labelled(rows), others, palette, args.judge_steps)


if __name__ == "__main__":
    main()
