"""Other kinds of place than the usual town: what makes each of them one, and that a usual town is none."""

import numpy as np
import pytest

from occsora_sim import grid
from occsora_sim.errors import ConfigurationError, SceneError
from occsora_sim.scenes import made, source
from occsora_sim.scenes.roundabout import Ring, trim
from occsora_sim.scenes.street_plan import draw_plan
from occsora_sim.scenes.town import PLACES, TownConfig
from occsora_sim.scenes.traffic import lay_out, make_town


def small(plan):
    """A small place of a kind."""
    long = 360.0 if plan == "motorway" else 90.0
    return TownConfig(plan=plan, extent=long, block=90.0, fringe=50.0, warm_up=8.0, duration=10.0, egos=3)


@pytest.fixture(scope="module", params=["arterial", "roundabout", "motorway"])
def place(request, tmp_path_factory):
    """A small place of each kind: its plan, its streets and its scene."""
    config = small(request.param)
    return request.param, lay_out(5, config, tmp_path_factory.mktemp("place")), make_town(5, config)


def drive_lanes(network, edge):
    return [name for name in network.edges[edge] if network.lanes[name].kind == "drive"]


def test_a_place_is_what_its_plan_says(place):
    plan, streets, scene = place
    network = streets.network
    wide = [edge for edge in network.edges if len(drive_lanes(network, edge)) >= 2]
    assert streets.kind == plan and scene.name == f"{plan}-5" and scene.attributes["plan"] == plan
    fastest = max(lane.speed for lane in network.lanes.values() if lane.kind == "drive")
    if plan == "arterial":
        assert len(wide) >= 4 and 13 < fastest < 15
    elif plan == "roundabout":
        rings = [edge for edge in network.edges if edge.startswith("r")]
        assert len(rings) >= 3 and not wide
        for ring in rings:  # it leads on to the next part of the ring: one can go round for ever
            assert any(target.startswith("r") for target, _ in network.turns[ring])
    else:
        assert len(wide) >= 6 and fastest > 20
        assert not any(lane.kind in ("sidewalk", "crossing") for lane in network.lanes.values())
        assert (scene.polygon_class == grid.BARRIER).any()  # guard rails
        assert not np.isin(scene.track_class, (grid.PEDESTRIAN, grid.BICYCLE)).any()


@pytest.mark.parametrize("place", ["motorway"], indirect=True)
def test_a_merging_lane_ends_and_its_ramp_leads_onto_it(place):
    _, streets, _ = place
    for side in "ab":
        links = {lane: streets.network.links.get(lane, []) for lane in streets.network.edges[f"e{side}1"]}
        assert [bool(onward) for onward in links.values()] == [False] + [True] * (len(links) - 1)
        assert streets.network.turns[f"e{side}r"] == [(f"e{side}1", "s")]


def test_everybody_drives_on_the_road(place):
    _, _, scene = place
    assert len(scene.ego_kind) == 3 and "expert" in scene.ego_kind
    moving = np.isin(scene.track_class, (grid.CAR, grid.BUS, grid.TRUCK))[:, None] & scene.track_valid
    speed = np.linalg.norm(scene.track_state[..., 3:], axis=-1)
    assert speed[moving].max() > 5
    near = np.linalg.norm(
        scene.track_state[..., None, :2][moving & (speed > 2)] - scene.lane_points[None], axis=-1
    )
    assert np.median(near.min(axis=1)) < 5  # lane points lie metres apart


def test_the_same_seed_gives_the_same_place(place):
    plan, _, scene = place
    again = make_town(5, small(plan))
    assert again.polygon_points.tobytes() == scene.polygon_points.tobytes()
    assert again.track_state.tobytes() == scene.track_state.tobytes()


def test_the_usual_town_draws_from_the_same_two_plans_as_ever():
    drawn = [draw_plan(np.random.default_rng([seed, 0]), TownConfig()) for seed in range(12)]
    assert {plan.kind for plan in drawn} == {"grid", "organic"} and not any(plan.arterials for plan in drawn)


def test_a_street_ends_where_it_meets_the_ring():
    ring = Ring(node=0, centre=np.zeros(2), radius=15.0, bearing={1: 0.0})
    street = np.stack((np.linspace(0, 100, 9), np.zeros(9)), -1)
    cut = trim(street, ring, None)
    np.testing.assert_allclose(cut[:2], [[15.0, 0.0], [25.0, 0.0]])
    np.testing.assert_allclose(trim(street[::-1], None, ring), cut[::-1])
    assert trim(street, None, None) is street


@pytest.mark.parametrize("change", [{"vehicles_per_km": -1.0}, {"inflow": 0.0}, {"plan": "spiral"}])
def test_a_place_that_cannot_be_is_refused(change):
    with pytest.raises(ConfigurationError, match=r"^town: [^\n]+$"):
        TownConfig(**change)


def test_each_kind_is_asked_for_by_its_name(monkeypatch, tmp_path):
    assert [made.parse(f"{kind}:3")[0] for kind in made.KINDS] == list(made.KINDS)
    assert made.parse("scenario:cut_in:4-6") == ("scenario:cut_in", range(4, 7))
    assert set(PLACES) < set(made.KINDS) and made.KINDS[0] == "traffic"
    paths = {source.town_path(3, tmp_path, kind).name for kind in made.KINDS}
    assert len(paths) == len(made.KINDS) and not any(":" in path for path in paths)


@pytest.mark.parametrize(
    "spec", ["motorway:", "motorway:x", "motorway:5-3", "scenario:", "scenario:flood:1", "scenario:jaywalker"]
)
def test_what_is_not_made_is_refused_with_what_is(spec, tmp_path):
    with pytest.raises(SceneError, match=r"^scenes '[^\n]+(motorway:A-B|scenario:NAME:A-B|:A-B)[^\n]*$"):
        source.open_scenes(spec, tmp_path)
    assert not list(tmp_path.iterdir())
