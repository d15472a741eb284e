"""One run as data: its settings, the rules that they must satisfy, grids of them.

``settings`` declares each setting once (how: ``declaration``), ``rules`` says what makes sense together,
``run_config`` fills in what is left open and gives the run its identity, ``expansion`` makes the grids of
tables, ``meanings`` is the ledger of what has changed its meaning.
"""

from hml_core.config.expansion import FOLLOWS_SEED, HARD_MINING_OPTIONS, grid, grids
from hml_core.config.run_config import RunConfig
from hml_core.config.settings import OPTIONS, SETTINGS

__all__ = [
    "FOLLOWS_SEED",
    "HARD_MINING_OPTIONS",
    "OPTIONS",
    "SETTINGS",
    "RunConfig",
    "grid",
    "grids",
]
