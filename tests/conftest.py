import torch

from command import run, run_models
from tiny_models import models

__all__ = ["models", "run", "run_models"]

torch.set_num_threads(1)  # the networks here are tiny: more threads would only wait for each other
