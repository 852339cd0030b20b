"""`python -m experiments.cli` is `ham`, for a Python whose scripts are not on the path."""

from .main import main

if __name__ == "__main__":
    main()
