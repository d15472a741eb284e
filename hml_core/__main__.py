"""``python -m hml_core`` is the command ``hml``, found as it is installed: it stands a storey above."""

import sys
from importlib.metadata import entry_points


def main() -> None:
    """Run the installed command."""
    commands = entry_points(group="console_scripts", name="hml")
    if not commands:
        sys.exit("The command hml is not installed: pip install -e . in the checkout.")
    next(iter(commands)).load()(prog_name="hml")


if __name__ == "__main__":
    main()
