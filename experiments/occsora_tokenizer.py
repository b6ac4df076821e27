"""What holds the tokenizer of OccSora's design back? Variants of `paper-small`, trained for equal CPU seconds.

    python experiments/occsora_tokenizer.py --seconds 90 --set quantiser=vector latent_channels=32
    python experiments/occsora_tokenizer.py --weights runs/tokenizer/tokenizer.safetensors --picture rebuilt.png

Each run prints a line of JSON: the variant, its steps, and reconstruction of validation towns that it never trains on.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import json
import math
import time
from pathlib import Path

import torch

from occsora_sim.device import fast_bfloat16
from occsora_sim.grid import OCC3D
from occsora_sim.models.occsora_tokenizer import OccSoraTokenizer
from occsora_sim.models.weights import load_occsora
from occsora_sim.presets import paper_small
from occsora_sim.rendering.example_sheet import write_example_sheet
from occsora_sim.scenes.source import open_scenes
from occsora_sim.scoring.clip_models import RecordedClip, recorded_clips
from occsora_sim.scoring.confusion import Confusion
from occsora_sim.scoring.examples import Example
from occsora_sim.training.clips import ClipSampler
from occsora_sim.training.loop import LoopConfig, adamw

SHOWN = (0, 10, 21, 31)
"""Frames of a clip in a picture."""


def train(given: argparse.Namespace) -> tuple[OccSoraTokenizer, dict[str, float]]:
    """A tokenizer after `seconds` of CPU time, and what it logged last."""
    changes = {name: _value(text) for name, text in (pair.split("=") for pair in given.set)}
    torch.manual_seed(0)
    model = OccSoraTokenizer(dataclasses.replace(paper_small().tokenizer, **changes)).train()
    sampler = ClipSampler(open_scenes(given.scenes), OCC3D, frames=model.config.frames)
    loop = LoopConfig(lr=given.lr, warmup=20)
    optimiser = adamw(loop, dict(model.named_parameters()))
    begin, step = time.process_time(), 0
    logs: dict[str, float] = {}
    while (progress := (time.process_time() - begin) / given.seconds) < 1:
        for group in optimiser.param_groups:
            warm, cosine = min(1.0, (step + 1) / loop.warmup), 0.5 * (1 + math.cos(math.pi * progress))
            group["lr"] = given.lr * warm * (loop.lr_floor + (1 - loop.lr_floor) * cosine)
        clips = sampler.draw(given.batch, step % given.overfit if given.overfit else step).labels
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16(torch.device("cpu"))):
            loss, now = model.loss(clips, torch.Generator().manual_seed(step))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        logs = {name: 0.95 * logs.get(name, value) + 0.05 * value for name, value in now.items()}
        if step % 50 == 0:
            print(f"step {step}", {k: round(v, 4) for k, v in logs.items()}, flush=True)
    return model.eval(), logs | {"steps": step}


def _value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except ValueError:
        return text


@torch.no_grad()
def rebuilt(model: OccSoraTokenizer, clip: RecordedClip) -> torch.Tensor:
    """The clip through the codes."""
    with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16(torch.device("cpu"))):
        return model.draw(model.quantise(model.encode(clip.labels[None])).latent)[0]


def main() -> None:
    """Train or load, score, print; draw where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--scenes", default="traffic:0-15")
    parser.add_argument("--validate", default="traffic:300000-300003")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument(
        "--overfit", type=int, default=0, help="train on so many batches of clips, and score those"
    )
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.weights:
        model, logs = load_occsora(given.weights, kind="tokenizer")[0].tokenizer.eval(), {}
    else:
        model, logs = train(given)
    if given.overfit:
        sampler = ClipSampler(open_scenes(given.scenes), OCC3D, frames=model.config.frames)
        drawn = [sampler.draw(given.batch, step) for step in range(given.overfit)]
        clips = [RecordedClip(labels=d.labels[0], poses=d.poses[0]) for d in drawn]
    else:
        clips = list(recorded_clips(open_scenes(given.validate), given.clips, OCC3D, model.config.frames))
    confusion, examples = Confusion(), []
    for clip in clips:
        frames = rebuilt(model, clip)
        confusion.add(frames, clip.labels)
        at, seconds = list(SHOWN), tuple(0.5 * k for k in SHOWN)
        examples.append(Example(name="rebuilt", seconds=seconds, frames=frames[at], real=clip.labels[at]))
    if given.picture:
        write_example_sheet(examples, given.picture)
    what = {"set": given.set, "lr": given.lr, "overfit": given.overfit}
    print(json.dumps(what | {"logs": logs} | confusion.metrics()))


if __name__ == "__main__":
    main()
