"""Does a training that is killed again and again end with the weights of one that was left alone?

    python experiments/kills.py OUT [--kills 50] [--scenes SPEC] [--steps 40] [--seed 0]

Trains the smallest tokenizer of OccSora's design and then its denoiser on clips encoded ahead, so that files of every
kind are written, a checkpoint after every step; and kills it (SIGKILL) at random moments, until it has been killed so
often. Where it ends before that, it begins again. Every end is compared bit for bit with that of a training that was
left alone.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

from occsora_sim.checkpoint import read_tensors
from occsora_sim.envs.starts import shipped_scenes
from occsora_sim.training.loop import LoopConfig
from occsora_sim.training.occsora import (
    TokenizerTraining,
    WorldModelTraining,
    train_tokenizer,
    train_world_model,
)

SLOWEST = 4.0
"""A process lives for at most the time of a whole training over this."""


def train(scenes: str, out: Path, steps: int) -> None:
    """Both trainings, from wherever they are."""
    loop = LoopConfig(
        steps=steps, batch=2, warmup=1, precision="float32", checkpoint_every=1, log_every=steps, ema=0.5
    )
    tokenizer = train_tokenizer(
        TokenizerTraining(scenes=scenes, out=out / "tokenizer", preset="paper-tiny", loop=loop)
    )
    train_world_model(
        WorldModelTraining(scenes=scenes, tokenizer=tokenizer, out=out / "model", pool=8, loop=loop)
    )


def begin(scenes: str, out: Path, steps: int) -> int:
    """`train` in a process of its own, which has all that is imported already; returns its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        out.mkdir(parents=True, exist_ok=True)
        log = os.open(out / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2)
        train(scenes, out, steps)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())  # to the log
    finally:
        os._exit(status)


def ended(child: int, seconds: float) -> bool:
    """Whether a process ends by itself within so many seconds; else it is killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            if status:
                raise SystemExit("a training failed: see log.txt beside its files")
            return True
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def same(one: Path, two: Path) -> bool:
    """Whether two trainings ended with the same weights, bit for bit."""
    for part, kind in (("tokenizer/tokenizer", "tokenizer"), ("model/world_model", "world_model")):
        a, b = (read_tensors(out / f"{part}.safetensors", kind=kind)[0] for out in (one, two))
        if a.keys() != b.keys() or not all(torch.equal(a[name], b[name]) for name in a):
            return False
    return True


def endure(scenes: str, out: Path, *, kills: int, steps: int, seed: int) -> tuple[int, int]:
    """Kill trainings so many times; how many ended, and how many of these as the one that was left alone."""
    shutil.rmtree(out, ignore_errors=True)
    begun = time.monotonic()
    ended(begin(scenes, out / "alone", steps), 3600.0)
    whole = time.monotonic() - begun
    rng, killed, ends, right = random.Random(seed), 0, 0, 0
    while killed < kills or ends == 0:
        part = out / f"killed-{ends}"
        seconds = rng.uniform(0, whole / SLOWEST) if killed < kills else 3600.0
        if ended(begin(scenes, part, steps), seconds):
            ends, right = ends + 1, right + same(out / "alone", part)
        else:
            killed += 1
    return ends, right


def main() -> None:
    """Read the options and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--scenes", default=shipped_scenes())
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    ends, right = endure(given.scenes, given.out, kills=given.kills, steps=given.steps, seed=given.seed)
    print(f"{given.kills} kills, {ends} trainings came to an end, {right} with the weights of one left alone")
    sys.exit(0 if right == ends else 1)


if __name__ == "__main__":
    main()
