"""Files that are made to do harm: each is refused in one line, within bounds of memory and time, and runs nothing."""

import bz2
import copy
import gzip
import http.client
import json
import pickle
import resource
import tarfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import crafted
import numpy as np
import pytest
import torch
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from untrained import untrained_world_model

from occsora_sim.agents.driving_policy import KIND as DRIVING
from occsora_sim.agents.driving_policy import load_driving_policy
from occsora_sim.agents.learned import KIND as POLICY
from occsora_sim.agents.learned import load_policy
from occsora_sim.agents.loader import make_agent
from occsora_sim.bounded_json import parse_json
from occsora_sim.checkpoint import read_outline, read_tensors, write_tensors
from occsora_sim.cli import main
from occsora_sim.errors import ConfigurationError, OccSoraError
from occsora_sim.grid import OCC3D
from occsora_sim.models.occupancy_encoder import KIND as ENCODER
from occsora_sim.models.occupancy_encoder import load_encoder
from occsora_sim.models.weights import load_world_model, save_world_model
from occsora_sim.rendering.camera_view import resampled
from occsora_sim.rendering.rollout import load_rollout
from occsora_sim.scenes import occ3d, safe_pickle
from occsora_sim.scenes.file import load_scene, save_scene, write_scene
from occsora_sim.scenes.occ3d_frame import read_labels
from occsora_sim.scenes.safe_pickle import load_plain
from occsora_sim.scenes.scenarionet import read_scenarionet
from occsora_sim.scenes.shards import read_shard
from occsora_sim.viewer.keyboard import Keyboard
from occsora_sim.viewer.server import PageServer, page_answer
from occsora_sim.worlds.traffic import _check_town

ROOM = 900_000_000
"""Bytes that a refusal may take beyond what the process has."""

SECONDS = 20
"""Of the processor, that a refusal may take."""


