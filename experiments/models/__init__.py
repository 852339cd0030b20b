"""Networks, and weights to start from."""
