"""The part of the suite that runs on compute nodes."""
