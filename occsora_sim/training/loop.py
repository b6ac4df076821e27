"""The one training loop: schedule, mixed precision, clipping, EMA, TensorBoard, checkpoints and exact resume."""

from __future__ import annotations

import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from occsora_sim.checkpoint import read_tensors, write_tensors
from occsora_sim.errors import CheckpointError, ConfigurationError, MissingDependencyError
from occsora_sim.models.ema import EMA
from occsora_sim.training.precision import Precision, resolve

StepLoss = Callable[[int, torch.Generator], tuple[Tensor, Mapping[str, float | Tensor]]]
"""(step, generator) -> loss and what to log, which is read from the device only when it is written. The batch must
follow from the step alone, so that resuming is exact."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long and how to train.

    Attributes:
        steps: optimiser steps in all.
        minutes: stop after this long and decay the learning rate to that end instead [min]; 0 means by steps alone.
        batch: windows per step.
        lr: peak learning rate of AdamW.
        lr_floor: share of `lr` that the cosine ends at; 1 keeps the rate constant.
        warmup: steps of linear warm-up; afterwards the cosine.
        weight_decay: of AdamW.
        beta2: of AdamW, the decay of its squared gradients.
        clip: largest gradient norm.
        ema: decay of the parameters' moving average.
        precision: "auto" measures whether bfloat16 autocast is faster here.
        checkpoint_every: steps between resumable checkpoints.
        log_every: steps between log lines.
        seed: of batches, noise and initial weights.
        device: "cpu", "cuda"...
        workers: processes that draw training windows ahead, for a GPU that would wait for them. The windows are the
            same; OccSora's own models, which look at clips, have none.

    """

    steps: int = 2000
    minutes: float = 0.0
    batch: int = 8
    lr: float = 6e-4
    lr_floor: float = 0.02
    warmup: int = 50
    weight_decay: float = 0.01
    beta2: float = 0.98
    clip: float = 1.0
    ema: float = 0.995
    precision: Precision = "auto"
    checkpoint_every: int = 100
    log_every: int = 10
    seed: int = 0
    device: str = "cpu"
    workers: int = 0

    def __post_init__(self) -> None:
        if (
            self.steps < 1
            or self.batch < 1
            or not self.lr > 0
            or self.log_every < 1
            or self.checkpoint_every < 1
        ):
            raise ConfigurationError(f"training: steps, batch, lr and intervals must be positive, got {self}")
        if self.workers < 0 or (self.workers and "fork" not in multiprocessing.get_all_start_methods()):
            raise ConfigurationError(
                f"training: workers {self.workers} must be 0 or more, and 0 on a system that cannot fork"
            )
        if not 0 <= self.lr_floor <= 1 or not 0 <= self.beta2 < 1:
            raise ConfigurationError(
                f"training: lr_floor {self.lr_floor} must lie in [0, 1], beta2 {self.beta2} in [0, 1)"
            )

    def of_a_part(self, steps: int, lr: float) -> LoopConfig:
        """How a small part is trained by itself: by steps, which are many and short."""
        return replace(self, steps=steps, minutes=0.0, lr=lr, log_every=100, checkpoint_every=1000)


