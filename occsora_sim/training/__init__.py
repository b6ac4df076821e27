"""training of occsora-sim."""
