"""Runs on a Slurm cluster: planning, submitting, querying and cancelling jobs. Nothing here imports torch."""
