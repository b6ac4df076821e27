"""The smallest training: a line through points that follow from the step's number."""

import os
import signal
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from occsora_sim.checkpoint import read_tensors
from occsora_sim.training.loop import LoopConfig, run
from occsora_sim.training.processes import Part
from occsora_sim.training.stages import Stage, Stages


class Line(nn.Module):
    """Two weights and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))
        self.other = nn.Parameter(torch.ones(3))
        self.register_buffer("seen", torch.zeros(()))


def fit(out: Path, steps: int = 6, *, kill_at: int | None = None, **options) -> None:
    """Fit a line to points that follow from the step's number; weights are then in resume.safetensors."""
    config = LoopConfig(
        **{
            "steps": steps,
            "batch": 4,
            "lr": 0.1,
            "lr_floor": 1.0,
            "precision": "float32",
            "checkpoint_every": 2,
            **options,
        }
    )
    stages = Stages(out, config.minutes, {}, [Stage(name="line", steps=steps, main=True)], weights=out / "w")
    model = Line()

    def loss(step: int, part: Part, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        if step == kill_at and part.index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        x = torch.from_numpy(part.cut(np.random.default_rng(step).normal(size=(4, 3)))).float()
        value = ((x * (model.one + model.other)).sum(1) - x[:, 0]).square().mean()
        return value, {"loss": value.detach(), "x": x.mean()}

    run(model, loss, config, stages.begin("line"))


def state(out: Path) -> dict[str, Tensor]:
    return read_tensors(out / "resume.safetensors", kind="resume")[0]


def equal(one: Path, two: Path) -> bool:
    a, b = state(one), state(two)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
