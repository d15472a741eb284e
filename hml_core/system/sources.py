"""Where code comes from, and what it says: sources, bytecode, the names it looks up, what it imports."""

from __future__ import annotations

import ast
import builtins
import dis
import functools
import hashlib
import importlib
import importlib.util
import linecache
import sys
import sysconfig
import traceback
import types
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hml_core.errors import kind_of, raised_by_handler, said

OURS = ("hml_core", "data_prep", "hml_lab")
_INSTALLED = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
_LIBRARIES = {"site-packages", "dist-packages"}
# What follows on an import within the same statement.
_NAMING = ("STORE_", "SWAP", "ROT_", "POP_TOP", "EXTENDED_ARG")
Key = tuple[str, int, str, str]
known: dict[Key, str] = {}  # sources of functions that were looked at
sent: dict[Key, str] = {}  # of those that another process has sent, as it knows them
# By the id of the code, which is kept for it.
_looked_at: dict[int, tuple[types.CodeType, str]] = {}
_failing: set[str] = set()  # modules that raised when they were imported: see `try_again`


def is_external(module: str | None) -> bool:
    """Whether a module is part of this package, of Python or of an installed library."""
    top = (module or "builtins").partition(".")[0]
    if top == "__main__":
        return False
    if top in OURS or top in sys.stdlib_module_names:
        return True
    found = sys.modules.get(top)
    held = getattr(found, "__dict__", {})  # (not by its name: a module may answer any)
    return _is_installed([held.get("__file__"), *(held.get("__path__") or ())])


def is_ours(module: str) -> bool:
    """Whether a module is part of this package."""
    return module.partition(".")[0] in OURS


def is_own(kind: type) -> bool:
    """Whether a class is no library's."""
    if not isinstance(kind.__module__, str):  # a property of its objects, written over it
        return True
    # What `exec` makes says that it is Python's; types in C may describe that of others.
    if kind.__module__ == "builtins":
        says = isinstance(vars(kind).get("__module__"), str)
        return says and getattr(builtins, kind.__name__, None) is not kind
    return not is_external(kind.__module__)


def origin(thing: Any) -> tuple[str | None, bool]:
    """The name of the module that a class or function comes from, and whether that is a library's.

    What ``exec`` makes among names of its own is no library's, and may have no module.
    """
    module = getattr(thing, "__module__", None)
    if isinstance(thing, types.FunctionType):
        module = thing.__globals__.get("__name__")
        return module, module is not None and is_external(module)
    if isinstance(thing, type) and is_own(thing):
        return (module if isinstance(module, str) and module != "builtins" else None), False
    return module, is_external(module)


def _is_installed(places: Iterable[str | None]) -> bool:
    return any(
        place.startswith(_INSTALLED) or bool(_LIBRARIES & {*Path(place).parts})
        for place in filter(None, places)
    )


def own_place(error: BaseException) -> str:
    """Where an error comes from: the innermost place outside of libraries; empty where there is none."""
    found, seen = "", set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        for frame, line in traceback.walk_tb(error.__traceback__):
            if not is_external(frame.f_globals.get("__name__")):
                found = f"{frame.f_code.co_filename}:{line}"
        error = error.__cause__
    return found


def told(error: BaseException) -> str:
    """What somebody's own code raised, with its place in that code."""
    place = own_place(error)
    return f"{kind_of(error)}: {said(error)}{f' ({place})' if place else ''}"


def names(code: types.CodeType) -> set[str]:
    """Names that a function and the functions inside of it look up."""
    return {*code.co_names}.union(*(names(one) for one in _nested(code)))


def texts(code: types.CodeType) -> set[str]:
    """The texts, also as bytes, that stand in a function and in the functions inside of it.

    Those in tuples and sets are among them.
    """
    found: set[str] = set()
    waiting: list[Any] = [code]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            found.add(one)
        elif isinstance(one, bytes):
            found.add(one.decode(errors="replace"))
        elif isinstance(one, types.CodeType):
            waiting.extend(one.co_consts)
        elif isinstance(one, tuple | frozenset):
            waiting.extend(one)
    return found


def looked_up(code: types.CodeType) -> set[str]:
    """Those of its :func:`names` that are looked up in the module (others are attributes).

    Also where the code sets them, but for a module that it imports there.
    """
    found: dict[str, set[str]] = {"LOAD": set(), "STORE": set(), "IMPORT": set()}
    is_import = False
    for instruction in dis.get_instructions(code):
        kind, _, scope = instruction.opname.partition("_")
        is_import = kind == "IMPORT" or (is_import and instruction.opname.startswith(_NAMING))
        if kind in ("LOAD", "STORE") and scope in ("GLOBAL", "NAME"):
            found["IMPORT" if is_import else kind].add(instruction.argval)
    brought = found["IMPORT"] - found["STORE"]
    return (found["LOAD"] - brought).union(*(looked_up(one) for one in _nested(code)))


def imported(code: types.CodeType, package: str | None) -> dict[str, bool]:
    """The modules that a function and the functions inside of it import when they run.

    Each with whether it is surely one: in ``from a import b``, ``a.b`` may be anything.
    """
    instructions = [one for one in dis.get_instructions(code) if one.opname != "EXTENDED_ARG"]
    found: dict[str, bool] = {}
    for number, instruction in enumerate(instructions):
        if instruction.opname == "IMPORT_NAME":
            level, names = (instructions[number - back].argval for back in (2, 1))
            try:
                name = importlib.util.resolve_name("." * level + instruction.argval, package)
            except ImportError:  # it fails, too, when it runs
                continue
            parts = name.split(".")
            found |= {".".join(parts[:end]): True for end in range(1, len(parts) + 1)}
            found = {f"{name}.{one}": False for one in names or ()} | found
    for one in _nested(code):
        within = imported(one, package)
        found |= {name: is_sure or found.get(name, False) for name, is_sure in within.items()}
    return found


