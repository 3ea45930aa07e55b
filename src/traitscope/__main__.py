"""`python -m traitscope`: the same as the command `traitscope`."""

from traitscope.cli.main import main

if __name__ == "__main__":
    main()
