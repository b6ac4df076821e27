"""An agent from its name: one that comes with the package, a trained policy, or a planner of one's own."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from occsora_sim.agents.constant_velocity import ConstantVelocity
from occsora_sim.agents.driving_policy import KIND as DRIVING
from occsora_sim.agents.driving_policy import DrivingAgent, load_driving_policy, shipped_driving_policy
from occsora_sim.agents.function import FunctionAgent
from occsora_sim.agents.imagining_planner import ImaginingPlanner
from occsora_sim.agents.intelligent_driver import IntelligentDriver
from occsora_sim.agents.ladder import CRIPPLED
from occsora_sim.agents.learned import load_policy, shipped_policy
from occsora_sim.agents.protocol import AnyAgent, Observation
from occsora_sim.agents.random import RandomAgent
from occsora_sim.agents.recorded_actions import RecordedActions
from occsora_sim.agents.route_follower import RouteFollower
from occsora_sim.checkpoint import read_outline
from occsora_sim.envs.imagination import Imagine
from occsora_sim.errors import ActionError, ConfigurationError, OccSoraError

AGENTS: dict[str, Callable[[], AnyAgent]] = {
    "random": RandomAgent,
    "constant-velocity": ConstantVelocity,
    "idm": IntelligentDriver,
    "route-follower": RouteFollower,
    "imagining-planner": ImaginingPlanner,
    "learned": lambda: load_policy(shipped_policy()),
    "ppo": lambda: DrivingAgent(load_driving_policy(shipped_driving_policy())),
}
"""The agents that come with the package, by name."""

FORMS = (
    "the path of a policy that `occsora-sim train agent` or `examples/ppo.py` wrote (.safetensors), a rollout whose "
    "actions are repeated (.npz), FILE.py:NAME or MODULE:NAME (a class with reset and act or plan, or a function of "
    "one observation), or with --trust a model of Stable-Baselines3 (.zip)"
)
"""What else names an agent, for messages."""


def make_agent(name: str, *, trust: bool = False) -> AnyAgent:
    """The agent of a name.

    Args:
        name: of AGENTS or `ladder.CRIPPLED`; the path of a policy (.safetensors), or of a rollout (.npz), whose
            actions are repeated; "file.py:Name" or "module:Name", a class or function of one's own (see `own_agent`);
            or the path of a Stable-Baselines3 model (.zip).
        trust: read a .zip, which holds pickles: they can run any code when they are read.

    Raises:
        ConfigurationError: there is none, it cannot be made, or is not trusted.
        CheckpointError: the file is no policy.
        MissingDependencyError: a .zip, and Stable-Baselines3 is not installed.

    """
    makers = {**AGENTS, **CRIPPLED}
    if name in makers:
        return makers[name]()
    if name.endswith(".safetensors"):
        path = Path(name)
        if read_outline(path)[1].get("kind") == DRIVING:
            return DrivingAgent(load_driving_policy(path))
        return load_policy(path)
    if name.endswith(".npz"):
        return RecordedActions(Path(name))
    if name.endswith(".zip"):
        if not trust:
            raise ConfigurationError(
                f"agent {name}: a .zip of Stable-Baselines3 holds pickles, which can run any code when they are read; "
                "add --trust (in Python trust=True) if you know who made it"
            )
        from occsora_sim.agents.sb3_policy import load_sb3_policy

        return load_sb3_policy(Path(name))
    source, colon, attribute = name.rpartition(":")
    if colon and source and attribute:
        return own_agent(source, attribute)
    if name.endswith(".py"):
        raise ConfigurationError(f"agent {name}: say which class or function in it: {name}:NAME")
    raise ConfigurationError(f"unknown agent {name!r}: choose one of {', '.join(makers)}, or give {FORMS}")


def agent_title(name: str) -> str:
    """An agent's name short enough for a picture: the class or function alone, or a file's name."""
    source, _, attribute = name.rpartition(":")
    return attribute if source else Path(name).stem


def own_agent(source: str, attribute: str) -> AnyAgent:
    """An agent of one's own: what `attribute` names in a Python file (.py) or module.

    A class is made without arguments. A function, of the observation of one episode, answers the action; its
    attributes `action` and `observation`, like a class's, say which options of the environment it is made for.

    Raises:
        ConfigurationError: there is no such file, module or name, it fails while it is read or made, or is no agent.

    """
    name = f"{source}:{attribute}"
    found = _find(source, attribute, name)
    if inspect.isclass(found):
        found = _own(found, f"agent {name}: cannot be made without arguments", ConfigurationError)
    if any(callable(getattr(found, verb, None)) for verb in ("act", "plan")):
        if not callable(getattr(found, "reset", None)):
            raise ConfigurationError(f"agent {name}: has no method reset(n); n new episodes begin with it")
        return _OwnPlanner(found, name) if callable(getattr(found, "plan", None)) else _OwnAgent(found, name)
    if not callable(found):
        raise ConfigurationError(
            f"agent {name}: is a {type(found).__name__}; give a class with reset and act or plan, or a function of an "
            "observation"
        )
    options = {key: getattr(found, key) for key in ("action", "observation") if hasattr(found, key)}
    return _OwnAgent(FunctionAgent(found, **options), name)


class _OwnAgent:
    """Somebody's agent: what goes wrong in its code is told in one line, with its place."""

    def __init__(self, agent: Any, name: str) -> None:
        self._agent, self._name = agent, name
        for option in ("action", "observation"):
            if hasattr(agent, option):
                setattr(self, option, getattr(agent, option))

    def reset(self, n: int) -> None:
        """As the agent's."""
        _own(lambda: self._agent.reset(n), f"agent {self._name}: failed in reset", ActionError)

    def act(self, observation: Observation) -> np.ndarray:
        """The agent's actions as an array with a row for each episode."""
        return self._checked(lambda: self._agent.act(observation), len(next(iter(observation.values()))))

    def _checked(self, decide: Callable[[], Any], count: int) -> np.ndarray:
        answer = _own(decide, f"agent {self._name}: failed", ActionError)
        try:
            actions = np.asarray(answer)
            if actions.dtype.kind not in "fiu":
                raise TypeError
            finite = bool(np.isfinite(actions).all())
        except (TypeError, ValueError) as error:
            raise ActionError(
                f"agent {self._name}: answered {_short(answer)}; answer numbers, a row for each of the {count} episodes"
            ) from error
        if actions.ndim == 0 or len(actions) != count or not finite:
            raise ActionError(
                f"agent {self._name}: answered {_short(answer)} of shape {actions.shape}; answer finite numbers, a row "
                f"for each of the {count} episodes"
            )
        return actions


