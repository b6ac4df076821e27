"""Ground as tokens, outpainted once by masked diffusion: on probation."""
