"""The command line, `ham`."""
