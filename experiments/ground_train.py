"""Train the outpainters of the ground, and the candidates that they were raced against.

    python experiments/ground_train.py prepare runs/ground           # towns to columns, the book of tokens, the plan's
    python experiments/ground_train.py plan runs/ground --minutes 60
    python experiments/ground_train.py fine runs/ground --minutes 60
    python experiments/ground_train.py single runs/ground --minutes 60  # one scale, no plan
    python experiments/ground_train.py flow runs/ground --minutes 60    # latent flow on unseen tokens
    python experiments/ground_train.py join runs/ground              # plan and fine to one file, ground.safetensors

Each goes on from where it was left; --cpu counts the process's own minutes, for a machine that others use too.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from ground_flow import FlowPainter, flow_painter_loss
from outpainting.ground import GroundModel
from outpainting.ground_file import load_towns, save_towns
from outpainting.ground_plan import (
    common_patterns,
    groups_of_cells,
    pattern_features,
    patterns_of,
    plan_table,
)
from outpainting.ground_tokenizer import GroundTokenizer
from outpainting.ground_tokens import ceiling, make_tokenizer
from outpainting.ground_towns import towns_of
from outpainting.hourglass import HourglassConfig
from outpainting.loss import ground_tokens, outpaint_loss, plan_tokens, validation
from outpainting.muon import muon_of_body
from outpainting.outpaint import Outpainter, OutpainterConfig

from occsora_sim.checkpoint import read_tensors, write_tensors
from occsora_sim.scenes.source import open_scenes
from occsora_sim.training import stages
from occsora_sim.training.loop import LoopConfig, run

TRAIN = "traffic:0-119+arterial:0-31+roundabout:0-31+motorway:0-31+organic:0-15"
VALIDATE = "traffic:300000-300003"
LARGE = HourglassConfig(width=96, inner=256, depth=4, heads=4)
SMALL = HourglassConfig(width=96, inner=192, depth=4, heads=3)
CONFIGS = {
    "plan": OutpainterConfig(codes=512, features=32, token=3.2, window=40, tile=16, body=LARGE),
    "fine": OutpainterConfig(codes=4096, features=768, plan=512, window=32, tile=16, body=SMALL),
    "single": OutpainterConfig(codes=4096, features=768, window=40, tile=16, body=LARGE),
    "flow": OutpainterConfig(codes=4096, features=768, window=40, tile=16, body=LARGE),
}


def prepare(out: Path, train: str, validate: str) -> None:
    """Towns' columns, the book of tokens and the plan's vocabulary; prints how well tokens give ground back."""
    towns = towns_of(open_scenes(train))
    save_towns(towns, out / "train.safetensors")
    held = towns_of(open_scenes(validate), palette=towns.palette)
    save_towns(held, out / "validate.safetensors")
    tokenizer, rng = make_tokenizer(towns), np.random.default_rng(3)
    patterns = [
        patterns_of(groups_of_cells(towns.draw(16, 320, rng).kinds, towns.palette)) for _ in range(30)
    ]
    tensors = {
        "palette": tokenizer.palette,
        "book": tokenizer.book,
        "patterns": common_patterns(torch.cat(patterns)),
    }
    write_tensors(out / "tokens.safetensors", tensors, {"kind": "ground_tokens"})
    for name, value in ceiling(
        tokenizer, held.draw(64, 160, np.random.default_rng(0)).kinds, towns.palette
    ).items():
        print(name, value)


def tokens(out: Path) -> tuple[GroundTokenizer, torch.Tensor]:
    """The tokenizer and the plan's patterns."""
    read, _ = read_tensors(out / "tokens.safetensors", kind="ground_tokens")
    return GroundTokenizer(read["palette"], read["book"]), read["patterns"]


def painter(kind: str, out: Path) -> Outpainter | FlowPainter:
    """An untrained candidate."""
    tokenizer, patterns = tokens(out)
    described = pattern_features(patterns) if kind == "plan" else tokenizer.described()
    return (FlowPainter if kind == "flow" else Outpainter)(CONFIGS[kind], described)


def train(kind: str, out: Path, minutes: float, batch: int, lr: float, compiled: bool) -> None:
    """Train a candidate, from where it was left."""
    towns, (tokenizer, patterns) = load_towns(out / "train.safetensors"), tokens(out)
    torch.manual_seed(0)
    model = painter(kind, out)
    table = plan_table(patterns) if kind == "fine" else None
    tokenise = (
        plan_tokens(patterns, towns.palette)
        if kind == "plan"
        else ground_tokens(tokenizer, table, towns.palette)
    )
    if isinstance(model, FlowPainter):
        loss = flow_painter_loss(model, towns, tokenise, batch, 0)
    else:
        loss = outpaint_loss(model, towns, tokenise, batch, 0)
    print(kind, f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)
    if compiled:
        for block in (*model.body.blocks, *model.body.enter, *model.body.leave):
            block.compile()
        with torch.autocast("cpu", dtype=torch.bfloat16):  # so that compiling takes none of the minutes
            loss(0, torch.Generator().manual_seed(0))[0].backward()
        model.zero_grad()
    folder = out / kind
    stage = stages.Stage(name=kind, steps=1_000_000, main=True)
    turn = stages.Stages(
        folder, minutes, {"kind": kind}, [stage], weights=folder / "weights.safetensors"
    ).begin(kind)
    config = LoopConfig(
        steps=stage.steps, minutes=minutes, batch=batch, lr=lr, warmup=30, log_every=100,
        checkpoint_every=200,
    )  # fmt: skip
    run(model, loss, config, turn, muon_of_body).copy_to(model)
    header = {"kind": "outpainter", "config": model.config.to_header(), "steps": turn.step}
    write_tensors(folder / "outpainter.safetensors", model.state_dict(), header)
    if isinstance(model, Outpainter):
        held = load_towns(out / "validate.safetensors")
        print(kind, "validation [nats]", validation(model.eval(), held, tokenise))


def join(out: Path) -> None:
    """Plan and fine outpainter in one file."""
    tokenizer, patterns = tokens(out)
    model = GroundModel(tokenizer, patterns, CONFIGS["plan"], CONFIGS["fine"])
    for kind, part in (("plan", model.plan), ("fine", model.fine)):
        weights, _ = read_tensors(out / kind / "outpainter.safetensors", kind="outpainter")
        part.load_state_dict(weights)
    model.save(out / "ground.safetensors", trained_on=TRAIN)


def main() -> None:
    """Run one of the commands above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("prepare", "join", *CONFIGS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--train", default=TRAIN)
    parser.add_argument("--validate", default=VALIDATE)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.cpu:
        stages.time = SimpleNamespace(monotonic=time.process_time)  # type: ignore[attr-defined]
    if args.what == "prepare":
        prepare(args.out, args.train, args.validate)
    elif args.what == "join":
        join(args.out)
    else:
        train(args.what, args.out, args.minutes, args.batch, args.lr, not args.no_compile)


if __name__ == "__main__":
    main()
