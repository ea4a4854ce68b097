"""`python -m twbench`, the same as `twbench`."""

from twbench.cli import main

if __name__ == "__main__":
    main()
