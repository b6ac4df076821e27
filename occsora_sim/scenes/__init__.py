"""scenes of occsora-sim."""
