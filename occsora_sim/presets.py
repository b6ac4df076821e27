"""Presets: functions from a name to a configuration, of a closed-loop world or of OccSora's own model."""

from __future__ import annotations

from collections.abc import Callable

from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import OCC3D, Grid
from occsora_sim.models.entries import EntriesConfig
from occsora_sim.models.ground.hourglass import HourglassConfig
from occsora_sim.models.ground.model import GroundConfig
from occsora_sim.models.occsora_tokenizer import OccSoraTokenizerConfig
from occsora_sim.models.occsora_world import OccSoraConfig
from occsora_sim.models.traffic import TrafficConfig
from occsora_sim.models.weights import Config
from occsora_sim.models.world_model import WorldModelConfig


def small() -> WorldModelConfig:
    """The shipped default: the Occ3D grid on a laptop's CPU."""
    return WorldModelConfig(preset="small", grid=OCC3D)


def base() -> WorldModelConfig:
    """For a GPU: `small` with wider and deeper networks."""
    return WorldModelConfig(
        preset="base",
        grid=OCC3D,
        ground=GroundConfig(
            body=HourglassConfig(width=128, inner=384, depth=8, heads=6),
            plan_body=HourglassConfig(width=128, inner=384, depth=8, heads=6),
        ),
        traffic=TrafficConfig(hidden=192, depth=6, heads=6),
    )


def tiny() -> WorldModelConfig:
    """For tests: a coarse grid, seconds on a CPU."""
    grid = Grid(shape=(48, 48, 16), voxel=0.8, lower=(-19.2, -19.2, -1.0))
    body = HourglassConfig(width=16, inner=32, depth=1, heads=2)
    return WorldModelConfig(
        preset="tiny",
        grid=grid,
        ground=GroundConfig(
            column=0.8, kinds=24, codes=256, patterns=64, tile=8, window=16, plan_window=16, body=body,
            plan_body=body,
        ),
        traffic=TrafficConfig(hidden=32, depth=1, heads=2, edge=8),
        entries=EntriesConfig(grid=grid, width=8, marks=16),
    )  # fmt: skip


def paper() -> OccSoraConfig:
    """OccSora as published (Wang et al. 2024): clips of 16 s from a trajectory prompt; for a large GPU."""
    return OccSoraConfig(preset="paper", grid=OCC3D)


def paper_small() -> OccSoraConfig:
    """OccSora's design at about the size of `small`, so that one core can train it in minutes: same clips, same design.

    As in `paper`: 16 s of the Occ3D grid, 8 x 8 x 8 times smaller, 512 codes, a transformer over 4 x 25 x 25 tokens,
    1000 steps of DDPM, the prompt. What differs: the widths and depths; maps of patches with layer normalisation in
    place of strided convolutions with batch normalisation, whose statistics a batch of one cannot give (`patches`);
    three channels rounded to 8 levels in place of a learned codebook (`finite`), which are diffused at about unit
    variance and rounded again when drawn; the tokenizer learns on pieces of clips (`piece`), and its loss looks at some
    of their voxels, at road users more often. The denoiser's tokens see those of their frame and those ahead and behind
    in turn, and it answers how likely each level is (`levels`), of latents that get noisy by a cosine. The class
    embedding keeps its width: with half of it, four classes lie within the others' hull and are never the likeliest.
    """
    return OccSoraConfig(
        preset="paper-small",
        grid=OCC3D,
        tokenizer=OccSoraTokenizerConfig(
            hidden=192,
            latent_channels=3,
            blocks=1,
            patches=True,
            outer=64,
            quantiser="finite",
            levels=(8, 8, 8),
            lovasz_points=8192,
            loss_patches=1024,
            rare=4.0,
            piece=64,
        ),
        hidden=192,
        depth=5,
        heads=3,
        groups=("frame", "ahead"),
        answers="levels",
        schedule="cosine",
        latent_scale=1.5,
        guidance=2.0,
    )


def paper_tiny() -> OccSoraConfig:
    """OccSora's design for tests: short clips of a coarse grid, reduced widths, all 1000 diffusion steps."""
    grid = Grid(shape=(32, 32, 16), voxel=0.8, lower=(-12.8, -12.8, -1.0))
    return OccSoraConfig(
        preset="paper-tiny",
        grid=grid,
        tokenizer=OccSoraTokenizerConfig(
            shape=grid.shape, frames=8, class_width=4, hidden=32, latent_channels=16, blocks=1, codes=64
        ),
        hidden=32,
        depth=2,
        heads=4,
        prompt_hidden=(16,),
    )


PRESETS: dict[str, Callable[[], Config]] = {
    "small": small,
    "base": base,
    "tiny": tiny,
    "paper": paper,
    "paper-small": paper_small,
    "paper-tiny": paper_tiny,
}
"""All presets by name."""


def preset(name: str) -> Config:
    """The configuration of the preset `name`; its type says of which family it is.

    Raises:
        ConfigurationError: there is no such preset.

    """
    if name not in PRESETS:
        raise ConfigurationError(f"preset {name!r} is unknown; choose one of {', '.join(sorted(PRESETS))}")
    return PRESETS[name]()


def closed_loop_preset(name: str) -> WorldModelConfig:
    """As `preset`, for what is driven.

    Raises:
        ConfigurationError: there is no such preset, or it is OccSora's own.

    """
    config = preset(name)
    if not isinstance(config, WorldModelConfig):
        raise ConfigurationError(
            f"preset {name!r} draws whole clips and cannot be driven; choose one of {_names(WorldModelConfig)}"
        )
    return config


def occsora_preset(name: str) -> OccSoraConfig:
    """As `preset`, for OccSora's own model.

    Raises:
        ConfigurationError: there is no such preset, or it is a closed-loop one.

    """
    config = preset(name)
    if not isinstance(config, OccSoraConfig):
        raise ConfigurationError(
            f"preset {name!r} is driven and draws no whole clips; choose one of {_names(OccSoraConfig)}"
        )
    return config


def _names(family: type) -> str:
    return ", ".join(sorted(name for name, make in PRESETS.items() if isinstance(make(), family)))
