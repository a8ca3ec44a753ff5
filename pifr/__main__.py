"""`python -m pifr` is `pifr`, for environments whose programs are not on the path."""

from pifr.cli.main import main

if __name__ == "__main__":
    main()