@contextmanager
def bounds():
    """Within the block more than ROOM bytes are refused by the system, and more than SECONDS are a failure."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    begin = time.process_time()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert time.process_time() - begin < SECONDS


def refused(read, path: Path, what: str) -> str:
    """What `read(path)` is refused with; one line that is not too long."""
    with bounds():
        try:
            read(path)
        except OccSoraError as error:
            message = str(error)
        else:
            pytest.fail(f"{what}: was read")
    assert "\n" not in message and str(path) in message and len(message) < 500 + len(str(path)), (
        what,
        message,
    )
    return message


def all_refused(read, path: Path, files, record_property) -> None:
    """Each of `files`, contents by what is bad about them, is refused."""
    for what, content in files.items():
        path.write_bytes(content)
        refused(read, path, what)
    record_property("bad inputs tried", len(files))


# --------------------------------------------------------------------------- rollouts
def test_bad_rollouts_are_refused(tmp_path, record_property):
    sound = crafted.rollout_arrays()
    path = tmp_path / "rollout.npz"
    path.write_bytes(
        crafted.archive({f"{key}.npy": crafted.member(crafted.npy(value)) for key, value in sound.items()})
    )
    np.testing.assert_array_equal(load_rollout(path).occupancy, sound["occupancy"])
    all_refused(load_rollout, path, crafted.rollouts(), record_property)
    crafted.sparse(path, 1 << 36)
    refused(load_rollout, path, "64 GiB of nothing")
    assert not list(tmp_path.parent.glob("escaped*"))


def test_a_line_to_the_end_of_the_world_has_few_points():
    with bounds():
        assert len(resampled(np.array([[0.0, 0.0], [9e8, 0.0]]), 0.4)) <= 20_000


# --------------------------------------------------------------------------- frames of Occ3D
def test_bad_frames_and_annotations_are_refused(tmp_path, record_property, monkeypatch):
    monkeypatch.setattr(occ3d, "MAX_VALUES", 1_000_000)
    path = tmp_path / "labels.npz"
    size = OCC3D.shape[0] * OCC3D.shape[1] * OCC3D.shape[2]
    header = crafted.array_header(str(OCC3D.shape))
    sound = {"semantics.npy": crafted.member(header + bytes(size))}
    path.write_bytes(crafted.archive(sound))
    assert read_labels(path).labels.shape == OCC3D.shape
    zeros = bytes(1 << 26)
    bombs = {
        "deflated": crafted.zeros_member(header, 4095),
        "deflated, says it is small": crafted.zeros_member(header, 4095) | {"size": len(header) + size},
        "bz2": crafted.member(bz2.compress(zeros), method=12, size=len(header) + size),
        "lzma": crafted.member(crafted.lzma_member(zeros), method=14, size=len(header) + size),
        "another shape": crafted.member(crafted.array_header("(200, 200, 4)") + bytes(160_000)),
        "pickled": crafted.member(crafted.array_header("(640000,)", "'|O'") + pickle.dumps([print])),
    }
    files = {name: crafted.archive({"semantics.npy": bomb}) for name, bomb in bombs.items()}
    files |= {
        "mask " + name: crafted.archive({**sound, "mask_lidar.npy": bomb}) for name, bomb in bombs.items()
    }
    all_refused(read_labels, path, files, record_property)
    folder = tmp_path / "nuscenes"
    (folder / "gts" / "scene-1" / "frame").mkdir(parents=True)
    told = folder / "annotations.json"
    values = b"[" + b"0," * (occ3d.MAX_VALUES + 1) + b"0]"
    scenes = {
        "nests": crafted.DEEP.encode(),
        "more values": values,
        "nested tables": b'{"scene_infos": ' * 900 + b"1" + b"}" * 900,
        "a long number": b'{"scene_infos": ' + crafted.LONG.encode() + b"}",
        "no table": b"[]",
        "scenes in a list": b'{"scene_infos": []}',
        **{
            f"named {name[:10]!r}": json.dumps({"scene_infos": {name: {}}}).encode() for name in crafted.NASTY
        },
    }
    for what, content in scenes.items():
        told.write_bytes(content)
        refused(lambda _: occ3d.read_occ3d(folder), folder, what)
    crafted.sparse(told, occ3d.MAX_BYTES + 1)
    refused(lambda _: occ3d.read_occ3d(folder), folder, "too large")
    record_property("bad inputs tried", len(scenes) + 1)


# --------------------------------------------------------------------------- scene files
def test_bad_scene_files_are_refused(straight_road, tmp_path, record_property):
    path = tmp_path / "scene.safetensors"
    save_scene(straight_road(steps=12), path)
    content = path.read_bytes()
    arrays = load_arrays(content)
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    text = json.loads(metadata["scene"])
    steps = 30_000_000
    none = np.zeros((0, 5), np.float32)
    changed = {
        "columns without end": {
            "track_state": np.zeros((0, 1 << 40), np.float32), "track_valid": np.zeros((1, 12), bool),
        },
        "more steps": {"track_valid": np.zeros((1, steps), bool), "track_state": none},
        "no steps": {"track_valid": np.zeros((1, 0), bool), "track_state": none},
        "tracks without steps": {"track_valid": np.zeros((1 << 40, 0), bool), "track_state": none},
        "far away": {"polygon_points": arrays["polygon_points"] * np.float32(1e30)},
        "offsets that run": {"polygon_offsets": np.array([0, 1 << 62, 8])},
        "offsets backwards": {"polygon_offsets": np.array([0, -(1 << 62), 8])},
        "a track of no class": {"track_class": np.array([255], np.uint8)},
        "an ego of no track": {"ego_track": np.array([1 << 62])},
        "sizes of nothing": {"track_size": np.zeros((1, 3), np.float32)},
        "sizes that are no number": {"track_size": np.full((1, 3), np.nan, np.float32)},
    }  # fmt: skip
    files = crafted.tables(metadata)
    for what, arrays_of in changed.items():
        files[what] = save_arrays({**arrays, **arrays_of}, metadata=metadata)
    told: list[dict[str, Any]] = [{"name": name} for name in crafted.NASTY]
    told += [{"dt": dt} for dt in list[Any]((0, -1, 1e-300, 1e300, float("nan"), "1", None, []))]
    told += [{"attributes": {"a": value}} for value in list[Any]((1, None, [1], {"b": {}}))]
    told += [{"ego_kind": value} for value in list[Any](([], [1], "expert", ["expert"] * 1000))]
    for part in told:
        files[f"scene {str(part)[:40]}"] = save_arrays(arrays, metadata | {"scene": json.dumps(text | part)})
    for words in ({"scene": crafted.DEEP}, {"scene": crafted.LONG}, {"scene": "[" + "0," * 2_000_000 + "0]"},
                  {"kind": "k" * 100_000}, {"version": "9" * 100_000}):  # fmt: skip
        files[f"metadata {str(words)[:30]}"] = save_arrays(arrays, metadata | words)
    all_refused(load_scene, path, files, record_property)
    crafted.sparse(path, 1 << 36)
    refused(load_scene, path, "64 GiB of nothing")


def test_a_scene_is_written_nowhere_but_in_the_folder(straight_road, tmp_path, capsys):
    path = tmp_path / "in" / "scene.safetensors"
    save_scene(straight_road(steps=12), path)
    content = path.read_bytes()
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    text = json.loads(metadata["scene"]) | {"name": "../escaped"}
    path.write_bytes(save_arrays(load_arrays(content), metadata | {"scene": json.dumps(text)}))
    assert main(["scenes", "make", "--scenes", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "cannot be a file's" in capsys.readouterr().err and not (tmp_path / "escaped.safetensors").exists()


def test_a_town_that_would_run_for_years_is_refused(straight_road, record_property):
    from dataclasses import replace

    wrong: list[object] = [
        {name: 1e12} for name in ("warm_up", "duration", "extent", "fringe", "vehicles_per_km", "inflow")
    ]
    wrong += [
        {"extent": 4000.0, "block": 1.0},
        {"egos": 10**9},
        {"warm_up": float("nan")},
        {"plan": "moon"},
        {"a": 1},
        3,
    ]
    for config in wrong:
        attributes = {"source": "traffic", "seed": "1", "config": json.dumps(config)}
        with pytest.raises(ConfigurationError, match=r"^scene straight: [^\n]+$"), bounds():
            _check_town(replace(straight_road(steps=12), attributes=attributes))
    record_property("bad inputs tried", len(wrong))


def test_bad_shards_are_refused(straight_road, tmp_path, record_property):
    pytest.importorskip("webdataset", reason="shards need WebDataset (the extra `train`)")
    scene = write_scene(straight_road(steps=12), "scene")

    def entry(size: int) -> bytes:
        info = tarfile.TarInfo("000000.safetensors")
        info.size = size
        return info.tobuf(tarfile.GNU_FORMAT)

    sound = entry(len(scene)) + scene + bytes(-len(scene) % 512 + 1024)
    path = tmp_path / "scenes.tar"
    path.write_bytes(sound)
    assert len(list(read_shard(path))) == 1
    folder = tarfile.TarInfo("../../escaped.safetensors")
    folder.type, folder.linkname = tarfile.SYMTYPE, "/etc/passwd"
    files = {
        "a sparse member": crafted.sparse_tar(1 << 36),
        "a member that is not there": entry(1 << 40) + bytes(1024),
        "a link": folder.tobuf() + bytes(1024),
        "no scene": entry(0) + bytes(1024),
        "packed": gzip.compress(sound),
        "text": b"scenes" * 200,
        "nothing": b"",
        **{f"cut at {size}": sound[:size] for size in (100, 512, 1000, len(scene) // 2)},
    }
    all_refused(lambda path: list(read_shard(path)), path, files, record_property)
    assert [entry.name for entry in tmp_path.iterdir()] == ["scenes.tar"]


# --------------------------------------------------------------------------- weights
def test_bad_weights_are_refused(tmp_path, record_property):
    path = tmp_path / "weights.safetensors"
    save_world_model(untrained_world_model(), path, kind="world_model", trained_on="", recipe={})
    tensors, header = read_tensors(path, kind="world_model")
    tensors = {name: value.clone() for name, value in tensors.items()}  # what was read lies in the file
    some = {"a": torch.zeros(2)}
    files = crafted.tables(
        {"format": "occsora-sim/checkpoint", "version": "1", "header": '{"kind": "world_model"}'}
    )
    for words in (crafted.DEEP, crafted.LONG, "null", "[]", "{}", '{"kind": ' + crafted.DEEP + "}",
                  json.dumps({"kind": "k" * 100_000}), json.dumps({"kind": "world_model", "family": "f" * 100_000}),
                  json.dumps({"kind": "world_model", "family": "closed-loop", "config": crafted.LONG})):  # fmt: skip
        files[f"header {words[:40]}"] = crafted.checkpoint(words, some)
    all_refused(load_world_model, path, files, record_property)
    sizes = [("ground", "body", "width"), ("ground", "body", "depth"), ("ground", "codes"), ("ground", "window"),
             ("ground", "plan_body", "inner"), ("traffic", "hidden"), ("traffic", "depth"), ("traffic", "edge"),
             ("entries", "width"), ("entries", "marks"), ("history",), ("frames",), ("grid", "shape")]  # fmt: skip
    values: list[object] = [10**12, 30_000, 2048, 0, 1e300, "1", None, [], float("nan")]
    tried = 0
    for place in sizes:
        for value in values:
            said = copy.deepcopy(header)
            part = said["config"]
            for name in place[:-1]:
                part = part[name]
            part[place[-1]] = [value] * 3 if place[-1] == "shape" else value
            write_tensors(path, tensors, said)
            refused(load_world_model, path, f"{place}: {value}")
            tried += 1
    for size in (1 << 36, 100):
        crafted.sparse(path, size)
        for read in (load_world_model, read_outline, load_policy, load_encoder):
            refused(read, path, f"{size} bytes of nothing")
    record_property("bad inputs tried", tried)


def test_bad_policies_and_encoders_are_refused_and_a_zip_is_not_read(tmp_path, record_property):
    path = tmp_path / "policy.safetensors"
    some = {"a": torch.zeros(2)}
    configs = [
        {"hidden": hidden}
        for hidden in ([10**9], [30_000, 30_000], [0], [-1], [], ["x"], "x", 3, [8] * 100_000, None)
    ]
    configs += [
        {"hidden": [8], "inputs": 10**9},
        {"hidden": [8], "outputs": 10**9},
        {"hidden": [8], "features": 99},
        {"x": 1},
    ]
    files = {str(one)[:50]: crafted.checkpoint({"kind": POLICY, "policy": one}, some) for one in configs}
    all_refused(load_policy, path, files, record_property)
    values: list[object] = [10**9, 30_000, 0, -1, "x", None, [], 1e300, float("nan")]
    drivers = [{name: value} for name in ("action", "channels", "width", "x") for value in values]
    files = {
        str(one): crafted.checkpoint({"kind": DRIVING, "policy": one}, some)
        for one in [*drivers, {}, [], "x"]
    }
    all_refused(load_driving_policy, path, files, record_property)
    encoders = [{name: value} for name in ("height", "column", "width", "features") for value in values]
    files = {str(one): crafted.checkpoint({"kind": ENCODER, "config": one}, some) for one in encoders}
    all_refused(load_encoder, path, files, record_property)
    model = tmp_path / "model.zip"
    model.write_bytes(crafted.archive({"data": crafted.member(pickle.dumps(print))}))
    assert "--trust" in refused(lambda path: make_agent(str(path)), model, "pickles without --trust")


# --------------------------------------------------------------------------- logs
def test_bad_logs_are_refused(tmp_path, record_property, monkeypatch):
    path = tmp_path / "log.pkl"
    steps = 20_000
    state = {
        "position": np.zeros((steps, 3)), "heading": np.zeros(steps), "velocity": np.zeros((steps, 2)),
        "valid": np.ones(steps, bool), "length": np.full(steps, 4.0), "width": np.full(steps, 2.0),
    }  # fmt: skip
    track = {"type": "VEHICLE", "state": state, "metadata": {}}
    line = np.zeros((100_000, 3))
    log = {
        "id": "a", "length": steps, "metadata": {"sdc_id": "0", "ts": np.arange(steps) * 0.1},
        "tracks": {"0": track}, "map_features": {}, "dynamic_map_states": {},
    }  # fmt: skip
    files = {
        "one track ten thousand times": log | {"tracks": {str(k): track for k in range(10_000)}},
        "one line ten thousand times": log
        | {"map_features": {str(k): {"type": "LANE", "polyline": line} for k in range(10_000)}},
        "a function": log | {"tracks": print},
        "a length without end": log | {"length": 1 << 62},
        "no length": log | {"length": -1},
        "a place without end": log
        | {"tracks": {"0": track | {"state": state | {"position": np.full((steps, 3), 1e300)}}}},
    }  # fmt: skip
    all_refused(
        read_scenarionet, path, {name: pickle.dumps(log) for name, log in files.items()}, record_property
    )
    raw = {
        "nests": b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",
        "doubles forty times": b"\x80\x04]\x94"
        + b"".join(b"](h%ch%ce\x94" % (k, k) for k in range(40))
        + b".",
        "bytes that are not there": b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b".",
        "instructions without end": b"\x80\x04" + b"N0" * 60_000 + b"N.",
        "a module": b"cos\nsystem\n(S'echo'\ntR.",
        "a persistent name": b"Pname\n.",
        "nothing": b"",
    }
    monkeypatch.setattr(safe_pickle, "MAX_INSTRUCTIONS", 100_000)
    all_refused(load_plain, path, raw, record_property)
    crafted.sparse(path, 1 << 36)
    refused(load_plain, path, "64 GiB of nothing")


# --------------------------------------------------------------------------- JSON, and what the page sends
def test_json_is_bounded_in_number_and_depth(record_property):
    assert parse_json(b'{"a": [1, "\xc3\xa4"]}') == {"a": [1, "ä"]} and parse_json("[" * 30 + "]" * 30)
    wrong: list[str | bytes] = [
        "[" * 40 + "]" * 40,
        crafted.DEEP,
        crafted.LONG,
        "[0,0,0]",
        "",
        "{",
        b"\xff",
        "\ud800",
    ]
    wrong.append('{"a":' * 900 + "1" + "}" * 900)
    for text in wrong:
        with pytest.raises(ValueError), bounds():
            parse_json(text, 2 if text == "[0,0,0]" else 1_000_000)
    record_property("bad inputs tried", len(wrong))


def test_the_server_of_a_drive_takes_nothing_from_elsewhere(record_property):
    keyboard = Keyboard()
    routes = {"GET /": page_answer("<p>page</p>"), "POST /keys": keyboard.answer}
    keys = json.dumps({"held": ["left"], "orders": []})
    with PageServer(routes) as server:
        host = f"127.0.0.1:{server.port}"

        def ask(method: str, path: str, body: str | None = None, **headers: str) -> http.client.HTTPResponse:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
            connection.putrequest(method, path, skip_host=True)
            for name, value in {
                "Host": host,
                **({"Content-Length": str(len(body))} if body else {}),
                **headers,
            }.items():
                connection.putheader(name, value)
            connection.endheaders(body.encode() if body else None)
            return connection.getresponse()

        page = ask("GET", "/")
        assert page.status == 200 and page.headers["X-Frame-Options"] == "DENY"
        assert page.headers["Access-Control-Allow-Origin"] is None
        paths = [
            "/../etc/passwd",
            "/..%2fetc/passwd",
            "//etc/passwd",
            "/?",
            "/keys",
            "/viewer.js",
            "/%00",
            "*",
            "http://elsewhere/",
        ]
        tried = [ask("GET", path).status for path in paths]
        assert set(tried) == {404}
        hosts = [
            "rebound.example",
            f"rebound.example:{server.port}",
            "127.0.0.1",
            f"0.0.0.0:{server.port}",
            "localhost",
            "",
            f"{host}.example",
            f"evil@{host}",
        ]
        for name in hosts:
            assert ask("POST", "/keys", keys, Host=name).status == ask("GET", "/", Host=name).status == 403
        origins = [
            "http://elsewhere.example",
            f"https://elsewhere.example:{server.port}",
            "null",
            "file://",
            f"http://{host}.example",
            "http://127.0.0.1:1",
        ]
        for name in origins:
            assert (
                ask("POST", "/keys", keys, Origin=name).status == ask("GET", "/", Origin=name).status == 403
            )
        bodies = [
            crafted.DEEP[:4000],
            "[]",
            "null",
            '{"held": [[]], "orders": []}',
            '{"held": {}, "orders": 1}',
            '{"held": [], "orders": [{}]}',
            '{"held": ["left"], "orders": ["quit"]}',
        ]
        for body in bodies:
            assert ask("POST", "/keys", body).status == 400
        for length in ("-1", "1000000000000", "x", "", "1e3"):
            assert ask("POST", "/keys", None, **{"Content-Length": length}).status == 400
        assert keyboard.take(0.0) == (set(), [])
        assert ask("POST", "/keys", keys, Origin=f"http://{host}").status == 200
    record_property("bad inputs tried", len(paths) + 2 * len(hosts) + 2 * len(origins) + len(bodies) + 5)
