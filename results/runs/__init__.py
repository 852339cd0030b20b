"""Reading of run folders into the results of a sweep."""
