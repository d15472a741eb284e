"""``python -m hml_core`` is the command ``hml``."""

from hml_core.cli import main

if __name__ == "__main__":
    main(prog_name="hml")
