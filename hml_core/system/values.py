"""Values as text that is the same in every process, by what they hold: :class:`Values`."""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import enum
import functools
import gc
import hashlib
import json
import logging
import math
import re
import sys
import types
import typing
import weakref
from collections.abc import Iterable, Iterator, Mapping
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
_QUOTED = re.compile(r"'([^']*)'")
_NAMESPACES = (argparse.Namespace, types.SimpleNamespace)
_EMPTY = vars(nn.Module())
_HOLDERS = (int, float, complex, str, bytes, list, tuple, set, frozenset, dict)
_PLAIN_MAPPINGS = (dict, collections.OrderedDict)
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
        Whether code of one's own uses it, or an object of one's own holds it, rather than an object of a
        library that holds what it likes.
    """

    is_of_own_code = False


class Values:
    """Goes through values. What code among them is, and what else is to be noted of them, is a subclass's.

    Attributes
    ----------
    is_in_order : bool
        Whether a mapping counts in its order, in which it may be gone through.
    is_lenient : bool
        Whether what has no identity counts by its type, rather than being refused.
    """

    is_in_order = False
    is_lenient = False

    def __init__(self) -> None:
        self._open: set[int] = set()  # networks that are being gone through

    def of_code(self, thing: Any, where: str) -> Any:
        """What stands for a class or function."""
        raise NotImplementedError

    def hold(self, module: types.ModuleType) -> None:
        """A module is among the values."""

    def note(self, said: str) -> None:
        """A string is."""

    def ask(self, kind: str) -> None:
        """A registry of that kind is."""

    def in_order(self, value: Iterable[Any]) -> Iterable[Any]:
        """What a set holds, in an order that is the same in every process where that matters."""
        return value

    def plain(self, value: Any, where: str) -> Any:
        """The value in JSON types; ``where`` begins what is said of one that is refused.

        Raises
        ------
        NoIdentityError
        """
        if isinstance(value, str):
            self.note(str(value))
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else ["float", repr(value)]
        if isinstance(value, bytes):
            self.note(value.decode(errors="replace"))
        if isinstance(value, np.generic):
            self._note_those_in(np.asarray(value))
            return ["numpy", value.dtype.str, value.tobytes().hex()]
        if isinstance(value, np.ndarray):
            if value.dtype.hasobject:
                return self._refused(value, where)
            self._note_those_in(value)
            is_subclass = type(value) is not np.ndarray
            if is_subclass and vars(value) and sources.is_own(type(value)):
                return self._refused(value, where)  # (pickle leaves its attributes behind)
            if isinstance(value, np.ma.MaskedArray):
                parts = value.data, np.ma.getmaskarray(value)
                return ["masked", *(_array("numpy", part) for part in parts)]
            found = _array("numpy", np.asarray(value))
            kind = [] if type(value) in _PLAIN_ARRAYS else [self.plain(type(value), where)]
            return [found, *kind] if kind else found
        if isinstance(value, torch.Tensor):
            try:
                return self._of_tensor(value, where)
            except (RuntimeError, NotImplementedError):  # on no device, or of other tensors
                return self._refused(value, where)
        if type(value) in (list, tuple):
            return [self.plain(one, where) for one in value]
        if type(value) in (set, frozenset):
            return ["set", *sorted(text(self.plain(one, where)) for one in self.in_order(value))]
        if isinstance(value, weakref.WeakKeyDictionary | weakref.WeakValueDictionary):
            return ["cache"]  # such as that of `functools.singledispatch`
        if isinstance(value, dict) and (registry := registries.name_of(value)):
            self.ask(registry[0])
            return ["registry", *registry]
        own = sources.is_own(type(value))
        if isinstance(value, Mapping) and not own:
            return self._of_mapping(value, where)
        if type(value) in (bytes, complex, slice, type(...), range):
            return [type(value).__name__, repr(value)]
        if isinstance(value, torch.dtype | torch.device | np.dtype):
            return [type(value).__name__, str(value)]
        if isinstance(value, logging.Logger):
            return ["logger"]  # its name is mostly the module's, which is no part of the code
        if isinstance(value, re.Pattern):
            return ["pattern", self.plain(value.pattern, where), value.flags]
        if isinstance(value, PurePath):
            for part in (*value.parts, value.stem):
                self.note(part)
            return ["path", str(value)]
        if isinstance(value, np.ufunc) and _is_named(value):
            return ["ufunc", value.__name__]
        if isinstance(value, _DESCRIPTORS):
            return ["named", value.__qualname__]
        if isinstance(value, types.ModuleType):
            self.hold(value)
            return ["module", value.__name__]
        if isinstance(value, functools._lru_cache_wrapper):  # what it keeps is what it gives anyway
            return ["cached", self.plain(value.__wrapped__, where)]
        if isinstance(value, functools.partial):
            parts = [value.args, dict(sorted(value.keywords.items()))]
            with _held_by(value):
                return ["partial", self.plain(value.func, where), *self.plain(parts, where)]
        if isinstance(value, types.MethodType):
            with _held_by(value):
                return ["method", *self.plain([value.__self__, value.__func__], where)]
        if isinstance(value, types.BuiltinFunctionType) and _is_bound(value):
            return ["method", self.plain(value.__self__, where), value.__name__]
        if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
            return self.of_code(value, where)
        if isinstance(value, nn.Module):
            # What `torch.compile` makes of one computes what that one does.
            whole = value._modules.get("_orig_mod")
            if whole is not None and not own:
                return ["compiled", self.plain(whole, where)]
            with _held_by(value):
                return [self.plain(type(value), where), self._of_network(value, where)]
        if own or dataclasses.is_dataclass(value) or isinstance(value, _NAMESPACES):
            held = _attributes(value)
            for kind in _HOLDERS:  # one's own kind of number, text or list is also what it holds
                if isinstance(value, kind):
                    held = [kind(value), held]
            with _held_by(value):
                return [self.plain(type(value), where), self.plain(held, where)]
        if isinstance(value, typing.NewType):
            return ["new type", value.__name__, self.plain(value.__supertype__, where)]
        if _is_of_own_classes(value):  # such as Box[float], list[Mine] and Mine | None
            parts = [typing.get_origin(value), *typing.get_args(value)]
            return ["alias", type(value).__name__, *self.plain(parts, where)]
        typing_like = type(value).__module__ in _TOLD_BY_REPR
        if typing_like and " at 0x" not in repr(value):
            for part in _QUOTED.findall(repr(value)):  # such as `itemgetter('name')`
                self.note(part)
            return ["named", repr(value)]
        if isinstance(value, enum.Enum):
            self.note(value.name)
            return ["named", f"{type(value).__qualname__}.{value.name}"]
        return self._refused(value, where)

    def _note_those_in(self, array: np.ndarray) -> None:
        """The strings that an array holds, and the names of its fields."""
        if array.dtype.kind in "US":
            for one in {*array.ravel().tolist()}:
                self.note(one if isinstance(one, str) else one.decode(errors="replace"))
        for name in array.dtype.names or ():
            self.note(name)
            self._note_those_in(array[name])

    def _of_tensor(self, value: torch.Tensor, where: str) -> Any:
        """Its values, with what one's own kind of tensor holds beside them."""
        if value.layout == torch.sparse_coo:
            parts = value.detach().coalesce()
            return ["sparse", *self.plain([parts.indices(), parts.values(), [*value.shape]], where)]
        if value.layout in _INDICES:
            indices = [of(value.detach()) for of in _INDICES[value.layout]]
            parts = [*indices, value.detach().values(), [*value.shape]]
            return ["compressed", str(value.layout), *self.plain(parts, where)]
        if value.layout != torch.strided or value.is_quantized:
            return self._refused(value, where)
        plain = (
            value.detach().as_subclass(torch.Tensor).cpu().resolve_conj().resolve_neg().contiguous()
        )
        content = plain.flatten().view(torch.uint8).numpy()
        found = _array(f"tensor {plain.dtype}", content, plain.shape)
        kept = {name: one for name, one in sorted(vars(value).items()) if name[:1] != "_"}
        beside = [
            *([type(value)] if sources.is_own(type(value)) else []),
            *([kept] if kept else []),
        ]
        return [found, *self.plain(beside, where)] if beside else found

    def _of_mapping(self, value: Mapping[Any, Any], where: str) -> Any:
        """What a library's mapping holds, and what it gives for what it does not hold."""
        kind = type(value)
        if kind is types.MappingProxyType:
            (behind,) = gc.get_referents(value)
            return self.plain(behind, where)
        if kind in _PLAIN_MAPPINGS:
            return self._of_items(value, where)
        if kind is collections.ChainMap:
            return ["chain", *self.plain(value.maps, where)]
        beside = [value.default_factory] if kind is collections.defaultdict else []
        named = f"{kind.__module__}.{kind.__qualname__}"
        return ["mapping", named, *self.plain(beside, where), self._of_items(value, where)]

    def _of_items(self, value: Mapping[Any, Any], where: str) -> Any:
        """In their order, where that counts."""
        if all(isinstance(key, str) for key in value):
            for key in value:
                self.note(str(key))
            found = {key: self.plain(one, where) for key, one in value.items()}
            is_in_order = not self.is_in_order or [*found] == sorted(found)
            return found if is_in_order else ["in order", *map(list, found.items())]
        pairs = [[self.plain(key, where), self.plain(one, where)] for key, one in value.items()]
        in_order = sorted(pairs, key=text)
        if not self.is_in_order or pairs == in_order:
            return ["pairs", *in_order]
        return ["in order", *pairs]

    def _of_network(self, network: nn.Module, where: str) -> list[Any]:
        """All that a network, or a layer or a loss, holds: parameters, buffers, parts, options, hooks."""
        own, found = sources.is_own(type(network)), []
        if id(network) in self._open:
            return ["the same"]  # a part that knows the whole, or a hook that is a method of it
        self._open.add(id(network))
        try:
            for name, value in sorted(vars(network).items()):
                is_part = name in ("_parameters", "_buffers", "_modules")
                if name in _EMPTY and name != "training" and not value:  # what is not there
                    continue
                self.note(name)
                if isinstance(value, dict) and name in _EMPTY:
                    # (Hooks have numbers, of all there are.)
                    value = [*value.items()] if is_part else [*value.values()]
                try:
                    found.append([name, self.plain(value, where)])
                except NoIdentityError as error:
                    # Other things a library's layers hold as they like.
                    if own or name in _EMPTY or error.is_of_own_code:
                        raise
        finally:
            self._open.discard(id(network))
        return found

    def _refused(self, value: Any, where: str) -> Any:
        """Raise, or what stands for the value where that is let be."""
        if self.is_lenient:
            return ["no identity", type(value).__qualname__]
        shown = getattr(value, "__qualname__", type(value).__qualname__)
        raise NoIdentityError(
            f"{where} is a {type(value).__qualname__} ({shown!r}) and has no identity that the next "
            "process could compare: expected plain values (None, bool, int, float, str, lists, tuples and "
            "dicts of them), arrays, tensors, or classes and functions that have a name."
        )


