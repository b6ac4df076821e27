"""What only the live world can do: it is the recording until the ego acts, and then the others react."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from occsora_sim.errors import ConfigurationError, MissingDependencyError, SceneError, SceneWarning
from occsora_sim.geometry import relative
from occsora_sim.grid import CAR, TINY
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.start import make_start
from occsora_sim.scenes.sumo_pool import Journey, Worker
from occsora_sim.scenes.sumo_worker import between
from occsora_sim.scenes.town import TownConfig, sumo_home
from occsora_sim.scenes.traffic import make_town
from occsora_sim.worlds.replay import ReplayWorld
from occsora_sim.worlds.traffic import TrafficWorld

TOWN = TownConfig(extent=90.0, block=90.0, fringe=50.0, warm_up=8.0, duration=10.0, egos=6)
FOLLOWED, STEP = 0, 4  # an ego motion at 9 m/s with a car 19 m behind it


@pytest.fixture(scope="module")
def town() -> Scene:
    return make_town(7, TOWN)


@pytest.fixture(scope="module")
def world():
    made = TrafficWorld(TINY)
    yield made
    made.close()


def begin(town, ego=FOLLOWED, step=STEP):
    return make_start(town, ego, step, TINY, history=3)


def recorded(town, ego, step):
    """The trajectories (1, 2, 3) of the recorded motion from `step` on, two frames each."""
    pose = torch.from_numpy(town.ego_pose[ego, step:].astype(np.float64))
    for k in range(0, int(town.ego_valid[ego, step:].sum()) - 2, 2):
        yield relative(pose[k].expand(2, 3), pose[k + 1 : k + 3])[None]


def braking(speed, chunks, hard=3.0):
    """Trajectories (1, 2, 3) of a straight stop from `speed` [m/s] at `hard` [m/s2]."""
    moment = np.minimum(np.arange(2 * chunks + 1) * 0.5, speed / hard)
    metres = torch.from_numpy(speed * moment - hard / 2 * moment**2)
    for k in range(0, 2 * chunks, 2):
        yield torch.stack((metres[k + 1 : k + 3] - metres[k], *torch.zeros(2, 2)), dim=-1)[None]


def in_the_ego(frame):
    """How many columns of the ego's own place a car fills."""
    centre = TINY.centres_xy()
    own = (centre[..., 0] > -0.8) & (centre[..., 0] < 2.9) & (centre[..., 1].abs() < 0.7)
    return int((frame[own][:, TINY.ground + 1 :] == CAR).any(dim=-1).sum())


@pytest.mark.parametrize("ego", [0, 1, 2])
def test_the_recorded_motion_gives_the_recorded_frames(town, world, ego):
    live, replay = (each.reset([begin(town, ego)], [0]) for each in (world, ReplayWorld(TINY)))
    assert torch.equal(live.occupancy, replay.occupancy)
    for trajectory in list(recorded(town, ego, STEP))[:3]:
        live, replay = world.step(live, trajectory), ReplayWorld(TINY).step(replay, trajectory)
        differing = (live.occupancy != replay.occupancy).sum()
        assert int(differing) <= 0.002 * int((replay.occupancy != 17).sum())


def test_the_car_behind_brakes_for_the_ego_where_a_recorded_one_drives_through_it(town):
    hits = {}
    speed = float(np.linalg.norm(town.track_state[town.ego_track[FOLLOWED], STEP, 3:]))
    assert speed > 8
    worlds: dict[str, TrafficWorld | ReplayWorld] = {"live": TrafficWorld(TINY), "replay": ReplayWorld(TINY)}
    for name, made in worlds.items():
        state, hits[name] = made.reset([begin(town)], [0]), 0
        for trajectory in braking(speed, 6):
            state = made.step(state, trajectory)
            hits[name] += sum(in_the_ego(frame) for frame in state.occupancy[0])
        if isinstance(made, TrafficWorld):
            made.close()
    assert hits["replay"] >= 6 and hits["live"] == 0


def test_one_worker_runs_any_number_of_worlds(town, world):
    """With fewer processes than worlds every step begins by running the town again."""
    starts = [begin(town, ego) for ego in (0, 1)]
    few, many = TrafficWorld(TINY, workers=1), world
    states = [each.reset(starts, [0, 1]) for each in (few, many)]
    for trajectory in list(recorded(town, 0, STEP))[:2]:
        states = [
            each.step(state, trajectory.expand(2, -1, -1))
            for each, state in zip((few, many), states, strict=True)
        ]
        assert torch.equal(states[0].occupancy, states[1].occupancy)
    assert len(few.processes()) == 1
    few.close()


