"""The code behind a class or function, followed through all that it uses: :class:`Code`."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import enum
import functools
import hashlib
import json
import types
import typing
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from hml_core.errors import ConfigError
from hml_core.system import registries, sources
from hml_core.system.values import NoIdentityError, Values, text

_CLASS_MACHINERY = {
    "__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__",
    "__firstlineno__", "__static_attributes__", "__parameters__", "__orig_bases__",
    "__abstractmethods__", "_abc_impl", "__slots__", "__match_args__", "__hash__",
    "__dataclass_fields__", "__dataclass_params__", "__annotate_func__", "__annotations_cache__",
    "__slotnames__",  # which copying or pickling an object of the class writes there
}  # fmt: skip
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_PLACES = {"__name__", "__file__", "__package__", "__spec__", "__loader__"}  # where code lies
# What code may ask about code, and by which names.
_ASKED = {
    "__annotations__": {"__annotations__", "get_type_hints", "get_annotations"},
    "__doc__": {"__doc__", "getdoc"},
}


def _is_plain(value: Any) -> bool:
    if type(value) in (tuple, frozenset):
        return all(map(_is_plain, value))
    return type(value) in _PLAIN


class _Names(Values):
    """Code by its name, and a function by what it was made with: quickly told, but not what it does."""

    is_in_order = is_lenient = True

    def of_code(self, thing: Any, where: str) -> Any:
        made_with = []
        if isinstance(thing, types.FunctionType) and id(thing) not in self._open:
            self._open.add(id(thing))  # it may hold itself
            made_with = self.plain([[*_closure(thing)], [*_defaults(thing)]], where)
            self._open.discard(id(thing))
        return ["code", getattr(thing, "__qualname__", ""), *made_with]


class Code(Values):
    """The code behind a class or function: its own, and that of all it uses outside of libraries.

    A function counts by its source without comments and docstrings; where the source is not at hand or
    not what runs (code from ``exec``, a file that was edited before anybody looked), by its bytecode,
    which another version of Python may make another. A class counts by its bases and attributes. What they
    name is followed: functions, classes, and values, which must be such as
    :func:`hml_core.system.fingerprints.of_value` takes.

    Attributes
    ----------
    parts : dict
        Text of each piece of code, by its name.
    modules : set of str
        Where the pieces come from, other than libraries.
    files : set of str
        Their source files, as the code objects name them.
    sources : dict
        The sources of its functions, as they were found first.
    imported : dict
        Modules that functions import when they run, by their names.
    taken : dict
        What is looked up in modules of one's own, by their names.
    registered : set
        What of one's own it asks a registry for: kind and name.
    """

    is_in_order = True

    def __init__(self, where: str, follows_imports: bool = True) -> None:
        super().__init__()
        self.where, self.follows_imports = where, follows_imports
        self.imported: dict[str, types.ModuleType] = {}
        self.root: Any = None
        self.thing: Any = None  # that it is the code of
        self.parts: dict[str, str] = {}
        self.modules: set[str] = set()
        self.taken: dict[str, set[str]] = {}
        self.names: set[str] = set()  # that are looked up anywhere
        self.texts: set[str] = set()  # that stand anywhere
        self.asked: set[str] = set()  # registries that are at hand, by kind
        self.registered: set[tuple[str, str]] = set()
        self._held: dict[str, types.ModuleType] = {}
        self._ours: dict[str, types.ModuleType] = {}
        self._being_ordered: frozenset[int] = frozenset()  # sets, by their ids
        # What a thing is by itself, by its id and those of the sets; it and its set live on.
        self._told_apart: dict[tuple[int, frozenset[int]], tuple[str, Any]] = {}
        self.files: set[str] = set()
        self.sources: dict[sources.Key, str] = {}
        self._names: dict[int, str] = {}
        self._added_leniently: set[int] = set()
        self._kept: list[Any] = []  # ids are those of living objects

    @property
    def digest(self) -> str:
        """SHA-256 over all of it."""
        return hashlib.sha256(text([self.root, self.parts]).encode()).hexdigest()

    def add(self, thing: Any) -> str:
        """Take in a piece of code with all it uses; the name that stands for it."""
        if (kind := registries.asked_by(thing)) is not None:
            self.ask(kind)
        is_again = id(thing) in self._added_leniently and not self.is_lenient
        if id(thing) in self._names and not is_again:
            return self._names[id(thing)]
        module, external = sources.origin(thing)
        name = self._names.get(id(thing)) or self._new_name(thing, f"{module}." if external else "")
        self._names[id(thing)] = name
        self._kept.append(thing)
        if external and not getattr(thing, "__closure__", None):
            return name
        self.parts[name] = ""
        (self._added_leniently.add if self.is_lenient else self._added_leniently.discard)(id(thing))
        if not external and module is not None:
            self.modules.add(module)
        is_class = isinstance(thing, type)
        try:
            found = self._of_class(thing) if is_class else self._of_function(thing, external)
        except NoIdentityError as error:
            # It is not known then: asked again, it is refused again.
            del self._names[id(thing)], self.parts[name]
            error.is_of_own_code |= not external
            raise
        self.parts[name] = text(found)
        return name

    def _new_name(self, thing: Any, library: str) -> str:
        """Not with one's own module's name: the same code in a notebook and in a file is the same."""
        name = library + thing.__qualname__
        while name in self.parts:
            name += "'"
        return name

    def of_code(self, thing: Any, where: str) -> Any:
        return ["code", self.add(thing)]

    def note(self, said: str) -> None:
        self.texts.add(said)

    def ask(self, kind: str) -> None:
        self.asked.add(kind)

    def hold(self, module: types.ModuleType) -> None:
        """Take note of a module that a value holds: what is looked up in it is not known yet."""
        if sources.is_ours(module.__name__):
            self._ours[module.__name__] = module
        elif not sources.is_external(module.__name__):
            self._held[module.__name__] = module

    def in_order(self, value: Collection[Any]) -> Iterable[Any]:
        """Code of one name, which is told apart by which comes first, by what it is by itself."""
        if all(map(_is_plain, value)):
            return value
        names = _Names()
        alike: dict[str, list[Any]] = {}
        for one in value:
            alike.setdefault(text(names.plain(one, self.where)), []).append(one)
        for same in alike.values():
            if len(same) > 1 and id(value) in self._being_ordered:
                same.clear()  # nothing is known of their order, and it must not tell the order
            elif len(same) > 1:
                same.sort(key=functools.partial(self._by_itself, within=value))
        return [one for name in sorted(alike) for one in alike[name]]

    def _by_itself(self, thing: Any, within: Collection[Any]) -> str:
        being_ordered = self._being_ordered | {id(within)}  # its code may use the set
        known = self._told_apart
        if (key := (id(thing), being_ordered)) not in known:
            code = Code(self.where, self.follows_imports)
            code.is_lenient = True
            code._being_ordered, code._told_apart = being_ordered, known
            found = code.plain(thing, self.where)
            known[key] = text([found, code.parts]), (thing, within)
        return known[key][0]

    def complete(self) -> None:
        """Take in what is known only once all code is: which names it looks up."""
        self._look_into_modules()
        while self._look_into_registries():
            self._look_into_modules()
        for asked, by in _ASKED.items():
            for thing in [*self._kept] if self.names & by else ():
                if id(thing) not in self._names or sources.origin(thing)[1]:
                    continue
                held = vars(thing) if isinstance(thing, type) else {asked: getattr(thing, asked)}
                said = held.get(asked)
                parts = {
                    name: self._of_annotation(one)
                    for name, one in (said.items() if isinstance(said, dict) else [("", said)])
                }
                self.parts[f"{self._names[id(thing)]}.{asked}"] = json.dumps(parts)

    def _of_annotation(self, value: Any) -> Any:
        try:
            return self.used(value, "an annotation")
        except ConfigError:
            return type(value).__qualname__

    def _look_into_modules(self) -> None:
        """What may be looked up in the modules that values hold, and in theirs."""
        seen = {(name, key) for name, keys in self.taken.items() for key in keys}
        while new := [
            (module, key)
            for module in self._held.values()
            for key in _looked_up_in(module, self.names)
            if (module.__name__, key) not in seen
        ]:
            for module, key in new:
                name = f"{module.__name__}.{key}"
                seen.add((module.__name__, key))
                found = self._perhaps_used(sources.content(module)[key], name)
                self.parts[f"held {name}"] = text(found)
                self.modules.add(module.__name__)
                self.taken.setdefault(module.__name__, set()).add(key)

    def _perhaps_used(self, value: Any, name: str) -> Any:
        """It may be of something else that the name is looked up: what has no identity is not refused."""
        try:
            return self._of_global(value, self.names, name)
        except NoIdentityError:
            self.is_lenient = True
            try:
                return self._of_global(value, self.names, name)
            finally:
                self.is_lenient = False

    def _look_into_registries(self) -> bool:
        """Take in what of one's own the code asks a registry for by name; whether there was any."""
        self._look_into_ours()
        new = [
            (kind, name, registry)
            for kind, registry in sorted(registries.known.items())
            if kind in self.asked or (self.names | self.texts) & registry.asked
            for name in sorted(self.texts & {*filter(registry.is_own, registry.entries)})
            if (kind, name) not in self.registered and registry.code(name) is not self.thing
        ]
        for kind, name, registry in new:
            self.registered.add((kind, name))
            found = self.used(registry.code(name), f"the {kind} {name!r}")
            self.parts[f"{kind} {name}"] = text(found)
        return bool(new)

    def _look_into_ours(self) -> None:
        """Which registries may be asked by way of the modules of this package that are at hand."""
        waiting, seen = {**self._ours}, set()
        while waiting:
            place, module = waiting.popitem()
            seen.add(place)
            for name in (self.names | self.texts) & {*vars(module)}:
                value = vars(module)[name]
                if (kind := registries.asked_by(value)) is not None:
                    self.ask(kind)
                elif isinstance(value, types.ModuleType) and sources.is_ours(value.__name__):
                    waiting |= {value.__name__: value} if value.__name__ not in seen else {}

    def _of_class(self, kind: type) -> dict[str, Any]:
        annotated = vars(kind).get("__annotations__")  # of a type of Python's it is a descriptor
        fields = annotated if isinstance(annotated, dict) else ()
        for name in (kind.__name__, *_members(kind), *fields):
            self.note(name)
        members = {
            name: self._of_member(value, f"`{kind.__qualname__}.{name}`")
            for name, value in sorted(_members(kind).items())
            if name not in _CLASS_MACHINERY or (name == "__hash__" and _is_written(kind, value))
        }
        if "__match_args__" in vars(kind) and not dataclasses.is_dataclass(kind):
            members["__match_args__"] = self.used(kind.__match_args__, "`__match_args__`")
        bases = [self.add(base) for base in kind.__bases__ if base is not object]
        found = {"bases": bases, "members": members}
        if sources.is_own(type(kind)):
            found["metaclass"] = self.add(type(kind))
        return found

    def _of_member(self, value: Any, what: str) -> Any:
        if isinstance(value, staticmethod | classmethod):
            return [type(value).__name__, self._of_callable(value.__func__, what)]
        if isinstance(value, property):
            parts = (value.fget, value.fset, value.fdel)
            return ["property", *(part and self._of_callable(part, what) for part in parts)]
        if isinstance(value, functools.cached_property):
            return ["cached_property", self._of_callable(value.func, what)]
        if isinstance(value, functools.partialmethod):
            parts = [value.args, dict(sorted(value.keywords.items()))]
            return ["partialmethod", self.used(value.func, what), self.used(parts, what)]
        if isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType):
            return "slot"
        if isinstance(value, collections._tuplegetter):
            return "field"
        return self.used(value, what)

    def _of_callable(self, value: Any, what: str) -> Any:
        is_code = isinstance(value, types.FunctionType | type)
        return self.add(value) if is_code else self.used(value, what)

    def _of_function(self, function: types.FunctionType, external: bool) -> dict[str, Any]:
        code, module = function.__code__, function.__globals__
        names = sources.names(code)
        content: dict[str, Any] = {}
        if not external:
            self.files.add(code.co_filename)
            self.names |= names
            self.texts |= {function.__name__, *sources.texts(code)}
            key = sources.key_of(code)
            if (said := sources.source(code, key, module)) is not None:
                self.sources[key] = said
            content["source"] = said or ["bytecode", *sources.bytecode(code)]
        named = {}
        for name in [] if external else sorted(sources.looked_up(code)):
            if name in module and name not in _PLACES:
                named[name] = self._of_global(module[name], names, name)
        if self.follows_imports and not external:
            wanted = sorted(sources.imported(code, module.get("__package__")).items())
            for name in (one for one, _ in wanted if sources.is_ours(one)):
                if (one := sources.module_of_ours(name)) is not None:
                    self.hold(one)
            found = {name: sources.module_named(name, is_sure=sure) for name, sure in wanted}
            brought = {name: one for name, one in found.items() if one is not None}
            self.imported |= brought
            for name, one in brought.items():  # once all are there: packages hold their parts
                named[f"import {name}"] = self._of_global(one, names, name)
        for name, held in _closure(function):
            try:
                named[f"closure {name}"] = self.used(held, f"`{name}`")
            except NoIdentityError as error:  # a library's decorator holds what it likes
                if not external or error.is_of_own_code:
                    raise
        defaults = {
            name: self.used(default, f"`{name}` of {function.__qualname__}")
            for name, default in _defaults(function)
        }
        return {**content, "uses": named, "defaults": defaults}

    def _of_global(
        self, value: Any, names: set[str], name: str, within: frozenset[str] = frozenset()
    ) -> Any:
        """What stands under a name of a module; of a module of one's own, what ``names`` look up in it."""
        if isinstance(value, types.FunctionType):
            plain, held = self.used(value, f"`{name}`"), {}
            for key in sorted(names & {*vars(value)}):
                try:
                    held[key] = self.used(vars(value)[key], f"`{name}.{key}`")
                except NoIdentityError as error:  # such as a lock
                    if error.is_of_own_code:
                        raise
            return [plain, dict(sorted(held.items()))] if held else plain
        if not isinstance(value, types.ModuleType):
            return self.used(value, f"`{name}`")
        if sources.is_external(value.__name__) or value.__name__ in within:
            self.hold(value)
            return ["module", value.__name__]
        self.modules.add(value.__name__)
        within |= {value.__name__}  # modules of a package may hold each other
        held, taken = sources.content(value), _looked_up_in(value, names)
        self.taken.setdefault(value.__name__, set()).update(taken)
        self.hold(value)  # in another function, by way of an attribute, more may be
        return {key: self._of_global(held[key], names, f"{name}.{key}", within) for key in taken}

    def used(self, value: Any, what: str) -> Any:
        """A value that code uses, in JSON types."""
        return self.plain(value, f"{self.where} uses {what}, which")


