"""Pickles read as data: what they would call is written down, and nothing is called.

A checkpoint's pickle says which functions of PyTorch rebuild its tensors. Here such a call becomes a `Call`, a name a
`Symbol`, and only names that PyTorch's own restricted unpickler knows, or that numpy's plain arrays need, may occur:
so a file can hold no code, and its cost is proportional to its bytes. (The unpickler of `torch.load(weights_only=True)`
calls functions on the way, some of whose costs a few bytes can drive up without end.)
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sanakit.base.errors import WeightsError

# A checkpoint with optimizer and averages has some hundred thousand; a million take three seconds.
_MAX_OPERATIONS = 1_000_000
_MAX_INTEGER_BITS = 4096
_ANY = ""
# Module -> prefixes of the names that may be mentioned in it.
_KNOWN: dict[str, tuple[str, ...]] = {
    "torch._utils": ("_rebuild_",),
    "torch._tensor": ("_rebuild_from_type_v2",),
    "torch.nn.parameter": ("Parameter", "Buffer"),
    "torch.storage": ("UntypedStorage", "TypedStorage"),
    "torch.serialization": ("_get_layout",),
    "torch": ("Size", "device", "Tensor", "float", "bfloat", "half", "double", "int", "uint", "long", "short",
              "bool", "complex", "qint", "quint", "per_", "strided", "sparse_", "contiguous_format"),
    "collections": ("OrderedDict", "defaultdict", "Counter", "deque"),
    "_codecs": ("encode",),
    "numpy": ("ndarray", "dtype", "float", "int", "uint", "bool", "complex", "str_", "bytes_"),
    "numpy.dtypes": (_ANY,),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy._core.multiarray": ("_reconstruct", "scalar"),
    "numpy.core.numeric": ("_frombuffer",),
    "numpy._core.numeric": ("_frombuffer",),
}  # fmt: skip
_PLAIN = ("set", "frozenset", "complex", "bytearray", "bytes", "str", "int", "float", "bool", "list", "dict",
          "tuple", "slice", "range")  # fmt: skip
_MAPPINGS = {("collections", "OrderedDict"), ("collections", "defaultdict"), ("builtins", "dict")}
_KEYS = (str, bytes, bool, type(None))


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name that the pickle refers to."""

    module: str
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """What the pickle would make by calling a name."""

    function: Symbol
    arguments: object


@dataclass(frozen=True, slots=True, eq=False)
class Persistent:
    """What lies outside the pickle: for PyTorch, a tensor's storage."""

    reference: object


class OddKey:
    """Stands for a key that is neither a name nor a small number: the file could make such a key cost anything."""


