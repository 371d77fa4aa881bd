"""Model → model."""
