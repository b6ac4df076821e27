"""What shall become of one road user at a start, as people write it: placed, moved, removed or scripted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np

from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import CLASSES, DYNAMIC
from occsora_sim.quantities import real, whole, written

NAMES: tuple[str, ...] = tuple(CLASSES[label] for label in DYNAMIC)
"""Classes of road users."""

SIDES = ("left", "right")

FASTEST = 50.0
"""The highest speed of a road user [m/s]."""

LONGEST = 30.0
"""The longest side of a road user [m]."""


@dataclass(frozen=True, kw_only=True)
class RoadUserEdit:
    """One road user. Positions are those of its box's centre in the ego frame at the start: x ahead, y left.

    Attributes:
        remove: the id of one that is taken away; nothing else is said then.
        id: of one that is there already; None: a new one.
        class_: of a new one, one of NAMES.
        size: of a new one, length, width, height [m]; None: as usual for its class.
        x, y: [m].
        yaw: [rad], counter-clockwise from the ego's heading.
        speed: along its yaw [m/s].
        path: poses after the start that it passes in straight lines: seconds, x, y [m], yaw [rad] of each.
        cut_in: "left" or "right": from that side it moves into the lane that the ego's route follows.
        seconds: how long that takes.

    """

    remove: int | None = None
    id: int | None = None
    class_: str | None = None
    size: tuple[float, float, float] | None = None
    x: float | None = None
    y: float | None = None
    yaw: float | None = None
    speed: float | None = None
    path: tuple[tuple[float, float, float, float], ...] = ()
    cut_in: str | None = None
    seconds: float = 3.0

    def written(self) -> dict[str, Any]:
        """As `read_edits` takes it."""
        given = {
            entry.name.rstrip("_"): getattr(self, entry.name)
            for entry in fields(self)
            if getattr(self, entry.name) != entry.default
        }
        return given | ({"seconds": self.seconds} if self.cut_in else {})


KEYS: tuple[str, ...] = tuple(entry.name.rstrip("_") for entry in fields(RoadUserEdit))


def read_edits(given: object) -> tuple[RoadUserEdit, ...]:
    """Edits from a list of mappings with some of KEYS each.

    Raises:
        ConfigurationError: something else, or what cannot be; one line that names the place in the list.

    """
    if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
        raise ConfigurationError(f"road_users={written(given)}: give a list of mappings")
    return tuple(_read(edit, f"road_users[{place}]") for place, edit in enumerate(given))


def _read(given: object, where: str) -> RoadUserEdit:
    if isinstance(given, RoadUserEdit):
        given = given.written()
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"{where}={written(given)}: give a mapping, as {{'class': 'car', 'x': 12, 'y': 3}}"
        )
    for name in given:
        if name not in KEYS:
            raise ConfigurationError(f"{where}: unknown key {written(name)}: choose from {', '.join(KEYS)}")
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}

    def refuse(what: str) -> None:
        raise ConfigurationError(f"{where}: {what}")

    for name in ("remove", "id"):
        if name in values:
            values[name] = whole(values[name], f"{where} {name}", least=0)
    for name in ("x", "y", "yaw", "speed", "seconds"):
        if name in values:
            values[name] = real(values[name], f"{where} {name}")
    if "remove" in values and len(values) > 1:
        refuse("remove stands alone")
    if "remove" not in values and ("id" in values) == ("class" in values):
        refuse("give class for a new road user, id for one that is there, or remove")
    if "id" in values and "size" in values:
        refuse("size is for new road users; one that is there keeps its own")
    if "id" in values and len(values) == 1:
        refuse("say what shall become of it: x, y, yaw, speed, path, cut_in; or remove it")
    if "class" in values:
        values["class_"] = values.pop("class")
        if str(values["class_"]) not in NAMES:
            refuse(f"class={written(values['class_'])}: choose one of {', '.join(NAMES)}")
        if "cut_in" not in values and not {"x", "y"} <= values.keys():
            refuse("a new road user needs x and y [m], ahead and left of the ego")
    if "size" in values:
        values["size"] = _numbers(values["size"], 3, f"{where} size")
        if not all(0 < side <= LONGEST for side in values["size"]):
            refuse(f"size={written(values['size'])}: must be above 0 and at most {LONGEST:g} m each")
    if not 0 <= values.get("speed", 0.0) <= FASTEST:
        refuse(f"speed={values['speed']:g}: must be 0 to {FASTEST:g} m/s")
    if "path" in values and "cut_in" in values:
        refuse("give path or cut_in, not both")
    if "cut_in" in values and str(values["cut_in"]) not in SIDES:
        refuse(f"cut_in={written(values['cut_in'])}: choose left or right")
    if "seconds" in values and ("cut_in" not in values or not 0.5 <= values["seconds"] <= 60):
        refuse("seconds is how long a cut_in takes, 0.5 to 60")
    if "path" in values:
        if not isinstance(values["path"], list | tuple | np.ndarray) or not len(values["path"]):
            refuse(f"path={written(values['path'])}: give a list of [seconds, x, y, yaw]")
        values["path"] = tuple(_numbers(pose, 4, f"{where} path") for pose in values["path"])
        time = [pose[0] for pose in values["path"]]
        if time[0] <= 0 or any(b <= a for a, b in pairwise(time)):
            refuse("path: its seconds must be above 0 and increase")
    return RoadUserEdit(**values)


def _numbers(given: Any, count: int, name: str) -> tuple[Any, ...]:
    """`count` finite numbers."""
    if not isinstance(given, list | tuple | np.ndarray) or len(given) != count:
        raise ConfigurationError(f"{name}={written(given)}: give {count} numbers")
    return tuple(real(value, name) for value in given)
