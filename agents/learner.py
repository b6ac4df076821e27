"""The learner: imitation of a rule, then PPO of Stable-Baselines3, in many worlds at once; resumes exactly."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure

from occsora_sim.agents.imitation import SPREAD, Demonstrations, demonstrate, fit_policy, fit_value
from occsora_sim.agents.intelligent_driver import IntelligentDriver
from occsora_sim.agents.learned import PolicyConfig, save_policy
from occsora_sim.agents.learner_config import KIND, LearnerConfig, finished, recipe_of_learner
from occsora_sim.agents.learner_env import LearnerEnv
from occsora_sim.agents.recorded_drives import RecordedDrives
from occsora_sim.agents.route_follower import RouteFollower
from occsora_sim.atomic_file import write_rows
from occsora_sim.checkpoint import read_tensors, write_tensors
from occsora_sim.errors import CheckpointError, MissingDependencyError

SHOWN = ("score", "nc", "dac", "ttc", "ep", "comfort", "reward")
CURVE = ("decisions", "phase", "minutes", "episodes", *SHOWN, "loss")
"""Columns of curve.csv: a row for each rollout, means over the episodes that ended in it (with exploration)."""


class _TimeUp(Exception):
    """`minutes` have passed."""


@dataclass(kw_only=True)
class Learner:
    """A training under way.

    Attributes:
        env: where it learns.
        config: how.
        out: folder for policy.safetensors, resume.safetensors, curve.csv and tensorboard.
        about: what is written into the policy's header beside the configuration.
        recorded: drives that are imitated beside the teacher.

    """

    env: LearnerEnv
    config: LearnerConfig
    out: Path
    about: dict[str, Any] = field(default_factory=dict)
    recorded: RecordedDrives | None = None
    rollouts: int = 0
    spent: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)
    data: Demonstrations | None = None

    def __post_init__(self) -> None:
        c = self.config
        self.model = PPO(
            "MlpPolicy", self.env, learning_rate=c.lr, n_steps=c.rollout,
            batch_size=c.copies * c.rollout // c.minibatches, n_epochs=c.epochs, gamma=c.gamma, gae_lambda=c.gae,
            target_kl=c.kl, seed=c.seed, device="cpu",
            policy_kwargs={
                "net_arch": {"pi": list(c.hidden), "vf": list(c.hidden)}, "activation_fn": torch.nn.Tanh,
            },
        )  # fmt: skip
        with torch.no_grad():
            self.model.policy.log_std.copy_(torch.tensor(SPREAD).log())  # type: ignore[operator]
        self._started = time.monotonic()

    # ------------------------------------------------------------------ the two phases
    def run(self) -> Path:
        """Train from where `out` was left, or from the beginning; returns the path of the policy.

        Raises:
            CheckpointError: the resume file is damaged or of another configuration, or `out` cannot be written.
            MissingDependencyError: TensorBoard is not installed.

        """
        try:
            import tensorboard  # noqa: F401  (the logger of Stable-Baselines3 fails without a word of help)
        except ImportError as error:
            raise MissingDependencyError(
                'TensorBoard is not installed: pip install "occsora-sim[train]"'
            ) from error
        if not finished(self.out, self.config, self.about):
            try:
                self._train()
            except OSError as error:
                if error.filename is not None:
                    raise
                raise CheckpointError(
                    f"{self.out}: cannot be written ({error.strerror or error}); make room and give the same command "
                    "again"
                ) from error
        return self.out / "policy.safetensors"

    def _train(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        if (self.out / "resume.safetensors").exists():
            self._load()
        self._started = time.monotonic() - self.spent
        self.model.set_logger(configure(str(self.out / "tensorboard"), ["tensorboard"]))
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        bar = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
        with bar:
            self._bar, self._task = bar, bar.add_task("learning", total=self.config.decisions)
            try:
                while self.rollouts < self._rounds and self.decisions < self.config.decisions:
                    self._imitate()
                left = self.config.decisions - self.decisions
                if left > 0:
                    self.model.num_timesteps = self.decisions
                    self.model.learn(left, _Rollouts(self), reset_num_timesteps=False)
                    self._finish_rollout()
            except _TimeUp:
                self.spent = time.monotonic() - self._started
        self.save()

    @property
    def decisions(self) -> int:
        """Environment steps so far."""
        return self.rollouts * self.config.copies * self.config.rollout

    @property
    def _rounds(self) -> int:
        return 0 if self.config.imitate == "none" else self.config.rounds

    def _imitate(self) -> None:
        """One round: drive, ask the teacher, and fit policy and value to all rounds so far."""
        self._check_time()
        c, number = self.config, self.rollouts
        kind = RouteFollower if c.imitate == "route-follower" else IntelligentDriver
        self.env.seed(self._seed())
        share = 1.0 if number == 0 else max(0.0, 0.6 - 0.2 * number)
        generator = np.random.default_rng((c.seed, number))
        fresh = demonstrate(
            self.env, kind(grid=self.env.grid), self.model.policy, c.rollout, share, generator
        )
        self.data = fresh.join(self.data)
        draws = torch.Generator().manual_seed(c.seed * 1_000_003 + number)
        loss = fit_policy(self.model.policy, self.data, draws, recorded=self.recorded)
        self.model.logger.record(
            "imitation/value_loss", fit_value(self.model.policy, self.data, c.gamma, draws)
        )
        self._count("imitation", loss)
        self.save()

    def begin_rollout(self) -> None:
        """New episodes and new noise, both from the number of the rollout; what came before is saved.

        Raises:
            _TimeUp: no time is left.

        """
        if self.model.num_timesteps > self.decisions:
            self._finish_rollout()
        self._check_time()
        self.model.set_random_seed(self._seed())
        self.model._last_obs = self.env.reset()  # type: ignore[assignment]
        self.model._last_episode_starts = np.ones(self.config.copies, dtype=bool)

    def _finish_rollout(self) -> None:
        loss = float(self.model.logger.name_to_value.get("train/value_loss", float("nan")))
        self._count("reinforcement", loss)
        self.save()

    # ------------------------------------------------------------------ bookkeeping
    def _seed(self) -> int:
        """Of the rollout to come; its copies have this and the numbers that follow."""
        return (self.config.seed * 1_000_003 + self.rollouts * self.config.copies) % (1 << 31)

    def _check_time(self) -> None:
        if self.config.minutes and time.monotonic() - self._started >= 60 * self.config.minutes:
            raise _TimeUp

    def _count(self, phase: str, loss: float) -> None:
        """Count a rollout, and put its scores into the curve."""
        self.rollouts += 1
        self.spent = time.monotonic() - self._started
        scores, self.env.scores = self.env.scores, []
        row: dict[str, Any] = {
            "decisions": self.decisions, "phase": phase, "minutes": round(self.spent / 60, 2),
            "episodes": len(scores), "loss": None if np.isnan(loss) else round(loss, 5),
        }  # fmt: skip
        for name in SHOWN:
            row[name] = round(float(np.mean([score[name] for score in scores])), 4) if scores else None
            if scores:
                self.model.logger.record(f"drive/{name}", row[name])
        self.model.logger.dump(self.decisions)
        self.curve.append(row)
        self._bar.update(self._task, completed=self.decisions, description=f"{phase}, score {row['score']}")
        if self._bar.disable:
            text = "  ".join(f"{name} {row[name]}" for name in ("phase", "minutes", *SHOWN, "loss"))
            print(f"decision {self.decisions}  {text}", file=sys.stderr, flush=True)

    def save(self) -> None:
        """Write the policy, what is needed to go on, and the curve."""
        c, policy = self.config, self.model.policy
        recipe = {**self.about, "learner": asdict(c), "decisions": self.decisions, "minutes": self.spent / 60}
        config = PolicyConfig(hidden=c.hidden)
        save_policy(self.out / "policy.safetensors", actor_tensors(policy), config, recipe)
        if self.rollouts and self.rollouts % c.keep_every == 0:
            kept = self.out / f"policy-{self.decisions}.safetensors"
            save_policy(kept, actor_tensors(policy), config, recipe)
        tensors = {f"policy.{name}": value for name, value in policy.state_dict().items()}
        for name, parameter in policy.named_parameters():
            for key, value in policy.optimizer.state.get(parameter, {}).items():
                tensors[f"optimiser.{key}.{name}"] = torch.as_tensor(value)
        if self.data is not None:  # more rounds may follow
            tensors |= {f"data.{name}": value for name, value in vars(self.data).items()}
        header = {
            "kind": KIND, "recipe": recipe_of_learner(c, self.about), "rollouts": self.rollouts,
            "spent": self.spent, "updates": self.model._n_updates, "curve": self.curve,
        }  # fmt: skip
        write_tensors(self.out / "resume.safetensors", tensors, header)
        write_rows(self.out / "curve.csv", CURVE, self.curve)

    def _load(self) -> None:
        path = self.out / "resume.safetensors"
        tensors, header = read_tensors(path, kind=KIND)

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        policy = self.model.policy
        try:
            policy.load_state_dict(part("policy."))
            for name, parameter in policy.named_parameters():
                names = {key: f"optimiser.{key}.{name}" for key in ("step", "exp_avg", "exp_avg_sq")}
                found = {key: tensors[full] for key, full in names.items() if full in tensors}
                if found:
                    policy.optimizer.state[parameter] = found  # type: ignore[index]
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(f"{path}: holds another policy; use another --out") from error
        data = part("data.")
        self.data = Demonstrations(**data) if data else None
        self.rollouts, self.spent, self.curve = header["rollouts"], header["spent"], header["curve"]
        self.model._n_updates = header["updates"]


def actor_tensors(policy: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a Stable-Baselines3 actor under the names of `learned.policy_network`."""
    layers = [*policy.mlp_extractor.policy_net, policy.action_net]  # type: ignore[union-attr,misc]
    network = torch.nn.Sequential(*layers)
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


class _Rollouts(BaseCallback):
    """Tells the learner when a rollout begins."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner

    def _on_rollout_start(self) -> None:
        self.learner.begin_rollout()

    def _on_step(self) -> bool:
        return True
