"""Fixed, named sets of episodes, so that two scores can be compared: the same towns, starts, seeds and length."""

from __future__ import annotations

from dataclasses import dataclass

from occsora_sim.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What an agent is evaluated on.

    Attributes:
        name: of the suite.
        scenes: the towns.
        episodes: how many, each from a start of its own, spread evenly over the towns.
        seconds: length of an episode [s].
        seed: of the starts and of the episodes.

    """

    name: str
    scenes: str
    episodes: int
    seconds: float
    seed: int


SUITES = {
    suite.name: suite
    for suite in (
        Suite(name="validation", scenes="traffic:500100-500107", episodes=16, seconds=20.0, seed=0),
        Suite(name="test", scenes="traffic:800000-800007", episodes=16, seconds=20.0, seed=0),
    )
}
"""Tune on "validation". The towns of "test" are for the final figure alone: nothing is chosen by looking at them."""


def find_suite(name: str) -> Suite:
    """The suite of this name.

    Raises:
        ConfigurationError: there is none.

    """
    if name not in SUITES:
        raise ConfigurationError(f"unknown suite {name!r}: choose one of {', '.join(SUITES)}")
    return SUITES[name]
