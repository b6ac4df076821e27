"""The intelligent driver model alone: keeps its distance to what the occupancy shows ahead, at any bend."""

from __future__ import annotations

import numpy as np

from occsora_sim.agents.route_follower import RouteFollower


class IntelligentDriver(RouteFollower):
    """The car-following model of Treiber, Hennecke and Helbing (2000, equations 3 and 4) along the route.

    It sees and steers as the route follower does, but knows nothing beyond the model: no slowing for curves, no
    emergency braking, no limit to the change of its acceleration.
    """

    def _drive(self, occupancy: np.ndarray, ego: np.ndarray, route: np.ndarray) -> tuple[float, float]:
        """Acceleration [m/s2] and steering [rad] for one row."""
        c, speed = self.config, float(max(ego[0], 0.0))
        path = np.concatenate((np.zeros((1, 2)), route.astype(np.float64)))
        arc = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))))
        gap, leader = self._leader(occupancy, path, arc, speed)
        wish = speed * c.headway + speed * (speed - leader) / (2 * np.sqrt(c.acceleration * c.braking))
        near = (c.gap + max(0.0, wish)) / max(gap, 0.1)
        pull = c.acceleration * (1 - (speed / c.speed) ** 4 - near**2)
        return float(np.clip(pull, -c.hardest, c.acceleration)), self._pursue(path, arc, speed)
