"""`python -m polyathlon COMMAND`: the command line where the script `polyathlon` is not on the path."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