def learning_rate(config: LoopConfig, progress: float, step: int) -> float:
    """Linear warm-up over steps, then a cosine over `progress` in [0, 1] down to lr_floor * lr."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    low, cosine = config.lr_floor, 1 + math.cos(math.pi * min(1.0, progress))
    return config.lr * warm * (low + (1 - low) * 0.5 * cosine)


def run(model: nn.Module, step_loss: StepLoss, config: LoopConfig, out: Path) -> EMA:
    """Train the parameters of `model` that require a gradient; return their moving average.

    `out`/resume.safetensors holds model, average, optimiser and step; if it is there, training goes on from it and
    gives the same weights as a run that was never interrupted. Curves go to `out`/tensorboard.

    Raises:
        CheckpointError: the resume file is damaged or of another configuration.
        MissingDependencyError: TensorBoard is not installed.

    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError(
            'TensorBoard is not installed: pip install "occsora-sim[train]"'
        ) from error
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    out.mkdir(parents=True, exist_ok=True)
    device = torch.device(config.device)
    dtype = resolve(config.precision, device)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(
        parameters.values(), lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, config.beta2)
    )
    ema = EMA(model, decay=config.ema)
    resume = out / "resume.safetensors"
    begin, spent = 0, 0.0
    if resume.exists():
        begin, spent = _load(resume, model, ema, optimiser, parameters, config)
    started = time.monotonic() - spent
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        disable=not sys.stderr.isatty(),
    )  # fmt: skip
    with SummaryWriter(str(out / "tensorboard")) as writer, bar:
        task = bar.add_task("training", total=config.steps, completed=begin)
        for step in range(begin, config.steps):
            spent = time.monotonic() - started
            progress = step / config.steps
            if config.minutes > 0:
                progress = max(progress, spent / 60 / config.minutes)
                if progress >= 1:
                    break
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(config, progress, step)
            generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
                loss, logs = step_loss(step, generator)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters.values(), config.clip)
            if torch.isfinite(norm):  # a step that overflowed is left out
                optimiser.step()
                ema.update(model)
            if not bar.disable:
                bar.update(task, advance=1, description=f"loss {float(loss.detach()):.4f}")
            if step % config.log_every == 0 or step == config.steps - 1:
                logs = {
                    **{name: float(value) for name, value in logs.items()},
                    "train/gradient_norm": float(norm),
                    "train/lr": optimiser.param_groups[0]["lr"],
                }
                for name, value in logs.items():
                    writer.add_scalar(name, value, step)
                if bar.disable:
                    text = "  ".join(f"{k.split('/')[-1]} {v:.4g}" for k, v in logs.items())
                    print(f"step {step} [{spent / 60:.1f} min]  {text}", file=sys.stderr, flush=True)
            if (step + 1) % config.checkpoint_every == 0 or step == config.steps - 1:
                _save(resume, model, ema, optimiser, parameters, config, step + 1, time.monotonic() - started)
    return ema


def _save(
    path: Path, model: nn.Module, ema: EMA, optimiser: torch.optim.Optimizer, parameters: Mapping[str, Tensor],
    config: LoopConfig, step: int, spent: float,
) -> None:  # fmt: skip
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    for name, parameter in parameters.items():
        for key, value in optimiser.state[parameter].items():
            tensors[f"optimiser.{key}.{name}"] = torch.as_tensor(value)
    write_tensors(path, tensors, {"kind": "resume", "step": step, "spent": spent, "loop": asdict(config)})


def _load(
    path: Path, model: nn.Module, ema: EMA, optimiser: torch.optim.Optimizer, parameters: Mapping[str, Tensor],
    config: LoopConfig,
) -> tuple[int, float]:  # fmt: skip
    tensors, header = read_tensors(path, kind="resume")
    theirs, ours = header["loop"], asdict(config)
    for name in ("batch", "lr", "seed", "ema", "warmup"):
        if theirs[name] != ours[name]:
            raise CheckpointError(
                f"{path}: was begun with {name} {theirs[name]}, not {ours[name]}; use the same options or another --out"
            )

    def part(prefix: str) -> dict[str, Any]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    try:
        model.load_state_dict(part("model."))
        ema.load_state_dict(part("ema."))
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(f"{path}: holds another model; use another --out") from error
    keys = {k.split(".")[1] for k in tensors if k.startswith("optimiser.")}
    for name, parameter in parameters.items():
        optimiser.state[parameter] = {  # type: ignore[index]
            key: tensors[f"optimiser.{key}.{name}"].to(parameter.device if key != "step" else "cpu")
            for key in keys
        }
    return int(header["step"]), float(header["spent"])
