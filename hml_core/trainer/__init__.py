"""Training: ``fitting`` finds, resumes or trains a run; ``loop`` is the page that says how."""

from hml_core.trainer.fitting import CHECKPOINT_STEPS, exhaust, fit, training
from hml_core.trainer.loop import NonFiniteLossError, Trainer

__all__ = ["CHECKPOINT_STEPS", "NonFiniteLossError", "Trainer", "exhaust", "fit", "training"]
