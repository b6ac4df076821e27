"""Agents: they see observations, never the world."""

from __future__ import annotations

from occsora_sim.agents.constant_velocity import ConstantVelocity
from occsora_sim.agents.function import FunctionAgent
from occsora_sim.agents.imagining_planner import ImaginingPlanner
from occsora_sim.agents.intelligent_driver import IntelligentDriver
from occsora_sim.agents.learned import LearnedPolicy
from occsora_sim.agents.loader import AGENTS, make_agent
from occsora_sim.agents.protocol import Agent, AnyAgent, ImaginingAgent
from occsora_sim.agents.random import RandomAgent
from occsora_sim.agents.route_follower import RouteFollower

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
