"""The numbers that tables and figures show."""
