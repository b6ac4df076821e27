"""The page in a browser: it decodes to the voxel, shows the palette's colours, and runs nobody else's code."""

from dataclasses import replace

import numpy as np
import pytest
from chromium import chromium, errors, picture, settled, wait
from selenium import webdriver
from small_rollout import small_rollout

from occsora_sim.grid import CAR, CLASSES, DRIVEABLE, MANMADE, PEDESTRIAN, TERRAIN
from occsora_sim.rendering.palette import COLOURS, PLAN
from occsora_sim.rendering.recorded_users import RecordedUsers
from occsora_sim.viewer.encoding import encode_rollout
from occsora_sim.viewer.page import make_page

NASTY = "<img src=x onerror='window.pwned = 1'>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def show(browser, tmp_path):
    """Opens a page of rollouts and waits until it is ready."""

    def open_page(*rollouts) -> webdriver.Chrome:
        path = tmp_path / "page.html"
        path.write_text(make_page([encode_rollout(rollout) for rollout in rollouts]), encoding="utf-8")
        browser.get(path.as_uri())
        wait(browser, "document.body.dataset.ready === 'yes'")
        return browser

    return open_page


def seen(browser, label: int | tuple[int, int, int]) -> int:
    """Pixels of the scene in the colour of a class, or in another one, to a digit."""
    colour = np.array(COLOURS[CLASSES[label]] if isinstance(label, int) else label)
    scene = picture(browser)[:500, :700].astype(int)
    return int((np.abs(scene - colour).max(axis=-1) <= 1).sum())


def switch(browser, selector: str) -> None:
    settled(browser, f'document.querySelector("{selector}").click()')


def test_the_picture_has_the_palettes_colours_and_classes_go_and_come_back(show):
    browser = show(small_rollout())
    settled(browser, "viewer.look('top'); viewer.seek(0)")
    for label in (DRIVEABLE, TERRAIN, CAR, PEDESTRIAN, MANMADE):
        assert seen(browser, label) > 20, CLASSES[label]
    assert seen(browser, PLAN) > 20
    before = seen(browser, CAR)
    switch(browser, f"[data-label='{CAR}']")
    assert seen(browser, CAR) == 0
    switch(browser, f"[data-label='{CAR}']")
    assert seen(browser, CAR) == before
    switch(browser, "[data-layer='plan']")
    assert seen(browser, PLAN) == 0
    labels = browser.execute_script(
        "return [...document.querySelectorAll('.labels span')].map(e => e.textContent)"
    )
    assert "7 car 14" in labels
    assert errors(browser) == []


LABELS = """return [...document.querySelectorAll('.labels span')].filter(e => e.style.display !== 'none')
    .map(e => [e.textContent, e.getBoundingClientRect()]).map(([t, r]) => [t, r.left, r.top, r.right, r.bottom])"""


def test_in_a_crowd_the_labels_of_the_nearest_are_shown_and_none_lies_over_another(show):
    rollout, count = small_rollout(), 12
    users = rollout.users
    assert users is not None
    pose = np.tile(users.pose[:, :1], (1, count, 1))
    pose[:, :, :2] = rollout.ego_pose[:, None, :2] + [
        [3.0 + 0.4 * k, 2.0 + 0.3 * (k % 2)] for k in range(count)
    ]
    many = {
        name: np.repeat(getattr(users, name)[:, :1], count, 1)
        for name in ("size", "label", "velocity", "valid")
    }
    crowd = RecordedUsers(pose=pose, id=np.tile(np.arange(count), (len(pose), 1)), **many)
    browser = show(replace(rollout, users=crowd))
    for camera in ("top", "chase"):
        settled(browser, f"viewer.look('{camera}'); viewer.seek(1)")
        labels = browser.execute_script(LABELS)
        assert labels[0][0].startswith("0 car") and 2 <= len(labels) < count
        header = browser.execute_script(
            "return document.querySelector('header').getBoundingClientRect().bottom"
        )
        for k, (_, left, top, right, bottom) in enumerate(labels):
            assert top >= header
            for _, *other in labels[:k]:
                apart = left >= other[2] or right <= other[0] or top >= other[3] or bottom <= other[1]
                assert apart, labels


def test_the_score_fits_beside_another_rollout(show):
    terms = ("score", "nc", "dac", "ttc", "ep", "comfort")
    header = {
        "world": "traffic",
        "name": "a",
        "ended": "time",
        "score": dict.fromkeys(terms, 0.5) | {"progress": 9.0},
    }
    browser = show(*[small_rollout(header) for _ in range(2)])
    settled(browser, "viewer.seek(9)")
    rows = browser.execute_script(
        "return [...document.querySelectorAll('.score span')].map(e => [e.textContent, e.offsetTop])"
    )
    assert [text for text, _ in rows] == [f"{name}0.50" for name in terms] * 2
    assert len({top for _, top in rows}) == 1, "names over figures, in one row of terms"
    figures = browser.execute_script(
        "return [...document.querySelectorAll('.figures')].map(e => e.offsetHeight)"
    )
    assert max(figures) < 24, "one line"


