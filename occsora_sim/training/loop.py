"""The one training loop: schedule, mixed precision, clipping, EMA, curves, checkpoints and exact resume."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from occsora_sim.errors import CheckpointError, ConfigurationError
from occsora_sim.models.ema import EMA
from occsora_sim.training import checkpoints, processes
from occsora_sim.training.curves import Curves
from occsora_sim.training.precision import Precision, resolve
from occsora_sim.training.processes import StepLoss
from occsora_sim.training.report import Report, say
from occsora_sim.training.stages import Turn

CHECKPOINT_SECONDS = 300.0
"""Longest time between resumable checkpoints [s]: what an interruption may cost where steps are slow."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long and how to train.

    Attributes:
        steps: optimiser steps in all.
        minutes: stop after this long, all stages together, and decay the learning rate to that end instead [min]; 0
            means by steps alone.
        batch: windows per step, of all processes together.
        accumulate: parts that each process takes its windows of a step in, one after another: memory for a part of
            them is enough.
        lr: peak learning rate of AdamW.
        lr_floor: share of `lr` that the cosine ends at; 1 keeps the rate constant.
        warmup: steps of linear warm-up; afterwards the cosine.
        weight_decay: of AdamW.
        beta2: of AdamW, the decay of its squared gradients.
        clip: largest gradient norm.
        ema: decay of the parameters' moving average.
        precision: "auto" measures whether bfloat16 autocast is faster here.
        checkpoint_every: steps between resumable checkpoints; where steps are slow, there is one every five minutes.
        log_every: steps between log lines.
        seed: of batches, noise and initial weights.
        device: "cpu", "cuda"...
        workers: processes that draw crops of the ground and windows of the encoder ahead, for a GPU that would wait for
            them; they are the same. Road users and clips are drawn by no other process.

    """

    steps: int = 2000
    minutes: float = 0.0
    batch: int = 8
    accumulate: int = 1
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
            or self.accumulate < 1
            or not self.lr > 0
            or self.log_every < 1
            or self.checkpoint_every < 1
        ):
            raise ConfigurationError(
                f"training: steps, batch, accumulate, lr and intervals must be positive, got {self}"
            )
        if not (math.isfinite(self.minutes) and self.minutes >= 0):
            raise ConfigurationError(f"training: minutes {self.minutes} must be 0 (no limit) or more")
        if self.workers < 0 or (self.workers and "fork" not in multiprocessing.get_all_start_methods()):
            raise ConfigurationError(
                f"training: workers {self.workers} must be 0 or more, and 0 on a system that cannot fork"
            )
        if not 0 <= self.lr_floor <= 1 or not 0 <= self.beta2 < 1:
            raise ConfigurationError(
                f"training: lr_floor {self.lr_floor} must lie in [0, 1], beta2 {self.beta2} in [0, 1)"
            )


def learning_rate(config: LoopConfig, progress: float, step: int) -> float:
    """Linear warm-up over steps, then a cosine over `progress` in [0, 1] down to lr_floor * lr."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    low, cosine = config.lr_floor, 1 + math.cos(math.pi * min(1.0, progress))
    return config.lr * warm * (low + (1 - low) * 0.5 * cosine)


