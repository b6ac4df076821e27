"""No cheap profit: what a driver earns in the environment on hand-built scenes, term by term."""

import math

import numpy as np
import pytest
import torch

from occsora_sim.envs.drive import DriveEnv
from occsora_sim.envs.reward import RewardConfig, reward_terms, sum_terms
from occsora_sim.grid import DRIVEABLE, FREE, MANMADE, OCC3D, SIDEWALK
from occsora_sim.scenes.start import Start, make_start
from occsora_sim.scoring.driving import ScoreConfig
from occsora_sim.scoring.episode import StepScore, advance, begin_episodes
from occsora_sim.vehicle import Vehicle
from occsora_sim.worlds.protocol import WorldState
from occsora_sim.worlds.replay import ReplayWorld


class Square:
    """An endless paved square; from `wall` metres of the world's x axis on, a building (none if infinite)."""

    grid, frames_per_chunk = OCC3D, 2

    def __init__(self, wall=math.inf):
        self.wall = wall

    def see(self, pose):
        frame = torch.full(OCC3D.shape, FREE, dtype=torch.uint8)
        frame[..., OCC3D.ground] = DRIVEABLE
        centres = OCC3D.centres_xy()
        x = pose[0] + centres[..., 0] * torch.cos(pose[2]) - centres[..., 1] * torch.sin(pose[2])
        frame[x >= self.wall] = MANMADE
        return frame

    def start(self, speed=5.0, length=120.0):
        """At the origin, a straight route along x ahead."""
        poses = torch.tensor([[-0.5 * speed * k, 0.0, 0.0] for k in (3, 2, 1, 0)])
        x = torch.arange(-10.0, length + 1)
        frames = torch.stack([self.see(pose) for pose in poses])
        return Start(occupancy=frames, ego_pose=poses, route=torch.stack((x, 0 * x), dim=-1))

    def reset(self, starts, seeds):
        frames = torch.stack([start.occupancy[-1:] for start in starts])
        poses = torch.stack([start.ego_pose[-1:] for start in starts])
        return WorldState(occupancy=frames, ego_pose=poses, memory=None)

    def step(self, state, trajectories):
        from occsora_sim.geometry import compose

        poses = compose(state.ego_pose[:, -1:].expand_as(trajectories), trajectories)
        frames = torch.stack([torch.stack([self.see(pose) for pose in row]) for row in poses])
        return WorldState(occupancy=frames, ego_pose=poses, memory=None)

    def select(self, state, rows):
        raise NotImplementedError

    def replace(self, state, rows, other):
        raise NotImplementedError


def drive(world, actions, speed=5.0, seconds=60.0, **options):
    """Drive from the square's start; the sum of the rewards, their terms, and the last info."""
    env = DriveEnv(world=world, scenes=[world.start(speed)], seconds=seconds, **options)
    env.reset(seed=0)
    terms: list[dict[str, float]] = []
    total, info = 0.0, {}
    for action in actions:
        _, reward, terminated, truncated, info = env.step(np.asarray(action, dtype=np.float64))
        total += reward
        terms.append(info["reward_terms"])
        if terminated or truncated:
            break
    return total, terms, info


AHEAD, STILL, CIRCLE = (0.0, 0.0), (-1.0, 0.0), (0.0, 0.9)


def test_honest_driving_earns_what_it_covers():
    total, terms, info = drive(Square(), [AHEAD] * 10)
    assert info["progress"] == pytest.approx(50.0, abs=0.1)
    assert total == pytest.approx(0.1 * 50.0, abs=0.02)
    assert all(sum(value for name, value in step.items() if name != "progress") == 0 for step in terms)


def test_driving_in_circles_does_not_profit():
    total, terms, info = drive(Square(), [CIRCLE] * 24)
    radius = Vehicle().wheelbase / math.tan(0.9 * Vehicle().max_steering)
    assert len(terms) == 24, "120 m are driven"
    assert info["progress"] <= radius + 0.5, "and no more of the route gained than half a circle reaches"
    assert sum(step["progress"] for step in terms[10:]) < 0.02, "once round, there is nothing new"
    assert total < 0 and sum(sum(step.values()) for step in terms[5:]) < 0, "discomfort is all that is left"


def test_zigzagging_earns_no_more_than_driving_straight_as_far():
    straight, _, _ = drive(Square(), [AHEAD] * 8)
    zigzag, _, info = drive(Square(), [(0.0, 0.3), (0.0, -0.3)] * 4)
    assert info["progress"] < 40.0 and zigzag < straight


def test_standing_still_does_not_profit():
    total, terms, info = drive(Square(), [STILL] * 10)
    way, jolt = terms[0]["progress"], terms[0]["comfort"] + terms[1]["comfort"]
    assert total == pytest.approx(way + jolt) and way <= 0.2, "no more than the way that braking takes"
    assert -0.7 < jolt < 0, "the second in which the car stops, and the half in which the push ends"
    assert all(sum(step.values()) == 0 for step in terms[2:]) and info["speed"] == 0
    parked, _, info = drive(Square(), [AHEAD] * 6, speed=0.0)
    assert parked == 0 and info["progress"] == 0


