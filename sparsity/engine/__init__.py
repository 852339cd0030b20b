"""The engine: one training step, the same for all methods."""