def adamw(config: LoopConfig, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser of parameters by their names."""
    return torch.optim.AdamW(
        parameters.values(), lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, config.beta2)
    )


def run(
    model: nn.Module,
    step_loss: StepLoss,
    config: LoopConfig,
    turn: Turn,
    optimiser_of: Callable[[LoopConfig, Mapping[str, nn.Parameter]], torch.optim.Optimizer] = adamw,
) -> EMA:
    """Train the parameters of `model` that require a gradient for the steps and the time of a stage's `turn`; return
    their moving average.

    The turn's resume.safetensors holds model, average, optimiser and step; if it is there, training goes on from it
    and gives the same weights as a run that was never interrupted. Curves go to tensorboard beside it. Of several
    processes (see `processes.joined`) all hold the same weights, and the first writes the files.

    Raises:
        ConfigurationError: the batch has fewer windows than parts.
        CheckpointError: the resume file is damaged or of another model, or files cannot be written.
        MissingDependencyError: TensorBoard is not installed.

    """
    parts = processes.parts(config.accumulate)
    if config.batch < parts[0].of:
        raise ConfigurationError(
            f"a batch of {config.batch} cannot be taken in {parts[0].of} parts (processes times --accumulate); give a "
            "larger --batch"
        )
    turn.folder.mkdir(parents=True, exist_ok=True)
    device = torch.device(config.device)
    dtype = processes.from_first(resolve, config.precision, device)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimiser = optimiser_of(config, parameters)
    ema = EMA(model, decay=config.ema)
    if turn.begun:
        _load(turn, model, ema, optimiser, parameters)
    if turn.over:
        return ema
    compute = processes.Parallel(model, step_loss)
    step, steps, first = turn.step, turn.stage.steps, processes.rank() == 0
    saved, due = time.monotonic(), False
    curves_of = Curves(turn.folder / "tensorboard") if first else nullcontext()
    with curves_of as curves, Report(turn.title) as report:
        while (progress := processes.from_first(turn.progress, step)) < 1:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(config, progress, step)
            optimiser.zero_grad(set_to_none=True)
            told = []
            for part in parts:
                generator = part.generator(config.seed * 1_000_003 + step)
                with compute.held_back(part, parts[-1]):
                    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
                        loss, logs = compute(step, part, generator)
                    # The mean over processes of these sums is the mean over the batch.
                    (loss * (processes.count() * part.size(config.batch) / config.batch)).backward()
                told.append(logs)
            norm = nn.utils.clip_grad_norm_(parameters.values(), config.clip)
            if torch.isfinite(norm):  # a step that overflowed is left out
                optimiser.step()
                ema.update(model)
            if report.terminal:
                text = f"step {step + 1} of {steps} {turn.clock(step + 1)}  loss {float(loss.detach()):.4f}"
                report.show(turn.progress(step + 1), text)
            if step % config.log_every == 0 or step == steps - 1:
                numbers = processes.mean([_numbers(logs) for logs in told])
                numbers |= {"train/gradient_norm": float(norm), "train/lr": optimiser.param_groups[0]["lr"]}
                if curves is not None:
                    curves.add(numbers, step)
                    curves.add_pictures(_pictures(told), step)
                if not report.terminal:
                    text = "  ".join(f"{k.split('/')[-1]} {v:.4g}" for k, v in numbers.items())
                    say(f"{turn.title}: step {step + 1} of {steps} {turn.clock(step + 1)}  {text}")
            step += 1
            due |= step % config.checkpoint_every == 0 or time.monotonic() - saved >= CHECKPOINT_SECONDS
            if first and due and step < steps and step % turn.stage.stride == 0:
                _save(turn, model, ema, optimiser, parameters, step)
                saved, due = time.monotonic(), False
        if first:
            _save(turn, model, ema, optimiser, parameters, step, stopped=step < steps)
    turn.close(step)
    return ema


def _pictures(told: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Those of what the parts of a step have to log."""
    return {
        name: value
        for logs in told
        for name, value in logs.items()
        if isinstance(value, Tensor) and value.ndim
    }


def _numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """Those of what a part of a step has to log."""
    pictures = _pictures([logs])
    return {name: float(value) for name, value in logs.items() if name not in pictures}


def _save(
    turn: Turn, model: nn.Module, ema: EMA, optimiser: torch.optim.Optimizer, parameters: Mapping[str, Tensor],
    step: int, *, stopped: bool = False,
) -> None:  # fmt: skip
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    for name, parameter in parameters.items():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser.{key}.{name}"] = torch.as_tensor(value)
    turn.save(tensors, step, stopped=stopped)


def _load(
    turn: Turn, model: nn.Module, ema: EMA, optimiser: torch.optim.Optimizer, parameters: Mapping[str, Tensor]
) -> None:
    tensors, _ = checkpoints.read(turn.resume, kind="resume")
    try:
        model.load_state_dict(_part(tensors, "model."))
        ema.load_state_dict(_part(tensors, "ema."))
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(f"{turn.resume}: holds another model; use another --out") from error
    for full, value in _part(tensors, "optimiser.").items():
        key, _, name = full.partition(".")
        if name in parameters:  # those that have had no gradient yet have no state
            parameter = parameters[name]
            state = optimiser.state.setdefault(parameter, {})  # type: ignore[arg-type]
            state[key] = value.to(parameter.device if key != "step" else "cpu")


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
