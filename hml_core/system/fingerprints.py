"""What values and code are, as text that is the same in every process: :func:`of_value`, :func:`of_code`.

``repr`` is none: that of a function holds an address, that of a long array leaves its middle out.

>>> of_value({"gamma": 2.0, "by_class": (1, True, None)})
'{"by_class":[1,true,null],"gamma":2.0}'
"""

from __future__ import annotations

import argparse
import builtins
import collections
import contextlib
import dataclasses
import enum
import functools
import hashlib
import json
import logging
import math
import re
import sys
import types
import typing
import weakref
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import nn

from hml_core.errors import ConfigError
from hml_core.system import registries, sources

_TOLD_BY_REPR = {
    "typing", "types", "_operator", "operator", "torch", "datetime", "decimal", "fractions", "dataclasses",
}  # fmt: skip
_CLASS_MACHINERY = {
    "__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__",
    "__firstlineno__", "__static_attributes__", "__parameters__", "__orig_bases__",
    "__abstractmethods__", "_abc_impl", "__slots__", "__match_args__", "__hash__",
    "__dataclass_fields__", "__dataclass_params__", "__annotate_func__", "__annotations_cache__",
    "__slotnames__",  # which copying or pickling an object of the class writes there
}  # fmt: skip
_NAMESPACES = (argparse.Namespace, types.SimpleNamespace)
_EMPTY = vars(nn.Module())
_PLACES = {"__name__", "__file__", "__package__", "__spec__", "__loader__"}  # where code lies
# What code may ask about code, and by which names.
_ASKED = {
    "__annotations__": {"__annotations__", "get_type_hints", "get_annotations"},
    "__doc__": {"__doc__", "getdoc"},
}
_HOLDERS = (int, float, complex, str, bytes, list, tuple, set, frozenset, dict)
_PLAIN_MAPPINGS = (dict, collections.OrderedDict, types.MappingProxyType)
_PLAIN_ARRAYS = (np.ndarray, np.memmap)
_INDICES = {  # of a compressed sparse tensor: what it holds beside its values
    torch.sparse_csr: (torch.Tensor.crow_indices, torch.Tensor.col_indices),
    torch.sparse_bsr: (torch.Tensor.crow_indices, torch.Tensor.col_indices),
    torch.sparse_csc: (torch.Tensor.ccol_indices, torch.Tensor.row_indices),
    torch.sparse_bsc: (torch.Tensor.ccol_indices, torch.Tensor.row_indices),
}
_DESCRIPTORS = (
    types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType,
    types.MethodWrapperType,
)  # fmt: skip


class NoIdentityError(ConfigError):
    """A value that is not the same in the next process.

    Attributes
    ----------
    is_of_own_code : bool
        Whether code of one's own uses it, rather than an object of a library that holds what it likes.
    """

    is_of_own_code = False


def of_value(value: Any, where: str = "The value") -> str:
    """Canonical text of an option: plain values, arrays and tensors by their bytes, code by its source.

    Raises
    ------
    ConfigError
        Starting with ``where``, for a value that is not the same in the next process: a lambda, an open
        file, an object of a library.
    """
    with _ends(where):
        return _text(_plain(value, where, None))


def of_code(thing: Any, where: str = "The object", *, follows_imports: bool = True) -> Code:
    """What a class or function (or a partial of one) does; see :class:`Code`."""
    code = Code(where, follows_imports)
    with _ends(where):
        code.root = _plain(thing, where, code)
        code.complete()
    return code


@contextlib.contextmanager
def _ends(where: str) -> Iterator[None]:
    try:
        yield
    except RecursionError as error:
        raise ConfigError(
            f"{where} holds itself, or something that holds it, and has no identity that the next process "
            "could compare: expected values without a circle."
        ) from error


