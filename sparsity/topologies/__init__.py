"""Topologies: one file a method; importing it registers it."""
