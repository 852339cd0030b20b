"""What happens in a step."""
