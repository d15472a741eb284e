"""Run records: ``record`` reads one, ``listing`` many, ``folder`` writes one."""

from hml_core.runs.evaluated import Evaluated
from hml_core.runs.exporting import export
from hml_core.runs.folder import RunFolder
from hml_core.runs.listing import failures, load
from hml_core.runs.record import CLOCK, SELECTIONS, Run

__all__ = ["CLOCK", "SELECTIONS", "Evaluated", "Run", "RunFolder", "export", "failures", "load"]