def _looked_up_in(module: types.ModuleType, names: set[str]) -> list[str]:
    """Those of the names that stand in the module, and what it has to answer others with."""
    held = sources.content(module)
    answers = held.get("__getattr__")
    more = {"__getattr__"} if answers is not None and not sources.origin(answers)[1] else set()
    return sorted(key for key in names | more if key in held)


def _closure(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What it holds of the function that it was made in, but for what is not there yet."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):
            yield name, cell.cell_contents


def _defaults(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Its own, and not those of what it wraps (as `inspect.signature` has them)."""
    code, given = function.__code__, function.__defaults__ or ()
    positional = code.co_varnames[: code.co_argcount]
    yield from zip(positional[len(positional) - len(given) :], given, strict=True)
    yield from (function.__kwdefaults__ or {}).items()


def _members(kind: type) -> dict[str, Any]:
    """What stands in a class, without what its use writes there."""
    held = dict(vars(kind))
    if issubclass(kind, enum.Flag):  # combined ones
        by_value = held.get("_value2member_map_", {}).items()
        held["_value2member_map_"] = {
            value: one for value, one in by_value if one.name in kind.__members__
        }
    if typing.Protocol in kind.__mro__:  # its bases' `__init__`, from the first object on
        bases = kind.__mro__[1:]
        if any(held.get("__init__") is vars(base).get("__init__", held) for base in bases):
            del held["__init__"]
    return held


def _is_written(kind: type, value: Any) -> bool:
    """Whether somebody wrote the method, rather than a decorator for data classes."""
    return isinstance(value, types.FunctionType) and not dataclasses.is_dataclass(kind)