@contextlib.contextmanager
def unchanged(thing: Any, where: str) -> Iterator[None]:
    """Code that is tried inside the block is the same after it.

    Raises
    ------
    ConfigError
        For code that changes a value which it reads as well, such as a counter of its module.
    """
    # (What is imported within a function may only then be found: it is not compared here.)
    sources.try_again()
    before = of_code(thing, where, follows_imports=False).parts
    yield
    after = of_code(thing, where, follows_imports=False).parts
    if changed := [name for name in after if before.get(name) != after[name]]:
        raise ConfigError(
            f"{where} changes, while it works, a value of its module or class that `{changed[0]}` reads: "
            "it would be another run after each step. Expected a result of its arguments alone "
            "(`functools.cache` keeps what is computed once)."
        )


class Code:
    """The code behind a class or function: its own, and that of all it uses outside of libraries.

    A function counts by its source without comments and docstrings; where the source is not at hand or
    not what runs (code from ``exec``, a file that was edited before anybody looked), by its bytecode,
    which another version of Python may make another. A class counts by its bases and attributes. What they
    name is followed: functions, classes, and values, which must be such as :func:`of_value` takes.

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

    def __init__(self, where: str, follows_imports: bool = True) -> None:
        self.where, self.follows_imports = where, follows_imports
        self.imported: dict[str, types.ModuleType] = {}
        self.root: Any = None
        self.parts: dict[str, str] = {}
        self.modules: set[str] = set()
        self.taken: dict[str, set[str]] = {}
        self.names: set[str] = set()  # that are looked up anywhere
        self.texts: set[str] = set()  # that stand anywhere
        self.registered: set[tuple[str, str]] = set()
        self._held: dict[str, types.ModuleType] = {}
        self.open: set[int] = set()  # networks that are being gone through
        self.files: set[str] = set()
        self.sources: dict[sources.Key, str] = {}
        self._names: dict[int, str] = {}
        self.is_lenient = False  # what has no identity counts by its type
        self._added_leniently: set[int] = set()
        self._kept: list[Any] = []  # ids are those of living objects

    @property
    def digest(self) -> str:
        """SHA-256 over all of it."""
        return hashlib.sha256(_text([self.root, self.parts]).encode()).hexdigest()

    def add(self, thing: Any) -> str:
        """Take in a piece of code with all it uses; the name that stands for it."""
        is_again = id(thing) in self._added_leniently and not self.is_lenient
        if id(thing) in self._names and not is_again:
            return self._names[id(thing)]
        module, external = _origin(thing)
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
            del (
                self._names[id(thing)],
                self.parts[name],
            )  # it is not known: asked again, it is refused
            error.is_of_own_code |= not external
            raise
        self.parts[name] = _text(found)
        return name

    def _new_name(self, thing: Any, library: str) -> str:
        """Not with one's own module's name: the same code in a notebook and in a file is the same."""
        name = library + thing.__qualname__
        while name in self.parts:
            name += "'"
        return name

    def hold(self, module: types.ModuleType) -> None:
        """Take note of a module that a value holds: what is looked up in it is not known yet."""
        if not sources.is_external(module.__name__):
            self._held[module.__name__] = module

    def complete(self) -> None:
        """Take in what is known only once all code is: which names it looks up."""
        self._look_into_modules()
        while self._look_into_registries():
            self._look_into_modules()
        for asked, by in _ASKED.items():
            for thing in [*self._kept] if self.names & by else ():
                if id(thing) not in self._names or _origin(thing)[1]:
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
            return self.plain(value, "an annotation")
        except ConfigError:
            return type(value).__qualname__

    def _look_into_modules(self) -> None:
        """What may be looked up in the modules that values hold, and in theirs."""
        seen = {(name, key) for name, keys in self.taken.items() for key in keys}
        while new := [
            (module, key)
            for module in self._held.values()
            for key in sorted(self.names & {*vars(module)})
            if (module.__name__, key) not in seen
        ]:
            for module, key in new:
                name = f"{module.__name__}.{key}"
                seen.add((module.__name__, key))
                found = self._perhaps_used(vars(module)[key], name)
                self.parts[f"held {name}"] = _text(found)
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
        new = [
            (kind, name, registry)
            for kind, registry in registries.known.items()
            if self.names & registry.asked
            for name in sorted(self.texts & {*filter(registry.is_own, registry.entries)})
            if (kind, name) not in self.registered
        ]
        for kind, name, registry in new:
            self.registered.add((kind, name))
            found = self.plain(registry.code(name), f"the {kind} {name!r}")
            self.parts[f"{kind} {name}"] = _text(found)
        return bool(new)

    def _of_class(self, kind: type) -> dict[str, Any]:
        members = {
            name: self._of_member(value, f"`{kind.__qualname__}.{name}`")
            for name, value in sorted(_members(kind).items())
            if name not in _CLASS_MACHINERY or (name == "__hash__" and _is_written(kind, value))
        }
        if "__match_args__" in vars(kind) and not dataclasses.is_dataclass(kind):
            members["__match_args__"] = self.plain(kind.__match_args__, "`__match_args__`")
        bases = [self.add(base) for base in kind.__bases__ if base is not object]
        found = {"bases": bases, "members": members}
        if not sources.is_external(type(kind).__module__):
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
            return ["partialmethod", self.plain(value.func, what), self.plain(parts, what)]
        if isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType):
            return "slot"
        if isinstance(value, collections._tuplegetter):
            return "field"
        return self.plain(value, what)

    def _of_callable(self, value: Any, what: str) -> Any:
        is_code = isinstance(value, types.FunctionType | type)
        return self.add(value) if is_code else self.plain(value, what)

    def _of_function(self, function: types.FunctionType, external: bool) -> dict[str, Any]:
        code, module = function.__code__, function.__globals__
        names = sources.names(code)
        content: dict[str, Any] = {}
        if not external:
            self.files.add(code.co_filename)
            self.names |= names
            self.texts |= sources.texts(code)
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
            found = {name: sources.module_named(name, is_sure=sure) for name, sure in wanted}
            brought = {name: one for name, one in found.items() if one is not None}
            self.imported |= brought
            for name, one in brought.items():  # once all are there: packages hold their parts
                named[f"import {name}"] = self._of_global(one, names, name)
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        for name, cell in cells:
            try:
                held = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            try:
                named[f"closure {name}"] = self.plain(held, f"`{name}`")
            except NoIdentityError as error:  # a library's decorator holds what it likes
                if not external or error.is_of_own_code:
                    raise
        defaults = {
            name: self.plain(default, f"`{name}` of {function.__qualname__}")
            for name, default in _defaults(function)
        }
        return {**content, "uses": named, "defaults": defaults}

    def _of_global(
        self, value: Any, names: set[str], name: str, within: frozenset[str] = frozenset()
    ) -> Any:
        """What stands under a name of a module; of a module of one's own, what ``names`` look up in it."""
        if isinstance(value, types.FunctionType):
            plain, held = self.plain(value, f"`{name}`"), {}
            for key in names & {*vars(value)}:
                try:
                    held[key] = self.plain(vars(value)[key], f"`{name}.{key}`")
                except NoIdentityError as error:  # such as a lock
                    if error.is_of_own_code:
                        raise
            return [plain, dict(sorted(held.items()))] if held else plain
        if not isinstance(value, types.ModuleType):
            return self.plain(value, f"`{name}`")
        if sources.is_external(value.__name__) or value.__name__ in within:
            return ["module", value.__name__]
        self.modules.add(value.__name__)
        within |= {value.__name__}  # modules of a package may hold each other
        answers = vars(value).get("__getattr__")  # what it makes when it is asked
        more = {"__getattr__"} if answers is not None and not _origin(answers)[1] else set()
        taken = sorted(key for key in names | more if key in vars(value))
        self.taken.setdefault(value.__name__, set()).update(taken)
        self.hold(value)  # in another function, by way of an attribute, more may be
        return {
            key: self._of_global(vars(value)[key], names, f"{name}.{key}", within) for key in taken
        }

    def plain(self, value: Any, what: str) -> Any:
        """A value that code uses, in JSON types."""
        return _plain(value, f"{self.where} uses {what}, which", self)


