"""From YAML files and the command line to checked specifications of runs."""
