"""How one's own losses, recipes, models, data sets and samplers come to another process.

What travels is what enters the run's identity (:func:`hml_core.config.identity.used`), by value: the other
process needs none of its modules, and works with the code that is at work here, whatever its files say.
There the identity is computed again and compared.
"""

from __future__ import annotations

import contextlib
import functools
import io
import linecache
import pickle
import sys
import threading
import types
import typing
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hml_core import sampling
from hml_core.config import RunConfig, identity
from hml_core.config.identity import Own
from hml_core.errors import ConfigError, RunError, raised_by_handler
from hml_core.system import fingerprints, registries, sources
from hml_core.trainer.branches import Point


@dataclass(frozen=True)
class Entry:
    """Something of one's own, pickled."""

    own: Own
    content: bytes
    is_needed: bool  # by the run itself, rather than by one that parts from it
    imported: tuple[str, ...] = ()  # modules that its functions import when they run


@dataclass(frozen=True)
class Bundle:
    """What a run needs beside this package.

    Parameters
    ----------
    run_id : str
        As the sender knows it.
    entries : tuple of Entry
        Of the registries; empty where the run uses nothing of one's own.
    sources : mapping
        Sources of the functions, by which the code is recognised.
    lines : mapping
        Those of the files, for who reads where an error comes from.
    """

    run_id: str
    entries: tuple[Entry, ...] = ()
    sources: Mapping[sources.Key, str] = field(default_factory=dict)
    lines: Mapping[str, list[str]] = field(default_factory=dict)


def pack(config: RunConfig, parting: Iterable[RunConfig] = ()) -> Bundle:
    """What of one's own the run uses, to be sent; and what those use that part from it on the way.

    Raises
    ------
    ConfigError
        For what cannot be pickled, such as a class that holds an open file.
    """
    entries: dict[Own, Entry] = {}
    found: dict[sources.Key, str] = {}
    lines: dict[str, list[str]] = {}
    for one in (config, *parting):
        for own, code in identity.code_of(one):
            if own not in entries:
                content = _pickled(own, code)
                entries[own] = Entry(own, content, one is config, tuple(code.imported))
                found |= code.sources
                lines |= {file: sources.lines_of(file) for file in code.files}
    return Bundle(config.run_id, tuple(entries.values()), found, lines)


def _pickled(own: Own, code: fingerprints.Code) -> bytes:
    function = sampling.function_of(own.name) if own.kind == "sampler" else None
    modules = code.modules | {*code.imported}
    by_value = (modules & {*sys.modules}) - {"__main__"}  # its content always is
    taken = {name: code.taken.get(name, set()) for name in by_value}
    try:
        with _by_value(by_value):
            # All at once: what several of them hold is one object there, too.
            return _dumped((own.entry, function, code.imported), taken)
    except Exception as error:  # whatever somebody's own objects raise
        raise ConfigError(f"The {own} cannot be sent to another process: {error}") from error


# cloudpickle keeps one list of the modules that go by value, for all threads.
_packing = threading.RLock()


@contextlib.contextmanager
def _by_value(modules: set[str]) -> Iterator[None]:
    """Inside the block cloudpickle takes along what is of these modules."""
    import cloudpickle

    with _packing:
        added = modules - {*cloudpickle.list_registry_pickle_by_value()}
        try:
            for name in added:
                cloudpickle.register_pickle_by_value(sys.modules[name])
            yield
        finally:
            for name in added & {*cloudpickle.list_registry_pickle_by_value()}:
                cloudpickle.unregister_pickle_by_value(sys.modules[name])


def _dumped(value: Any, taken: Mapping[str, set[str]], *, with_rest: bool = True) -> bytes:
    """The bytes of :func:`_pickler`.

    Parameters
    ----------
    taken : mapping
        The modules of one's own that go by value, and which names of them are used.
    with_rest : bool
        Also what else they hold, as long as it can be sent: code may ask for it by ``getattr``.
    """
    stream = io.BytesIO()
    _pickler(stream, taken, with_rest).dump(value)
    return stream.getvalue()


