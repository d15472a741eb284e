"""One run as data: its settings, the rules that they must satisfy, grids of them.

``run_config`` is the description, ``rules`` what makes sense together, ``expansion`` the grids of tables,
``meanings`` the ledger of what has changed its meaning.
"""

from hml_core.config.expansion import FOLLOWS_SEED, HARD_MINING_OPTIONS, grid, grids
from hml_core.config.run_config import OPTIONS, RunConfig, field_kinds

__all__ = [
    "FOLLOWS_SEED",
    "HARD_MINING_OPTIONS",
    "OPTIONS",
    "RunConfig",
    "field_kinds",
    "grid",
    "grids",
]
