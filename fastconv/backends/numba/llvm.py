"""The instruction set in use, and `Code`, which emits LLVM instructions on its vector registers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from fastconv.backends import instruction_set
from fastconv.backends.instruction_set import InstructionSet
from fastconv.backends.numba import variables
from fastconv.backends.numba.numba_internals import declared, intrinsic, ir, nothing, types
from fastconv.problem.environment import ISA

T = TypeVar("T")

I64, I32 = ir.IntType(64), ir.IntType(32)
_LLVM: dict[int, ir.Type] = {4: ir.FloatType(), 8: ir.DoubleType()}
#: Numba's type of an element, by its size in bytes.
ELEMENT = {4: types.float32, 8: types.float64}


@functools.cache
def found() -> tuple[str, ...]:
    """The instruction sets that Numba generates code for on this processor, the best first."""
    features = variables.features()
    needed = {
        "avx512": ("avx512f", "avx512vl", "avx512dq", "avx512bw", "fma"),
        "avx2": ("avx2", "fma"),
        "neon": ("neon",),
    }
    names = [name for name, its in needed.items() if features.issuperset(its)]
    return tuple(names if "neon" in names else [*names, "baseline"])


#: The instruction set that functions are made for, while they are.
_made_for: ContextVar[InstructionSet | None] = ContextVar("fastconv_made_for", default=None)


def machine() -> InstructionSet:
    """The instruction set that functions are made for; raises `ArgumentError` if `FASTCONV_ISA` names another than
    those found here."""
    return _made_for.get() or instruction_set.chosen(found(), ISA.value())


@contextlib.contextmanager
def made_for(instructions: InstructionSet) -> Iterator[None]:
    """A context in which functions are made and compiled for an instruction set, whatever `FASTCONV_ISA` says."""
    token = _made_for.set(instructions)
    try:
        yield
    finally:
        _made_for.reset(token)


def per_instruction_set(make: Callable[..., T]) -> Callable[..., T]:
    """A decorator like `functools.cache`, for functions whose results depend on the instruction set too."""

    @functools.cache
    def made(_: InstructionSet, *arguments: Any) -> T:
        return make(*arguments)

    @functools.wraps(make)
    def looked_up(*arguments: Any) -> T:
        return made(machine(), *arguments)

    return looked_up


class Code:
    """Emits LLVM instructions on elements of `size` bytes and on vectors of `lanes` elements.

    An address is an LLVM integer; a pointer is an LLVM pointer to an element.
    """

    def __init__(self, builder: Any, size: int, lanes: int) -> None:
        self.builder, self.size, self.lanes = builder, size, lanes
        self.vector = ir.VectorType(_LLVM[size], lanes)

    def pointer(self, address: Any) -> Any:
        """A pointer to the element at an address."""
        return self.builder.inttoptr(address, _LLVM[self.size].as_pointer())

    def integers(self, address: Any) -> Any:
        """A pointer to the 64-bit integer at an address."""
        return self.builder.inttoptr(address, I64.as_pointer())

    def at(self, pointer: Any, offset: Any) -> Any:
        """The pointer moved by `offset` elements."""
        return self.builder.gep(pointer, [offset])

    def read(self, pointer: Any) -> Any:
        """Load a vector; the pointer need only be aligned for an element."""
        return self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.size)

    def write(self, value: Any, pointer: Any) -> None:
        """Store a vector; the pointer need only be aligned for an element."""
        self.builder.store(value, self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.size)

    def broadcast(self, scalar: Any) -> Any:
        """Broadcast: a vector with `scalar` in every lane."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, I32(0))
        lanes = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, lanes)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c, with one rounding if the instruction set has a fused multiply-add, and two otherwise."""
        if not machine().fused:
            return self.builder.fadd(self.builder.fmul(a, b), c)
        name = f"llvm.fma.v{self.lanes}f{8 * self.size}"
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        return self.builder.call(declared(self.builder, kind, name), [a, b, c])

    def lane_mask(self, first: Any, end: Any) -> Any:
        """A mask of the lanes first <= lane < end, for `masked_load` and `masked_store`."""
        b = self.builder
        wide = ir.VectorType(I64, self.lanes)
        number = ir.Constant(wide, list(range(self.lanes)))

        def in_each_lane(value: Any) -> Any:
            one = b.insert_element(ir.Constant(wide, ir.Undefined), value, I32(0))
            return b.shuffle_vector(
                one, ir.Constant(wide, ir.Undefined), ir.Constant(ir.VectorType(I32, self.lanes), None)
            )

        return b.and_(b.icmp_signed(">=", number, in_each_lane(first)), b.icmp_signed("<", number, in_each_lane(end)))

    def _masked(self, name: str, result: Any, kinds: list[Any], values: list[Any]) -> Any:
        kind = f"v{self.lanes}f{8 * self.size}"
        function = ir.FunctionType(result, kinds)
        return self.builder.call(declared(self.builder, function, f"llvm.masked.{name}.{kind}.p0{kind}"), values)

    def masked_load(self, pointer: Any, mask: Any) -> Any:
        """Masked load: the other lanes are 0, and their memory is not accessed."""
        to = self.vector.as_pointer()
        pointer = self.builder.bitcast(pointer, to)
        kinds = [to, I32, mask.type, self.vector]
        return self._masked("load", self.vector, kinds, [pointer, I32(self.size), mask, self.zeros])

    def masked_store(self, value: Any, pointer: Any, mask: Any) -> None:
        """Masked store: memory of the other lanes is not accessed."""
        to = self.vector.as_pointer()
        pointer = self.builder.bitcast(pointer, to)
        self._masked("store", ir.VoidType(), [self.vector, to, I32, mask.type], [value, pointer, I32(self.size), mask])

    @property
    def zeros(self) -> Any:
        """A vector of zeros."""
        return ir.Constant(self.vector, None)

    def prefetch(self, pointer: Any, to_write: bool = False, far: bool = False) -> None:
        """Prefetch a cache line, which need not exist, into the first-level cache, or with `far` into the second."""
        to = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [to, I32, I32, I32])
        pointer = self.builder.bitcast(pointer, to)
        function = declared(self.builder, kind, "llvm.prefetch.p0i8")
        self.builder.call(function, [pointer, I32(int(to_write)), I32(2 if far else 3), I32(1)])

    def row_or_zeros(self, at: Any, height: Any, read: Callable[[], Sequence[Any]], number: int) -> list[Any]:
        """The first `number` of the vectors that `read` returns, or zeros if row `at` is outside of the map."""
        b = self.builder
        inside = b.and_(b.icmp_signed(">=", at, I64(0)), b.icmp_signed("<", at, height))
        before = b.basic_block
        with b.if_then(inside, likely=True):
            values = read()
            within = b.basic_block
        found = []
        for value in values[:number]:
            either = b.phi(self.vector)
            either.add_incoming(self.zeros, before)
            either.add_incoming(value, within)
            found.append(either)
        return found

    def shuffle(self, pair: Sequence[Any], mask: list[int]) -> Any:
        """A vector of lanes of two vectors; the lanes of the second are numbered from `lanes` on."""
        return self.builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(I32, self.lanes), mask))

    def no_unroll(self) -> None:
        """Keep LLVM from unrolling the loop around: emits an empty instruction that may not be duplicated."""
        marker = self.builder.asm(ir.FunctionType(ir.VoidType(), []), "", "", [], side_effect=True)
        marker.attributes.add("convergent")

    def opaque(self, pointer: Any) -> Any:
        """The same pointer, of which LLVM does not know how it was computed."""
        return self.builder.asm(ir.FunctionType(pointer.type, [pointer.type]), "", "=r,0", [pointer], side_effect=False)

    def barrier(self) -> None:
        """A compiler barrier: LLVM moves no load or store across it."""
        self.builder.asm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", [], side_effect=True)

    def branch(self, condition: Any, yes: Callable[[], list[Any]], no: Callable[[], list[Any]]) -> list[Any]:
        """Emit a branch; its values are those of `yes` if the condition holds, otherwise those of `no`."""
        found = []
        with self.builder.if_else(condition) as branches:
            for branch, values in zip(branches, (yes, no), strict=True):
                with branch:
                    found.append((values(), self.builder.basic_block))
        chosen = []
        for one, other in zip(found[0][0], found[1][0], strict=True):
            either = self.builder.phi(one.type)
            either.add_incoming(one, found[0][1])
            either.add_incoming(other, found[1][1])
            chosen.append(either)
        return chosen

    def loop(self, count: Any, carried: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
        """Emit a loop of `count` >= 1 iterations, t = 0, 1, ...; returns the values that the last iteration returns.

        `body(t, values)` returns the values of the next iteration. They start as `carried` and stay in registers.
        """
        return self._while(count, carried, lambda t, values: [self.builder.add(t, I64(1)), *body(t, values)])

    def _while(self, end: Any, carried: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
        """As `loop`, while t < `end`, where `end` > 0 and `body` returns the next t and then the values."""
        builder = self.builder
        entry = builder.basic_block
        iteration, after = builder.append_basic_block("iteration"), builder.append_basic_block("after")
        builder.branch(iteration)
        builder.position_at_end(iteration)
        t = builder.phi(I64)
        t.add_incoming(I64(0), entry)
        values = [builder.phi(value.type) for value in carried]
        for value, start in zip(values, carried, strict=True):
            value.add_incoming(start, entry)
        following, *results = body(t, values)
        last = builder.basic_block
        t.add_incoming(following, last)
        for value, result in zip(values, results, strict=True):
            value.add_incoming(result, last)
        builder.cbranch(builder.icmp_signed("<", following, end), iteration, after)
        builder.position_at_end(after)
        return results

    def are_neighbours(self, table: Any, t: Any, count: Any, pitch: Any) -> Any:
        """Whether the second entry of row t + 1 of a table of `count` pairs is that of row t plus `pitch`."""
        b = self.builder

        def second(pair: Any) -> Any:
            return b.load(self.at(table, b.add(b.shl(pair, I64(1)), I64(1))))

        following = b.add(t, I64(1))
        is_next = self.branch(
            b.icmp_signed("<", following, count),
            lambda: [b.icmp_signed("==", second(following), b.add(second(t), pitch))],
            lambda: [ir.Constant(ir.IntType(1), 0)],
        )
        return is_next[0]

    def loop_in_pairs(
        self, table: Any, count: Any, carried: list[Any], one: Callable[[Any, list[Any]], list[Any]],
        two: Callable[[Any, list[Any]], list[Any]], pitch: Any,
    ) -> list[Any]:  # fmt: skip
        """As `loop` over a table of pairs; `two` handles rows t and t + 1 at once if they are neighbours,
        `pitch` from each other."""
        return self._while(
            count,
            carried,
            lambda t, values: self.branch(
                self.are_neighbours(table, t, count, pitch),
                lambda: [self.builder.add(t, I64(2)), *two(t, values)],
                lambda: [self.builder.add(t, I64(1)), *one(t, values)],
            ),
        )


def make_operation(
    size: int, lanes: int, arguments: str, emit: Callable[..., Any], result: Any = types.void, scalar: str = ""
) -> Any:
    """An intrinsic that inserts the instructions of `emit(code, ...)` where it is called.

    Its arguments, named in `arguments`, are integers; the one named by `scalar` is an element.
    """
    kinds = [ELEMENT[size] if name == scalar else types.int64 for name in arguments.split()]

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        given = emit(Code(builder, size, lanes), *values)
        return nothing(context) if given is None else given

    def typed(typing_context: Any, *_: Any) -> Any:
        return result(*kinds), codegen

    return make_intrinsic(arguments.split(), typed)


def make_intrinsic(arguments: Iterable[str], typed: Callable[..., Any]) -> Any:
    """An intrinsic whose signature and code generator are what `typed(typing_context, ...)` returns.

    Numba reads the names of its arguments, so a function with those names is made.
    """
    names, scope = ", ".join(arguments), {"typed": typed}
    exec(f"def operation(typing_context, {names}): return typed(typing_context, {names})", scope)
    return intrinsic(scope["operation"])
