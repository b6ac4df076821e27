"""How much faster is a training in several processes, at the same batch (strong) and at one as large for each (weak)?

    python experiments/scaling.py [--processes 1 2] [--preset paper-tiny] [--batch 8] [--steps 20] [--device cpu]

Trains the denoiser of OccSora's design on random latents by the training loop, so that nothing but a step is measured:
forward, backward, gradients over all processes, optimiser. Prints of each run the median time of a step, the CPU time
that each process spends on one, and clips a second. Two processes on two hyperthreads of one core, or on a machine that
others use, say little of wall time; the CPU time says what the processes cost each other.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed import is_torchelastic_launched

from occsora_sim.models.occsora_world import OccSora
from occsora_sim.presets import occsora_preset
from occsora_sim.training.loop import LoopConfig, run
from occsora_sim.training.processes import Part, count, joined, rank
from occsora_sim.training.stages import Stage, Stages

WARM_UP = 5
"""Steps that are left out."""


def measure(preset: str, batch: int, steps: int, device: str) -> None:
    """One training, in this process and those beside it; the first prints."""
    torch.manual_seed(0)
    model = OccSora(occsora_preset(preset)).to(device).train()
    labels = torch.zeros(1, model.config.tokenizer.frames, *model.config.grid.shape, dtype=torch.uint8)
    shape = model.latents(labels.to(device)).shape[1:]
    told: list[tuple[float, float]] = []

    def loss(step: int, part: Part, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        told.append((time.monotonic(), time.process_time()))
        rows = part.size(batch)
        latents = torch.randn(rows, *shape, generator=generator).to(device)
        prompt = torch.randn(rows, labels.shape[1], 2, generator=generator).to(device)
        return model.latent_loss(latents, prompt, generator=generator)[0], {}

    config = LoopConfig(
        steps=steps + WARM_UP, batch=batch, precision="float32", device=device, log_every=10_000
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        stages = Stages(
            out, 0.0, {}, [Stage(name="steps", steps=config.steps, main=True)], weights=out / "none"
        )
        run(model, loss, config, stages.begin("steps"))
    if rank() == 0:
        wall, cpu = (
            statistics.median(b - a for a, b in zip(times[WARM_UP:], times[WARM_UP + 1 :], strict=False))
            for times in zip(*told, strict=True)
        )
        print(
            f"{count()} processes, batch {batch}: {wall:.3f} s a step, {cpu:.3f} s of CPU in each, "
            f"{batch / wall:.1f} clips/s",
            flush=True,
        )


def main() -> None:
    """Read the options; start torchrun for each number of processes, or measure where torchrun started this."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--preset", default="paper-tiny")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    if is_torchelastic_launched():
        with joined(given.device):
            measure(given.preset, given.batch, given.steps, given.device)
        return
    for processes in given.processes:
        for batch in sorted({given.batch, given.batch * processes}):
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
            options = ["--preset", given.preset, "--batch", str(batch), "--steps", str(given.steps)]
            command = [*torchrun, str(processes), __file__, *options, "--device", given.device]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
