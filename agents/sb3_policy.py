"""A model of Stable-Baselines3 as an agent: it sees what `DriveVecEnv` or a wrapper showed it in training."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from occsora_sim.agents.protocol import Observation
from occsora_sim.bounded_json import parse_json
from occsora_sim.envs.birdseye import aligned_size
from occsora_sim.envs.config import OBSERVATIONS, POLICY, POLICY_OBSERVATION
from occsora_sim.envs.manoeuvre import MANOEUVRES
from occsora_sim.envs.wrappers import learner_batch
from occsora_sim.errors import ActionError, ConfigurationError, MissingDependencyError
from occsora_sim.grid import OCC3D

_ALGORITHMS = (
    ("clip_range", "PPO"),
    ("exploration_fraction", "DQN"),
    ("target_entropy", "SAC"),
    ("target_policy_noise", "TD3"),
    ("normalize_advantage", "A2C"),
)
"""An attribute that a model of an algorithm is stored with, and the algorithm; the first that is found counts."""


class Sb3Policy:
    """Drives with a model's deterministic action.

    Args:
        model: of Stable-Baselines3, trained in a `DriveVecEnv` or under the wrapper `learner` or `image`.
        name: of it, for messages.

    Attributes:
        action: the option of the environment that it is made for.
        observation: the same: "policy" for a model that sees all the parts of this, else the parts' names.

    Raises:
        ConfigurationError: it was trained on other observations or actions than these wrappers give.

    """

    def __init__(self, model: Any, name: str) -> None:
        self.model, self.name = model, name
        self.action = self._action_of(model.action_space)
        seen = model.observation_space
        self._parts = dict(seen.spaces) if isinstance(seen, spaces.Dict) else {"birdseye": seen}
        aligned = set(self._parts) == set(POLICY_OBSERVATION)
        unknown = set(self._parts) - set(OBSERVATIONS)
        if unknown or not all(isinstance(part, spaces.Box) for part in self._parts.values()):
            raise ConfigurationError(
                f"agent {name}: sees {', '.join(sorted(self._parts))}; it must have been trained under "
                "occsora_sim.agents.sb3.DriveVecEnv, or occsora_sim.envs.wrappers.learner or image"
            )
        self._whole = isinstance(seen, spaces.Dict)
        self.observation: str | tuple[str, ...] = POLICY if aligned else tuple(self._parts)
        self.pool = 1
        if "birdseye" in self._parts:
            shape = self._parts["birdseye"].shape or ()
            size = aligned_size(OCC3D)[0] if aligned else OCC3D.shape[0]
            if len(shape) != 3 or not shape[1] or size % shape[1]:
                raise ConfigurationError(
                    f"agent {name}: sees a picture of shape {shape}; it must have been trained under "
                    "occsora_sim.envs.wrappers.learner or image"
                )
            self.pool = size // shape[1]

    def reset(self, n: int) -> None:
        """Nothing to forget: it has no memory."""

    def act(self, observation: Observation) -> np.ndarray:
        """Actions (n, a) float32, or (n,) manoeuvres."""
        seen = learner_batch({name: observation[name] for name in self._parts}, self.pool)
        for name, part in self._parts.items():
            if seen[name].shape[1:] != part.shape:
                raise ActionError(
                    f"agent {self.name}: sees {name} of shape {part.shape}, here it is {seen[name].shape[1:]}; it was "
                    "trained in another world or with other options"
                )
        actions, _ = self.model.predict(seen if self._whole else seen["birdseye"], deterministic=True)
        return np.asarray(actions)

    def _action_of(self, space: Any) -> str:
        """The option `action` of the environment that has this space."""
        if isinstance(space, spaces.Discrete) and space.n == len(MANOEUVRES):
            return "manoeuvre"
        if isinstance(space, spaces.Box) and len(space.shape) == 1:
            return "controls" if space.shape == (2,) else "trajectory"
        raise ConfigurationError(f"agent {self.name}: acts in {space}, which the environment does not have")


def load_sb3_policy(path: Path) -> Sb3Policy:
    """The model in a .zip that Stable-Baselines3 wrote (PPO, A2C, DQN, SAC or TD3). Its pickles are read: trust it.

    Raises:
        ConfigurationError: the file is missing, damaged, of another algorithm, or made for another environment.
        MissingDependencyError: Stable-Baselines3 is not installed.

    """
    try:
        with zipfile.ZipFile(path) as archive:
            stored = parse_json(archive.read("data"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"agent {path}: there is no such file") from error
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"agent {path}: is no model of Stable-Baselines3 ({reason})") from error
    algorithm = next((name for key, name in _ALGORITHMS if key in stored), None)
    if algorithm is None:
        known = ", ".join(name for _, name in _ALGORITHMS)
        raise ConfigurationError(
            f"agent {path}: is of an algorithm that is not known here; there are {known}"
        )
    try:
        import stable_baselines3
    except ImportError as error:
        raise MissingDependencyError(
            'Stable-Baselines3 is not installed: pip install "occsora-sim[rl]"'
        ) from error
    try:
        model = getattr(stable_baselines3, algorithm).load(path, device="cpu")
    except Exception as error:  # whatever its pickles raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ConfigurationError(f"agent {path}: cannot be read as a {algorithm} ({reason})") from error
    return Sb3Policy(model, str(path))
