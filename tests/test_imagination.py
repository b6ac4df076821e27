"""Imagination: plans tried out side by side, and the planner that lives on it."""

import numpy as np
import pytest
import torch
from untrained import untrained_world_model

from occsora_sim.agents import ImaginingPlanner, make_agent
from occsora_sim.agents.episode import run_episodes
from occsora_sim.agents.imagining_planner import ImaginingPlannerConfig
from occsora_sim.agents.protocol import ImaginingAgent
from occsora_sim.agents.route_follower import RouteFollower
from occsora_sim.envs.drive import DriveEnv
from occsora_sim.envs.imagination import TERMS, Imagined
from occsora_sim.envs.vector import DriveVectorEnv
from occsora_sim.errors import ActionError, ConfigurationError, NotResetError
from occsora_sim.geometry import compose
from occsora_sim.grid import OCC3D, TINY
from occsora_sim.scenes.start import make_start
from occsora_sim.worlds.diffusion import DiffusionWorld
from occsora_sim.worlds.protocol import WorldState
from occsora_sim.worlds.replay import ReplayWorld

PLANS = np.array(
    [
        [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]],  # into the car ahead
        [[-0.3, 0.0], [-0.3, 0.0], [-0.3, 0.0]],
        [[0.0, 0.3], [0.0, 0.3], [0.0, 0.3]],  # off the road
    ],
    dtype=np.float32,
)


@pytest.fixture
def options(straight_road):
    """A small environment that may branch its own world: a standing car 22 m ahead, another start further back."""
    scene = straight_road(cars=[(34.0, 0.0, 0.0)])
    starts = [make_start(scene, 0, step, TINY, history=3) for step in (3, 2)]
    return {"world": ReplayWorld(TINY), "scenes": starts, "seconds": 10.0, "imagination": "oracle"}


class StillWorld:
    """A world that begins from frames alone, and in which the same frame is seen for ever."""

    grid, frames_per_chunk = TINY, 2

    def __init__(self):
        self.begun = []

    def reset(self, starts, seeds):
        self.begun.append((list(starts), list(seeds)))
        frames = torch.stack([start.occupancy[-1:] for start in starts])
        poses = torch.stack([start.ego_pose[-1:] for start in starts])
        return WorldState(occupancy=frames, ego_pose=poses, memory=None)

    def step(self, state, trajectories):
        poses = compose(state.ego_pose[:, -1:].expand_as(trajectories), trajectories)
        frames = state.occupancy[:, -1:].expand(-1, trajectories.shape[1], -1, -1, -1)
        return WorldState(occupancy=frames, ego_pose=poses, memory=None)

    def select(self, state, rows):
        return WorldState(occupancy=state.occupancy[rows], ego_pose=state.ego_pose[rows], memory=None)

    def replace(self, state, rows, other):
        raise NotImplementedError


def test_the_oracle_imagines_what_then_happens(options):
    env = DriveEnv(**options)
    for number, plan in enumerate(PLANS):
        env.reset(seed=0, options={"start": 0})
        imagined = env.imagine(PLANS, frames=True)
        assert imagined.reward.shape == imagined.score.shape == (3,) and set(imagined.terms) == set(TERMS)
        frames: list[np.ndarray] = []
        reward, terminated = 0.0, False
        for action in plan:
            observation, gained, terminated, _, _ = env.step(action)
            reward, frames = reward + gained, [*frames, observation["occupancy"]]
            if terminated:
                break
        assert imagined.reward[number] == pytest.approx(reward, abs=1e-6)
        assert imagined.terminated[number] == terminated
        seen = np.concatenate(frames)
        assert np.array_equal(imagined.occupancy[number][: len(seen)], seen)
        assert imagined.occupancy.shape == (3, 6, *TINY.shape)
        assert (imagined.occupancy[number][len(seen) :] == seen[-1]).all(), (
            "after an end the last frame stays"
        )


def test_imagined_plans_are_scored_from_now_on(options):
    env = DriveEnv(**options)
    env.reset(seed=0, options={"start": 0})
    crash, brake, leave = range(3)
    imagined = env.imagine(PLANS)
    assert imagined.terms["nc"].tolist() == [0, 1, 1] and imagined.terminated.tolist() == [True, False, True]
    assert imagined.terms["dac"][leave] == 0 and imagined.score[crash] == imagined.score[leave] == 0
    assert imagined.score[brake] > 0.4 and imagined.terms["seconds"][brake] == 3.0
    env.step(PLANS[brake, 0])
    later = env.imagine(PLANS[:, :1])
    assert later.terms["seconds"].tolist() == [1.0] * 3, "what was driven before is not scored again"


