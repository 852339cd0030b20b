"""Configuration, data, models, runs and sweeps of the suite, and its command line."""