def _plain(value: Any, where: str, code: Code | None) -> Any:
    """The value in JSON types; code becomes its name in ``code``, or its digest where there is none."""
    if isinstance(value, str) and code is not None:
        code.texts.add(str(value))
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else ["float", repr(value)]
    if isinstance(value, np.generic):
        return ["numpy", value.dtype.str, value.tobytes().hex()]
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return _refused(value, where, code)
        if (
            type(value) is not np.ndarray
            and vars(value)
            and not sources.is_external(type(value).__module__)
        ):  # (pickle leaves its attributes behind)
            return _refused(value, where, code)
        if isinstance(value, np.ma.MaskedArray):
            parts = value.data, np.ma.getmaskarray(value)
            return ["masked", *(_array("numpy", part) for part in parts)]
        found = _array("numpy", np.asarray(value))
        kind = [] if type(value) in _PLAIN_ARRAYS else [_plain(type(value), where, code)]
        return [found, *kind] if kind else found
    if isinstance(value, torch.Tensor):
        try:
            return _of_tensor(value, where, code)
        except (RuntimeError, NotImplementedError):  # on no device, or of other tensors
            return _refused(value, where, code)
    if type(value) in (list, tuple):
        return [_plain(one, where, code) for one in value]
    if type(value) in (set, frozenset):
        return ["set", *sorted(_text(_plain(one, where, code)) for one in value)]
    if isinstance(value, weakref.WeakKeyDictionary | weakref.WeakValueDictionary):
        return ["cache"]  # such as that of `functools.singledispatch`
    if isinstance(value, dict) and (registry := registries.name_of(value)):
        return ["registry", *registry]
    own = _is_own(type(value))
    if isinstance(value, Mapping) and not own:
        return _of_mapping(value, where, code)
    if type(value) in (bytes, complex, slice, type(...), range):
        return [type(value).__name__, repr(value)]
    if isinstance(value, torch.dtype | torch.device | np.dtype):
        return [type(value).__name__, str(value)]
    if isinstance(value, logging.Logger):
        return ["logger"]  # its name is mostly the module's, which is no part of the code
    if isinstance(value, re.Pattern):
        return ["pattern", _plain(value.pattern, where, code), value.flags]
    if isinstance(value, PurePath):
        return ["path", str(value)]
    if isinstance(value, np.ufunc) and _is_named(value):
        return ["ufunc", value.__name__]
    if isinstance(value, _DESCRIPTORS):
        return ["named", value.__qualname__]
    if isinstance(value, types.ModuleType):
        if code is not None:
            code.hold(value)
        return ["module", value.__name__]
    if isinstance(value, functools._lru_cache_wrapper):  # what it keeps is what it gives anyway
        return ["cached", _plain(value.__wrapped__, where, code)]
    if isinstance(value, functools.partial):
        parts = [value.args, dict(sorted(value.keywords.items()))]
        return ["partial", _plain(value.func, where, code), *_plain(parts, where, code)]
    if isinstance(value, types.MethodType):
        return ["method", *_plain([value.__self__, value.__func__], where, code)]
    if isinstance(value, types.BuiltinFunctionType) and _is_bound(value):
        return ["method", _plain(value.__self__, where, code), value.__name__]
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        if code is None and getattr(value, "__name__", "") == "<lambda>":
            return _refused(value, where, code)
        if code is not None:
            return ["code", code.add(value)]
        found = of_code(value, where)
        return [*found.root, found.digest]
    if isinstance(value, nn.Module):
        # What `torch.compile` makes of one computes what that one does.
        whole = value._modules.get("_orig_mod")
        if whole is not None and sources.is_external(type(value).__module__):
            return ["compiled", _plain(whole, where, code)]
        return [_plain(type(value), where, code), _of_network(value, where, code)]
    if own or dataclasses.is_dataclass(value) or isinstance(value, _NAMESPACES):
        held = _attributes(value)
        for kind in _HOLDERS:  # one's own kind of number, text or list is also what it holds
            if isinstance(value, kind):
                held = [kind(value), held]
        return [_plain(type(value), where, code), _plain(held, where, code)]
    if isinstance(value, typing.NewType):
        return ["new type", value.__name__, _plain(value.__supertype__, where, code)]
    if _is_of_own_classes(value):  # such as Box[float], list[Mine] and Mine | None
        parts = [typing.get_origin(value), *typing.get_args(value)]
        return ["alias", type(value).__name__, *_plain(parts, where, code)]
    typing_like = type(value).__module__ in _TOLD_BY_REPR
    if typing_like and " at 0x" not in repr(value):
        return ["named", repr(value)]
    if isinstance(value, enum.Enum):
        return ["named", f"{type(value).__qualname__}.{value.name}"]
    return _refused(value, where, code)


