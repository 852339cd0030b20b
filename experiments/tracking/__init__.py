"""The mirror of runs in Weights & Biases, see docs/howto/wandb.md; it reads a run's folder, and loads no torch."""
