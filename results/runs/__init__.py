"""From folders to a sweep."""