def test_plans_in_one_future_go_as_each_in_its_own_where_nobody_reacts(options):
    batch = DriveVectorEnv(num_envs=2, **options)
    batch.reset(seed=8, options={"start": [0, 1]})
    plans = np.stack((PLANS[::-1], PLANS))  # the first of the second row crashes: the others go on
    before, each = batch.state, batch.imagine(plans)
    shared = batch.imagine(plans, frames=True, shared=True)
    assert batch.state is before
    assert all(np.allclose(shared.terms[name], each.terms[name], atol=1e-6) for name in TERMS)
    assert np.allclose(shared.reward, each.reward, atol=1e-6)
    assert np.array_equal(shared.terminated, each.terminated) and shared.terminated[1].tolist() == [1, 0, 1]
    assert shared.occupancy.shape[:3] == (2, 3, 6) and shared.occupancy[0, 0].size < each_frames(batch, plans)


def each_frames(batch, plans):
    return batch.imagine(plans, frames=True).occupancy[0, 0].size


def test_one_future_is_rolled_once_however_many_plans(options):
    world = CountedWorld()
    env = DriveEnv(**(options | {"imagination": world}))
    env.reset(seed=0, options={"start": 0})
    env.imagine(np.repeat(PLANS[1:2], 64, axis=0), shared=True)
    assert world.rows == [1, 1, 1]


