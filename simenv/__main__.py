"""`python -m simenv`: the command line, where the console script is not on PATH."""

from simenv.cli.entry import main

if __name__ == "__main__":
    main()
