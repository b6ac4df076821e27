"""Which label of Occ3D each kind of object in a log gets, and its size where the log does not say."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from occsora_sim.grid import (
    BARRIER,
    BICYCLE,
    BUS,
    CAR,
    CONSTRUCTION_VEHICLE,
    MOTORCYCLE,
    OTHERS,
    PEDESTRIAN,
    TRAFFIC_CONE,
    TRAILER,
    TRUCK,
)

LABELS: dict[str, int | None] = {
    # nuScenes' categories, which its logs keep beside the common type. A name stands for all that begin with it and
    # a dot: "vehicle.bus" for "vehicle.bus.bendy" and "vehicle.bus.rigid".
    "vehicle.car": CAR,
    "vehicle.emergency.police": CAR,  # nuScenes' own benchmarks leave both out; who drives must not
    "vehicle.emergency.ambulance": TRUCK,
    "vehicle.truck": TRUCK,
    "vehicle.bus": BUS,
    "vehicle.trailer": TRAILER,
    "vehicle.construction": CONSTRUCTION_VEHICLE,
    "vehicle.motorcycle": MOTORCYCLE,
    "vehicle.bicycle": BICYCLE,
    "human.pedestrian": PEDESTRIAN,  # with pushchairs, wheelchairs and scooters
    "animal": OTHERS,
    "movable_object.barrier": BARRIER,
    "movable_object.trafficcone": TRAFFIC_CONE,
    "movable_object.debris": OTHERS,
    "movable_object.pushable_pullable": OTHERS,  # bins, trolleys
    "static_object.bicycle_rack": OTHERS,
    # Lyft's categories
    "car": CAR,
    "bus": BUS,
    "truck": TRUCK,
    "emergency_vehicle": CAR,
    "other_vehicle": TRUCK,  # vans with trailers, machines
    "motorcycle": MOTORCYCLE,
    "bicycle": BICYCLE,
    # Argoverse 2's object types
    "motorcyclist": MOTORCYCLE,
    "riderless_bicycle": BICYCLE,
    "construction": TRAFFIC_CONE,  # cones, barrels and signs of a work site, not its machines
    "static": OTHERS,
    "background": OTHERS,
    "unknown": OTHERS,
    # nuPlan's
    "generic_object": OTHERS,
    "czone_sign": OTHERS,
    # the common types of the format (Waymo's logs have no others); in lower case, as all names here
    "vehicle": CAR,  # but a truck from LONG metres on
    "pedestrian": PEDESTRIAN,
    "cyclist": BICYCLE,
    "traffic_cone": TRAFFIC_CONE,
    "traffic_barrier": BARRIER,
    "barrier": BARRIER,
    "traffic_object": OTHERS,
    "other": OTHERS,
    "unset": OTHERS,
    "traffic_light": None,  # no object on the road
}
"""Name of a kind -> label; None: no object. What is not here is `others`."""

LONG = 7.0
"""Length [m] from which a vehicle of no known kind is taken for a truck; buses cannot be told from trucks by size."""

SIZES: dict[int, tuple[float, float, float]] = {
    OTHERS: (1.0, 1.0, 1.0),
    BARRIER: (0.5, 2.5, 1.0),  # across its own heading, as nuScenes has it
    BICYCLE: (1.8, 0.6, 1.5),
    BUS: (11.0, 2.8, 3.2),
    CAR: (4.5, 1.85, 1.6),
    CONSTRUCTION_VEHICLE: (6.0, 2.6, 3.0),
    MOTORCYCLE: (2.1, 0.8, 1.5),
    PEDESTRIAN: (0.7, 0.7, 1.75),
    TRAFFIC_CONE: (0.4, 0.4, 1.0),
    TRAILER: (10.0, 2.5, 3.0),
    TRUCK: (7.0, 2.5, 2.9),
}
"""Length, width, height [m] of each label where a log's own cannot be."""

DRIVES = (CAR, BUS, TRUCK, MOTORCYCLE)
"""Labels of what can be the ego."""

_LARGEST = 60.0  # [m]; nothing on a road is longer
_LOWEST_VEHICLE = 1.1  # [m]; the conversion of Argoverse 2 writes 1 for every height


def label_of(kind: str, detail: str = "", length: float = 0.0) -> int | None:
    """The label of an object.

    Args:
        kind: the common type, as "VEHICLE".
        detail: the data set's own name for it, as "vehicle.bus.rigid"; it decides if it is known.
        length: [m].

    Returns:
        A label, or None if this is no object.

    """
    for name in (_name(detail), _name(kind)):
        while name:
            if name in LABELS:
                return TRUCK if name == "vehicle" and length >= LONG else LABELS[name]
            name = name.rpartition(".")[0]
    return OTHERS


def _name(kind: str) -> str:
    """A kind as it is written in LABELS: "TrackedObjectType.VEHICLE" and "TYPE_VEHICLE" are "vehicle"."""
    return re.sub(r"^(trackedobjecttype\.|objecttype\.|type_)", "", kind.strip().lower())


def size_of(label: int, size: Sequence[float]) -> tuple[float, float, float]:
    """Length, width, height [m], with those of the label in place of what cannot be."""
    least = (0.05, 0.05, _LOWEST_VEHICLE if label in DRIVES else 0.05)
    length, width, height = (
        float(value) if math.isfinite(value) and low <= value <= _LARGEST else usual
        for value, low, usual in zip(size, least, SIZES[label], strict=True)
    )
    return length, width, height