@contextlib.contextmanager
def _held_by(value: Any) -> Iterator[None]:
    """What is refused inside the block is what the value holds."""
    try:
        yield
    except NoIdentityError as error:
        error.is_of_own_code |= _is_own(value)
        raise


def _is_own(value: Any) -> bool:
    """Whether it is code of one's own, bound or partly called or not, or an object of one's own class."""
    if isinstance(value, functools.partial):
        return _is_own(value.func)
    if isinstance(value, types.MethodType):
        return _is_own(value.__func__) or _is_own(value.__self__)
    if isinstance(value, type | types.FunctionType):
        return not sources.origin(value)[1]
    return sources.is_own(type(value))


def _is_of_own_classes(value: Any) -> bool:
    """Whether it is a generic type, or a union, of classes of one's own."""
    if isinstance(value, type) and not isinstance(value, types.GenericAlias):
        return sources.is_own(value)
    if (origin := typing.get_origin(value)) is None:
        return sources.is_own(type(value))
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
        return sources.is_own(owner)
    library = sys.modules.get(type(owner).__module__)
    return getattr(library, function.__name__, None) is not function


def _is_named(function: np.ufunc) -> bool:
    """Whether a library has it under its name, rather than a user made it of a function."""
    places = (np, sys.modules.get("scipy.special"))
    return any(getattr(place, function.__name__, None) is function for place in places)


def _array(kind: str, array: np.ndarray, shape: Any = None) -> list[Any]:
    content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return [kind, array.dtype.str, list(array.shape if shape is None else shape), content]


def text(plain: Any) -> str:
    return json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
