"""The options of the driving environment."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from occsora_sim.envs.reward import RewardConfig
from occsora_sim.errors import ConfigurationError
from occsora_sim.scene_prompt import ScenePrompt
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.start import Start
from occsora_sim.scoring.driving import ScoreConfig
from occsora_sim.vehicle import Vehicle
from occsora_sim.worlds.protocol import World

ACTIONS = ("controls", "trajectory", "manoeuvre")
OBSERVATIONS = ("occupancy", "birdseye", "ego", "route", "road_users")
AUTORESETS = ("next_step", "same_step")


@dataclass(frozen=True, kw_only=True)
class DriveConfig:
    """Options of `OccSora/Drive-v0`; `gymnasium.make` takes each as a keyword.

    Attributes:
        world: "diffusion" (generated), "traffic" (live towns), "replay" (recorded scenes), or a World.
        weights: weights file of the generated world; None: the shipped ones.
        steps: denoising steps of the generated world; None: the world's own number. Fewer are faster, and rougher.
        scenes: where episodes begin. None: the shipped starting scenes. A file, folder or `traffic:A-B`. "generate":
            from nothing, the first chunk drawn from the trajectory prompt alone. Or starts or scenes themselves.
        place: the kind of place that the generated world shall draw on new ground, one of `scene_prompt.PLACES`; None:
            as what was seen suggests.
        vehicles: how many vehicles it shall keep in view, parked ones too; None: as they come.
        starts: how many beginnings to draw from scenes.
        action: "controls": acceleration and steering, normalised to [-1, 1]; "trajectory": the offset
            (forward, left, turn) of each frame from the one before, normalised; "manoeuvre": one of keep,
            faster, slower, left, right (`envs.manoeuvre`).
        observation: what an agent sees, any of "occupancy", "birdseye", "ego", "route", "road_users" (`envs.spaces`).
        road_users: how many road users the observation "road_users" tells of.
        frames_per_decision: frames of 0.5 s that an action lasts; None: the world's chunk.
        seconds: an episode is truncated after this time [s].
        reward: weights of the reward terms, a RewardConfig or a mapping.
        score: options of the driving metrics.
        vehicle: the ego's size and limits.
        autoreset: how the vector environment begins the next episode, "next_step" or "same_step".
        imagination: the world in which `imagine` tries actions out, from what was seen. None: the generated one
            (the env's own where that is the world). A World that can begin from frames alone. "oracle": the env's
            own world itself, branched: it knows what will happen, so it is for tests and upper bounds.
        imagination_steps: denoising steps of what a generated world imagines; None: as many as its own. A planner
            tries dozens of futures out to take one action, and one step says well enough what is in the way.
        device: where the world runs.
        seed: draws the beginnings from the scenes, and seeds the first episode if `reset` is given no seed.

    """

    world: str | World = "diffusion"
    weights: str | None = None
    steps: int | None = None
    scenes: str | Sequence[Start] | Sequence[Scene] | None = None
    place: str | None = None
    vehicles: float | None = None
    starts: int = 64
    action: Literal["controls", "trajectory", "manoeuvre"] = "controls"
    observation: tuple[str, ...] = ("occupancy", "ego", "route")
    road_users: int = 32
    frames_per_decision: int | None = None
    seconds: float = 20.0
    reward: RewardConfig = field(default_factory=RewardConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    vehicle: Vehicle = field(default_factory=Vehicle)
    autoreset: Literal["next_step", "same_step"] = "next_step"
    imagination: World | Literal["oracle"] | None = None
    imagination_steps: int | None = 1
    device: str = "cpu"
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ConfigurationError(f"action={self.action!r}: choose one of {', '.join(ACTIONS)}")
        seen = self.observation
        unknown = [name for name in seen if name not in OBSERVATIONS] if isinstance(seen, tuple) else [seen]
        if unknown or not seen or len(set(seen)) < len(seen):
            raise ConfigurationError(
                f"observation={seen!r}: give one or more of {', '.join(OBSERVATIONS)}, each once"
            )
        if isinstance(self.imagination, str) and self.imagination != "oracle":
            raise ConfigurationError(f"imagination={self.imagination!r}: choose None, 'oracle' or a World")
        frames = self.frames_per_decision
        if frames is not None and (isinstance(frames, bool) or not isinstance(frames, int) or frames < 1):
            raise ConfigurationError(f"frames_per_decision={frames!r}: must be a whole number, 1 or more")
        if self.autoreset not in AUTORESETS:
            raise ConfigurationError(f"autoreset={self.autoreset!r}: choose one of {', '.join(AUTORESETS)}")
        for name in ("steps", "imagination_steps"):
            steps = getattr(self, name)
            if steps is not None and (isinstance(steps, bool) or not steps >= 1):
                raise ConfigurationError(f"{name}={steps!r}: denoising steps must be 1 or more")
        if not self.seconds > 0:
            raise ConfigurationError(f"seconds={self.seconds}: must be positive")
        prompt = ScenePrompt(place=self.place, vehicles=self.vehicles)
        if prompt != ScenePrompt() and self.world in ("traffic", "replay"):
            raise ConfigurationError(
                f"place and vehicles: the world {self.world!r} is not drawn; they are for world='diffusion'"
            )
        if self.starts < 1:
            raise ConfigurationError(f"starts={self.starts}: must be 1 or more")


def make_config(options: Mapping[str, Any]) -> DriveConfig:
    """A DriveConfig from keywords; `reward`, `score` and `vehicle` may be mappings.

    Raises:
        ConfigurationError: an option that does not exist, or cannot work.

    """
    values = dict(options)
    if isinstance(values.get("observation"), str | list):  # one name, or a list from a configuration file
        names = values["observation"]
        values["observation"] = (names,) if isinstance(names, str) else tuple(names)
    for name, kind in {"reward": RewardConfig, "score": ScoreConfig, "vehicle": Vehicle}.items():
        if isinstance(values.get(name), Mapping):
            _refuse_unknown(values[name], kind, f"{name} option")
            values[name] = kind(**values[name])
    _refuse_unknown(values, DriveConfig, "option")
    return DriveConfig(**values)


def _refuse_unknown(values: Mapping[str, Any], kind: type, what: str) -> None:
    known = [entry.name for entry in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise ConfigurationError(f"unknown {what} {name!r}: choose from {', '.join(known)}")
