"""occsora-sim: a Gymnasium driving environment whose world is a 4D occupancy diffusion model.

Axis legend, used in every docstring: occupancy is `b t x y z`, latents are `b t c h w`.
"""

from __future__ import annotations

__version__ = "0.1.0"

from occsora_sim.envs import register_environments
from occsora_sim.forks import register_fork_handler

register_environments()
register_fork_handler()
