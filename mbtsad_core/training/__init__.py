"""Training: the one loop, its saved state, and the distillation losses."""

from mbtsad_core.training.distillation import distil, distillation_loss
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.training.state import TrainState, read_state, write_state

__all__ = ["TrainState", "distil", "distillation_loss", "fine_tune", "read_state", "write_state"]