class _OwnPlanner(_OwnAgent):
    """The same for one that imagines."""

    def plan(self, observation: Observation, imagine: Imagine) -> np.ndarray:
        """As `act`."""
        return self._checked(
            lambda: self._agent.plan(observation, imagine), len(next(iter(observation.values())))
        )


def _find(source: str, attribute: str, name: str) -> Any:
    """What `attribute` names in a file or module."""
    path = Path(source)
    is_file = source.endswith(".py")
    if is_file and not path.is_file():
        raise ConfigurationError(f"agent {name}: there is no file {source}")
    home = str(path.resolve().parent if is_file else Path.cwd())  # what lies beside it can be imported
    if home not in sys.path:
        sys.path.append(home)  # at the end, so that nothing there is taken for a library's
    if not is_file:
        try:
            known = importlib.util.find_spec(source) is not None
        except (ImportError, ValueError):
            known = False
        except Exception:  # of the package that holds it; reading it says which
            known = True
        if not known:
            raise ConfigurationError(
                f"agent {name}: there is no module {source} on Python's path or in this folder; or give {FORMS}"
            )
    module = _own(lambda: _read(path, source, is_file), f"agent {name}: cannot be read", ConfigurationError)
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        mine = [
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", "") == module.__name__ and key[0] != "_"
        ]
        there = ", ".join(mine) or "no classes or functions"
        raise ConfigurationError(
            f"agent {name}: there is no {attribute} in {source}; there are {there}"
        ) from error


def _read(path: Path, source: str, is_file: bool) -> Any:
    """Import a module, or a file under a name that is nobody else's."""
    if not is_file:
        return importlib.import_module(source)
    name = f"_occsora_agent_{path.stem}_{abs(hash(path.resolve()))}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _own(work: Callable[[], Any], what: str, kind: type[OccSoraError]) -> Any:
    """Call somebody's code; what it raises becomes one line: `what`, the error and its innermost place."""
    try:
        return work()
    except OccSoraError as error:
        raise kind(f"{what}: {error}") from error
    except SystemExit as error:
        raise kind(f"{what}: it ended the program") from error
    except Exception as error:
        if isinstance(error, SyntaxError):
            place = f"{error.filename}, line {error.lineno}"
        else:
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{last.filename}, line {last.lineno}"
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        raise kind(f"{what}: {type(error).__name__}: {' '.join(text.split())} ({place})") from error


def _short(answer: Any) -> str:
    text = " ".join(repr(answer).split())
    return text if len(text) <= 60 else text[:57] + "..."
