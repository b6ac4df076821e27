"""The options of the driving environment."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from occsora_sim.envs.reward import RewardConfig
from occsora_sim.errors import ConfigurationError
from occsora_sim.quantities import plain, settle, written
from occsora_sim.scene_prompt import ScenePrompt
from occsora_sim.scenes.recorded import EGO_CHOICES, EgoChoice, Recorded
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.start import Start
from occsora_sim.scoring.driving import ScoreConfig
from occsora_sim.vehicle import Vehicle
from occsora_sim.worlds.protocol import World

ACTIONS = ("controls", "trajectory", "manoeuvre")
OBSERVATIONS = ("occupancy", "birdseye", "ego", "route", "road_users")
POLICY = "policy"
POLICY_OBSERVATION = ("birdseye", "road_users", "ego", "route")
"""What "policy" stands for among observations, with the image aligned."""

CHOICES = {
    "action": ACTIONS,
    "birdseye": ("frames", "aligned"),
    "output": ("numpy", "torch"),
    "autoreset": ("next_step", "same_step"),
}
"""Options that are one of a few words."""

PARTS: dict[str, type] = {"reward": RewardConfig, "score": ScoreConfig, "vehicle": Vehicle}
"""Options that are configurations themselves; mappings become them."""


@dataclass(frozen=True, kw_only=True)
class DriveConfig:
    """Options of `OccSora/Drive-v0`; `gymnasium.make` takes each as a keyword. Numbers may be text or NumPy's.

    Attributes:
        world: "diffusion" (generated), "traffic" (live towns), "replay" (recorded scenes), or a World.
        weights: weights file of the generated world; None: the shipped ones.
        steps: calls of the network for a tile of new ground in the generated world; None: the world's own number. Fewer
            are faster, and rougher.
        tiles: of new ground and of its plan that the generated world draws in a step, in every episode, wanted or not:
            then nothing waits for the device, and a step costs the same whatever happens. What more is wanted shows the
            commonest column until it is drawn; 2 are enough for a town. None: as many as are wanted.
            0, with `ahead`: none.
        ahead: how far along its route the ground of a generated world is drawn when an episode begins, up to 200 m:
            steps are then several times as fast, and what is prepared for a pool serves many episodes. 0: as far as
            the view.
        scenes: where episodes begin. None: the shipped starting scenes. A file, folder or `traffic:A-B`, or a list of
            them. "generate": from nothing, the first chunk drawn from the trajectory prompt alone. Or starts or scenes
            themselves.
        place: the kind of place that the generated world shall draw on new ground, one of `scene_prompt.PLACES`; None:
            as what was seen suggests.
        vehicles: how many vehicles it shall keep in view, parked ones too; None: as they come.
        starts: how many beginnings to draw from scenes.
        ego: "any": any vehicle that drives long enough; "recorder": in logs the vehicle that recorded them alone.
        least_future: how long the recorded motion goes on after a beginning, at least [s]. None: 10 s, in a replay as
            long as an episode; in a shorter log half of what it has. What is too short is left out, and named.
        action: "controls": acceleration and steering, normalised to [-1, 1]; "trajectory": the offset
            (forward, left, turn) of each frame from the one before, normalised; "manoeuvre": how fast to go along the
            route, or left, right (`envs.manoeuvre`).
        observation: what an agent sees, any of "occupancy", "birdseye", "ego", "route", "road_users" (`envs.spaces`).
            "policy": all but the occupancy, with birdseye="aligned"; small enough for a network to learn from.
        birdseye: "frames": each frame of the image as it was seen, a pixel a voxel; "aligned": all of them seen from
            the newest pose, a pixel 0.8 m, so that what stands still stands still in the image.
        road_users: how many road users the observation "road_users" tells of.
        frames_per_decision: frames of 0.5 s that an action lasts; None: the world's chunk.
        seconds: an episode is truncated after this time [s]; in a replay at the latest where its recording ends.
        reward: weights of the reward terms, a RewardConfig or a mapping.
        score: options of the driving metrics.
        vehicle: the ego's size and limits; the worlds that are made by name let others keep clear of this size.
        output: "numpy"; or "torch", for `make_vec`: observations, rewards, flags and infos stay tensors on the world's
            device, actions may be tensors and are clamped to the space instead of checked (`envs.pool`).
        pool: with output="torch" in a generated world: how many beginnings are prepared by `reset`, from which the
            episodes that follow are taken; None: as many as there are starts, 32 at most.
        autoreset: how the vector environment begins the next episode, "next_step" or "same_step".
        imagination: the world in which `imagine` tries actions out, from what was seen. None: the generated one
            (the env's own where that is the world). A World that can begin from frames alone. "oracle": the env's
            own world itself, branched: it knows what will happen, so it is for tests and upper bounds.
        imagination_steps: calls of the network for a tile of new ground that a generated world imagines, and then no
            more than one tile a step; None: both as its own. A planner tries dozens of plans out to take one action,
            and that says well enough what is in the way.
        device: where the world runs.
        seed: draws the beginnings from the scenes, and seeds the first episode if `reset` is given no seed.

    """

    world: str | World = "diffusion"
    weights: str | Path | None = None
    steps: int | None = None
    tiles: int | None = None
    ahead: float = 0.0
    scenes: str | Path | Sequence[str | Path] | Sequence[Start] | Sequence[Scene] | None = None
    place: str | None = None
    vehicles: float | None = None
    starts: int = 64
    ego: EgoChoice = "any"
    least_future: float | None = None
    action: Literal["controls", "trajectory", "manoeuvre"] = "controls"
    observation: tuple[str, ...] = ("occupancy", "ego", "route")
    road_users: int = 32
    frames_per_decision: int | None = None
    seconds: float = 20.0
    reward: RewardConfig = field(default_factory=RewardConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    vehicle: Vehicle = field(default_factory=Vehicle)
    birdseye: Literal["frames", "aligned"] = "frames"
    output: Literal["numpy", "torch"] = "numpy"
    pool: int | None = None
    autoreset: Literal["next_step", "same_step"] = "next_step"
    imagination: World | Literal["oracle"] | None = None
    imagination_steps: int | None = 1
    device: str = "cpu"
    seed: int | None = None

    def __post_init__(self) -> None:
        settle(self, infinite=("seconds",))
        for name, kind in PARTS.items():
            self._set(name, _part(getattr(self, name), kind, name))
        self._set("device", str(self.device))
        self._set("weights", None if self.weights is None else _text(self.weights, "weights"))
        self._set("scenes", _scenes(self.scenes))
        if isinstance(self.observation, str) and self.observation == POLICY:
            self._set("observation", POLICY_OBSERVATION)
            self._set("birdseye", "aligned")
        self._set("observation", _observation(self.observation))
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigurationError(
                    f"{name}={written(getattr(self, name))}: choose one of {', '.join(choices)}"
                )
        if isinstance(self.imagination, str) and self.imagination != "oracle":
            raise ConfigurationError(
                f"imagination={written(self.imagination)}: choose None, 'oracle' or a World"
            )
        for name in ("frames_per_decision", "steps", "imagination_steps", "starts", "pool"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ConfigurationError(f"{name}={number}: must be 1 or more")
        if not 0 <= self.ahead <= 200:
            raise ConfigurationError(f"ahead={self.ahead:g}: must be 0 to 200 m")
        if self.tiles is not None and self.tiles < (self.ahead == 0):
            raise ConfigurationError(f"tiles={self.tiles}: must be 1 or more, or 0 with ahead")
        if self.seed is not None and self.seed < 0:
            raise ConfigurationError(f"seed={self.seed}: must be 0 or more")
        if not self.seconds > 0:
            raise ConfigurationError(f"seconds={self.seconds}: must be positive")
        prompt = ScenePrompt(place=self.place, vehicles=self.vehicles)
        if prompt != ScenePrompt() and self.world in ("traffic", "replay"):
            raise ConfigurationError(
                f"place and vehicles: the world {written(self.world)} is not drawn; they are for world='diffusion'"
            )
        if self.ego not in EGO_CHOICES:
            raise ConfigurationError(f"ego={written(self.ego)}: choose one of {', '.join(EGO_CHOICES)}")
        if self.least_future is not None and not 0 <= self.least_future < math.inf:
            raise ConfigurationError(f"least_future={self.least_future}: must be 0 or more seconds")

    def _set(self, name: str, value: object) -> None:
        """Put an option as it is meant in the place of how it was written."""
        object.__setattr__(self, name, value)


def make_config(options: Mapping[str, Any]) -> DriveConfig:
    """A DriveConfig from keywords; `reward`, `score` and `vehicle` may be mappings.

    Raises:
        ConfigurationError: an option that does not exist, or cannot work.

    """
    _refuse_unknown(options, DriveConfig, "option")
    return DriveConfig(**options)


def _part(value: object, kind: type, name: str) -> object:
    """`value` as a configuration of `kind`; a mapping becomes one."""
    if isinstance(value, kind):
        value = {entry.name: getattr(value, entry.name) for entry in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"{name}={written(value)}: give a {kind.__name__} or a mapping of its options"
        )
    _refuse_unknown(value, kind, f"{name} option")
    return kind(**plain(kind, value, f"{name} "))


def _text(value: object, name: str) -> str:
    if not isinstance(value, str | Path):
        raise ConfigurationError(f"{name}={written(value)}: give a path")
    return str(value)


def _observation(given: object) -> tuple[str, ...]:
    """One name, or a list of them from a configuration file, as a tuple."""
    names = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, tuple | list) else ()
    if not names or any(name not in OBSERVATIONS for name in names) or len(set(names)) < len(names):
        raise ConfigurationError(
            f"observation={written(given)}: give {POLICY}, or one or more of {', '.join(OBSERVATIONS)}, each once"
        )
    return names


def _scenes(given: object) -> Any:
    """Paths as text; one start or scene as a tuple of one."""
    if given is None or isinstance(given, str | Path):
        return None if given is None else str(given)
    if isinstance(given, Start | Recorded):
        return (given,)
    if not isinstance(given, Sequence):
        raise ConfigurationError(
            f"scenes={written(given)}: give None, a path, `traffic:A-B`, `generate`, or a list of paths, starts, scenes"
        )
    return tuple(str(item) if isinstance(item, Path) else item for item in given)


def _refuse_unknown(values: Mapping[str, Any], kind: type, what: str) -> None:
    known = [entry.name for entry in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise ConfigurationError(f"unknown {what} {written(name)}: choose from {', '.join(known)}")
