"""assets of occsora-sim."""