def _pickler(stream: io.BytesIO, taken: Mapping[str, set[str]], with_rest: bool) -> Any:
    """cloudpickle's, that takes along what it leaves out, of what people's code is made of.

    Code keeps the file by which its source is found (dropped from cloudpickle 3.1.3 on); classes keep
    their full name (``make.<locals>.Mine``), as functions do, and their slots; modules of one's own may
    hold each other; cached functions and properties go by value, without what they keep. This package's
    registries are those of the process that unpacks it.
    """
    import cloudpickle

    reduce = cloudpickle.Pickler.dispatch_table[types.CodeType]

    def with_file(code: types.CodeType) -> tuple:
        make, arguments = reduce(code)
        told = (code.co_filename if value == "<dynamic-code>" else value for value in arguments)
        return make, tuple(told)

    class Pickler(cloudpickle.Pickler):
        dispatch_table = cloudpickle.Pickler.dispatch_table.new_child({types.CodeType: with_file})

        def persistent_id(self, thing: Any) -> tuple[str, str] | None:
            return registries.name_of(thing) if isinstance(thing, dict) else None

        def reducer_override(self, thing: Any) -> Any:
            if isinstance(thing, types.ModuleType) and thing.__name__ in taken:
                state = _content(thing, taken), _rest(thing, taken) if with_rest else {}
                return types.ModuleType, (thing.__name__,), state, None, None, _fill
            if not with_rest and _stays(thing, taken):
                raise pickle.PicklingError(f"{thing!r} is of a module that nobody asks for")
            if isinstance(thing, functools._lru_cache_wrapper) and not sources.is_external(
                thing.__module__
            ):
                return _cached, (thing.__wrapped__, thing.cache_parameters())
            if isinstance(thing, typing.NewType):
                return typing.NewType, (thing.__name__, thing.__supertype__)
            if isinstance(thing, functools.cached_property):
                return _cached_property, (thing.func, thing.attrname)
            if isinstance(thing, weakref.WeakKeyDictionary | weakref.WeakValueDictionary):
                return type(thing), ()  # a cache, such as that of `functools.singledispatch`
            told = super().reducer_override(thing)
            if isinstance(thing, type) and isinstance(told, tuple) and len(told) == 6:  # by value
                _complete(thing, *told[1:3])
            return told

    return Pickler(stream)


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, name: tuple[str, str]) -> Any:
        kind, part = name
        return getattr(registries.known[kind], part)


def _loaded(content: bytes) -> Any:
    return _Unpickler(io.BytesIO(content)).load()


def _complete(kind: type, arguments: tuple, state: tuple[dict[str, Any], Any]) -> None:
    """Add to what cloudpickle makes a class anew of: its full name, and its slots before its objects."""
    attributes, _ = state
    attributes.setdefault("__qualname__", kind.__qualname__)
    given = arguments[3] if len(arguments) > 3 else None  # what stands in its body
    if attributes.get("__slots__") and isinstance(given, dict):
        slots = attributes.pop("__slots__")
        # (What a class can be given once is perhaps its base's by now.)
        given["__slots__"] = (
            slots if isinstance(slots, str) else [one for one in slots if one != "__weakref__"]
        )
        for name, member in [*attributes.items()]:
            if isinstance(member, types.MemberDescriptorType):
                del attributes[name]


