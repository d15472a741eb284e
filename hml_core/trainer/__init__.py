"""Training. The page to read is ``loop``: stages, epochs, steps, evaluations and checkpoints of a run.

``phase`` says what a stage trains and with what, ``update`` what a step does, ``batches`` and ``feeds`` on
which images, ``evaluation`` what is measured; ``checkpoints`` is what a run goes on from. ``fitting``
finds a run finished, resumes or trains it; ``recorder`` keeps its record. ``branches``, ``beginnings`` and
``views`` let runs share what they have in common; ``world`` lets several processes train one run.
"""

from hml_core.trainer.fitting import CHECKPOINT_STEPS, exhaust, fit, require_keeping, training
from hml_core.trainer.loop import NonFiniteLossError, Trainer

__all__ = [
    "CHECKPOINT_STEPS",
    "NonFiniteLossError",
    "Trainer",
    "exhaust",
    "fit",
    "require_keeping",
    "training",
]
