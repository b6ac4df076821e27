"""The stages of a training: their names, their shares of the time, and what each keeps to go on from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from occsora_sim.checkpoint import read_header
from occsora_sim.recipe import check_recipe
from occsora_sim.training import checkpoints, processes
from occsora_sim.training.pool import Pool, pool_of, tensors_of
from occsora_sim.training.report import Report, clock, duration, say

GOES_ON_WITH = frozenset(
    {
        "--out", "--steps", "--minutes", "--checkpoint-every", "--log-every", "--workers", "--device", "--compile",
        "--accumulate",
    }
)  # fmt: skip
"""Options that may change when a training goes on: how long, where, and what it tells on the way."""

_DRAWING = 0.5
"""Largest share of a stage's time that goes into drawing its pool."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of a training.

    Attributes:
        name: as it is called on the way; also its folder, unless it is the main stage.
        steps: optimiser steps; a stage of none is left out.
        share: of the time, beside those of the other stages.
        main: whether it is this stage that goes on where more steps or minutes are asked for. Its files lie in the
            training's own folder. Stages before it stay as they are, those after it are then trained again.
        stride: steps that belong together: only between them is there a checkpoint, so that a resumed run is exact.

    """

    name: str
    steps: int
    share: float = 1.0
    main: bool = False
    stride: int = 1


@dataclass(kw_only=True)
class Turn:
    """A stage under way.

    Attributes:
        title: what it is called on the way: "stage 2 of 5, code".
        stage: which one it is.
        folder: where its files are: resume.safetensors and the one before, previous.safetensors, pool.safetensors
            (while it runs) and tensorboard.
        header: what its files say in their headers: the recipe, and the steps of the stages before it.
        seconds: that it may take in all; infinite where steps alone count.
        before: seconds that it took in runs before this one.
        drawn: seconds of these and the present ones that went into its pool.
        step: optimiser steps done.
        over: whether nothing is left to do.

    """

    title: str
    stage: Stage
    folder: Path
    header: Mapping[str, Any]
    seconds: float
    before: float = 0.0
    drawn: float = 0.0
    step: int = 0
    over: bool = False

    def __post_init__(self) -> None:
        self._started = time.monotonic()

    @property
    def resume(self) -> Path:
        """What the stage goes on from."""
        return checkpoints.resume_file(self.folder)

    @property
    def begun(self) -> bool:
        """Whether there is something to go on from."""
        return self.resume.exists()

    @property
    def spent(self) -> float:
        """Seconds in all runs together."""
        return self.before + time.monotonic() - self._started

    def progress(self, step: int) -> float:
        """Share of the steps or of the time for them that is behind, whichever is larger; 1: the stage is over."""
        time_left = self.seconds - self.drawn
        by_time = (self.spent - self.drawn) / time_left if time_left > 0 else 1.0
        return min(1.0, max(step / self.stage.steps, by_time))

    def clock(self, step: int) -> str:
        """How long it has taken, and how long it still will, by the share that is behind."""
        progress = self.progress(step)
        used = self.spent - self.drawn
        return clock(self.spent, used * (1 - progress) / progress if progress > 0 else None)

    def save(self, tensors: dict[str, Tensor], step: int, *, stopped: bool = False) -> None:
        """Write its checkpoint after so many steps; `stopped`: there will be no more, for want of time.

        Raises:
            CheckpointError: it cannot be written; those of before are there.

        """
        state = {**self.header, "kind": "resume", "step": step, "spent": self.spent, "stopped": stopped}
        checkpoints.write_next(self.folder, tensors, state)

    def close(self, step: int) -> None:
        """It is over after so many steps; its pool may go, unless the stage may go on."""
        self.step, self.over = step, True
        if not self.stage.main and processes.rank() == 0:
            self._pool.unlink(missing_ok=True)
        say(f"{self.title}: done after {step} of {self.stage.steps} steps {clock(self.spent, None)}")

    def draws(self, count: int) -> Iterator[int]:
        """0 to `count` - 1 while a pool is drawn, a batch for each, with progress; fewer where time is short."""
        begin = self.spent
        limit = begin + _DRAWING * max(0.0, self.seconds - begin)
        with Report(self.title) as report:
            for number in range(count):
                used = self.spent - begin
                if number and begin + used >= limit:
                    say(f"{self.title}: no time to draw more than {number} of {count} batches of windows")
                    return
                left = used * (count - number) / number if number else None
                report.show(
                    number / count, f"drawing windows, batch {number + 1} of {count} {clock(used, left)}"
                )
                yield number

    def pool(self, kind: type[Pool], draw: Callable[[], Pool], device: torch.device | str) -> Pool:
        """What `draw` returns, drawn once, by the first process: it is kept in a file until the stage is over."""
        with processes.first_alone():
            if self._pool.exists():
                return pool_of(kind, checkpoints.read(self._pool, kind="pool")[0], device)
            begin = self.spent
            pool = draw()
            self.drawn = self.spent - begin
            state = {**self.header, "kind": "pool", "spent": self.drawn}
            checkpoints.write(self._pool, tensors_of(pool), state)
            return pool

    @property
    def _pool(self) -> Path:
        return checkpoints.pool_file(self.folder)


class Stages:
    """The stages of one training command, in order. One time budget holds for the whole command: what is left of it is
    shared out among the stages that are left.

    Args:
        out: folder of the training.
        minutes: for all stages together, drawing included [min]; 0: by steps alone.
        recipe: the options, as of `recipe_of`.
        stages: what is trained, one after another; one of them is the main stage.
        weights: the file that is written at the end.

    Raises:
        CheckpointError: `out` holds a training with other options.

    """

    def __init__(
        self, out: Path, minutes: float, recipe: Mapping[str, Any], stages: Sequence[Stage], *, weights: Path
    ) -> None:
        self.out, self.seconds, self.recipe, self.weights = out, 60 * minutes, dict(recipe), weights
        self.stages = [stage for stage in stages if stage.steps]
        self._turns: dict[str, Turn] = {}
        self._started = time.monotonic()
        processes.from_first(self._check, stages)

    @property
    def finished(self) -> bool:
        """Whether a run before has trained all that is asked for, and written the weights; says so."""
        return processes.from_first(self._finished)

    def _check(self, stages: Sequence[Stage]) -> None:
        """Repair the files of a training that was killed, and see that it was begun with these options."""
        for folder in map(self._folder, stages):
            checkpoints.repair(folder)
            for kind in ("resume", "pool"):
                if (path := folder / f"{kind}.safetensors").exists():
                    theirs = read_header(path, kind=kind).get("recipe")
                    check_recipe(path, theirs, self.recipe, free=GOES_ON_WITH)

    def _finished(self) -> bool:
        done: dict[str, int] = {}
        for stage in self.stages:
            state = self._state(stage, "resume", done)
            if not state or not self._over(stage, state):
                return False
            done[stage.name] = state["step"]
        written = [checkpoints.resume_file(self._folder(stage)).stat().st_mtime_ns for stage in self.stages]
        if not self.weights.is_file() or self.weights.stat().st_mtime_ns < max(written):
            return False
        say(f"{self.weights}: was finished before; more --steps or --minutes go on from here")
        return True

    def begin(self, name: str) -> Turn:
        """Begin the stage `name`, or go on with it; its predecessors' turns are over."""
        number = [stage.name for stage in self.stages].index(name)
        stage = self.stages[number]
        after = {s.name: self._turns[s.name].step for s in self.stages[:number] if s.name in self._turns}
        state, pool = processes.from_first(self._kept, stage, after)
        elapsed = time.monotonic() - self._started + sum(turn.before for turn in self._turns.values())
        left = max(0.0, self.seconds - elapsed) if self.seconds else math.inf
        drawn = float(pool.get("spent", 0.0))
        turn = Turn(
            title=f"stage {number + 1} of {len(self.stages)}, {name}" if len(self.stages) > 1 else name,
            stage=stage,
            folder=self._folder(stage),
            header={"recipe": self.recipe, "after": after, "minutes": self.seconds / 60},
            seconds=left * stage.share / sum(s.share for s in self.stages[number:]),
            before=float(state.get("spent", drawn)),
            drawn=drawn,
            step=int(state.get("step", 0)),
            over=bool(state) and self._over(stage, state),
        )
        self._turns[name] = turn
        text = (
            f"{turn.step} of {stage.steps} steps done before" if turn.step else f"steps to do: {stage.steps}"
        )
        if self.seconds and not turn.over:
            text += f", at most {duration(turn.seconds)}; {duration(left)} left in all"
        say(f"{turn.title}: {text}")
        return turn

    def _kept(self, stage: Stage, after: Mapping[str, int]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The headers of what a stage goes on from; files of weights that have learned on since are removed."""
        folder = self._folder(stage)
        state, pool = (self._state(stage, kind, after) for kind in ("resume", "pool"))
        if not state:
            checkpoints.resume_file(folder).unlink(missing_ok=True)
            checkpoints.previous_file(folder).unlink(missing_ok=True)
        if not pool:
            checkpoints.pool_file(folder).unlink(missing_ok=True)
        return state, pool

    def _folder(self, stage: Stage) -> Path:
        return self.out if stage.main else self.out / stage.name

    def _state(self, stage: Stage, kind: str, after: Mapping[str, int]) -> dict[str, Any]:
        """The header of the stage's file of `kind`; empty where there is none that follows from the stages before."""
        path = self._folder(stage) / f"{kind}.safetensors"
        header = read_header(path, kind=kind) if path.exists() else {}
        return header if header.get("after") == after else {}

    def _over(self, stage: Stage, state: Mapping[str, Any]) -> bool:
        enough = not stage.main or 0 < self.seconds <= 60 * state["minutes"]
        return state["step"] >= stage.steps or (state["stopped"] and enough)