class CountedWorld(StillWorld):
    """Counts the rows that it is asked to roll on."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def step(self, state, trajectories):
        self.rows.append(len(trajectories))
        return super().step(state, trajectories)


def test_imagining_changes_nothing(options):
    rewards = []
    for imagines in (False, True):
        env = DriveEnv(**options)
        env.reset(seed=4)
        total = 0.0
        for action in PLANS[1]:
            if imagines:
                env.imagine(PLANS)
            total += env.step(action)[1]
        rewards.append(total)
    assert rewards[0] == rewards[1]


def test_a_batch_imagines_what_its_singles_imagine(options):
    batch = DriveVectorEnv(num_envs=2, **options)
    batch.reset(seed=8, options={"start": [0, 1]})
    plans = np.stack((PLANS, PLANS[::-1]))
    together = batch.imagine(plans)
    for row in range(2):
        env = DriveEnv(**options)
        env.reset(seed=8 + row, options={"start": row})
        alone = env.imagine(plans[row])
        assert np.array_equal(alone.reward, together.reward[row])
        assert all(np.array_equal(alone.terms[name], together.terms[name][row]) for name in TERMS)


def test_another_world_is_told_only_what_was_seen(options):
    world = StillWorld()
    env = DriveEnv(**(options | {"imagination": world}))
    observation, _ = env.reset(seed=0, options={"start": 0})
    imagined = env.imagine(PLANS)
    (starts, seeds), begun = world.begun[-1], env.state
    assert len(starts) == len(seeds) == 1 and starts[0].source is None, "one world, branched into the plans"
    assert torch.equal(starts[0].occupancy, begun.seen[0]) and starts[0].occupancy.shape[0] == 4
    assert np.array_equal(starts[0].occupancy[-1], observation["occupancy"][-1])
    assert imagined.terms["nc"].tolist() == [1, 1, 1], "in this world the car ahead never comes nearer"


@pytest.mark.parametrize("driven", ["replay", "generated"])
def test_a_generated_world_imagines_alike_alone_and_in_a_batch(options, straight_road, driven):
    scene = straight_road(cars=[(34.0, 0.0, 0.0)])
    options["scenes"] = [make_start(scene, 0, step, TINY, history=4) for step in (4, 3)]
    generated = DiffusionWorld(untrained_world_model())
    changes = {"imagination": generated} if driven == "replay" else {"world": generated, "imagination": None}
    plans = np.stack((PLANS[:, :2], PLANS[::-1, :2]))
    batch = DriveVectorEnv(num_envs=2, **(options | changes))
    batch.reset(seed=8, options={"start": [0, 1]})
    before = batch.state
    together = batch.imagine(plans, frames=True)
    assert batch.state is before and together.occupancy.shape == (2, 3, 4, *TINY.shape)
    env = DriveEnv(**(options | changes))
    env.reset(seed=9, options={"start": 1})
    alone = env.imagine(plans[1], frames=True)
    assert np.array_equal(alone.occupancy, together.occupancy[1])
    assert np.array_equal(alone.reward, together.reward[1])


def test_a_generated_world_imagines_with_fewer_steps_unless_told_otherwise(options):
    generated = DiffusionWorld(untrained_world_model(), steps=4)
    for asked, steps in ((1, 1), (None, 4), (3, 3)):
        env = DriveEnv(**(options | {"imagination": generated, "imagination_steps": asked}))
        env.reset(seed=0)
        env.imagine(PLANS[:, :1])
        assert env.imagination._simulation().world.steps == steps
    with pytest.raises(ConfigurationError, match="imagination_steps"):
        DriveEnv(**(options | {"imagination_steps": 0}))


def test_manoeuvres_can_be_imagined(options):
    env = DriveEnv(**options, action="manoeuvre")
    env.reset(seed=0, options={"start": 0})
    fast, stop = np.full(3, 4), np.full(3, 0)
    assert env.imagine(np.stack((fast, stop))).terms["nc"].tolist() == [0, 1]


def test_bad_plans_are_refused_in_one_line(options):
    env = DriveEnv(**options)
    with pytest.raises(NotResetError, match="reset"):
        env.imagine(PLANS)
    env.reset(seed=0)
    for wrong in (PLANS[0], PLANS[:, :0], PLANS * np.nan, PLANS * 2, PLANS[..., :1]):
        with pytest.raises(ActionError, match=r"^[^\n]+$"):
            env.imagine(wrong)
    other = StillWorld()
    other.grid = OCC3D
    env = DriveEnv(**(options | {"imagination": other}))
    env.reset(seed=0)
    with pytest.raises(ConfigurationError, match="grid"):
        env.imagine(PLANS)


def test_where_nobody_moves_any_more_one_runs_into_who_would_have_driven_on(straight_road):
    scene = straight_road(cars=[(16.0, 0.0, 8.0)], steps=61, ego_speed=8.0)
    start = make_start(scene, 0, 2, TINY, history=3)
    env = DriveEnv(world=ReplayWorld(TINY), scenes=[start], imagination="oracle")
    env.reset(seed=0)
    ahead = np.zeros((1, 4, 2), dtype=np.float32)
    found = {until: env.imagine(ahead, shared=True, until=until).terms for until in (None, 4, 1)}
    assert {until: terms["nc"][0] for until, terms in found.items()} == {None: 1.0, 4: 1.0, 1: 0.0}
    assert found[1]["ttc"][0] < 1.0 == found[None]["ttc"][0]
    with pytest.raises(ConfigurationError, match="until"):
        env.imagine(ahead, until=1)


@pytest.mark.parametrize("shared", [False, True])
def test_a_car_that_is_imagined_larger_keeps_clear_of_what_it_would_just_have_passed(straight_road, shared):
    scene = straight_road(cars=[(25.0, -1.95, 0.0)], steps=61)  # its side is 0.2 m beside the ego's
    env = DriveEnv(
        world=ReplayWorld(TINY), scenes=[make_start(scene, 0, 2, TINY, history=3)], imagination="oracle"
    )
    env.reset(seed=0)
    ahead = np.zeros((1, 4, 2), dtype=np.float32)
    passed, touched = (env.imagine(ahead, shared=shared, room=room).terms["nc"][0] for room in (0.0, 0.6))
    assert passed == 1.0 and touched < 1.0
    with pytest.raises(ConfigurationError, match="room"):
        env.imagine(ahead, room=-0.1)


# --------------------------------------------------------------------------- the planner
def scored(values, ttc=1.0, stops=1.0):
    """An imagination that answers with these scores (n, k), and whether one can stop, and keeps what it was asked."""
    asked = []

    def imagine(plans, *, frames=False, shared=False, room=0.0, until=None):
        asked.append(plans)
        score = np.array(values, dtype=np.float64)
        one = np.ones_like(score)
        terms = {"score": score, "ttc": ttc * one, "nc": one if until is None else stops * one, "dac": one}
        return Imagined(terms=terms, reward=0 * score, terminated=score < 0)

    return imagine, asked


def look(options, rows=2):
    env = DriveVectorEnv(num_envs=rows, **options)
    return env.reset(seed=0)[0]


def small_planner():
    config = ImaginingPlannerConfig(fan=((-6.0, -6.0, 0.0), (1.5, 1.5, 0.0), (0.0, 0.0, 1.5)), decisions=2)
    return ImaginingPlanner(config=config, follower=RouteFollower(grid=TINY))


def test_the_planner_takes_the_best_plan_of_each_row(options):
    planner, observation = small_planner(), look(options)
    assert isinstance(planner, ImaginingAgent)
    imagine, asked = scored([[0.1, 0.9, 0.2, 0.3], [0.1, 0.2, 0.3, 0.9]])
    actions = planner.plan(observation, imagine)
    assert asked[0].shape == (2, 4, 2, 2) and np.abs(asked[0]).max() <= 1
    assert np.array_equal(actions, asked[0][[0, 1], [1, 3], 0])
    assert actions[0, 0] == pytest.approx(-6 / 8) and actions[1, 1] > 0.02, "braking; to the left"


def test_without_a_better_plan_it_does_as_the_route_follower(options):
    planner, observation = small_planner(), look(options)
    follower = RouteFollower(grid=TINY).act(observation)
    imagine, asked = scored([[0.5, 0.5, 0.504, 0.5], [0.0, 0.0, 0.0, 0.0]])
    assert np.array_equal(planner.plan(observation, imagine), follower)
    assert np.array_equal(asked[0][:, 0, 0], follower)


def test_plans_do_not_speed_beyond_the_limit(options):
    planner, observation = small_planner(), look(options)
    observation["ego"][:, 0] = 10.0
    imagine, asked = scored(np.zeros((2, 4)))
    planner.plan(observation, imagine)
    assert (asked[0][:, 2, :, 0] == 0).all() and (asked[0][:, 1, :, 0] < 0).all()


def test_a_plan_after_whose_first_decision_one_cannot_brake_is_none(options):
    """Else the best one is close behind somebody, too fast to stop."""
    planner, observation = small_planner(), look(options)
    imagine, asked = scored([[0.1, 0.2, 0.9, 0.3]] * 2, stops=np.array([[1.0, 1.0, 0.0, 0.5]]))
    assert np.array_equal(planner.plan(observation, imagine), asked[0][:, 1, 0])
    assert asked[1].shape == (2, 4, 3, 2) and np.array_equal(asked[0][:, :, 0], asked[1][:, :, 0])
    assert (asked[1][:, :, 1:, 0] == -5 / 8).all()
    imagine, asked = scored([[0.1, 0.2, 0.9, 0.3]] * 2, stops=0.0)
    assert np.array_equal(planner.plan(observation, imagine), asked[0][:, 0, 0]), "as the route follower"


def test_of_plans_alike_one_that_has_time_to_collision_all_the_way_is_better(options):
    planner, observation = small_planner(), look(options)
    imagine, asked = scored([[0.1, 0.8, 0.7, 0.1]] * 2, ttc=np.array([[1.0, 0.9, 1.0, 1.0]]))
    assert np.array_equal(planner.plan(observation, imagine), asked[0][:, 2, 0])


def test_a_planner_that_sees_what_comes_beats_the_follower_behind_a_parked_car(straight_road):
    # A car stands half in the lane: the follower stops behind it for good; there is room to pass it.
    scene = straight_road(cars=[(40.0, -1.3, 0.0)], steps=61)
    start = make_start(scene, 0, 2, TINY, history=3)
    env = DriveEnv(world=ReplayWorld(TINY), scenes=[start], seconds=15.0, imagination="oracle")
    follower = RouteFollower(grid=TINY)
    (behind,) = run_episodes(env, follower, 1)
    (past,) = run_episodes(env, ImaginingPlanner(follower=RouteFollower(grid=TINY)), 1)
    assert behind.summary["nc"] == past.summary["nc"] == past.summary["dac"] == 1
    assert past.summary["progress"] > behind.summary["progress"] + 20
    assert past.summary["score"] > behind.summary["score"] + 0.1


def test_imagining_episodes_do_not_depend_on_the_batch(options):
    def run(batch):
        planner = small_planner()
        return run_episodes(DriveEnv(**(options | {"seconds": 4.0})), planner, 3, seed=2, batch=batch)

    assert run(3) == run(1)


def test_the_planner_by_name_and_wrong_ones():
    assert isinstance(make_agent("imagining-planner"), ImaginingPlanner)
    for wrong in ({"decisions": 0}, {"stops": 0}, {"braking": 0.0}, {"fan": ()}):
        with pytest.raises(ConfigurationError, match="decisions and stops"):
            ImaginingPlannerConfig(**wrong)
