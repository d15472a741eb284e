"""From what the archives ship to what :mod:`hml_core` reads."""
