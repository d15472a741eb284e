"""Run records: ``record`` reads them, ``folder`` writes them, ``environment`` says what made them."""

from hml_core.runs.evaluated import Evaluated
from hml_core.runs.exporting import export
from hml_core.runs.folder import RunFolder
from hml_core.runs.record import CLOCK, SELECTIONS, Run, failures, load

__all__ = ["CLOCK", "SELECTIONS", "Evaluated", "Run", "RunFolder", "export", "failures", "load"]
