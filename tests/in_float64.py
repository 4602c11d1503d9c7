"""The command line in float64, where one process and several differ by rounding that stays small over a whole training."""

import torch
from pyrovae.cli import main

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    main(prog_name="pyrovae")
