"""occsora-sim: a Gymnasium driving environment whose world is generated: 4D semantic occupancy, drawn by diffusion.

Axis legend, used in every docstring: occupancy is `b t x y z`, tokens of ground `b x y`, road users `b n`, OccSora's
latents `b c t x y`.
"""

from __future__ import annotations

__version__ = "0.1.0"

from occsora_sim.envs import register_environments
from occsora_sim.forks import register_fork_handler

register_environments()
register_fork_handler()
