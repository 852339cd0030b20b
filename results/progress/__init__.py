"""How far runs are, and what they print."""
