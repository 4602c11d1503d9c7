"""``python -m pyrovae``: the command line, as torchrun starts it in several processes."""

from pyrovae.cli import main

if __name__ == "__main__":
    main(prog_name="pyrovae")
