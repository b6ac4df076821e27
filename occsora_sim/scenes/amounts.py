"""How much of whom is on the streets of a made place: densities and the mix of motor vehicles."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from occsora_sim.errors import ConfigurationError
from occsora_sim.scenes.town import TownConfig

MOTOR: tuple[str, ...] = ("car", "van", "truck", "bus", "motorcycle")
"""Kinds of motor vehicles, of which a mix is made; `demand.KINDS` has their usual shares."""

MOST: dict[str, float] = {
    "density": 10.0, "vehicles": 200.0, "bicycles": 200.0, "pedestrians": 500.0, "inflow": 20.0,
}  # fmt: skip
"""The largest value of each amount: beyond, streets are full and a simulation takes hours."""


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """What differs from a place's usual traffic; None: as usual.

    Attributes:
        density: how many times as much of everybody as usual, on the streets and coming in.
        vehicles: motor vehicles on each km of street at the beginning, roughly: some towns are busier than others.
        bicycles: on each km of street.
        pedestrians: on each km of street.
        inflow: how many times as many vehicles enter the place as usual.
        mix: shares [0, 1] of motor vehicles by kind, in the order of MOTOR; the kinds that are not named divide what is
            left in their usual proportions.

    Raises:
        ConfigurationError: a value that cannot be.

    """

    density: float | None = None
    vehicles: float | None = None
    bicycles: float | None = None
    pedestrians: float | None = None
    inflow: float | None = None
    mix: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            value, needed = getattr(self, name), name in ("density", "inflow")
            if value is not None and not (0 < value <= most or (value == 0 and not needed)):
                least = "above 0" if needed else "0 or more"
                raise ConfigurationError(f"traffic: {name}={value:g} must be {least} and at most {most:g}")
        shares = dict(self.mix)
        if not set(shares) <= set(MOTOR) or len(shares) != len(self.mix):
            raise ConfigurationError(f"traffic: a mix names each of {', '.join(MOTOR)} once at most")
        total, least_total = sum(shares.values()), 1.0 if len(shares) == len(MOTOR) else 0.0
        fit = least_total - 1e-9 <= total <= 1 + 1e-9
        if not fit or not all(0 <= share <= 1 for share in shares.values()):
            given = ", ".join(f"{kind}={share:g}" for kind, share in shares.items())
            raise ConfigurationError(
                f"traffic: the shares {given} must be 0 to 1 and add up to 1, or less where a kind is left out"
            )

    def __str__(self) -> str:
        """As `read_amounts` reads it, the same for all ways to write it: "density=2,truck=0.3"."""
        numbers = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "mix"}
        named = {name: value for name, value in numbers.items() if value is not None} | dict(self.mix)
        return ",".join(f"{name}={value:.12g}" for name, value in named.items())

    def applied_to(self, place: TownConfig) -> TownConfig:
        """A place with these densities. The mix is not in it; see `mix.remix`."""
        more = 1.0 if self.density is None else self.density

        def amount(named: float | None, usual: float) -> float:
            return usual * more if named is None else named

        return replace(
            place,
            vehicles_per_km=amount(self.vehicles, place.vehicles_per_km),
            bicycles_per_km=amount(self.bicycles, place.bicycles_per_km),
            pedestrians_per_km=amount(self.pedestrians, place.pedestrians_per_km),
            inflow=amount(self.inflow, place.inflow),
        )


def read_amounts(parts: Iterable[str]) -> Amounts:
    """Amounts of "NAME=VALUE" parts; a name is an amount or a kind of motor vehicle.

    Raises:
        ConfigurationError: a part that is none, a name that is not known or comes twice, a value that cannot be.

    """
    values: dict[str, float] = {}
    for part in parts:
        name, _, text = part.partition("=")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if name not in (*MOST, *MOTOR) or name in values or math.isnan(value):
            raise ConfigurationError(
                f"traffic: {part!r} is not NAME=NUMBER with each of {', '.join((*MOST, *MOTOR))} once at most"
            )
        values[name] = value
    mix = tuple((kind, values[kind]) for kind in MOTOR if kind in values)
    return Amounts(mix=mix, **{name: values[name] for name in MOST if name in values})