def test_a_long_title_stays_one_line_within_its_view(show):
    long = {"world": "somebody's own world " * 4, "agent": "agent " * 14, "name": "n" * 80, "seed": 7}
    browser = show(small_rollout(long), small_rollout({**long, "world": "traffic"}))
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('.pane')].map(p => ['.badge', '.title', 'header'].map(s => {"
        "const r = p.querySelector(s).getBoundingClientRect(), o = p.getBoundingClientRect();"
        "return [r.height, r.left - o.left, o.right - r.right, r.width]; }))"
    )
    for badge, title, header in boxes:
        assert badge[0] < 24 and title[0] < 24, "one line"
        assert header[2] >= 0 and title[1] > badge[1] + badge[3] and title[3] > 60


def test_a_change_of_resolution_leaves_the_picture_until_the_next_one(show):
    browser = show(small_rollout())
    settled(browser, "viewer.look('top'); viewer.seek(0)")
    settled(browser, "viewer.sharpen(0.5)")
    assert seen(browser, DRIVEABLE) > 20
    settled(browser, "viewer.paint()")
    assert seen(browser, DRIVEABLE) > 20
    assert browser.execute_script("return document.getElementById('scene').width") < 400


def test_every_camera_draws_and_the_ego_is_never_hidden(show):
    rollout = small_rollout()
    rollout.occupancy[:, 5:25, 24:36, 3:14] = MANMADE  # a house around the chase camera
    browser = show(rollout)
    for camera in ("chase", "orbit", "top"):
        settled(browser, f"viewer.look('{camera}'); viewer.seek(1)")
        assert browser.execute_script("return viewer.mode") == camera
    settled(browser, "viewer.look('chase')")
    scene = picture(browser)[:500, :700].astype(int)
    lamp = (
        (scene[..., 0] > 2.5 * scene[..., 1]) & (scene[..., 0] > 2.5 * scene[..., 2]) & (scene[..., 0] > 100)
    )
    assert lamp[250:500, 200:500].sum() > 20  # the ego's rear lamps
    assert errors(browser) == []


def test_no_face_reaches_over_its_tile_and_what_lies_behind_the_camera_is_not_drawn(show):
    browser = show(small_rollout())
    settled(browser, "viewer.look('chase'); viewer.seek(0)")
    sides, tiles, calls = browser.execute_script(
        "const { still } = viewer.views[0].built(0), boxes = still.map(tile => tile.geometry.boundingBox);"
        "return [boxes.flatMap(({ min, max }) => [max.x - min.x, max.y - min.y]), still.length,"
        "viewer.renderer.info.render.calls]"
    )
    assert 24 < max(sides) < 25.1, "the road is one plane of 60 x 20 voxels"
    users, others = 2, 4  # road users; sky, car, lines, boxes
    assert calls < tiles + users + others


def test_scrubbing_moves_the_frame_and_it_is_the_recorded_one_to_the_voxel(show):
    rollout = small_rollout()
    browser = show(rollout)
    settled(
        browser,
        "const e = document.getElementById('scrub'); e.value = 2.0; e.dispatchEvent(new Event('input'))",
    )
    assert browser.execute_script(
        "return [viewer.views[0].k, document.getElementById('time').textContent]"
    ) == [
        4,
        "2.0 / 3.0 s",
    ]
    found = browser.execute_script("return Array.from(viewer.views[0].recording.labels(4))")
    np.testing.assert_array_equal(np.array(found, np.uint8).reshape(rollout.grid.shape), rollout.occupancy[4])
    settled(browser, "viewer.seek(2.25)")  # between two frames
    ego, car = browser.execute_script(
        "const v = viewer.views[0]; return [v.ego, v.users.find(u => u.id === 7).at]"
    )
    assert ego == pytest.approx([4.5, 0.0, 0.0]) and car == pytest.approx([13.0, 2.0, 0.0])


def test_two_rollouts_play_in_step_under_one_clock_and_camera(show):
    live = small_rollout({"world": "traffic", "name": "live"}, frames=5)
    browser = show(small_rollout(), live)
    assert browser.execute_script(
        "return [...document.querySelectorAll('.badge')].map(e => e.textContent)"
    ) == [
        "generated",
        "live traffic",
    ]
    browser.execute_script("viewer.play(true)")
    wait(browser, "viewer.clock.time > 1")
    settled(browser, "viewer.play(false)")
    frames, time = browser.execute_script("return [viewer.views.map(v => v.k), viewer.clock.time]")
    assert frames[0] == min(int(time / 0.5 + 1e-6), 6) and frames[1] == min(frames[0], 4)
    settled(browser, "viewer.seek(1)")
    places = browser.execute_script(
        "return viewer.views.map(v => [0, 1].map(a => v.camera.position.toArray()[a] - v.ego[a]))"
    )
    assert places[0] == pytest.approx(places[1])
    settled(browser, "viewer.seek(9)")
    assert browser.execute_script("return viewer.views.map(v => v.k)") == [
        6,
        4,
    ]  # the shorter one waits at its end
    assert errors(browser) == []


def test_text_of_a_stranger_is_shown_as_text_and_no_other_script_runs(show):
    browser = show(small_rollout({"world": "constructor", "agent": NASTY, "name": NASTY, "ended": NASTY}))
    settled(browser, "viewer.seek(3)")
    title = browser.execute_script("return document.querySelector('.title').textContent")
    assert NASTY in title and not browser.execute_script("return document.images.length")
    settled(
        browser,
        "const s = document.createElement('script'); s.textContent = 'window.pwned = 1'; document.body.append(s)",
    )
    assert browser.execute_script("return window.pwned") is None
    assert all("Content Security Policy" in error for error in errors(browser))
