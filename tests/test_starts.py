"""Where episodes begin: in logs of any length, in each place once, and what is left out is named."""

import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from occsora_sim.cli import main
from occsora_sim.cluster import Alone
from occsora_sim.commands import evaluate_transfer, world_tables
from occsora_sim.envs.config import DriveConfig
from occsora_sim.envs.drive import DriveEnv
from occsora_sim.envs.starts import open_starts
from occsora_sim.envs.vector import DriveVectorEnv
from occsora_sim.errors import ConfigurationError, SceneError, SceneWarning
from occsora_sim.grid import TINY
from occsora_sim.road_users import NEVER
from occsora_sim.scenes.offers import find_offers
from occsora_sim.scenes.recorded import Recorded, with_egos
from occsora_sim.scenes.scenarionet import read_scenarionet
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.start import draw_new, make_start, sample_starts
from occsora_sim.scoring.forecasting import scenes_with_windows
from occsora_sim.scoring.long_rollout import drift_starts
from occsora_sim.scoring.real_clips import real_clips
from occsora_sim.training.clips import ClipSampler
from occsora_sim.training.windows import WindowSampler
from occsora_sim.worlds.diffusion import DiffusionWorld
from occsora_sim.worlds.replay import ReplayWorld

STAY = np.zeros(2, dtype=np.float32)


def track(kind: str, x: float, y: float, speed: float, steps: int, detail: str, height: float = 1.6) -> dict:
    along = x + speed * 0.1 * np.arange(steps)
    state = {
        "position": np.stack((along, np.full(steps, y), np.zeros(steps)), axis=1).astype(np.float32),
        "heading": np.zeros(steps, dtype=np.float32),
        "velocity": np.tile(np.array([speed, 0]), (steps, 1)).astype(np.float32),
        "valid": np.ones(steps, dtype=bool),
        "length": np.full(steps, 4.5, dtype=np.float32),
        "width": np.full(steps, 1.9, dtype=np.float32),
        "height": np.full(steps, height, dtype=np.float32),
    }
    metadata = {"track_length": steps, "type": detail, "object_id": "?", "dataset": "?"}
    return {"type": kind, "state": state, "metadata": metadata}


def log(maker: str, steps: int, speed: float = 6.0) -> dict:
    """A log as ScenarioNet converts Waymo's (lanes with neighbours, a crosswalk, road edges) or Argoverse 2's (lanes
    with outlines and no width, heights of 1 m, the car called AV); the recording car and one ahead at `speed` [m/s].
    """
    line = np.stack((np.linspace(-80, 200, 57), np.full(57, -1.75), np.zeros(57)), axis=1)
    lane: dict = {"type": "LANE_SURFACE_STREET", "polyline": line, "entry_lanes": [], "exit_lanes": []}
    features = {"100": lane}
    if maker == "waymo":
        lane |= {
            "width": np.full((57, 2), 1.75),
            "speed_limit_mph": 25.0,
            "left_neighbor": [],
            "interpolating": True,
        }
        zebra = np.array([[40.0, -4, 0], [44, -4, 0], [44, 4, 0], [40, 4, 0]])
        features |= {
            "101": {"type": "CROSSWALK", "polygon": zebra},
            "102": {"type": "ROAD_EDGE_BOUNDARY", "polyline": line + np.array([0, 6, 0])},
            "103": {"type": "STOP_SIGN", "position": np.array([38.0, -5, 0]), "lane": [100]},
            "104": {"type": "ROAD_LINE_BROKEN_SINGLE_WHITE", "polyline": line + np.array([0, 1.75, 0])},
        }
    else:
        outline = np.concatenate((line[:, :2] + (0, 1.75), line[::-1, :2] - (0, 1.75)))
        lane |= {
            "width": np.zeros((57, 2)),
            "polygon": outline,
            "left_boundaries": [],
            "speed_limit_kmh": None,
        }
    sdc, car, walker = {"waymo": ("1729", "VEHICLE", "PEDESTRIAN"), "av2": ("AV", "vehicle", "pedestrian")}[
        maker
    ]
    high = 1.6 if maker == "waymo" else 1.0
    metadata = {
        "dataset": maker, "sdc_id": sdc, "ts": np.arange(steps) * 0.1, "scenario_id": f"{maker}-{steps}",
        "coordinate": "waymo", "metadrive_processed": False, "current_time_index": 10, "track_length": steps,
        "objects_of_interest": [], "tracks_to_predict": {}, "source_file": "x.tfrecord-0-of-1", "map": "a city",
    }  # fmt: skip
    return {
        "id": f"{maker}-{steps}", "version": "MetaDrive v0.3.0.1", "length": steps, "metadata": metadata,
        "tracks": {
            sdc: track("VEHICLE", 0, -1.75, speed, steps, car, high),
            "12": track("VEHICLE", 20, -1.75, speed, steps, car, high),
            "13": track("PEDESTRIAN", 25, 6, 1.0, steps, walker, high),
        },
        "map_features": features,
        "dynamic_map_states": {
            "100": {"type": "TRAFFIC_LIGHT", "state": {"object_state": ["LANE_STATE_GO"] * steps}, "lane": "100"}
        },
    }  # fmt: skip


