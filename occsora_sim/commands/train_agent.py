"""`occsora-sim train agent`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from occsora_sim.cluster import check_ray
from occsora_sim.commands.driving import check_least_future
from occsora_sim.commands.output import output_folder
from occsora_sim.device import check_device
from occsora_sim.errors import ConfigurationError, MissingDependencyError
from occsora_sim.recipe import mark_of
from occsora_sim.training.processes import refuse_many

try:
    from occsora_sim.agents.learner import LearnerConfig
except ImportError as error:
    raise MissingDependencyError(
        'Stable-Baselines3 is not installed: pip install "occsora-sim[rl,train]"'
    ) from error

if TYPE_CHECKING:
    from occsora_sim.agents.learner_env import LearnerEnv


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `train agent`.

    Attributes:
        out: folder for policy.safetensors (`evaluate agent --agent PATH` drives it), the policies on the way,
            curve.csv, TensorBoard's files and resume.safetensors, from which an interrupted training goes on, and a
            finished one where more rounds or decisions are asked for.
        world: diffusion (generated), traffic (live traffic) or replay (recorded town or street).
        weights: weights of the generated world; by default the shipped ones.
        steps: calls of the network for a tile of new ground in the generated world.
        scenes: where episodes begin: a file, a folder or `traffic:A-B`.
        starts: beginnings drawn from the scenes.
        ego: in logs any vehicle that drives long enough, or the one that recorded them (recorder) alone.
        least_future: how long the recorded motion goes on after a beginning, at least [s]; by default 10 s, in a replay
            as long as an episode, and in a shorter log half of what it has.
        seconds: length of an episode [s].
        workers: threads that step the worlds, each its share of the copies; give one for each CPU core. It changes
            nothing in what is learned. The arithmetic of each is then kept to one core.
        ray: step the worlds of each worker in a process of a Ray cluster instead: local or local:N (Ray on this
            machine, with N processes), auto, HOST:PORT or ray://HOST:PORT. It changes nothing in what is learned
            either.
        device: where the world runs: cpu, cuda...
        demonstrations: rollouts that `play` or `drive` recorded, in a world of the same grid and by acceleration and
            steering; the imitation learns their actions beside the rule's.
        demonstration_share: of all pairs that the imitation learns, at least so many are from the demonstrations, which
            are repeated until they are; above 0 and below 1.
        learner: how to learn.

    """

    out: Path = Path("runs/agent")
    world: Literal["diffusion", "traffic", "replay"] = "diffusion"
    weights: Path | None = None
    steps: int = 2
    scenes: str = "traffic:0-31"
    starts: int = 128
    ego: Literal["any", "recorder"] = "any"
    least_future: float | None = None
    seconds: float = 20.0
    workers: int = 1
    ray: str | None = None
    device: str = "cpu"
    demonstrations: tuple[Path, ...] = ()
    demonstration_share: float = 0.25
    learner: LearnerConfig = field(default_factory=LearnerConfig)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.starts < 1:
            raise ConfigurationError(f"--steps {self.steps} and --starts {self.starts} must be 1 or more")
        check_least_future(self.least_future)
        check_ray(self.ray, self.device)
        if not 1 <= self.workers <= self.learner.copies:
            raise ConfigurationError(
                f"--workers {self.workers}: must lie between 1 and --copies {self.learner.copies}"
            )
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ConfigurationError(f"--seconds {self.seconds}: must be above 0")
        if self.weights is not None and self.world != "diffusion":
            raise ConfigurationError(f"--weights are of the diffusion world; --world {self.world} has none")
        if not 0 < self.demonstration_share < 1:
            raise ConfigurationError(
                f"--demonstration-share {self.demonstration_share}: must lie above 0 and below 1"
            )
        if self.demonstrations and (self.learner.imitate == "none" or not self.learner.rounds):
            raise ConfigurationError(
                "--demonstrations: are learned by imitation; leave out --imitate none and --rounds 0"
            )


def run(options: Options) -> None:
    """Train, and say where the policy is."""
    from occsora_sim.agents.learner import Learner
    from occsora_sim.agents.learner_config import finished
    from occsora_sim.agents.recorded_drives import read_drives

    refuse_many("train agent")
    check_device(options.device)
    output_folder(options.out)
    about: dict[str, Any] = {
        "world": options.world,
        "weights": None if options.weights is None else mark_of(options.weights),
        "steps": options.steps,
        "scenes": options.scenes,
        "starts": options.starts,
        "ego": None if options.ego == "any" else options.ego,  # as it stands in trainings that knew no other
        "least_future": options.least_future,
        "seconds": options.seconds,
    }
    shown = options.demonstrations
    if shown:
        about["demonstrations"] = [mark_of(path) for path in shown]
        about["demonstration_share"] = options.demonstration_share
    if finished(options.out, options.learner, about):
        print(options.out / "policy.safetensors")
        return
    print("opening the scenes ...", flush=True)
    with open_env(options) as env:
        frames = env.envs[0].simulation.frames
        recorded = read_drives(shown, env.grid, frames, options.demonstration_share) if shown else None
        learner = Learner(env=env, config=options.learner, out=options.out, about=about, recorded=recorded)
        print(learner.run())


@contextmanager
def open_env(options: Options) -> Iterator[LearnerEnv]:
    """The worlds to learn in for the block, spread over the workers; the scenes are opened once."""
    import torch

    from occsora_sim.agents.learner_env import LearnerEnv
    from occsora_sim.agents.remote_env import remote_envs
    from occsora_sim.envs.config import make_config
    from occsora_sim.envs.starts import open_starts
    from occsora_sim.envs.vector import DriveVectorEnv
    from occsora_sim.envs.worlds import make_world

    if options.workers > 1:
        torch.set_num_threads(1)
    given = {
        "world": options.world,
        "weights": None if options.weights is None else str(options.weights),
        "steps": options.steps,
        "scenes": options.scenes,
        "starts": options.starts,
        "seconds": options.seconds,
        "device": options.device,
        "autoreset": "same_step",
        "seed": options.learner.seed,
    }
    config = make_config({**given, "ego": options.ego, "least_future": options.least_future})
    starts = open_starts(config, make_world(config))
    copies, workers = options.learner.copies, options.workers
    sizes = [copies // workers + (number < copies % workers) for number in range(workers)]
    make = partial(DriveVectorEnv, **{**given, "scenes": starts})  # type: ignore[arg-type]
    with ExitStack() as stack:
        if options.ray is None:
            env = LearnerEnv(*(make(num_envs=size) for size in sizes))
        else:
            env = LearnerEnv(*stack.enter_context(remote_envs(options.ray, make, sizes, options.device)))
        stack.callback(env.close)
        yield env
