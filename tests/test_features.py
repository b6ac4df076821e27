"""Claims on what a small learner sees, on roads built by hand."""

import numpy as np
import pytest

from occsora_sim.agents.features import (
    _BENDS,
    _OWN,
    _POINTS,
    _PURSUED,
    REACH,
    STRIPS,
    feature_count,
    features,
    mirrored,
)
from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import CAR, DRIVEABLE, FREE, MANMADE, OCC3D, SIDEWALK, TINY

STRAIGHT = np.array([(2.0 * k, 0.0) for k in range(1, 21)], dtype=np.float32)
BEND = np.array([(10 * np.sin(k / 5), 10 - 10 * np.cos(k / 5)) for k in range(1, 21)], dtype=np.float32)
FRONT = 3.084


def see(speed=5.0, route=STRAIGHT, now=(), before=(), yaw_rate=0.0):
    """One episode on a road 8 m wide; `now` and `before` hold boxes (label, x, y) of 2 x 2 m by their near side."""
    frames = np.full((1, 2, *OCC3D.shape), FREE, dtype=np.uint8)
    frames[..., OCC3D.ground] = SIDEWALK
    frames[:, :, :, 90:110, OCC3D.ground] = DRIVEABLE
    for frame, boxes in ((0, before), (1, now)):
        for label, x, y in boxes:
            i, j = round((x + 40) / 0.4), round((y + 40) / 0.4)
            frames[:, frame, i : i + 5, j - 2 : j + 3, 3:7] = label
    ego = np.array([[speed, 0.0, yaw_rate, 0.0]], dtype=np.float32)
    return {"occupancy": frames, "ego": ego, "route": route[None]}


def parts(observation):
    """The features by name: ego (6,), free (4, strips) [m], straight (3,) [m], leaders (3, own strips)..."""
    row = features(observation)[0].astype(float)
    sizes = {
        "ego": 6, "route": 2 * len(_POINTS), "bends": 1 + 3 * len(_BENDS), "pursuit": len(_PURSUED),
        "free": 4 * len(STRIPS), "straight": 3, "near": 4 * len(STRIPS) + 3, "leaders": 3 * len(_OWN),
    }  # fmt: skip
    ends = np.cumsum(list(sizes.values()))
    assert ends[-1] == len(row) == feature_count()
    out = dict(zip(sizes, np.split(row, ends[:-1]), strict=True))
    out["free"] = out["free"].reshape(4, -1) * REACH
    out["leaders"] = out["leaders"].reshape(3, -1)
    return out


def test_an_open_road_is_free_and_its_edges_are_not_road():
    found = parts(see())
    assert (found["free"][[0, 1, 3]] == REACH).all()
    off = found["free"][2]
    inside = np.abs(STRIPS) < 3.1
    assert (off[inside] == REACH).all() and (off[~inside] < 0).all(), (
        "the pavement begins 4 m beside the route"
    )
    assert np.isfinite(features(see())).all() and np.abs(features(see())).max() < 4


def test_distances_are_from_the_front_bumper_along_the_strip():
    found = parts(see(now=[(MANMADE, 20.0, 0.0), (CAR, 12.0, 3.0)]))
    user, static = found["free"][0], found["free"][1]
    assert static[STRIPS.index(0.0)] == pytest.approx(20.0 - FRONT, abs=0.4)
    assert user[STRIPS.index(3.0)] == pytest.approx(12.0 - FRONT, abs=0.4)
    assert user[STRIPS.index(0.0)] == user[STRIPS.index(-3.0)] == REACH
    assert found["straight"][1] * REACH == pytest.approx(20.0 - FRONT, abs=0.4)


def test_a_bend_is_straightened():
    # A quarter of the circle of radius 10 m is 15.7 m along; the box's near side lies there.
    found = parts(see(route=BEND, now=[(MANMADE, 9.0, 10.0)]))
    assert found["free"][1][STRIPS.index(0.0)] == pytest.approx(14.5 - FRONT, abs=1.2)
    assert found["straight"][1] == 1.0, "it does not stand straight ahead"
    assert parts(see(now=[(MANMADE, 9.0, 10.0)]))["free"][1].min() == REACH


def test_something_beside_the_car_is_nearer_than_its_front():
    beside = parts(see(now=[(CAR, 0.0, 3.0)]))["free"][0]
    assert beside[STRIPS.index(3.0)] < 0 and beside[STRIPS.index(0.0)] == REACH


def test_the_speed_of_a_leader_is_seen_whatever_the_own():
    own = _OWN.index(STRIPS.index(0.0))
    for speed in (2.0, 8.0):
        # A leader at 4 m/s: 2 m further on after half a second, less what the ego has driven in between.
        moving = see(speed, now=[(CAR, 20.0, 0.0)], before=[(CAR, 18.0 + speed / 2, 0.0)])
        assert parts(moving)["leaders"][0, own] * 10 == pytest.approx(4.0, abs=0.85)
        parked = see(speed, now=[(CAR, 20.0, 0.0)], before=[(CAR, 20.0 + speed / 2, 0.0)])
        assert parts(parked)["leaders"][0, own] * 10 == pytest.approx(0.0, abs=0.85)
    time = parts(see(8.0, now=[(CAR, 20.0, 0.0)]))["leaders"][1, own] * 5
    assert time == pytest.approx((20.0 - FRONT) / 8.0, abs=0.1)


def test_the_steering_of_an_arc_is_its_curvature():
    steering = parts(see(route=BEND))["pursuit"]
    np.testing.assert_allclose(steering, np.arctan(2.588 / 10) / 0.6, atol=0.02)
    assert parts(see())["pursuit"].tolist() == [0, 0, 0, 0]


def test_left_and_right_are_alike():
    observation = see(route=BEND, now=[(CAR, 8.0, 2.0)], before=[(CAR, 7.0, 2.0)], yaw_rate=0.2)
    here, there = parts(observation), parts(mirrored(observation))
    np.testing.assert_allclose(there["free"], here["free"][:, ::-1], atol=1e-5)
    np.testing.assert_allclose(there["pursuit"], -here["pursuit"], atol=1e-6)
    twice = mirrored(mirrored(observation))
    assert all(np.array_equal(twice[name], observation[name]) for name in observation)


def test_rows_do_not_depend_on_their_neighbours_and_the_goal_is_no_trouble():
    at_goal = see(route=np.zeros((20, 2), dtype=np.float32))
    both = {name: np.concatenate((see()[name], at_goal[name])) for name in at_goal}
    assert np.array_equal(features(both), np.concatenate((features(see()), features(at_goal))))
    assert np.isfinite(features(at_goal)).all()


def test_another_grid_is_refused():
    with pytest.raises(ConfigurationError, match="grid"):
        features(see(), TINY)