def test_a_state_outlives_the_world_that_made_it(town, world):
    trajectory = next(recorded(town, FOLLOWED, STEP))
    other = TrafficWorld(TINY)
    state = other.step(other.reset([begin(town)], [0]), trajectory)
    wanted = other.step(state, trajectory).occupancy
    pids = other.processes()
    other.close()
    assert other.processes() == [] and not any(alive(pid) for pid in pids)
    assert torch.equal(world.step(state, trajectory).occupancy, wanted)
    assert torch.equal(other.step(state, trajectory).occupancy, wanted)  # a closed one starts again
    pids = other.processes()
    del other
    assert not any(alive(pid) for pid in pids)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_no_worker_is_left_when_its_parent_is_killed():
    code = (
        "from occsora_sim.scenes.sumo_pool import Worker; w = Worker();"
        "print(w.process, flush=True); import time; time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    worker = int(parent.stdout.readline())
    assert alive(worker)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    for _ in range(600):
        if not running(worker):
            return
        time.sleep(0.1)
    raise AssertionError("the worker goes on")


def running(pid):
    """Whether a process does something still: one that nobody has buried yet does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return alive(pid) if not os.path.isdir("/proc/self") else False


@pytest.mark.parametrize(
    ("fault", "said"), [("SIGKILL", r"ended by itself \(status -9\)"), ("SIGSTOP", "hung")]
)
def test_a_process_that_dies_or_hangs_is_replaced_and_nothing_looks_different(town, fault, said):
    own = TrafficWorld(TINY)
    ahead = list(recorded(town, FOLLOWED, STEP))[:2]
    state = own.step(own.reset([begin(town)], [0]), ahead[0])
    wanted = own.step(state, ahead[1]).occupancy
    state = own.step(own.reset([begin(town)], [0]), ahead[0])
    for worker in own._own_pool()._workers:
        worker.patience = 0.5
        os.kill(worker.process, getattr(signal, fault))
    before = own.processes()
    with pytest.warns(SceneWarning, match=rf"^live traffic: a SUMO process {said}[^\n]* is replaced$"):
        assert torch.equal(own.step(state, ahead[1]).occupancy, wanted)
    assert not set(own.processes()) & set(before) and not any(alive(pid) for pid in before)
    own.close()


def test_a_town_that_takes_one_process_after_another_along_is_told_in_one_line(town, monkeypatch):
    own = TrafficWorld(TINY)
    send, sent = Worker.send, []

    def fatal(worker, journey):
        sent.append(worker.process)
        os.kill(worker.process, signal.SIGKILL)
        return send(worker, journey)

    monkeypatch.setattr(Worker, "send", fatal)
    with (
        pytest.warns(SceneWarning),
        pytest.raises(SceneError, match=r"^live traffic: [^\n]*ended by itself[^\n]*$"),
    ):
        own.reset([begin(town)], [0])
    assert len(set(sent)) == 3 and own.processes() == []
    own.close()


def test_what_sumo_refuses_is_told_in_one_line(town, monkeypatch):
    own = TrafficWorld(TINY)
    town_files = own._town(town)
    demand = town_files.options[town_files.options.index("-r") + 1]
    (town_files.folder / demand).write_text("<routes><broken")
    with pytest.raises(SceneError, match=r"^live traffic: SUMO says: [^\n]+$"):
        own.reset([begin(town)], [0])
    own.close()


def test_the_ego_may_leave_every_road_and_come_back(town, world):
    state = world.reset([begin(town)], [0])
    away = torch.tensor([[[0.0, 30.0, 1.0], [5000.0, -3000.0, 3.0]]])
    back = torch.tensor([[[-5000.0, 3000.0, 0.0], [1e6, 1e6, 100.0]]])
    for trajectory in (away, back, -back):
        state = world.step(state, trajectory)
        assert bool(torch.isfinite(state.ego_pose).all())


def test_a_recording_without_live_traffic_is_refused(town, world, straight_road):
    start = make_start(straight_road(), 0, 3, TINY, history=2)
    with pytest.raises(ConfigurationError, match=r"^[^\n]*no live traffic[^\n]*traffic:A-B[^\n]*$"):
        world.reset([start], [0])
    for lost in ("seed", "config"):
        attributes = {key: value for key, value in town.attributes.items() if key != lost}
        scene = dataclasses.replace(town, attributes=attributes)
        with pytest.raises(ConfigurationError, match=r"^[^\n]+make the town again$"):
            world.reset([make_start(scene, 0, STEP, TINY, history=2)], [0])


def test_a_town_that_does_not_run_as_recorded_is_refused(town, world):
    state = town.track_state.copy()
    state[0, :, :2] += 0.5
    for changed in (
        dataclasses.replace(town, track_state=state),
        dataclasses.replace(town, attributes=town.attributes | {"seed": "8"}),
    ):
        with pytest.raises(SceneError, match=r"^[^\n]*does not run as it was recorded[^\n]*$"):
            world.reset([make_start(changed, 0, STEP, TINY, history=2)], [0])
    nobody = dataclasses.replace(town, ego_track=np.full_like(town.ego_track, -1))
    with pytest.raises(SceneError, match=r"^[^\n]*replaces no vehicle[^\n]*$"):
        world.reset([make_start(nobody, 0, STEP, TINY, history=2)], [0])


def test_a_missing_libsumo_says_how_to_install_it(town, monkeypatch):
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "libsumo" else find(name))
    with pytest.raises(MissingDependencyError, match=r'pip install "occsora-sim\[traffic\]"$'):
        TrafficWorld(TINY).reset([begin(town)], [0])


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"frames_per_chunk": 0}])
def test_options_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigurationError, match=r"^traffic world: [^\n]+$"):
        TrafficWorld(TINY, **wrong)


def test_between_two_frames_the_ego_brakes_evenly():
    """10 m/s, -4 m/s2: 4.5 m in the frame before, 3.5 m in this one."""
    track = [(-4.5 - 5.5, 1.0, 0.0), (-4.5, 1.0, 0.0), (0.0, 1.0, 0.0), (3.5, 1.0, 0.2)]
    ways = [between(track, share) for share in (0.2, 0.4, 0.6, 0.8, 1.0)]
    moment = np.arange(1, 6) * 0.1
    np.testing.assert_allclose([way[0] for way in ways], 8 * moment - 2 * moment**2, atol=1e-9)
    np.testing.assert_allclose([way[2] for way in ways], np.arange(1, 6) * 0.04)
    assert {way[1] for way in ways} == {1.0}


def test_between_two_frames_the_ego_never_turns_back():
    rng = np.random.default_rng(0)
    for _ in range(50):
        metres = np.cumsum(rng.uniform(0, 10, 4) * (rng.random(4) < 0.8))
        track = [(float(x), 0.0, 0.0) for x in metres]
        ways = [track[-2][0], *(between(track, share / 5)[0] for share in range(1, 6))]
        assert (np.diff(ways) >= -1e-9).all() and ways[-1] == track[-1][0]
    turned = between([(0.0, 0.0, 3.1), (0.0, 0.0, -3.1)], 0.5)
    assert abs(abs(turned[2]) - np.pi) < 0.05  # the short way round


def test_the_ego_is_taken_out_of_a_change_of_lanes_and_led_elsewhere(tmp_path):
    """SUMO had begun to lead it into the next lane behind a junction; it is led there faster, which crashed SUMO."""
    roads = {
        "nod": '<nodes><node id="a" x="-100" y="0"/><node id="b" x="0" y="0" radius="8"/><node id="c" x="80" y="0"/>'
        '<node id="d" x="80" y="90"/><node id="e" x="0" y="-80"/></nodes>',
        "edg": '<edges><edge id="ab" from="a" to="b" numLanes="3" speed="6"/>'
        '<edge id="bc" from="b" to="c" numLanes="3" speed="6"/><edge id="cd" from="c" to="d" speed="6"/>'
        '<edge id="eb" from="e" to="b" speed="6"/></edges>',
        "con": '<connections><connection from="ab" to="bc" fromLane="1" toLane="1"/>'
        '<connection from="bc" to="cd" fromLane="2" toLane="0"/></connections>',
        "rou": '<routes><vType id="car"/><route id="r" edges="ab bc cd"/><vehicle id="me" type="car" route="r" '
        'depart="0" departLane="1" departPos="50" departSpeed="5"/></routes>',
    }
    for kind, text in roads.items():
        (tmp_path / f"x.{kind}.xml").write_text(text)
    netconvert: list[str | Path] = [
        sumo_home() / "bin" / "netconvert",
        *"-n x.nod.xml -e x.edg.xml -x x.con.xml -o x.net.xml".split(),
    ]
    subprocess.run(netconvert, cwd=tmp_path, check=True, capture_output=True)
    options = ("-n", "x.net.xml", "-r", "x.rou.xml", "--step-length", "0.1", "--lanechange.duration", "2.5")
    journey = Journey(folder=str(tmp_path), options=options, time=9.9)
    worker = Worker()
    ((name, _, x, y, _),) = worker.receive(worker.send(journey))
    poses = tuple((x + 3.0 * k, y + 1.5 * max(k, 0), 0.0) for k in range(-2, 4))
    led = dataclasses.replace(journey, ego=name, size=(4.0, 1.8, 1.6), past=poses[:3], ahead=poses[3:])
    frames = worker.receive(worker.send(led))
    worker.close()
    assert [frame[0][2] for frame in frames] == pytest.approx([pose[0] for pose in poses[3:]], abs=0.01)
