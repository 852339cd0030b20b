"""Networks, and initial weights from files."""
