"""What EPDMS adds to PDMS: direction, lights, lane keeping, extended comfort; and the human filter.

NAVSIM v2 (Cao et al. 2025, "Pseudo-Simulation for Autonomous Driving", arXiv 2506.04218; docs/metrics.md and
pdm_scorer.py of github.com/autonomousvision/navsim):

    EPDMS = NC x DAC x DDC x TLC x (5 TTC + 5 EP + 2 LK + 2 HC + 2 EC) / 16

There lanes, junctions and lights are read from a map. No such map goes on into ground that is drawn, so in all worlds
alike the route stands for it; what that changes is said at each term, and STAND_INS names it for reports.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from occsora_sim.constants import constant
from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.scoring.comfort import ego_motion
from occsora_sim.scoring.driving import ScoreConfig
from occsora_sim.scoring.route import Routes

STAND_INS = {
    "ddc": "the route's direction, and what lies left of its lane, instead of lanes",
    "tlc": "not judged: 1, lights are not known",
    "lk": "the route instead of the centre line, where it turns instead of junctions",
    "ec": "what is driven against the step before, held, instead of two plans",
}
"""Terms of EPDMS that rest on other facts than NAVSIM's."""

SEVERAL = ("acceleration", "jerk", "yaw_rate", "yaw_acceleration")
_MOST = (0.7, 0.5, 0.1, 0.1)  # NAVSIM: largest root mean square differences [m/s2, m/s3, rad/s, rad/s2]
_COMPLIANT, _VIOLATION = 2.0, 6.0  # NAVSIM: metres against the direction within a second
_DEVIATION, _PATIENCE = 0.5, 2.0  # NAVSIM: beside the centre line [m], for so long [s]
_JUNCTION = 10.0  # the route turns within so far, either way [m]
_TURN = math.cos(math.radians(20.0))  # by more than this


@dataclass(frozen=True, kw_only=True)
class Extended:
    """The running terms of b episodes, each (b,).

    Attributes:
        against: driven against the direction in the last frame [m].
        astray: frames in a row beside the lane.
        ddc: least so far.
        lk, ec: sums over the frames.

    """

    against: Tensor
    astray: Tensor
    ddc: Tensor
    lk: Tensor
    ec: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> Extended:
        """Every tensor changed in the same way."""
        return Extended(**{entry.name: change(getattr(self, entry.name)) for entry in fields(self)})

    def terms(self, frames: Tensor) -> dict[str, Tensor]:
        """DDC, TLC, LK and EC over `frames` (b,): DDC the least of all, LK and EC the share that passes."""
        count, none = frames.clamp(min=1), frames == 0
        return {
            "ddc": self.ddc,
            "tlc": torch.ones_like(self.ddc),
            "lk": torch.where(none, 1.0, self.lk / count),
            "ec": torch.where(none, 1.0, self.ec / count),
        }


def begin_extended(zeros: Tensor) -> Extended:
    """Before the first step; `zeros` (b,)."""
    return Extended(against=zeros, astray=zeros, ddc=zeros + 1, lk=zeros, ec=zeros)