def _cached(function: Callable[..., Any], parameters: Mapping[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def _cached_property(function: Callable[..., Any], name: str) -> functools.cached_property:
    made = functools.cached_property(function)
    made.__set_name__(object, name)
    return made


def _content(module: types.ModuleType, taken: Mapping[str, set[str]]) -> dict[str, Any]:
    """What the code asks a module for."""
    return {name: value for name, value in vars(module).items() if name in taken[module.__name__]}


def _rest(module: types.ModuleType, taken: Mapping[str, set[str]]) -> dict[str, bytes]:
    """What else it holds and can be sent, each by itself; but for modules of one's own."""
    rest = {}
    for name, value in vars(module).items():
        is_own = isinstance(value, types.ModuleType) and not sources.is_external(value.__name__)
        if name in taken[module.__name__] or name.startswith("__") or is_own:
            continue
        try:
            rest[name] = _dumped(value, taken, with_rest=False)
        except Exception as error:  # whatever somebody's own objects raise
            if raised_by_handler(error):
                raise
    return rest


def _stays(thing: Any, taken: Mapping[str, set[str]]) -> bool:
    """Whether it is, or is of, a module of one's own that does not go by value."""
    if not isinstance(thing, type | types.FunctionType | types.ModuleType):
        return False
    module = thing.__name__ if isinstance(thing, types.ModuleType) else thing.__module__
    return module not in taken and module != "__main__" and not sources.is_external(module)


def _fill(module: types.ModuleType, state: tuple[Mapping[str, Any], Mapping[str, bytes]]) -> None:
    """Give a module what was sent of it. What nobody may ask for is unpacked when somebody does."""
    content, rest = state
    answers = content.get("__getattr__")  # the module's own: asked for what does not stand in it

    def asked_for(name: str) -> Any:
        if name in rest:
            vars(module)[name] = _loaded(rest[name])
            return vars(module)[name]
        if answers is not None:
            return answers(name)
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    vars(module).update(content)
    if rest:
        asked_for.behind = answers  # which is part of the code, and this is not
        vars(module)["__getattr__"] = asked_for


@contextlib.contextmanager
def installed(bundle: Bundle) -> Iterator[None]:
    """In another process: what was sent is registered inside the block, and gone after it.

    Raises
    ------
    RunError
        For what the run itself needs and this process cannot unpack.
    """
    before = {kind: dict(registry) for kind, registry in identity.REGISTRIES.items()}
    functions, modules = dict(sampling._OWN), dict(sys.modules)
    try:
        sources.sent.update(bundle.sources)
        for file, lines in bundle.lines.items():
            if lines:  # without a time: the file of that name here may be another
                linecache.cache[file] = (sum(map(len, lines)), None, lines, file)
        for entry in bundle.entries:
            _install(entry)
        yield
    finally:
        for kind, registry in identity.REGISTRIES.items():
            registry.clear()
            registry.update(before[kind])
        sources.sent.clear()
        sampling._OWN.clear()
        sampling._OWN.update(functions)
        for name in {name for entry in bundle.entries for name in entry.imported}:
            sys.modules.pop(name, None)
            sys.modules.update({name: modules[name]} if name in modules else {})


def _install(entry: Entry) -> None:
    try:
        value, function, imported = _loaded(entry.content)
        sys.modules.update(imported)  # which its functions import when they run
    except Exception as error:  # whatever somebody's own objects raise
        if not entry.is_needed:
            return
        raise RunError(f"The {entry.own} cannot be unpacked by this process: {error!r}") from error
    identity.REGISTRIES[entry.own.kind][entry.own.name] = value
    if function is not None:
        sampling._OWN[entry.own.name] = function


def require_same(bundle: Bundle, config: RunConfig) -> None:
    """Refuse a run that is another one here than for the sender.

    Raises
    ------
    RunError
    """
    if config.run_id != bundle.run_id:
        raise RunError(
            f"The run {bundle.run_id} is {config.run_id} here: expected the same code of own methods and "
            "the same versions of Python and of this package as where it was sent from."
        )


def known_here(points: Iterable[Point]) -> tuple[Point, ...]:
    """The points, without the runs that this process knows not enough of to evaluate for them."""
    return tuple(replace(point, views=tuple(filter(_is_known, point.views))) for point in points)


def _is_known(config: RunConfig) -> bool:
    try:
        return bool(config.run_id)
    except ConfigError:
        return False
