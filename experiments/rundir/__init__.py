"""The files of a run directory, and who may write them."""
