"""worlds of occsora-sim."""
