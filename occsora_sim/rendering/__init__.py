"""Pictures of occupancy: bird's-eye view, chase camera, video and recorded rollouts."""
