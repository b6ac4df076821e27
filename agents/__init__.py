"""Agents: they see observations, never the world."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from occsora_sim.agents.constant_velocity import ConstantVelocity
from occsora_sim.agents.function import FunctionAgent
from occsora_sim.agents.imagining_planner import ImaginingPlanner
from occsora_sim.agents.intelligent_driver import IntelligentDriver
from occsora_sim.agents.ladder import CRIPPLED
from occsora_sim.agents.learned import LearnedPolicy, load_policy, shipped_policy
from occsora_sim.agents.protocol import Agent, AnyAgent, ImaginingAgent
from occsora_sim.agents.random import RandomAgent
from occsora_sim.agents.route_follower import RouteFollower
from occsora_sim.errors import ConfigurationError

AGENTS: dict[str, Callable[[], AnyAgent]] = {
    "random": RandomAgent,
    "constant-velocity": ConstantVelocity,
    "idm": IntelligentDriver,
    "route-follower": RouteFollower,
    "imagining-planner": ImaginingPlanner,
}
"""The agents that come with the package, by name."""

AGENTS["learned"] = lambda: load_policy(shipped_policy())


def make_agent(name: str) -> AnyAgent:
    """The agent of this name (of AGENTS, or a crippled one of `ladder.CRIPPLED`), for the action space "controls"; or
    the policy in the file of this path, which ends in .safetensors.

    Raises:
        ConfigurationError: there is none.
        CheckpointError: the file is no policy.

    """
    if name.endswith(".safetensors"):
        return load_policy(Path(name))
    makers = {**AGENTS, **CRIPPLED}
    if name not in makers:
        raise ConfigurationError(
            f"unknown agent {name!r}: choose one of {', '.join(makers)}, or give the path of a policy that "
            "`occsora-sim train agent` wrote"
        )
    return makers[name]()


__all__ = [
    "AGENTS",
    "Agent",
    "AnyAgent",
    "ConstantVelocity",
    "FunctionAgent",
    "ImaginingAgent",
    "ImaginingPlanner",
    "IntelligentDriver",
    "LearnedPolicy",
    "RandomAgent",
    "RouteFollower",
    "make_agent",
]