class _Machine:
    """The stack of a pickle. Its methods raise IndexError, KeyError or TypeError where a pickle makes no sense."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.persistent: list[Persistent] = []

    def marked(self) -> list[Any]:
        """Return the values since the last mark, which is taken off."""
        values, self.stack = self.stack, self.below.pop()
        return values

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def drop(self) -> None:
        """Of the last value; with none above the last mark, of that mark."""
        if self.stack:
            self.stack.pop()
        else:
            self.marked()

    def join(self, count: int) -> None:
        """Join the last values to a tuple."""
        if len(self.stack) < count:
            raise IndexError
        values = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.stack.append(values)

    def extend(self, values: list[Any]) -> None:
        """Of a list; other objects stay without what they hold."""
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)

    def set_items(self, values: list[Any]) -> None:
        if isinstance(self.stack[-1], dict):
            _fill(self.stack[-1], zip(values[::2], values[1::2], strict=True))

    def symbol(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError
        module = "builtins" if module == "__builtin__" else module
        known = name in _PLAIN if module == "builtins" else name.startswith(_KNOWN.get(module, ("\0",)))
        storage = module == "torch" and name.endswith("Storage") and name.isalnum()
        if not (known or storage):
            shown = f"{module}.{name}"[:80].encode("unicode_escape").decode()
            raise WeightsError(
                f"{self.where} is damaged, or holds code or objects beside tensors ({shown}): it was not opened"
            )
        self.stack.append(Symbol(module, name))

    def call(self, function: object, arguments: object) -> None:
        """Make mappings, since a state dict is one; write down all other calls."""
        if not isinstance(function, Symbol):
            raise TypeError
        if (function.module, function.name) not in _MAPPINGS:
            self.stack.append(Call(function, arguments))
            return
        made: dict[Any, Any] = {}
        pairs = arguments[0] if isinstance(arguments, tuple) and arguments else ()
        if isinstance(pairs, list | tuple):  # OrderedDict of Python 2: a list of pairs
            _fill(made, (pair for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2))
        self.stack.append(made)

    def collect(self, make: Callable[[list[Any]], object]) -> None:
        """Join the values since the last mark."""
        made = make(self.marked())
        self.stack.append(made)

    def instance(self, names: str) -> None:
        values = tuple(self.marked())
        self.symbol(*names.split(" ", 1))
        self.call(self.stack.pop(), values)

    def store(self, reference: object) -> None:
        self.persistent.append(Persistent(reference))
        self.stack.append(self.persistent[-1])

    def pop(self, count: int) -> list[Any]:
        """Return the last values, in their order."""
        if len(self.stack) < count:
            raise IndexError
        values = self.stack[-count:]
        del self.stack[-count:]
        return values


def _fill(target: dict[Any, Any], pairs: Any) -> None:
    for key, value in pairs:
        small = type(key) is int and abs(key) < 1 << 31
        target[key if small or type(key) in _KEYS else OddKey()] = value


def _push(make: Callable[[], object]) -> Callable[[_Machine, Any], None]:
    return lambda machine, argument: machine.stack.append(make())


def _push_argument(machine: _Machine, argument: Any) -> None:
    if type(argument) is int and argument.bit_length() > _MAX_INTEGER_BITS:
        raise ValueError
    machine.stack.append(argument)


def _nothing(machine: _Machine, argument: Any) -> None:
    """Framing, and states of objects that are not made."""


def _keep(machine: _Machine, place: int) -> None:
    machine.memo[place] = machine.stack[-1]


def _paired(values: list[Any]) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    _fill(made, zip(values[::2], values[1::2], strict=True))
    return made


def _instance(machine: _Machine, values: list[Any]) -> None:
    machine.call(values[0], tuple(values[1:]))


_OPERATIONS: dict[str, Callable[[_Machine, Any], object]] = {
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING",
                     "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
                     "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), _push_argument),
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _nothing),
    "NONE": _push(lambda: None), "NEWTRUE": _push(lambda: True), "NEWFALSE": _push(lambda: False),
    "EMPTY_TUPLE": _push(tuple), "EMPTY_LIST": _push(list), "EMPTY_DICT": _push(dict), "EMPTY_SET": _push(list),
    "MARK": lambda m, _: m.mark(),
    "POP": lambda m, _: m.drop(),
    "POP_MARK": lambda m, _: m.marked(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "TUPLE": lambda m, _: m.collect(tuple),
    "TUPLE1": lambda m, _: m.join(1), "TUPLE2": lambda m, _: m.join(2), "TUPLE3": lambda m, _: m.join(3),
    "LIST": lambda m, _: m.collect(list), "FROZENSET": lambda m, _: m.collect(list),
    "DICT": lambda m, _: m.collect(_paired),
    "APPEND": lambda m, _: m.extend(m.pop(1)),
    "APPENDS": lambda m, _: m.extend(m.marked()), "ADDITEMS": lambda m, _: m.extend(m.marked()),
    "SETITEM": lambda m, _: m.set_items(m.pop(2)),
    "SETITEMS": lambda m, _: m.set_items(m.marked()),
    "PUT": _keep, "BINPUT": _keep, "LONG_BINPUT": _keep,
    "MEMOIZE": lambda m, _: _keep(m, len(m.memo)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, place: m.stack.append(m.memo[place])),
    "GLOBAL": lambda m, names: m.symbol(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.symbol(*m.pop(2)),
    "REDUCE": lambda m, _: m.call(*m.pop(2)),
    "NEWOBJ": lambda m, _: m.call(*m.pop(2)),
    "NEWOBJ_EX": lambda m, _: m.call(*m.pop(3)[:2]),
    "OBJ": lambda m, _: _instance(m, m.marked()),
    "INST": lambda m, names: m.instance(names),
    "BUILD": lambda m, _: m.pop(1),
    "BINPERSID": lambda m, _: m.store(m.pop(1)[0]),
}  # fmt: skip


def read_pickle(data: bytes, where: str) -> tuple[object, list[Persistent], int]:
    """Read the first pickle in `data`: its value, all that it refers to outside of itself, and the bytes that it takes.

    Dicts, lists, tuples, strings, numbers and None are themselves; see the module for the rest.
    Raises WeightsError, one sentence, for damage, for code, and for more operations than any checkpoint needs.
    """
    machine, stream, count = _Machine(where), io.BytesIO(data), 0
    try:
        for operation, argument, _ in pickletools.genops(stream):
            count += 1
            if count > _MAX_OPERATIONS:
                raise WeightsError(
                    f"{where} isn't a checkpoint: its pickle has over {_MAX_OPERATIONS} operations"
                )
            _OPERATIONS[operation.name](machine, argument)
        (value,) = machine.stack
    except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise WeightsError(f"{where} is truncated or not a PyTorch checkpoint: fetch it again") from error
    return value, machine.persistent, stream.tell()
