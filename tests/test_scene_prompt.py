"""Scene prompts: what may be asked, how it reaches the model, and whether it is obeyed."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from untrained import untrained_world_model

from occsora_sim.envs.config import DriveConfig
from occsora_sim.envs.drive import DriveEnv
from occsora_sim.envs.starts import prompted
from occsora_sim.envs.vector import DriveVectorEnv
from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import compose
from occsora_sim.grid import CAR, DRIVEABLE, FREE, MANMADE, Grid
from occsora_sim.road_users import RoadUsers
from occsora_sim.scene_prompt import PLACES, ScenePrompt
from occsora_sim.scenes.blank import blank_start
from occsora_sim.scenes.start import make_start
from occsora_sim.scoring.scene_control import scene_control_report
from occsora_sim.worlds.diffusion import DiffusionWorld
from occsora_sim.worlds.protocol import WorldState


# ------------------------------------------------------------------ the prompt
def test_a_prompt_is_two_numbers_and_open_parts_are_known():
    assert ScenePrompt(place="organic", vehicles=7).tensor().tolist() == [1.0, 7.0]
    place, vehicles = ScenePrompt().tensor().tolist()
    assert place == -1.0 and math.isnan(vehicles)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"place": "moon"}, "choose one of grid"),
        ({"vehicles": -1.0}, "must be 0 to 60"),
        ({"vehicles": math.nan}, "must be a finite number"),
        ({"vehicles": 61.0}, "must be 0 to 60"),
    ],
)
def test_an_impossible_prompt_is_refused(given, said):
    with pytest.raises(ConfigurationError, match=said):
        ScenePrompt(**given)


# ------------------------------------------------------------------ through the environment to the model
class Listening(DiffusionWorld):
    """A generated world that remembers the prompts that its model was given."""

    def _draw(self, memory, *args, **options):
        self.heard = [*getattr(self, "heard", []), memory.scene.clone()]
        return super()._draw(memory, *args, **options)


def listening() -> Listening:
    return Listening(untrained_world_model(), steps=1)


def test_the_environment_hands_its_prompt_to_the_world_and_reset_can_change_it():
    world = listening()
    env = DriveEnv(world=world, scenes="generate", starts=2, place="roundabout", vehicles=9.0)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert all(row.tolist() == [[3.0, 9.0]] for row in world.heard)
    world.heard.clear()
    env.reset(seed=0, options={"vehicles": 2.0, "place": None})
    assert world.heard[0][0, 0] == -1 and world.heard[0][0, 1] == 2.0
    world.heard.clear()
    env.reset(seed=0)
    assert world.heard[0].tolist() == [[3.0, 9.0]]
    with pytest.raises(ConfigurationError, match="place 'moon'"):
        env.reset(options={"place": "moon"})


def test_new_episodes_of_a_vector_environment_keep_the_prompt_of_its_reset():
    world = listening()
    envs = DriveVectorEnv(
        num_envs=2, world=world, scenes="generate", starts=2, seconds=1.0, autoreset="same_step"
    )
    envs.reset(seed=0, options={"vehicles": 4.0})
    envs.step(envs.action_space.sample())  # both end, and begin anew
    assert len(world.heard) > 4 and all(row[0, 1] == 4.0 for row in world.heard)


def test_a_world_that_is_not_drawn_refuses_one(straight_road):
    with pytest.raises(ConfigurationError, match="'traffic' is not drawn"):
        DriveEnv(world="traffic", place="grid")
    config = DriveConfig(world=listening(), vehicles=5.0)
    with pytest.raises(ConfigurationError, match="takes no scene prompt"):
        prompted([make_start(straight_road(cars=[]), 0, 6)], config, object())


def test_a_start_in_a_made_town_goes_on_in_its_kind_of_place(straight_road):
    road = straight_road(cars=[])
    town = replace(road, attributes={**road.attributes, "plan": "roundabout"})
    assert make_start(road, 0, 6).prompt == ScenePrompt()
    start = make_start(town, 0, 6)
    assert start.prompt == ScenePrompt(place="roundabout")
    world = listening()
    asked = prompted([start], DriveConfig(world=world, vehicles=5.0), world)
    assert asked[0].prompt == ScenePrompt(place="roundabout", vehicles=5.0)
    asked = prompted([start], DriveConfig(world=world), world, {"place": "grid"})
    assert asked[0].prompt == ScenePrompt(place="grid")


def test_a_place_changes_the_ground_that_is_drawn():
    world = listening()
    start = blank_start(np.random.default_rng(0), world.grid)

    def drawn(prompt: ScenePrompt) -> torch.Tensor:
        return world.reset([replace(start, prompt=prompt)], [0]).memory.ground.canvas.fine.codes

    assert torch.equal(drawn(ScenePrompt()), drawn(ScenePrompt(vehicles=9)))
    assert not torch.equal(drawn(ScenePrompt()), drawn(ScenePrompt(place="grid")))
    assert not torch.equal(drawn(ScenePrompt(place="grid")), drawn(ScenePrompt(place="motorway")))


# ------------------------------------------------------------------ the report
GRID = Grid(shape=(48, 48, 16), voxel=0.8, lower=(-19.2, -19.2, -1.0))


class Painter:
    """A world that draws as many cars as it is asked for and walls according to the place; or does not listen."""

    grid, frames_per_chunk = GRID, 2

    def __init__(self, obeys: bool) -> None:
        self.obeys = obeys

    def reset(self, starts, seeds):
        pose = torch.stack([start.ego_pose[-1:] for start in starts])
        memory = torch.stack([start.prompt.tensor() for start in starts])
        return WorldState(occupancy=self._frames(memory)[:, :1], ego_pose=pose, memory=memory)

    def step(self, state, trajectories):
        pose = compose(state.ego_pose[:, -1:], trajectories)
        frames, users = self._frames(state.memory), self._cars(state.memory, pose[:, -1])
        return WorldState(occupancy=frames, ego_pose=pose, memory=state.memory, users=users)

    def _cars(self, memory, pose):
        """As many road users where the ego is as cars are drawn."""
        count = torch.full((len(memory),), 8.0) if not self.obeys else memory[:, 1].nan_to_num()
        users = RoadUsers.empty(len(memory), 20, history=1)
        there = (torch.arange(20) < count[:, None])[..., None]
        label = torch.full_like(users.label, CAR)
        here = pose.double()[:, None, None].expand_as(users.pose)
        return replace(users, label=label, pose=here, present=there)

    def _frames(self, memory):
        frames = torch.full((len(memory), 2, *GRID.shape), FREE, dtype=torch.uint8)
        frames[..., 2] = DRIVEABLE
        for row, (place, vehicles) in enumerate(memory.tolist()):
            if not self.obeys:
                place, vehicles = 0, 8
            for k in range(0 if math.isnan(vehicles) else int(vehicles)):
                x, y = 8 * (k // 6), 8 * (k % 6)
                frames[row, :, x : x + 5, y : y + 5, 3:6] = CAR
            frames[row, :, 47, :, 3 : 4 + int(max(place, 0))] = MANMADE
        return frames


class Walled:
    """A recorded scene stand-in."""

    dt = 0.5

    def __init__(self, place: str) -> None:
        self.attributes = {"plan": place}
        self.ego_valid, self.ego_track = np.ones((1, 4), dtype=bool), np.array([-1])
        self.ego_pose = np.zeros((1, 4, 3), dtype=np.float32)


class Walls:
    def __init__(self, place: str) -> None:
        self.place = place

    def frames(self, pose, time, exclude):
        return Painter(True)._frames(ScenePrompt(place=self.place).tensor().expand(len(pose), 2))[:, 0]


@pytest.mark.parametrize("obeys", [True, False])
def test_the_report_tells_a_world_that_listens_from_one_that_does_not(monkeypatch, obeys):
    monkeypatch.setattr(
        "occsora_sim.scoring.scene_control.drawer_of", lambda scene, grid: Walls(scene.attributes["plan"])
    )
    scenes: list[Any] = [Walled("grid"), Walled("arterial"), Walled("motorway"), Walled("elsewhere")]
    painter: Any = Painter(obeys)
    report = scene_control_report(painter, 3, scenes, batch=2)
    assert list(report["divergence"]) == ["open", "grid", "arterial", "motorway"]
    assert report["vehicles_obeyed"] is obeys
    assert report["vehicles_swap_fails"] is obeys
    assert report["places_obeyed"] is obeys
    if obeys:
        assert report["vehicles"] == {
            "quiet": 3.0, "busy": 20.0, "open": 0.0, "grid": 0.0, "arterial": 0.0, "motorway": 0.0,
        }  # fmt: skip
        assert report["divergence"]["motorway"]["motorway"] == pytest.approx(0, abs=1e-12)


def test_places_are_named_once_each_and_are_those_that_can_be_made():
    from occsora_sim.scenes import town

    assert len(set(PLACES)) == len(PLACES)
    assert set(PLACES) == set(town.PLACES)
