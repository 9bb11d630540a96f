"""What every test shares: one thread, since networks this small only wait for a second one."""

import torch

torch.set_num_threads(1)
