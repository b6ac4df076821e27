"""models of occsora-sim."""