def _of_tensor(value: torch.Tensor, where: str, code: Code | None) -> Any:
    """Its values, with what one's own kind of tensor holds beside them."""
    if value.layout == torch.sparse_coo:
        parts = value.detach().coalesce()
        return ["sparse", *_plain([parts.indices(), parts.values(), [*value.shape]], where, code)]
    if value.layout in _INDICES:
        indices = [of(value.detach()) for of in _INDICES[value.layout]]
        parts = [*indices, value.detach().values(), [*value.shape]]
        return ["compressed", str(value.layout), *_plain(parts, where, code)]
    if value.layout != torch.strided or value.is_quantized:
        return _refused(value, where, code)
    plain = value.detach().as_subclass(torch.Tensor).cpu().resolve_conj().resolve_neg().contiguous()
    content = plain.flatten().view(torch.uint8).numpy()
    found = _array(f"tensor {plain.dtype}", content, plain.shape)
    kept = {name: one for name, one in sorted(vars(value).items()) if name[:1] != "_"}
    beside = [*([type(value)] if _is_own(type(value)) else []), *([kept] if kept else [])]
    return [found, *_plain(beside, where, code)] if beside else found


def _of_mapping(value: Mapping[Any, Any], where: str, code: Code | None) -> Any:
    """What a library's mapping holds, and what it gives for what it does not hold."""
    kind = type(value)
    if kind in _PLAIN_MAPPINGS:
        return _of_items(value, where, code)
    if kind is collections.ChainMap:
        return ["chain", *_plain(value.maps, where, code)]
    beside = [value.default_factory] if kind is collections.defaultdict else []
    named = f"{kind.__module__}.{kind.__qualname__}"
    return ["mapping", named, *_plain(beside, where, code), _of_items(value, where, code)]


