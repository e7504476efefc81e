"""`python -m simenv`: the command line, for shells without the console script on PATH."""

from simenv.cli.entry import main

if __name__ == "__main__":
    main()