@pytest.mark.parametrize("pull", [0.0, 1.0])
def test_driving_into_a_wall_does_not_profit(pull):
    total, terms, info = drive(Square(wall=22.0), [(pull, 0.0)] * 20)
    assert info["terms"]["nc"] == 0.5 and info["episode_score"]["score"] <= 0.5
    assert terms[-1]["collision"] == -10.0 and terms[-1]["progress"] == 0
    assert total < 0, "the way to the wall does not pay for the wall"
    stops, _, _ = drive(Square(wall=22.0), [AHEAD] * 2 + [STILL] * 8)
    assert stops > total and stops > 0


def test_a_long_way_does_not_pay_for_a_collision_more_than_stopping_before_it():
    crash, _, _ = drive(Square(wall=52.0), [AHEAD] * 30)
    stop, _, _ = drive(Square(wall=52.0), [AHEAD] * 7 + [(-0.3, 0.0)] * 5)
    assert stop > crash + 9


def test_driving_off_the_road_does_not_profit(straight_road):
    start = make_start(straight_road(), 0, 3)
    env = DriveEnv(world=ReplayWorld(), scenes=[start], seconds=20.0)
    env.reset(seed=0)
    total, terminated, steps = 0.0, False, 0
    while not terminated and steps < 20:
        _, reward, terminated, _, info = env.step(np.array([0.0, 0.2 if steps == 0 else 0.0]))
        total, steps = total + reward, steps + 1
        if info["terms"]["dac"] < 1:
            assert info["reward_terms"]["off_road"] < 0
    assert terminated and info["terms"]["outside"] and info["episode_score"]["score"] == 0
    assert info["reward_terms"]["progress"] < -info["reward_terms"]["off_road"] / 5


# --------------------------------------------------------------------------- the terms
def score(**values):
    """A step's score: perfect but for `values`."""
    perfect = {"nc": 1.0, "dac": 1.0, "ttc": 1.0, "comfort": 1.0, "progress": 0.0, "off_road": 0.0}
    flags = dict.fromkeys(("contact", "outside", "goal"), torch.tensor([False]))
    numbers = {name: torch.tensor([value]) for name, value in {**perfect, **values}.items()}
    return StepScore(**numbers, **flags, route_distance=torch.zeros(1))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, 0.0),
        ({"progress": 8.0}, 0.8),
        ({"nc": 0.5, "progress": 8.0}, -10.0),
        ({"nc": 0.0, "progress": 8.0}, -20.0),
        ({"off_road": 0.5}, -2.5),
        ({"ttc": 0.0}, -1.0),
        ({"comfort": 0.5}, -0.2),
        ({"progress": 10.0, "ttc": 0.5, "comfort": 0.0, "off_road": 1.0}, 1.0 - 0.5 - 0.4 - 5.0),
    ],
)
def test_each_term_has_its_weight(values, expected):
    terms = reward_terms(score(**values), 1.0, RewardConfig())
    assert sum_terms(terms).item() == pytest.approx(expected)
    doubled = RewardConfig(progress=0.2, collision=-40.0, off_road=-10.0, ttc=-2.0, comfort=-0.8)
    assert sum_terms(reward_terms(score(**values), 1.0, doubled)).item() == pytest.approx(2 * expected)


def test_the_sum_does_not_depend_on_the_batch():
    values = torch.rand(5, 9, generator=torch.Generator().manual_seed(0))
    names = "abcde"
    together = sum_terms(dict(zip(names, values, strict=True)))
    for row in range(9):
        alone = sum_terms(dict(zip(names, values[:, row : row + 1], strict=True)))
        assert torch.equal(alone, together[row : row + 1])


# --------------------------------------------------------------------------- the score of an episode
def test_an_episode_takes_the_least_of_nc_and_dac_and_the_share_of_ttc_and_comfort():
    world = Square()
    clear = world.see(torch.zeros(3))[None, None]
    kerb = clear.clone()
    kerb[:, :, :, :, OCC3D.ground] = SIDEWALK
    wall = clear.clone()
    wall[:, :, 105:110, 98:103, 3:7] = MANMADE
    frames = [clear, wall, kerb, clear]
    episodes, config = begin_episodes([world.start(speed=10.0)]), ScoreConfig()
    for number, frame in enumerate(frames, start=1):
        # 5 m a frame but for a stop at the last, which no passenger likes
        pose = torch.tensor([[[5.0 * min(number, 3), 0.0, 0.0]]])
        speed = torch.tensor([[10.0 if number < 4 else 0.0]])
        episodes, _ = advance(episodes, frame, pose, speed, OCC3D, Vehicle(), config)
    summary = {name: value.item() for name, value in episodes.summary(config).items()}
    assert summary["nc"] == 0.5 and summary["dac"] == 0 and summary["ttc"] == 1 and summary["comfort"] == 0.75
    assert (
        summary["ep"] == pytest.approx(15 / 20, abs=0.01)
        and summary["seconds"] == 2
        and summary["score"] == 0
    )
