"""Data-parallel training: several processes (ranks) that train one network."""
