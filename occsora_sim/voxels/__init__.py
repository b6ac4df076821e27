"""Voxels: from ground and road users to labels around an ego, and back."""
