"""The entry point of `python -m traitscope`, which does what the command `traitscope` does."""

from traitscope.cli.main import main

if __name__ == "__main__":
    main()
