"""Running one run or many on this machine."""
