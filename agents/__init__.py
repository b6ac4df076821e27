"""Agents: they see observations, never the world."""

from __future__ import annotations

from collections.abc import Callable

from occsora_sim.agents.constant_velocity import ConstantVelocity
from occsora_sim.agents.function import FunctionAgent
from occsora_sim.agents.imagining_planner import ImaginingPlanner
from occsora_sim.agents.intelligent_driver import IntelligentDriver
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


def make_agent(name: str) -> AnyAgent:
    """The agent of this name, for the action space "controls".

    Raises:
        ConfigurationError: there is none.

    """
    if name not in AGENTS:
        raise ConfigurationError(f"unknown agent {name!r}: choose one of {', '.join(AGENTS)}")
    return AGENTS[name]()


__all__ = [
    "AGENTS",
    "Agent",
    "AnyAgent",
    "ConstantVelocity",
    "FunctionAgent",
    "ImaginingAgent",
    "ImaginingPlanner",
    "IntelligentDriver",
    "RandomAgent",
    "RouteFollower",
    "make_agent",
]
