"""What tables and plots show, as numbers."""
