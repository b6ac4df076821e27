"""rendering of occsora-sim."""