def extend(
    before: Extended, poses: Tensor, routes: Routes, near: Tensor, distance: Tensor, config: ScoreConfig
) -> Extended:
    """The terms after a step of f frames.

    DDC: 1 up to 2 m in a second on the wrong side, 0.5 up to 6 m, else 0. Wrong is to go against the route, or farther
    left of it than `oncoming`: NAVSIM has the lanes that do not belong to the route, here a second lane of the same
    direction counts as well. LK: no more than 0.5 m beside the route, or not for 2 s on end. Neither is judged where
    the route turns, as in NAVSIM on junctions; a junction that is crossed straight on is judged here.

    Args:
        before: the terms until now.
        poses: (b, 4 + f, 3) float64 world poses, four of them from before the step.
        routes: the routes.
        near: (b, f) arc length of the ego [m].
        distance: (b, f) from the route [m].
        config: options.

    """
    place, step = poses[:, 4:, :2].float(), poses[:, 3:, :2].diff(dim=1).float()  # (b, f, 2)
    spread = constant((-0.5, 0.5, -_JUNCTION - 2, -_JUNCTION + 2, _JUNCTION - 2, _JUNCTION + 2), near.device)
    points = routes.at((near[..., None] + spread).flatten(1)).unflatten(1, (*near.shape[1:], 6))
    along, came, goes = points.unflatten(2, (3, 2)).diff(dim=3).squeeze(3).unbind(2)  # (b, f, 2) each
    turns = (came * goes).sum(-1) < _TURN * came.norm(dim=-1) * goes.norm(dim=-1)
    aside = place - points[:, :, 0]
    left = (along[..., 0] * aside[..., 1] - along[..., 1] * aside[..., 0]) / along.norm(dim=-1).clamp(
        min=1e-3
    )
    side = left > config.oncoming if config.oncoming > 0 else left < config.oncoming
    wrong = (((step * along).sum(-1) < 0) | side) & ~turns
    against = torch.cat((before.against[:, None], step.norm(dim=-1) * wrong), dim=1)
    second = (against[:, 1:] + against[:, :-1]).amax(dim=1)  # two frames are a second
    ddc = torch.where(second < _COMPLIANT, 1.0, torch.where(second < _VIOLATION, 0.5, 0.0))
    astray, kept = before.astray, torch.zeros_like(before.lk)
    for off, turn in zip((distance > _DEVIATION).unbind(1), turns.unbind(1), strict=True):
        astray = torch.where(turn, astray, (astray + 1) * off)
        kept = kept + (astray * FRAME_SECONDS < _PATIENCE)
    return Extended(
        against=against[:, -1],
        astray=astray,
        ddc=torch.minimum(before.ddc, ddc),
        lk=before.lk + kept,
        ec=before.ec + extended_comfort(poses) * near.shape[1],
    )


def extended_comfort(poses: Tensor) -> Tensor:
    """EC of a step: whether it goes on as the step before it did, (b,) float in {0, 1}.

    NAVSIM compares two plans of 4 s made half a second apart where they overlap: the root mean square differences of
    acceleration, jerk, yaw rate and yaw acceleration must be small. Actions here are no plans, so the motion driven is
    compared with that at the end of the step before, held. `poses` (b, 4 + f, 3), four of them from before the step.
    """
    motion = ego_motion(poses)  # (b, 1 + f)
    motion["acceleration"] = torch.hypot(motion["longitudinal"], motion["lateral"])
    values = torch.stack([motion[name] for name in SEVERAL], dim=-1)
    apart = (values[:, 1:] - values[:, :1]).square().mean(dim=1).sqrt()  # (b, 4)
    return (apart <= constant(_MOST, apart.device, apart.dtype)).all(dim=-1).float()


def epdms(terms: Mapping[str, Tensor]) -> Tensor:
    """The score of NAVSIM v2 from its terms, each (b,) in [0, 1]; HC is `comfort`, which always judged the motion
    together with the poses before it.
    """
    barred = terms["nc"] * terms["dac"] * terms["ddc"] * terms["tlc"]
    weighted = 5 * terms["ttc"] + 5 * terms["ep"] + 2 * (terms["lk"] + terms["comfort"] + terms["ec"])
    return barred * weighted / 16


def human_filter(terms: Mapping[str, Tensor], human: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`terms` with 1 where the human driver of the recording has 0 (NAVSIM: what the human cannot keep to is not asked
    of the agent), and the score that follows; `human` holds those of its drive from the same start.
    """
    kept = {name: torch.where(human[name] == 0, 1.0, terms[name]) for name in TERMS}
    return {**terms, **kept, "score": epdms(kept)}


TERMS = ("nc", "dac", "ddc", "tlc", "ttc", "ep", "lk", "comfort", "ec")
"""The terms of EPDMS, those that bar the score first."""