def _of_items(value: Mapping[Any, Any], where: str, code: Code | None) -> Any:
    """A mapping that code uses counts in its order, in which it may be gone through; options do not."""
    if all(isinstance(key, str) for key in value):
        found = {key: _plain(one, where, code) for key, one in value.items()}
        is_in_order = code is None or [*found] == sorted(found)
        return found if is_in_order else ["in order", *map(list, found.items())]
    pairs = [[_plain(key, where, code), _plain(one, where, code)] for key, one in value.items()]
    in_order = sorted(pairs, key=_text)
    if code is None or pairs == in_order:
        return ["pairs", *in_order]
    return ["in order", *pairs]


def _of_network(network: nn.Module, where: str, code: Code | None) -> list[Any]:
    """All that a network, or a layer or a loss, holds: parameters, buffers, parts, options, hooks."""
    own, found = not sources.is_external(type(network).__module__), []
    is_open = set() if code is None else code.open
    if id(network) in is_open:  # a part that knows the whole, or a hook that is a method of it
        return ["the same"]
    is_open.add(id(network))
    try:
        for name, value in sorted(vars(network).items()):
            is_part = name in ("_parameters", "_buffers", "_modules")
            if name in _EMPTY and name != "training" and not value:  # what is not there
                continue
            if isinstance(value, dict) and name in _EMPTY:  # hooks have numbers, of all there are
                value = [*value.items()] if is_part else [*value.values()]
            try:
                found.append([name, _plain(value, where, code)])
            except NoIdentityError as error:  # other things a library's layers hold as they like
                if own or name in _EMPTY or error.is_of_own_code:
                    raise
    finally:
        is_open.discard(id(network))
    return found


