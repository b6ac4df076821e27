"""The viewer's Python side: what the page is made of, what the server answers, how bad input ends."""

import base64
import hashlib
import http.client
import json
import re
import socket
import zlib

import numpy as np
import pytest
from small_rollout import GRID, small_rollout

from occsora_sim.cli import main
from occsora_sim.errors import ConfigurationError, SceneError
from occsora_sim.rendering.palette import KINDS
from occsora_sim.rendering.rollout import save_rollout
from occsora_sim.scenes.file import save_scene
from occsora_sim.viewer.encoding import column_codes, encode_rollout, pack
from occsora_sim.viewer.page import make_page
from occsora_sim.viewer.server import PageServer, page_answer

NASTY = "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>"


def unpack(data: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    """As the page reads it."""
    plain = zlib.decompress(data)
    begin = 8 + int.from_bytes(plain[:8], "little")
    header = json.loads(plain[8:begin])
    arrays: dict[str, np.ndarray] = {
        name: np.frombuffer(plain, kind, int(np.prod(shape)), begin + at).reshape(shape)
        for name, (kind, shape, at) in header["arrays"].items()
    }
    return header["meta"], arrays


def test_what_is_packed_is_found_again_aligned_for_typed_arrays():
    arrays: dict[str, np.ndarray] = {
        "odd": np.arange(5, dtype=np.uint8),
        "wide": np.linspace(0, 1, 6).reshape(2, 3),
        "none": np.zeros((0, 3)),
    }
    meta, found = unpack(pack({"text": "ä"}, arrays))
    assert meta == {"text": "ä"}
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name], value)
    with pytest.raises(SceneError, match="not finite"):
        pack({"lower": float("inf")}, {})


@pytest.mark.parametrize("height", [1, 8, 16, 19])
def test_columns_as_codes_are_the_same_voxels(height):
    generator = np.random.default_rng(height)
    few = generator.integers(0, 18, (300, height)).astype(np.uint8)
    occupancy = few[generator.integers(0, 300, (3, 20, 10))]
    palette, codes = column_codes(occupancy)
    np.testing.assert_array_equal(palette[codes], occupancy)
    assert codes.dtype == np.min_scalar_type(len(palette) - 1) and len(np.unique(palette, axis=0)) == len(
        palette
    )
    assert column_codes(few[:2][generator.integers(0, 2, (1, 4, 4))])[1].dtype == np.uint8


def test_a_rollout_travels_whole_to_the_voxel():
    rollout = small_rollout()
    meta, found = unpack(encode_rollout(rollout))
    np.testing.assert_array_equal(found["palette"][found["codes"]], rollout.occupancy)
    np.testing.assert_array_equal(found["ego_pose"], rollout.ego_pose)
    assert rollout.users is not None
    np.testing.assert_array_equal(found["user_id"].astype(np.int64), rollout.users.id)
    assert meta["kind"] == "generated" and meta["grid"]["shape"] == list(GRID.shape)
    assert meta["terms"][3] == rollout.steps[3]


def test_only_known_parts_of_a_header_travel_and_only_finite_numbers():
    header = {
        "world": "replay",
        "name": "x" * 500,
        "score": {"score": float("nan"), "nc": 1.0, "text": "1"},
        "more": [1],
    }
    meta, _ = unpack(encode_rollout(small_rollout(header)))
    assert meta["kind"] == "recorded" and len(meta["texts"]["name"]) == 80 and meta["score"] == {"nc": 1.0}
    assert "more" not in json.dumps(meta)
    meta, _ = unpack(encode_rollout(small_rollout({"score": {"nc": 10**400}, "world": {"a": 1}})))
    assert meta["score"] == {} and meta["kind"] == "{'a': 1}"
    assert unpack(encode_rollout(small_rollout(["no", "mapping"])))[0]["kind"] == "unknown"  # type: ignore[arg-type]


def test_the_page_holds_no_text_of_a_rollout_and_runs_its_own_scripts_alone():
    page = make_page([encode_rollout(small_rollout({"world": NASTY, "name": NASTY}))])
    assert "pwned" not in page and "http-equiv" in page
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy and "default-src 'none'" in policy[1] and "unsafe" not in policy[1]
    scripts = re.findall(r"<script(?: type=\"module\")?>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy[1]
    assert not re.search(r"(?:src|href)=\"?(?:https?:)?//", page.split("<script")[0])


def test_borders_on_the_page_are_those_of_the_pictures():
    from importlib import resources

    style = (resources.files("occsora_sim.viewer") / "viewer.css").read_text()
    for kind, colour in KINDS.items():
        name, code = kind.split()[0], "#{:02x}{:02x}{:02x}".format(*colour)
        assert re.search(rf"\.pane\.{name} {{[^}}]*{code}", style), kind
        assert re.search(rf"\.{name} \.badge {{ background: {code}", style), kind


def test_three_js_is_shipped_with_its_licence():
    from importlib import resources

    folder = resources.files("occsora_sim.viewer")
    assert "MIT" in (folder / "three.LICENSE.txt").read_text()
    assert len((folder / "three.min.js").read_bytes()) < 600_000


def ask(server: PageServer, method: str, path: str, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, path, headers=headers)
    return connection.getresponse().status


def test_the_server_answers_its_own_page_on_the_loopback_address_alone():
    with PageServer({"GET /": page_answer("<p>page</p>")}) as server:
        assert server._server.server_address[0] == "127.0.0.1"
        assert ask(server, "GET", "/") == 200
        assert (
            ask(server, "GET", "/", Host=f"localhost:{server.port}", Origin=f"http://localhost:{server.port}")
            == 200
        )
        assert ask(server, "GET", "/../etc/passwd") == 404 and ask(server, "POST", "/") == 404
        assert ask(server, "GET", "/", Host="rebound.example") == 403
        assert ask(server, "GET", "/", Origin="http://elsewhere.example") == 403
        assert ask(server, "PUT", "/") == 501
        with pytest.raises(ConfigurationError, match=r"^--port [^\n]*choose another"):
            PageServer({}, server.port)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port))


def test_view_writes_one_file_of_rollouts_and_scenes(straight_road, tmp_path, capsys):
    save_rollout(small_rollout(), tmp_path / "rollout.npz")
    save_scene(straight_road(cars=[(20.0, 0.0, 1.0)]), tmp_path / "road.safetensors")
    out = tmp_path / "page.html"
    assert (
        main(
            ["view", str(tmp_path), str(tmp_path / "road.safetensors"), "--html", str(out), "--seconds", "1"]
        )
        == 0
    )
    assert str(out) in capsys.readouterr().out
    blocks = re.findall(r'id="rollout-\d">([^<]+)<', out.read_text())
    (first, _), (second, arrays) = (unpack(base64.b64decode(block)) for block in blocks)
    assert first["kind"] == "generated" and second["kind"] == "recorded"
    assert arrays["codes"].shape == (3, 200, 200) and arrays["user_valid"][0].any()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["NOWHERE"], "no such file"),
        (["WRONG.npz"], "not a rollout"),
        (["A", "A", "A"], "give one, or two"),
        (["A", "--html", "."], "is a folder"),
        (["A", "--port", "99999"], "--port 99999"),
        (["A", "--seconds", "0"], "--seconds"),
    ],
)
def test_bad_input_ends_in_one_line(arguments, what, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "WRONG.npz").write_bytes(b"PK\x03\x04 nothing")
    (tmp_path / "A").mkdir()
    save_rollout(small_rollout(), tmp_path / "A" / "rollout.npz")
    assert main(["view", "--no-open", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and what in said
