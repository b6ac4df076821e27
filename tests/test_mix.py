"""Density and mix of traffic as options: of whom there is more, and that the live world knows of it."""

import json
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace

import pytest
import torch

from occsora_sim.cli import main
from occsora_sim.errors import ConfigurationError, SceneError
from occsora_sim.grid import BICYCLE, CAR, DYNAMIC, PEDESTRIAN, TINY, TRUCK
from occsora_sim.scenes import made, source
from occsora_sim.scenes.amounts import MOTOR, Amounts, read_amounts
from occsora_sim.scenes.live_town import write_town
from occsora_sim.scenes.mix import make_mixed_town, remix, whole_mix
from occsora_sim.scenes.start import make_start
from occsora_sim.scenes.town import PLACES, TownConfig
from occsora_sim.scenes.traffic import lay_out
from occsora_sim.worlds.traffic import TrafficWorld

TOWN = TownConfig(extent=90.0, block=90.0, fringe=50.0, warm_up=8.0, duration=10.0, egos=3)


def counted(path):
    """How many of each kind a route file holds."""
    users = [
        *ElementTree.parse(path).getroot().iter("vehicle"),
        *ElementTree.parse(path).getroot().iter("person"),
    ]
    return Counter(user.attrib["type"].split(".")[0] for user in users)


@pytest.fixture(scope="module")
def lorries():
    """A small town of motor vehicles that are all trucks."""
    return make_mixed_town(7, TOWN, {"truck": 1.0})


def test_amounts_are_part_of_the_kind_however_they_are_written():
    kind = "arterial,density=2,vehicles=10,truck=0.25,bus=0.1"
    assert made.parse("arterial:3-5,truck=0.25,density=2.0,bus=1e-1,vehicles=10") == (kind, range(3, 6))
    assert made.parse(f"arterial:3,{kind.partition(',')[2]}") == (kind, range(3, 4))
    assert made.parse("traffic:3-5") == ("traffic", range(3, 6))


def test_amounts_have_files_of_their_own_in_the_cache(tmp_path):
    kinds = ("traffic", "traffic,density=2", "traffic,truck=0.25", "grid,density=2")
    paths = {source.town_path(3, tmp_path, kind).name for kind in kinds}
    assert len(paths) == 4 and "town-3-" in min(paths, key=len)


def test_densities_are_those_of_the_place_times_the_density_unless_named():
    usual = PLACES["arterial"]
    busy = Amounts(density=2.0, pedestrians=7.0).applied_to(usual)
    assert busy == replace(
        usual, vehicles_per_km=96.0, bicycles_per_km=12.0, pedestrians_per_km=7.0, inflow=3.0
    )
    assert Amounts().applied_to(usual) == usual


def test_twice_the_density_puts_twice_as_many_on_the_streets(tmp_path):
    once, twice = (
        counted(lay_out(7, Amounts(density=factor).applied_to(TOWN), tmp_path / str(factor)).demand)
        for factor in (1.0, 2.0)
        if not (tmp_path / str(factor)).mkdir()
    )
    for kinds in (("pedestrian",), MOTOR):
        a, b = (sum(many[kind] for kind in kinds) for many in (once, twice))
        assert 1.7 * a <= b <= 2.4 * a and a > 10, kinds
    (tmp_path / "none").mkdir()
    nobody = lay_out(7, Amounts(pedestrians=0.0, bicycles=0.0).applied_to(TOWN), tmp_path / "none")
    assert set(counted(nobody.demand)) <= set(MOTOR)


def test_those_not_named_divide_what_is_left_as_usual():
    mix = whole_mix({"truck": 0.5})
    assert list(mix) == list(MOTOR) and sum(mix.values()) == pytest.approx(1.0) and mix["truck"] == 0.5
    assert mix["car"] / mix["van"] == pytest.approx(0.74 / 0.06)


def test_a_mix_changes_who_drives_and_nothing_else(tmp_path):
    streets = lay_out(7, TOWN, tmp_path)
    before, routes = counted(streets.demand), streets.routes
    after = remix(streets, {"bus": 0.5, "car": 0.5}, 7)
    now = counted(after.demand)
    assert set(now) <= {"bus", "car", "bicycle", "pedestrian"} and now["bicycle"] == before["bicycle"]
    motor = sum(before[kind] for kind in MOTOR)
    assert now["bus"] + now["car"] == motor and 0.25 < now["bus"] / motor < 0.75
    assert sorted(after.routes.values()) == sorted(routes.values())
    names = [vehicle.attrib["id"] for vehicle in ElementTree.parse(after.demand).getroot().iter("vehicle")]
    assert set(names) == set(after.routes) and len(set(names)) == len(names)


