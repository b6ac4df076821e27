"""Is rolled-out traffic like recorded traffic? A likelihood over histograms, after the Waymo sim agents challenge.

Montali et al. 2023, The Waymo Open Sim Agents Challenge (arXiv 2305.12032), score a simulator by the likelihood of
what was recorded under histograms of what it simulates: for each feature exp(mean log-likelihood), and a weighted sum
of these, the realism meta-metric. The same here, with these differences:

- Histograms are pooled over rollouts, road users and frames of a span of time. There they are of 32 rollouts of one
  scenario, for one road user, over all its frames. A minute of one world is too costly to roll out 32 times; and after
  half a minute hardly a road user of the start is left to compare with itself. Hence this asks whether traffic as a
  whole is right, not whether each road user does what it did.
- Pooled, the recording of a rollout's own start would be compared with itself when a world replays it. Hence it is
  judged under the rollouts of the *other* scenes (with one scene: under the other rollouts), all contestants alike. The
  ceiling is recorded traffic in the simulator's place, the floor constant velocity; `of_the_way` is where the simulator
  stands between them: a replay is at 1 by construction. A world may exceed 1 by chance, within the interval.
- The ego is no sim agent: it is driven along its recorded way in all contestants, counts as an obstacle, and has no
  figures. Road users enter and leave, so the sets are not the same; entries, exits, the number in view and the standing
  time are features in addition, and figures are of those in view.
- Frames are 0.5 s apart, differences are backward, angular acceleration is left out. Bins are uneven: narrow about
  zero, so that creeping is not standing. Distances are between boxes with sharp corners; ground is a label under the
  centre, not a distance to an edge. Off the road and overlapping are judged per frame, not once a road user.
- One count is added to each bin (Laplace), there 0.1: samples are in the thousands, not 32.
- Safety weighs less (0.3 in all, there 0.5), since entries, exits, the number in view and the standing time weigh, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.scoring.traffic_features import STANDS, Features

SPANS = ((0.0, 8.0), (8.0, 30.0), (30.0, 60.0))
"""Parts of a rollout that are judged each by itself [s]: after the first, up to the second."""

WINDOW = 8
"""Entries and exits are counted in windows of so many frames."""

FAST = 5.0
"""Faster than this somebody is a mover [m/s]."""

SECOND = 2
"""Frames of a second, after which movers should still move."""

SMOOTHING = 1.0
"""Counts added to each bin."""

FEATURES: dict[str, tuple[float, tuple[float, ...]]] = {
    "speed": (0.1, (STANDS, 1, 2, 3, 5, 7.5, 10, 12.5, 15, 20)),
    "acceleration": (0.1, (-8, -4, -2, -1, -0.5, -0.1, 0.1, 0.5, 1, 2, 4, 8)),
    "yaw_rate": (0.05, (-0.6, -0.3, -0.1, -0.03, 0.03, 0.1, 0.3, 0.6)),
    "standing_time": (0.1, (0.25, 1.25, 2.25, 4.25, 8.25, 16.25, 32.25)),
    "nearest": (0.1, (0, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30)),
    "time_to_collision": (0.1, (0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5)),
    "overlap": (0.15, (0.5,)),
    "off_road": (0.15, (0.5,)),
    "entries": (0.05, (0.5, 1.5, 2.5, 3.5, 4.5, 6.5, 8.5, 11.5)),
    "exits": (0.05, (0.5, 1.5, 2.5, 3.5, 4.5, 6.5, 8.5, 11.5)),
    "in_view": (0.05, (0.5, 2.5, 5.5, 9.5, 14.5, 19.5, 24.5, 29.5, 39.5, 49.5)),
}
"""Weight in the joint figure, and inner edges of the bins, in units of `Features`; entries and exits in a WINDOW."""

FIGURES: dict[str, str] = {
    "faster": f"vehicles faster than {FAST:g} m/s, of all road users",
    "persistence": f"of those vehicles that are still there a second later, those still faster than {FAST:g} m/s",
    "standing": f"slower than {STANDS:g} m/s, of all road users",
    "off_road": "off the road, of moving vehicles on known ground",
    "overlap": "overlap another or the ego, of all road users",
    "vehicle_overlap": "overlap another or the ego, of vehicles",
    "touching": "overlap another road user, the ego aside, of all road users",
    "in_view": "road users in view",
    "entries": "entries a minute",
    "exits": "exits a minute",
    "appear": "entries a minute in the midst of the view, where half a second before nobody was",
    "vanish": "exits a minute from the midst of the view",
}
"""Plain figures; all in view, each a ratio of two sums over road users and frames."""

_BINS = 1 + max(len(edges) for _, edges in FEATURES.values())


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What one or more logs hold, summed.

    Attributes:
        counts: (..., spans, features, bins) float64, samples in each bin.
        sums: (..., spans, figures, 2) float64, numerator and denominator of each plain figure.

    """

    counts: Tensor
    sums: Tensor

    def grouped(self, group: Sequence[int]) -> Tally:
        """The sums over the rows (first axis) of each group; groups are numbered from 0."""
        index, n = torch.tensor(group), max(group) + 1

        def add(value: Tensor) -> Tensor:
            return value.new_zeros(n, *value.shape[1:]).index_add_(0, index, value)

        return Tally(counts=add(self.counts), sums=add(self.sums))


