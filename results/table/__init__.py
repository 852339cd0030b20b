"""Tables, in each format."""