def try_again() -> None:
    """Modules that raised when they were imported may have been mended."""
    _failing.clear()


def module_named(name: str, *, is_sure: bool = True) -> types.ModuleType | None:
    """The module of that name, imported where it is not yet; None for a library's, or for none.

    One of which that is not sure is none where its package has something else by that name: it stays.
    """
    package, _, last = name.rpartition(".")
    top = name.partition(".")[0]
    there = sys.modules.get(name)
    if name in _failing and there is None:
        return None
    try:
        if not is_sure and getattr(sys.modules.get(package), last, there) is not there:
            return None
        if top not in sys.modules:
            spec = importlib.util.find_spec(top)
            places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else [None]
            if spec is None or _is_installed(places):
                return None
        return None if is_external(top) else importlib.import_module(name)
    except ModuleNotFoundError:  # or it is the name of a function; another time it may be there
        return None
    except (Exception, SystemExit) as error:  # whatever is raised there
        if raised_by_handler(error):
            raise
        if not _is_half_there():
            _failing.add(name)
        return None


def module_of_ours(name: str) -> types.ModuleType | None:
    """The module of this package that has the name; None where it is the name of something else."""
    package, _, last = name.rpartition(".")
    try:
        held = vars(importlib.import_module(package)) if package else {}
        found = held[last] if last in held else importlib.import_module(name)
    except ImportError:  # or what it needs is not installed
        return None
    return found if isinstance(found, types.ModuleType) else None


def content(module: types.ModuleType) -> dict[str, Any]:
    """What stands in a module of one's own, by its names.

    Of ours is there, where it was sent to, a ``__getattr__`` that stands before its own: ``behind``.
    """
    held = vars(module)
    found = held.get("__getattr__")
    if found is None or not origin(found)[1] or not hasattr(found, "behind"):
        return held
    own = {} if found.behind is None else {"__getattr__": found.behind}
    return {name: one for name, one in held.items() if name != "__getattr__"} | own


def _is_half_there() -> bool:
    """Whether a module of one's own is being imported: another that needs it fails for that alone."""
    specs = ((name, getattr(one, "__spec__", None)) for name, one in [*sys.modules.items()])
    return any(
        getattr(spec, "_initializing", False) and not is_external(name) for name, spec in specs
    )


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    return (one for one in code.co_consts if isinstance(one, types.CodeType))


def bytecode(code: types.CodeType) -> list[object]:
    """What a code object does, without where it stands."""
    constants = [
        bytecode(one) if isinstance(one, types.CodeType) else repr(one)
        for one in code.co_consts
        if not isinstance(one, frozenset)
    ]
    sets = [sorted(map(repr, one)) for one in code.co_consts if isinstance(one, frozenset)]
    return [
        code.co_name, code.co_code.hex(), constants, sets, list(code.co_names),
        list(code.co_varnames), list(code.co_freevars), code.co_argcount, code.co_kwonlyargcount,
        *([code.co_exceptiontable.hex()] if code.co_exceptiontable else []),
    ]  # fmt: skip


def lines_of(file: str, module: dict[str, Any] | None = None) -> list[str]:
    """The lines of a source file or of a notebook's cell; empty where they are not at hand.

    ``module``: what stands in the module made of the file, whose loader knows those within an archive.
    """
    linecache.checkcache(file)
    return linecache.getlines(file, module)


def source(code: types.CodeType, key: Key, module: dict[str, Any]) -> str | None:
    """Source of a function without comments and docstrings, if it is what the code was made of.

    It is remembered: a file may be edited while its code is at work. What was sent to this process is told
    by its :func:`key_of`; what is imported anew is read anew, for its decorators, defaults and annotations
    are not in the key. ``module`` is that of :func:`lines_of`.
    """
    if id(code) not in _looked_at:
        if (found := sent.get(key) or _read(code, module) or known.get(key)) is None:
            return None
        known[key] = found
        _looked_at[id(code)] = code, found
    return _looked_at[id(code)][1]


def key_of(code: types.CodeType) -> Key:
    """By which the source of a function is remembered, here and where it is sent to."""
    content = hashlib.sha256(repr(bytecode(code)).encode()).hexdigest()
    return code.co_filename, code.co_firstlineno, code.co_name, content


def _read(code: types.CodeType, module: dict[str, Any]) -> str | None:
    lines = lines_of(code.co_filename, module)
    if not lines:
        return None
    text = "".join(lines)
    try:
        tree, compiled = _parsed(text, code.co_filename)
    except (SyntaxError, ValueError):
        return None
    same = [one for one in compiled if one.co_firstlineno == code.co_firstlineno]
    if not any(bytecode(one) == bytecode(code) for one in same):
        return None
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, kinds)
        and min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        == code.co_firstlineno
        and getattr(node, "name", "<lambda>") == code.co_name
    ]
    return ast.unparse(found[0]) if len(found) == 1 else None


@functools.lru_cache(maxsize=64)
def _parsed(text: str, file: str) -> tuple[ast.Module, list[types.CodeType]]:
    """A file as a tree without docstrings, and every code object that it makes."""
    found, flags = [], ast.PyCF_ALLOW_TOP_LEVEL_AWAIT  # as notebooks do
    with warnings.catch_warnings():  # they were said when it was imported
        warnings.simplefilter("ignore")
        waiting = [compile(text, file, "exec", flags=flags, dont_inherit=True)]
    while waiting:
        found.append(waiting.pop())
        waiting.extend(_nested(found[-1]))
    tree = ast.parse(text)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body[0] = ast.Pass()
    return tree, found
