"""How many weights a layer keeps, and which."""