def test_a_town_of_trucks_holds_no_car_that_drives(lorries):
    moved = (lorries.track_state[..., :2].max(axis=1) - lorries.track_state[..., :2].min(axis=1)).max(axis=-1)
    moving = lorries.track_class[(moved > 2) & lorries.track_valid.all(axis=1)]
    assert TRUCK in moving and CAR not in moving and set(moving) <= {TRUCK, BICYCLE, PEDESTRIAN}
    assert json.loads(lorries.attributes["mix"]) == {"truck": 1.0}


def test_the_live_world_runs_the_mix_that_was_recorded(lorries):
    """The recorded instant is found again, voxel for voxel, and the others go on as trucks."""
    world = TrafficWorld(TINY)
    try:
        start = make_start(lorries, lorries.ego_kind.index("expert"), 5, TINY, history=4)
        state = world.reset([start], [0])
        assert torch.equal(state.occupancy[0, -1], start.occupancy[-1])
        state = world.step(state, torch.zeros(1, 2, 3))
        assert set(state.occupancy.unique().tolist()) & set(DYNAMIC) <= {CAR, TRUCK, BICYCLE, PEDESTRIAN}
    finally:
        world.close()


def test_a_mix_that_cannot_be_read_is_refused(lorries, tmp_path):
    for text in ("{", "[1]", '{"truck": "many"}', '{"lorry": 1}', '{"truck": 2}'):
        broken = replace(lorries, attributes=lorries.attributes | {"mix": text})
        with pytest.raises(ConfigurationError, match=r"^scene traffic-7: [^\n]*mix[^\n]*$"):
            write_town(broken, tmp_path)


@pytest.mark.parametrize(
    "amounts",
    [
        "", "density", "density=", "density=x", "density=0", "density=-1", "density=nan", "density=inf", "density=11",
        "inflow=0", "vehicles=-1", "vehicles=1e9", "lorry=0.5", "truck=1.5", "truck=-0.1", "truck=0.7,bus=0.6",
        "truck=0.1,truck=0.1", "car=0.1,van=0.1,truck=0.1,bus=0.1,motorcycle=0.1",
    ],
)  # fmt: skip
def test_amounts_that_cannot_be_are_refused_in_one_line(amounts, tmp_path):
    with pytest.raises(SceneError) as error:
        source.open_scenes(f"traffic:0,{amounts}", tmp_path)
    assert str(error.value).startswith("scenes 'traffic:0,") and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_scenario_keeps_its_own_traffic(tmp_path):
    with pytest.raises(SceneError, match="a scenario brings its own traffic"):
        source.open_scenes("scenario:jaywalker:0,density=2", tmp_path)


def test_text_and_values_are_the_same_amounts():
    thirds = Amounts(
        density=1 / 3, mix=tuple((kind, share) for kind, share in whole_mix({"bus": 1 / 3}).items())
    )
    again = read_amounts(str(thirds).split(","))
    assert str(again) == str(thirds) and again.density == pytest.approx(1 / 3)


def test_scenes_make_takes_density_and_mix(monkeypatch, straight_road, tmp_path, capsys):
    asked = []

    def each(spec, cache=None):
        asked.append(spec)
        yield straight_road()

    monkeypatch.setattr(source, "each_scene", each)
    options = ["--scenes", "grid:0", "--density", "2", "--pedestrians", "0", "--mix", "truck=0.3", "bus=0.1"]
    assert main(["scenes", "make", *options, "--out", str(tmp_path / "out")]) == 0
    assert asked == ["grid:0,density=2,pedestrians=0,truck=0.3,bus=0.1"]
    capsys.readouterr()
    assert (
        main(["scenes", "make", "--scenes", str(tmp_path), "--density", "2", "--out", str(tmp_path / "o")])
        == 2
    )
    error = capsys.readouterr().err
    assert "density=2 can be chosen for what is made" in error and error.count("\n") == 1
    for wrong in (["--scenes", "grid:3-1"], ["--scenes", "grid:0", "--mix", "lorry=1"]):
        assert main(["scenes", "make", *wrong, "--out", str(tmp_path / "nothing")]) == 2
    assert not (tmp_path / "nothing").exists()
