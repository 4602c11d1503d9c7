"""The objects that a program can read beside its arguments, found by following references.

References go from functions to the closures and globals that their code names, from methods to their objects, and from modules
and plain objects to their attributes. Code of libraries is not followed, and objects that only running code reaches (an
attribute by a computed name, a file) are not found: spot checks are for these.
"""

import functools
import sys
from collections.abc import Iterator
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

SCALARS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
# Longer collections are data, whose entries are not checked one by one.
LONGEST_COLLECTION = 64
MOST_OBJECTS = 20_000
_PARTS_OF_MODULES = ("_parameters", "_buffers", "_modules")
# The hooks of a module that run with it.
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_LEAVES = (*SCALARS, Tensor)
# What is followed in attributes of libraries' objects, and of their modules.
_FOLLOWED = {False: _LEAVES, True: (*_LEAVES, nn.Module, tuple, FunctionType, MethodType, functools.partial)}


class Place(NamedTuple):
    """A place that a program may read: an entry of a dictionary or list, or a cell.

    Args:
        container: the dictionary, list or cell.
        key: the key of the entry; zero in a cell.
        name: the name in messages.
        is_users: whether the place belongs to the user's code and not to a library.
    """

    container: Any
    key: Any
    name: str
    is_users: bool = True

    @property
    def value(self) -> Any:
        """The current content; ``KeyError``, ``IndexError`` or ``ValueError`` where the place is gone."""
        return self.container.cell_contents if isinstance(self.container, CellType) else self.container[self.key]

    def fill(self, value: Any) -> None:
        """Put another value into the place."""
        if isinstance(self.container, CellType):
            self.container.cell_contents = value
        else:
            self.container[self.key] = value


class Reachable:
    """The places and modules that can be reached from some objects.

    Args:
        roots: programs, objectives, and modules known to run.
    """

    def __init__(self, *roots: Any) -> None:
        self.places: list[Place] = []
        self.modules: list[nn.Module] = []
        # The objects are kept alive, so that no other object gets the identity of one of them.
        self._seen: dict[int, Any] = {}
        waiting = list(roots)
        while waiting and len(self._seen) < MOST_OBJECTS:
            each = waiting.pop()
            if isinstance(each, _LEAVES) or id(each) in self._seen:
                continue
            self._seen[id(each)] = each
            if isinstance(each, nn.Module):
                self.modules.append(each)
            for part in _parts(each):
                if isinstance(part, Place):
                    self.places.append(part)
                    waiting.append(part.value)
                else:
                    waiting.append(part)


def _parts(each: Any) -> Iterator[Any]:
    """The places within an object, and other objects that it refers to."""
    if isinstance(each, FunctionType):
        yield from _parts_of_function(each)
    elif isinstance(each, MethodType):
        yield from (each.__self__, each.__func__)
    elif isinstance(each, functools.partial):
        yield from (each.func, each.args, each.keywords)
    elif isinstance(each, dict):
        yield from _entries(each, each, "entry")
    elif isinstance(each, list):
        yield from _entries(each, range(len(each)), "entry")
    elif isinstance(each, tuple | set | frozenset):
        yield from each if len(each) <= LONGEST_COLLECTION else ()
    elif isinstance(each, type):
        yield from () if is_library(each.__module__) else _attributes(vars(each), each.__name__)
    elif not isinstance(each, ModuleType) and hasattr(each, "__dict__"):
        yield from _parts_of_object(each)


def _parts_of_object(each: Any) -> Iterator[Any]:
    name, is_users = type(each).__name__, not is_library(type(each).__module__)
    values, is_module = vars(each), isinstance(each, nn.Module)
    if is_module:
        for part in _PARTS_OF_MODULES:
            yield from _attributes(values.get(part) or {}, name, is_users)
        yield from (values[hooks] for hooks in _HOOKS if values.get(hooks))
    followed = object if is_users else _FOLLOWED[is_module]
    for key, value in list(values.items()):
        if isinstance(value, followed) and not key.startswith("__") and not (is_module and _is_of_modules(key)):
            yield Place(values, key, f"attribute {key!r} of {name}", is_users)
    yield from (kind for kind in type(each).__mro__ if not is_library(kind.__module__))


def _parts_of_function(function: FunctionType) -> Iterator[Any]:
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        if cell != CellType():
            yield Place(cell, 0, f"variable {name!r} of {function.__qualname__}")
    yield from (function.__defaults__ or (), function.__kwdefaults__ or {}, getattr(function, "__wrapped__", None))
    if is_library(function.__module__):
        return
    for name in _names(function.__code__):
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType):
            if not is_library(value.__name__):
                yield from (p for p in _attributes(vars(value), name) if p.key in _names(function.__code__))
        elif name in function.__globals__:
            yield Place(function.__globals__, name, f"global {name!r}")


@functools.lru_cache(maxsize=10_000)
def _is_of_modules(attribute: str) -> bool:
    """True for an attribute in which torch keeps the parts and the hooks of a module."""
    return attribute in _PARTS_OF_MODULES or attribute.endswith(("_hooks", "_hooks_with_kwargs"))


@functools.lru_cache(maxsize=10_000)
def _names(code: CodeType) -> frozenset[str]:
    """The global names and attributes that the code of a function, and of functions within it, mentions."""
    inner = (_names(each) for each in code.co_consts if isinstance(each, CodeType))
    return frozenset(code.co_names).union(*inner)


def _attributes(values: Any, owner: str, is_users: bool = True) -> Iterator[Place]:
    names = [name for name in values if not str(name).startswith("__")]
    return (Place(values, name, f"attribute {name!r} of {owner}", is_users) for name in names)


def _entries(container: Any, keys: Any, name: str) -> Iterator[Place]:
    return (Place(container, key, f"{name} {key!r}") for key in (list(keys) if len(container) <= LONGEST_COLLECTION else ()))


@functools.lru_cache(maxsize=10_000)
def is_library(module: str | None) -> bool:
    """True for the name of an installed module, False for the user's own code."""
    root = (module or "builtins").partition(".")[0]
    if root == "pyrovae" or (root in sys.stdlib_module_names and root != "__main__"):
        return True
    place = getattr(sys.modules.get(root), "__file__", None) or ""
    return "site-packages" in place or "dist-packages" in place
