"""One's own losses, recipes, models, data sets and samplers, brought by a file or a module."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from hml_core.errors import ConfigError, interrupts, said


def bring(imports: Iterable[str] | str) -> list[ModuleType]:
    """Import files (``mine.py``) and modules (``package.mine``), which register what they hold.

    A file is imported once in a process, under its own name and with its folder on the path, so that it
    finds what lies beside it.

    Raises
    ------
    ConfigError
        For what is not there, or whatever it raises.
    """
    names = [imports] if isinstance(imports, str) else list(imports)
    return [_bring(str(name)) for name in names]


def _bring(name: str) -> ModuleType:
    file = Path(os.path.expanduser(name))  # that of Path raises for ~nobody
    try:
        if file.suffix != ".py":
            # (A module may have a name that cannot be written in code, such as one with a hyphen.)
            if not all(name.split(".")) or {*name} & {"/", os.sep}:
                raise _none(name, file)
            return importlib.import_module(name)
        if not file.is_file():
            raise ConfigError(f"Expected a file or module to import, there is no {name!r}.")
        return _of_file(file.resolve())
    except ConfigError:
        raise
    except ModuleNotFoundError as error:
        if file.suffix != ".py" and f"{name}.".startswith(f"{error.name}."):
            if all(map(str.isidentifier, name.split("."))):
                said_none = f"Expected a file or module to import, there is no {name!r}."
                raise ConfigError(said_none) from error
            raise _none(name, file) from error
        raise ConfigError(f"Importing {name!r} failed: {said(error)}") from error
    except BaseException as error:  # whatever somebody's own code raises, or a script
        if interrupts(error):
            raise
        raise ConfigError(
            f"Importing {name!r} failed: {type(error).__name__}: {said(error)}"
        ) from error


def _none(name: str, file: Path) -> ConfigError:
    """The error of what no module is called."""
    is_there = f"{name!r} is none" if file.exists() else f"there is no {name!r}"
    return ConfigError(f"Expected a file (mine.py) or module to import, {is_there}.")


def _is_anothers(file: Path) -> bool:
    """Whether Python knows another module by the file's name, which somebody may import later."""
    found = importlib.util.find_spec(file.stem)
    origin = getattr(found, "origin", None)  # folders without code have none
    return origin is not None and Path(origin).resolve() != file


def _of_file(file: Path) -> ModuleType:
    known = sys.modules.get(file.stem)
    if known is not None and getattr(known, "__file__", None) == str(file):
        return known
    if known is not None or file.stem in sys.stdlib_module_names or _is_anothers(file):
        raise ConfigError(
            f"There is another module called {file.stem!r}: expected another name for {str(file)!r}."
        )
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec._initializing = (
        True  # as by `import`: who meets it meanwhile knows that more will be in it
    )
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[file.stem]
        raise
    finally:
        spec._initializing = False
    return module
