"""``python -m hml_core`` is the command ``hml``.

The one place of this package that knows of the storey above: the command line speaks to people.
"""

from hml_lab.cli import main

if __name__ == "__main__":
    main()