def stack(tallies: Sequence[Tally]) -> Tally:
    """Several tallies, one a row."""
    return Tally(
        counts=torch.stack([tally.counts for tally in tallies]),
        sums=torch.stack([tally.sums for tally in tallies]),
    )


def tally(features: Features) -> Tally:
    """The samples of one log in each span. The first frame, where all contestants are the same, is in none."""
    samples, ratios = _samples(features), _ratios(features)
    counts = torch.zeros(len(SPANS), len(FEATURES), _BINS, dtype=torch.float64)
    sums = torch.zeros(len(SPANS), len(FIGURES), 2, dtype=torch.float64)
    for s, (begin, end) in enumerate(SPANS):
        span = slice(1 + round(begin / FRAME_SECONDS), 1 + round(end / FRAME_SECONDS))
        for f, (name, (_, edges)) in enumerate(FEATURES.items()):
            value, valid = (part[span] for part in samples[name])
            if name in ("entries", "exits"):  # whole windows of the span
                value = value[: len(value) // WINDOW * WINDOW].view(-1, WINDOW).sum(dim=1)
                valid = torch.ones_like(value, dtype=torch.bool)
            bins = torch.bucketize(
                value[valid].double(), torch.tensor(edges, dtype=torch.float64), right=True
            )
            counts[s, f] = torch.bincount(bins, minlength=_BINS)
        for f, name in enumerate(FIGURES):
            sums[s, f] = torch.stack([part[span].double().sum() for part in ratios[name]])
    return Tally(counts=counts, sums=sums)


def _samples(features: Features) -> dict[str, tuple[Tensor, Tensor]]:
    """Values of each feature, and which are samples; (t, n), or (t,) where they are of the whole view."""
    every = torch.ones(len(features.speed), dtype=torch.bool)
    moving = features.known & features.vehicle & (features.speed >= STANDS)
    return {
        "speed": (features.speed, features.known),
        "acceleration": (features.acceleration, features.known & ~features.acceleration.isnan()),
        "yaw_rate": (features.yaw_rate, features.known),
        "standing_time": (features.stood, features.known),
        "nearest": (features.nearest, features.in_view),
        "time_to_collision": (features.time_to_collision, moving),
        "overlap": (features.overlap, features.in_view),
        "off_road": (features.off_road, moving & features.on_known),
        "entries": (features.enters.sum(dim=1), every),
        "exits": (features.leaves.sum(dim=1), every),
        "in_view": (features.in_view.sum(dim=1), every),
    }


def _ratios(features: Features) -> dict[str, tuple[Tensor, Tensor]]:
    """Numerator and denominator of each plain figure in each frame, first axis t."""
    known, view = features.known, features.in_view
    vehicle = known & features.vehicle
    moving = vehicle & (features.speed >= STANDS) & features.on_known
    fast = vehicle & (features.speed > FAST)
    later = torch.zeros_like(fast)
    later[:-SECOND] = features.there[SECOND:]
    still = torch.zeros_like(fast)
    still[:-SECOND] = (features.speed > FAST)[SECOND:]
    every = torch.ones(len(view))
    minutes = every * FRAME_SECONDS / 60
    return {
        "faster": (fast, known),
        "persistence": (fast & later & still, fast & later),
        "standing": (known & (features.speed < STANDS), known),
        "off_road": (moving & features.off_road, moving),
        "overlap": (view & features.overlap, view),
        "vehicle_overlap": (view & features.vehicle & features.overlap, view & features.vehicle),
        "touching": (view & features.touches, view),
        "in_view": (view, every),
        "entries": (features.enters, minutes),
        "exits": (features.leaves, minutes),
        "appear": (features.appears, minutes),
        "vanish": (features.vanishes, minutes),
    }


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """How likely recorded traffic is under simulated.

    Attributes:
        features: (..., spans, features) exp(mean log-likelihood), NaN where nothing was recorded.
        spans: (..., spans) the weighted mean over the features, NaN where nothing was recorded.
        joint: (...) the mean over the spans.

    """

    features: Tensor
    spans: Tensor
    joint: Tensor


def likelihood(simulated: Tensor, recorded: Tensor, times: Tensor | None = None) -> Likelihood:
    """Recorded traffic of each group under histograms of the simulated traffic of all other groups.

    Args:
        simulated: (g, s, f, k) counts of g groups, in s spans, of f features, in k bins.
        recorded: (g, s, f, k) counts of the recordings of the same groups.
        times: (r, g) how often each group is drawn in each of r resamples; by default once, in one.

    Returns:
        With a first axis r where `times` is given.

    Raises:
        ConfigurationError: fewer than two groups.

    """
    if len(simulated) < 2:
        raise ConfigurationError("traffic realism: needs two groups or more, to judge each under the others")
    weight = torch.ones(1, len(simulated), dtype=torch.float64) if times is None else times.double()
    edges = torch.tensor([len(inner) + 1 for _, inner in FEATURES.values()])
    real = torch.arange(simulated.shape[-1]) < edges[:, None]  # (f, k): bins that the feature has
    log = torch.zeros(len(weight), *simulated.shape[1:3], dtype=torch.float64)
    total = torch.zeros_like(log)
    pooled = torch.einsum("rg,gsfk->rsfk", weight, simulated)
    for g in range(len(simulated)):
        others = (pooled - weight[:, g, None, None, None] * simulated[g]).clamp(min=0) + SMOOTHING
        others = torch.where(real, others, 0.0)
        probability = torch.where(real, others / others.sum(dim=-1, keepdim=True), 1.0)
        judged = weight[:, g, None, None, None] * recorded[g]
        log = log + (judged * probability.log()).sum(dim=-1)
        total = total + judged.sum(dim=-1)
    features = torch.where(total > 0, (log / total).exp(), torch.nan)  # (r, s, f)
    weights = torch.tensor([value for value, _ in FEATURES.values()], dtype=torch.float64)
    weights = torch.where(features.isnan(), 0.0, weights)
    spans = (features.nan_to_num() * weights).sum(dim=-1) / weights.sum(dim=-1)
    found = Likelihood(features=features, spans=spans, joint=spans.nanmean(dim=-1))
    if times is not None:
        return found
    return Likelihood(features=found.features[0], spans=found.spans[0], joint=found.joint[0])


def of_the_way(model: Tensor, floor: Tensor, ceiling: Tensor) -> Tensor:
    """Where a likelihood stands between the floor (0) and the ceiling (1); NaN where these are not apart."""
    apart = ceiling - floor
    return torch.where(apart > 1e-3, (model - floor) / apart, torch.nan)


def figures(sums: Tensor, times: Tensor | None = None) -> Tensor:
    """Plain figures (..., s, p) from sums (g, s, p, 2) over all groups, or over r resamples `times` (r, g)."""
    weight = torch.ones(1, len(sums), dtype=torch.float64) if times is None else times.double()
    total = torch.einsum("rg,gspk->rspk", weight, sums)
    ratio = torch.where(total[..., 1] > 0, total[..., 0] / total[..., 1], torch.nan)
    return ratio[0] if times is None else ratio