def _defaults(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Its own, and not those of what it wraps (as `inspect.signature` has them)."""
    code, given = function.__code__, function.__defaults__ or ()
    positional = code.co_varnames[: code.co_argcount]
    yield from zip(positional[len(positional) - len(given) :], given, strict=True)
    yield from (function.__kwdefaults__ or {}).items()


def _is_of_own_classes(value: Any) -> bool:
    """Whether it is a generic type, or a union, of classes of one's own."""
    if isinstance(value, type) and not isinstance(value, types.GenericAlias):
        return not sources.is_external(value.__module__)
    if (origin := typing.get_origin(value)) is None:
        return not sources.is_external(type(value).__module__)
    return any(map(_is_of_own_classes, (origin, *typing.get_args(value))))


def _attributes(value: Any) -> dict[str, Any]:
    """What an object holds, without what a ``functools.cached_property`` keeps in it."""
    members = [item for kind in type(value).__mro__ for item in vars(kind).items()]
    cached = {name for name, one in members if isinstance(one, functools.cached_property)}
    slots = {
        name: getattr(value, name)
        for name, one in members
        if isinstance(one, types.MemberDescriptorType) and hasattr(value, name)
    }
    held = slots | dict(getattr(value, "__dict__", {}))
    if dataclasses.is_dataclass(value):
        held |= {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    return {name: one for name, one in sorted(held.items()) if name not in cached}


def _is_bound(function: types.BuiltinFunctionType) -> bool:
    """Whether it is the method of an object, such as ``"-".join``, or of a class of one's own.

    A library's function may be the method of an object that the library keeps (``random.random``).
    """
    owner = function.__self__
    if owner is None or isinstance(owner, types.ModuleType):
        return False
    if isinstance(owner, type):
        return not sources.is_external(owner.__module__)
    library = sys.modules.get(type(owner).__module__)
    return getattr(library, function.__name__, None) is not function


def _is_named(function: np.ufunc) -> bool:
    """Whether a library has it under its name, rather than a user made it of a function."""
    places = (np, sys.modules.get("scipy.special"))
    return any(getattr(place, function.__name__, None) is function for place in places)


def _array(kind: str, array: np.ndarray, shape: Any = None) -> list[Any]:
    content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return [kind, array.dtype.str, list(array.shape if shape is None else shape), content]


def _origin(thing: Any) -> tuple[str | None, bool]:
    """The name of the module that a class or function comes from, and whether that is a library's.

    What ``exec`` makes among names of its own is no library's, and may have no module.
    """
    module = getattr(thing, "__module__", None)
    if isinstance(thing, types.FunctionType):
        module = thing.__globals__.get("__name__")
        return module, module is not None and sources.is_external(module)
    if isinstance(thing, type) and _is_own(thing):
        return (None if module == "builtins" else module), False
    return module, sources.is_external(module)


def _is_own(kind: type) -> bool:
    """Whether a class is no library's."""
    if kind.__module__ == "builtins":  # those of Python in C do not say so
        return "__module__" in vars(kind) and getattr(builtins, kind.__name__, None) is not kind
    return not sources.is_external(kind.__module__)


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


def _refused(value: Any, where: str, code: Code | None) -> Any:
    """Raise, or what stands for a value that ``code`` may not even use."""
    if code is not None and code.is_lenient:
        return ["no identity", type(value).__qualname__]
    shown = getattr(value, "__qualname__", type(value).__qualname__)
    raise NoIdentityError(
        f"{where} is a {type(value).__qualname__} ({shown!r}) and has no identity that the next process "
        "could compare: expected plain values (None, bool, int, float, str, lists, tuples and dicts of "
        "them), arrays, tensors, or classes and functions that have a name."
    )


def _text(plain: Any) -> str:
    return json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