def write(folder: Path, maker: str, steps: int, **more) -> Path:
    path = folder / f"sd_{maker}_{steps}.pkl"
    path.write_bytes(pickle.dumps(log(maker, steps, **more)))
    return path


def scene_of(tmp_path: Path, maker: str = "waymo", steps: int = 91, **more) -> Scene:
    return read_scenarionet(write(tmp_path, maker, steps, **more))


@pytest.mark.parametrize(("maker", "steps"), [("waymo", 91), ("av2", 110)])
def test_a_log_of_nine_or_eleven_seconds_can_be_driven_to_its_end(tmp_path, maker, steps):
    path = write(tmp_path, maker, steps)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = DriveEnv(world=ReplayWorld(TINY), scenes=str(path), starts=6, ego="recorder")
    left = [(steps - 1 - start.source[2]) * 0.1 for start in env.simulation.starts]
    longest = (steps - 1 - 15) * 0.1
    assert all(longest / 2 - 1e-6 <= seconds <= longest + 1e-6 for seconds in left) and len(set(left)) == 6
    env.reset(seed=0, options={"start": 0})
    terminated = truncated = False
    while not terminated and not truncated:
        _, _, terminated, truncated, info = env.step(STAY)
    assert truncated and not terminated
    assert info["episode_score"]["seconds"] == int(left[0] + 1e-6)  # whole steps of 1 s, none stands still


