"""scoring of occsora-sim."""
