"""The page as one HTML file that opens offline: style, scripts and data inside, and a policy that runs nothing else.

What a rollout says never stands in the HTML as text: it travels in base64, and the page shows it by `textContent`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Literal

import numpy as np

from occsora_sim.grid import CLASSES, FLAT, FREE, MANMADE, VEGETATION
from occsora_sim.rendering import palette
from occsora_sim.rendering.ego_car import EGO_CENTRE, ego_car_mesh
from occsora_sim.rendering.mesh import HAZE_END, HAZE_START, sun_direction
from occsora_sim.rendering.surroundings import sky_mesh
from occsora_sim.viewer.encoding import pack

Mode = Literal["view", "play", "edit"]


def make_page(
    rollouts: Sequence[bytes], *, mode: Mode = "view", said: Mapping[str, Any] | None = None
) -> str:
    """The page that shows `rollouts`, as `encode_rollout` gives them, side by side.

    In the mode "play" it shows what comes from the server that it was served by, and sends it the keys that are held
    down; in the mode "edit" it sends edits of the start that it shows. `said` are JSON values for the mode.
    """
    css, three, viewer = _text("viewer.css"), _text("three.min.js"), script()
    blocks = [("scenery", scenery()), *((f"rollout-{k}", data) for k, data in enumerate(rollouts))]
    if said is not None:
        blocks.append((mode, pack(said, {})))
    connect = "'none'" if mode == "view" else "'self'"
    parts = {
        "policy": "; ".join(
            (
                "default-src 'none'",
                f"script-src {_hash(three)} {_hash(viewer)}",
                f"style-src {_hash(css)}",
                f"connect-src {connect}",
                "base-uri 'none'",
                "form-action 'none'",
            )
        ),
        "mode": mode,
        "css": css,
        "three": three,
        "viewer": viewer,
        "data": "\n".join(
            f'<script type="application/octet-stream" id="{name}">{base64.b64encode(data).decode()}</script>'
            for name, data in blocks
        ),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _text("viewer.html"))


def script() -> str:
    """The page's modules as the one that it holds: each behind those that it imports."""
    done: dict[str, str] = {}

    def add(name: str) -> None:
        if name not in done:
            done[name] = ""  # modules may import each other
            text = _text(f"js/{name}.js")
            for other in re.findall(r'^import .*"\./(\w+)\.js";$', text, re.MULTILINE):
                add(other)
            del done[name]  # behind them
            done[name] = re.sub(r"^import .*\n|^export ", "", text, flags=re.MULTILINE)

    add("main")
    return "".join(done.values())


def scenery() -> bytes:
    """What the page needs of the project's way of drawing: colours, classes, light, the ego car, the sky."""
    named = ("PLAN", "ROUTE", "HAZE", "GOOD", "FAIR", "BAD", "FAINT", "BAR")
    meta = {
        "classes": CLASSES,
        "free": FREE,
        "flat": FLAT,
        "walls": MANMADE,
        "crowns": VEGETATION,
        "colours": {name: getattr(palette, name) for name in named},
        "haze": (HAZE_START, HAZE_END),
        "sun": sun_direction().tolist(),
        "ego_centre": EGO_CENTRE,
    }
    arrays = {"class_colours": palette.class_colours()}
    for name, mesh in (("car", ego_car_mesh()), ("sky", sky_mesh())):
        arrays[f"{name}_vertices"] = mesh.vertices
        arrays[f"{name}_triangles"] = mesh.triangles.astype(np.uint32)
        arrays[f"{name}_colours"] = mesh.colours
    return pack(meta, arrays)


def _text(name: str) -> str:
    return (resources.files("occsora_sim.viewer") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """How a policy names the one script or style that may be used."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