def test_a_folder_of_short_logs_is_driven_by_one_command_which_names_what_is_too_short(tmp_path, capsys):
    logs = tmp_path / "logs"
    logs.mkdir()
    for maker, steps in (("waymo", 91), ("av2", 110), ("waymo", 13)):
        write(logs, maker, steps)
    out, agent = str(tmp_path / "out"), "constant-velocity"
    arguments = ["--world", "replay", "--scenes", str(logs), "--agent", agent, "--seconds", "2", "--out", out]
    assert main(["drive", *arguments, "--skip-video", "--ego", "recorder"]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert said == [
        "occsora-sim: warning: 1 of 3 scenes offer no start and are left out: waymo-13 (its ego motions last 1.2 s; 4 "
        "frames of history and 1 s after them take 2.5 s)"
    ]


@pytest.mark.parametrize(("maker", "steps"), [("waymo", 91), ("av2", 110)])
def test_the_generated_world_goes_on_where_a_short_log_ends(tmp_path, untrained_model, maker, steps):
    world = DiffusionWorld(untrained_model)
    simulation = DriveEnv(
        world=world, scenes=str(write(tmp_path, maker, steps)), starts=12, seconds=3, least_future=1.0
    ).simulation
    late = max(simulation.starts, key=lambda start: start.source[2])
    assert (steps - 1 - late.source[2]) * 0.1 < 2.5
    state = simulation.begin([late], [0])
    ends = []
    for _ in range(3):
        state, outcome = simulation.step(state, simulation.check(STAY[None], 1))
        ends.append(bool(outcome.truncated[0]))
    assert ends == [False, False, True]


def test_a_replayed_episode_ends_before_a_step_beyond_its_recording(straight_road):
    start = make_start(straight_road(steps=9), 0, 3, TINY, history=2)  # 2.5 s are left
    env = DriveVectorEnv(num_envs=1, world=ReplayWorld(TINY), scenes=[start])
    env.reset(seed=0)
    assert [bool(env.step(STAY[None])[3][0]) for _ in range(2)] == [False, True]
    halves = DriveEnv(world=ReplayWorld(TINY), scenes=[start], frames_per_decision=1)
    halves.reset(seed=0)
    assert [halves.step(STAY)[3] for _ in range(5)] == [False] * 4 + [True]


def test_the_usual_future_is_asked_of_scenes_that_have_it_alone(straight_road, tmp_path):
    long = find_offers(straight_road(steps=61), history=3)
    assert (long.steps[0][0], long.steps[0][-1]) == (2, 60 - 20)
    short = find_offers(scene_of(tmp_path), history=4)
    assert (short.steps[0][0], short.steps[0][-1]) == (15, 90 - 38)  # half of 7.5 s
    asked = find_offers(scene_of(tmp_path), history=4, future=7.0, least_future=7.0)
    assert asked.steps[0].tolist() == list(range(15, 21))
    assert "lasts" not in (reason := find_offers(scene_of(tmp_path), future=8.0, least_future=8.0).reason)
    assert reason == "its ego motions last 9 s; 4 frames of history and 8 s after them take 9.5 s"
    assert find_offers(scene_of(tmp_path, speed=0.0)).reason == "nothing moves at 1 m/s for 3.8 s"
    assert find_offers(straight_road(), kinds=("drift",)).reason == "no ego motion of kind drift"


def test_the_length_of_an_episode_says_how_much_future_a_start_needs(straight_road):
    scene, world = straight_road(steps=61), ReplayWorld(TINY)
    elsewhere = SimpleNamespace(grid=TINY)

    def least(world, **options) -> float:
        starts = open_starts(DriveConfig(scenes=[scene], starts=80, **options), world)
        return min(30.0 - 0.5 * start.source[2] for start in starts)

    assert least(world, seconds=2.0) == 2.0 and least(world, seconds=20.0) == 20.0
    assert least(elsewhere, seconds=2.0) == 2.0 and least(elsewhere, seconds=20.0) == 10.0
    assert least(world, seconds=20.0, least_future=5.0) == 5.0
    with pytest.raises(SceneError, match=r"straight \(its ego motions last 30 s; .* 40 s after them"):
        least(world, least_future=40.0)


def test_scenes_without_a_start_are_named_with_their_reasons(tmp_path):
    sound, still, short = scene_of(tmp_path), scene_of(tmp_path, speed=0.0), scene_of(tmp_path, "av2", 12)
    with pytest.warns(SceneWarning) as said:
        assert len(sample_starts([short, sound, still], 2, 0, grid=TINY)) == 2
    (message,) = [str(one.message) for one in said]
    assert message.startswith(
        "2 of 3 scenes offer no start and are left out: av2-12 (its ego motions last 1.1 s"
    )
    assert "waymo-91 (nothing moves at 1 m/s" in message
    with pytest.raises(SceneError, match=r"none of the 1 scenes offers a start: av2-12 \("):
        sample_starts([short], 2, 0, grid=TINY)


def test_the_recording_vehicle_alone_can_be_asked_for(tmp_path, straight_road):
    scene = scene_of(tmp_path)
    assert len(scene.ego_kind) == 2 and with_egos(scene, "any") is scene
    alone = with_egos(scene, "recorder")
    assert len(alone.ego_kind) == 1 and np.array_equal(alone.route(0), scene.route(0))
    starts = open_starts(DriveConfig(scenes=[scene], starts=8, ego="recorder"), ReplayWorld(TINY))
    assert {start.name.split("@")[0] for start in starts} == {"waymo-91/0"}
    world = ReplayWorld(TINY)
    for scenes, what in (
        ([straight_road()], "no vehicle recorded it"),
        (starts, "the starts were given as they are"),
        ("generate", "begins from nothing"),
    ):
        with pytest.raises((SceneError, ConfigurationError), match=what):
            open_starts(DriveConfig(scenes=scenes, ego="recorder"), world)
    with pytest.raises(ConfigurationError, match="least_future"):
        open_starts(DriveConfig(scenes=starts, least_future=2.0), world)
    for options in ({"ego": "me"}, {"least_future": -1.0}, {"least_future": float("nan")}):
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            DriveConfig(**options)


@pytest.mark.parametrize("verb", ["drive", "evaluate agent", "evaluate transfer", "train agent"])
def test_every_command_that_draws_starts_takes_the_options_that_choose_them(verb, capsys, tmp_path):
    arguments = [*verb.split(), "--ego", "recorder", "--least-future", "-1"]
    assert main(arguments) == 2
    assert "--least-future -1" in capsys.readouterr().err


def test_a_suite_fixes_who_the_ego_is(capsys):
    assert main(["evaluate", "agent", "--suite", "validation", "--ego", "recorder"]) == 2
    assert "fixes the scenes, starts" in capsys.readouterr().err


def test_no_start_is_drawn_twice_before_all_were(straight_road, tmp_path):
    few, many = straight_road(steps=26), scene_of(tmp_path)
    held = len(find_offers(few, history=4))
    assert held == 25 - 20 - 3 + 1
    names = [start.name for start in sample_starts([few, many], 40, 5, grid=TINY)]
    assert len(set(names)) == 40 and sum(name.startswith("straight") for name in names) == held
    names = [start.name for start in sample_starts([few], 3 * held, 5, grid=TINY)]
    assert all(len(set(names[k : k + held])) == held for k in range(0, 3 * held, held))


def test_one_start_alone_is_the_one_of_its_number(straight_road):
    scenes = [straight_road(cars=[(13.0, 0.0, 8.0)], steps=161), straight_road(steps=161)]
    everything = sample_starts(scenes, 7, 5, grid=TINY)
    for number, start in enumerate(everything):
        (alone,) = sample_starts(scenes, 7, 5, grid=TINY, only=number)
        assert alone.name == start.name and alone.occupancy.equal(start.occupancy)


def test_a_start_knows_who_moved_before_the_frames_that_it_shows(straight_road):
    road = straight_road(cars=[(10.0, -2.5, 6.0), (60.0, 3.0, 0.0)], steps=61)
    state = road.track_state.copy()
    stop = round(3.0 / road.dt)  # the first car stands from 3 s on
    state[1, stop:] = state[1, stop]
    state[1, stop:, 3:] = 0
    users = make_start(replace(road, track_state=state), 0, round(8.0 / road.dt)).users
    assert users is not None and users.pose.shape[2] == 4
    rested = dict(zip(users.id[0].tolist(), users.rested[0].tolist(), strict=True))
    assert rested[1] == 10 and rested[2] == NEVER


def test_each_pass_of_draws_is_as_likely_as_any_other():
    orders: dict[tuple[int, ...], int] = {}
    for seed in range(600):
        rng, drawn = np.random.default_rng(seed), set[int]()
        order = tuple(draw_new(rng, 3, drawn) for _ in range(3))
        orders[order] = orders.get(order, 0) + 1
    assert len(orders) == 6 and all(65 < times < 135 for times in orders.values())


def test_resets_go_through_all_starts_and_a_seed_says_in_which_order(straight_road):
    scene = straight_road()
    options = {
        "world": ReplayWorld(TINY),
        "scenes": [make_start(scene, 0, step, TINY, history=2) for step in range(2, 7)],
    }
    env = DriveEnv(**options)

    def draws(count: int, seed: int | None) -> list[int]:
        return [env.reset(seed=seed if k == 0 else None)[1]["start"] for k in range(count)]

    first = draws(10, 3)
    assert len(set(first[:5])) == len(set(first[5:])) == 5
    assert draws(10, 3) == first and draws(10, 4) != first
    draws(2, 3)
    assert env.reset(options={"start": 0})[1]["start"] == 0  # what is chosen does not count
    assert {*first[:2], *draws(3, None)} == set(first)
    batch = DriveVectorEnv(num_envs=3, seconds=1.0, autoreset="same_step", **options)
    rows = [batch.reset(seed=3)[1]["start"]]
    rows += [batch.step(np.zeros((3, 2)))[4]["start"] for _ in range(9)]
    assert [int(row[0]) for row in rows] == first
    assert all(len({int(row[k]) for row in rows[:5]}) == 5 for k in range(3))


def test_control_begins_in_short_logs(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "occsora_sim.scoring.control.control_report", lambda world, starts, **_: seen.append(starts)
    )
    monkeypatch.setattr("occsora_sim.scoring.control.print_control_report", lambda report: None)
    options = SimpleNamespace(control=4, seed=0, batch=2)
    world = ReplayWorld(TINY)
    world_tables.control(options, world, [scene_of(tmp_path, "waymo", 61)], Alone(world))  # type: ignore[arg-type]
    assert len(seen[0]) == 4 and all(start.source[2] <= 60 - 30 for start in seen[0])


@pytest.mark.parametrize("what", ["window to forecast", "training window", "training clip", "clip", "start"])
def test_whatever_draws_from_scenes_names_those_that_are_too_short(tmp_path, what):
    sound, short = scene_of(tmp_path), scene_of(tmp_path, "av2", 13)
    draw: dict[str, Callable[[list[Recorded]], object]] = {
        "window to forecast": scenes_with_windows,
        "training window": lambda scenes: WindowSampler(scenes, TINY),
        "training clip": lambda scenes: ClipSampler(scenes, TINY, frames=8),
        "clip": lambda scenes: real_clips(scenes, TINY, 4, per_scene=1),
        "start": lambda scenes: drift_starts(scenes, 2, TINY),
    }
    with pytest.warns(SceneWarning, match=rf"1 of 2 scenes offer no {what} and are left out: av2-13 \(no "):
        draw[what]([short, sound])
    with pytest.raises(SceneError, match=rf"none of the 1 scenes offers a {what}: av2-13 \(no "):
        draw[what]([short])


def test_transfer_against_a_replay_lasts_as_long_in_both_worlds(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("occsora_sim.envs.worlds.make_world", lambda config: ReplayWorld(TINY))
    options = evaluate_transfer.Options(
        against="replay", scenes=str(write(tmp_path, "waymo", 91)), episodes=3, agents=("a", "b")
    )
    with pytest.warns(SceneWarning, match=r"episodes last \d s, as the shortest of the recordings does"):
        worlds = evaluate_transfer.open_worlds(options)
    left = min(90 - start.source[2] for start in worlds["diffusion"].starts) * 0.1
    assert {world.config.seconds for world in worlds.values()} == {int(left + 1e-6)}
