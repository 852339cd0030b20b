"""Runs on a Slurm cluster: plan, submit, ask, cancel. Nothing here imports torch."""
