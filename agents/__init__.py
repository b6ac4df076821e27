"""agents of occsora-sim."""
