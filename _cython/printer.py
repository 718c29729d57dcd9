"""Prints the drivers of fastconv/kernels as C when the package is built: two headers for the Cython engine.

A driver is Python over integers, see `fastconv.kernels`. Integers and addresses become int64_t, `Element` the element
type, a structure a pointer to a C structure of the same fields. Functions that return several integers return a C
structure. Calls of primitives are calls of the functions of `_cython/*.h`, with addresses cast to pointers.
"""

import ast
import contextlib
import functools
import importlib
import inspect
import pathlib
import runpy
import sys
import textwrap
import types
from collections.abc import Callable, Iterator

OPERATORS = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "/", ast.Mod: "%", ast.And: "&&", ast.Or: "||",
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Not: "!", ast.USub: "-",
}  # fmt: skip
PROGRAMS = runpy.run_path(str(pathlib.Path(__file__).with_name("programs.py")))
BUILTINS = {"min": "MIN", "max": "MAX"}
POINTERS = {"Address": "ELEMENT *", "Entries": "const int64_t *"}
INTEGERS = ("int", *POINTERS)


@contextlib.contextmanager
def kernels(root: str) -> Iterator[Callable[[str], types.ModuleType]]:
    """A context with a function that imports modules of `fastconv.kernels` without `fastconv`, which imports NumPy."""
    others = {name: sys.modules.pop(name) for name in [*sys.modules] if name.split(".")[0] == "fastconv"}
    package = sys.modules["fastconv"] = types.ModuleType("fastconv")
    package.__path__ = [root]
    try:
        yield lambda name: importlib.import_module(f"fastconv.kernels.{name}")
    finally:
        for name in [*sys.modules]:
            if name.split(".")[0] == "fastconv":
                del sys.modules[name]
        sys.modules.update(others)


class Printer:
    """Prints functions and the functions that they call, each once and before its callers. Functions of the modules
    `primitives` and `others` are declarations of primitives."""

    def __init__(self, primitives: types.ModuleType, arguments: types.ModuleType, *others: types.ModuleType) -> None:
        self.primitives, self.arguments = {module.__name__: vars(module) for module in (primitives, *others)}, arguments
        self.structures: dict[str, str] = {}
        self.kinds: dict[str, type] = {}
        self.tuples: dict[str, str] = {}
        self.functions: dict[str, str] = {}
        self.sources: dict[str, types.FunctionType] = {}

    def structure(self, kind: type) -> str:
        """Print a structure of arguments; returns its name."""
        name = kind.__name__
        if name not in self.structures:
            members = self.arguments.fields(kind)
            self.kinds[name] = kind
            kinds = {field: "int64_t" if of is int else self.structure(of) for field, of in members.items()}
            listed = "".join(f"    {of} {field};\n" for field, of in kinds.items())
            self.structures[name] = f"typedef struct {{\n{listed}}} {name};\n"
        return name

    def results(self, number: int) -> str:
        """Print the structure of `number` integers that a function returns; returns its name."""
        name = f"fastconv_{number}_integers"
        listed = ", ".join(f"v{i}" for i in range(number))
        self.tuples.setdefault(name, f"typedef struct {{\n    int64_t {listed};\n}} {name};\n")
        return name

    def function(self, function: types.FunctionType) -> None:
        """Print a function, after the functions that it calls."""
        known = self.sources.setdefault(function.__name__, function)
        if known is not function:
            raise NameError(f"{function.__module__} and {known.__module__} both have a function {function.__name__}")
        if function.__name__ not in self.functions:
            self.functions[function.__name__] = ""
            self.functions[function.__name__] = Function(self, function).printed()
            # callers come after what they call
            self.functions[function.__name__] = self.functions.pop(function.__name__)

    def entry(self, function: types.FunctionType) -> None:
        """Print a driver, and a function `..._pass` that calls it with the arguments that all passes have."""
        self.function(function)
        plan, *addresses, item = inspect.signature(function, eval_str=True).parameters.values()
        structure = plan.annotation.__name__
        given = ", ".join([f"(const {structure} *)plan", *["(intptr_t){}"] * len(addresses), "item"])
        kinds = [f"const int64_t *{addresses[0].name}"]
        kinds += [f"{'' if a.name in ('out', 'space') else 'const '}void *{a.name}" for a in addresses[1:]]
        name = f"{function.__name__}_pass"
        self.functions[name] = (
            f"static void NAME({name})(const int64_t *plan, {', '.join(kinds)}, int64_t {item.name}) {{\n"
            f"    NAME({function.__name__})({given.format(*(a.name for a in addresses))});\n}}\n"
        )


class Function:
    """Prints one function."""

    def __init__(self, printer: Printer, function: types.FunctionType) -> None:
        self.printer, self.function, self.scope = printer, function, function.__globals__
        (self.tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
        #: The type of each variable: "int64_t", "ELEMENT" or the name of a structure.
        self.kinds: dict[str, str] = {}
        self.number = 0

    def fail(self, node: ast.AST, what: str) -> None:
        """Raise for Python that drivers may not use."""
        line = self.function.__code__.co_firstlineno + node.lineno - 1
        raise SyntaxError(f"{self.function.__code__.co_filename}:{line}: {what} cannot be printed as C")

    def kind_of(self, annotation: ast.expr | None) -> str:
        """The C type of a parameter or of a result."""
        if annotation is None or ast.unparse(annotation) == "None":
            return "void"
        if isinstance(annotation, ast.Subscript):
            return self.printer.results(len(annotation.slice.elts))
        name = ast.unparse(annotation)
        if name in INTEGERS:
            return "int64_t"
        return "ELEMENT" if name == "Element" else self.printer.structure(self.scope[name])

    def declared(self, kind: str, name: str) -> str:
        """The declaration of a variable."""
        return f"const {kind} *{name}" if kind in self.printer.structures else f"{kind} {name}"

    def printed(self) -> str:
        """The whole function as C."""
        parameters = []
        for argument in self.tree.args.args:
            kind = self.kinds[argument.arg] = self.kind_of(argument.annotation)
            parameters.append(self.declared(kind, argument.arg))
        given = set(self.kinds)
        self.result = self.kind_of(self.tree.returns)
        body = "".join(self.block(self.tree.body[1:], 1))
        variables = "".join(
            f"    {self.declared(kind, name)};\n" for name, kind in self.kinds.items() if name not in given
        )
        unused = "".join(f"    (void){argument.arg};\n" for argument in self.tree.args.args)
        how = "NOINLINE" if has_nested_loops(self.tree) else "static inline"
        return f"{how} {self.result} NAME({self.tree.name})({', '.join(parameters)}) {{\n{variables}{unused}{body}}}\n"

    def block(self, statements: list[ast.stmt], depth: int) -> Iterator[str]:
        """The lines of several statements."""
        for statement in statements:
            yield from (f"{'    ' * depth}{line}\n" for line in self.statement(statement))

    def statement(self, node: ast.stmt) -> Iterator[str]:
        """The lines of one statement."""
        match node:
            case ast.Assign(targets=[target], value=value):
                yield from self.assigned(target, value)
            case ast.AugAssign(target=ast.Name(name), op=op, value=value) if type(op) in OPERATORS:
                yield f"{name} {OPERATORS[type(op)]}= {self.expression(value)};"
            case ast.For(target=ast.Name(name), iter=ast.Call(func=ast.Name("range"), args=args), orelse=[]):
                given = [self.expression(argument) for argument in args]
                start, stop, step = {1: ["0", *given, "1"], 2: [*given, "1"], 3: given}[len(given)]
                self.number += 1
                i, end, by = (f"{what}_{self.number}" for what in ("next", "stop", "step"))
                yield f"for (int64_t {i} = {start}, {end} = {stop}, {by} = {step}; {i} < {end}; {i} += {by}) {{"
                if name != "_":
                    self.kinds.setdefault(name, "int64_t")
                    yield f"    {name} = {i};"
                yield from self.inner(node.body)
                yield "}"
            case ast.While(test=test, body=body, orelse=[]):
                yield f"while ({self.expression(test)}) {{"
                yield from self.inner(body)
                yield "}"
            case ast.If(test=test, body=body, orelse=orelse):
                yield f"if ({self.expression(test)}) {{"
                yield from self.inner(body)
                if orelse:
                    yield "} else {"
                    yield from self.inner(orelse)
                yield "}"
            case ast.Expr(value=ast.Call() as call):
                yield f"{self.expression(call)};"
            case ast.Return(value=ast.Tuple(elts=values)):
                yield f"return ({self.result}){{{', '.join(map(self.expression, values))}}};"
            case ast.Return(value=None):
                yield "return;"
            case ast.Return(value=value):
                yield f"return {self.expression(value)};"
            case ast.Continue():
                yield "continue;"
            case ast.Break():
                yield "break;"
            case _:
                self.fail(node, ast.unparse(node).splitlines()[0])

    def inner(self, statements: list[ast.stmt]) -> Iterator[str]:
        """The lines of a block inside a statement."""
        for line in self.block(statements, 1):
            yield line.rstrip("\n")

    def assigned(self, target: ast.expr, value: ast.expr) -> Iterator[str]:
        """The lines of an assignment to one name or to several."""
        match target, value:
            case ast.Name(name), _:
                printed = self.expression(value)
                self.kinds.setdefault(name, self.kind(value))
                yield f"{name} = {self.reference(value)}{printed};"
            case ast.Tuple(elts=names), ast.Tuple(elts=values):
                read = {node.id for one in values for node in ast.walk(one) if isinstance(node, ast.Name)}
                if read & {name.id for name in names}:
                    self.fail(target, "assigning names that are read at once")
                for one, of in zip(names, values, strict=True):
                    yield from self.assigned(one, of)
            case ast.Tuple(elts=names), ast.Call():
                self.number += 1
                yield f"const {self.kind(value)} results_{self.number} = {self.expression(value)};"
                for i, name in enumerate(names):
                    self.kinds.setdefault(name.id, "int64_t")
                    yield f"{name.id} = results_{self.number}.v{i};"
            case _:
                self.fail(target, ast.unparse(target))

    def kind(self, node: ast.expr) -> str:
        """The C type of an expression."""
        match node:
            case ast.Name(name) if name in self.kinds:
                return self.kinds[name]
            case ast.Call(func=ast.Name(name)) if name not in BUILTINS:
                function = self.scope[name]
                (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
                return Function(self.printer, function).kind_of(tree.returns)
            case ast.Attribute(value=value, attr=attr):
                kind = self.printer.arguments.fields(self.structure_of(value))[attr]
                return "int64_t" if kind is int else kind.__name__
            case ast.IfExp(body=body):
                return self.kind(body)
        return "int64_t"

    def reference(self, node: ast.expr) -> str:
        """`&` if the expression is a structure inside another."""
        return "&" if isinstance(node, ast.Attribute) and self.kind(node) in self.printer.structures else ""

    def structure_of(self, node: ast.expr) -> type:
        """The structure that is an expression's type."""
        return self.printer.kinds[self.kind(node)]

    def expression(self, node: ast.expr) -> str:
        """An expression as C."""
        match node:
            case ast.Constant(value=bool() as value):
                return str(int(value))
            case ast.Constant(value=int() as value):
                return str(value)
            case ast.Name(name):
                known = name in self.kinds or isinstance(self.scope.get(name), int)
                if not known:
                    self.fail(node, name)
                if name in self.kinds or any(name in names for names in self.printer.primitives.values()):
                    return name
                return str(self.scope[name])
            case ast.Attribute(value=value, attr=attr):
                self.structure_of(value)
                arrow = "->" if isinstance(value, ast.Name) else "."
                return f"{self.expression(value)}{arrow}{attr}"
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return f"({self.expression(left)} {OPERATORS[type(op)]} {self.expression(right)})"
            case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
                return f"({OPERATORS[type(op)]}{self.expression(operand)})"
            case ast.BoolOp(op=op, values=values):
                return f"({f' {OPERATORS[type(op)]} '.join(map(self.expression, values))})"
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in OPERATORS:
                return f"({self.expression(left)} {OPERATORS[type(op)]} {self.expression(right)})"
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return f"({self.expression(test)} ? {self.expression(body)} : {self.expression(orelse)})"
            case ast.Call(func=ast.Name(name), args=args, keywords=[]):
                return self.called(name, args)
        self.fail(node, ast.unparse(node))
        return ""

    def called(self, name: str, args: list[ast.expr]) -> str:
        """A call of a function of `fastconv.kernels`, of a primitive, of `min` or of `max`."""
        printed = [self.expression(argument) for argument in args]
        if name in BUILTINS:
            return functools.reduce(lambda one, other: f"{BUILTINS[name]}({one}, {other})", printed)
        function = self.scope[name]
        kind = self.kind(ast.Call(ast.Name(name), args, []))
        if kind in self.printer.structures:  # a row of a table
            tables, start, number = printed
            return f"((const {kind} *)(intptr_t)({tables} + 8 * {start}) + {number})"
        parameters = list(inspect.signature(function).parameters.values())
        if len(parameters) != len(args):
            raise TypeError(f"{self.tree.name} calls {name} with {len(args)} arguments, not {len(parameters)}")
        if function.__module__ in self.printer.primitives:
            printed = [
                f"({POINTERS[of.annotation]})(intptr_t)({text})" if of.annotation in POINTERS else text
                for of, text in zip(parameters, printed, strict=True)
            ]
        else:
            self.printer.function(function)
            printed = [self.reference(argument) + text for argument, text in zip(args, printed, strict=True)]
        return f"NAME({name})({', '.join(printed)})"


def has_nested_loops(function: ast.FunctionDef) -> bool:
    """Whether a function works on a whole block. Inlined, it would take registers from the loops around its call."""
    loops = [node for node in ast.walk(function) if isinstance(node, ast.For | ast.While)]
    return any(isinstance(node, ast.For | ast.While) for loop in loops for node in ast.walk(loop) if node is not loop)


def headers(root: str) -> dict[str, str]:
    """The headers by name: `structures.h`; the others are included for each element type."""
    with kernels(root) as module:
        printer = Printer(module("primitives"), module("arguments"), module("spectra"))
        for driver in module("drivers").PASSES:
            printer.entry(driver)
        kinds = {
            driver.__name__: module("drivers").structure_of(driver).__name__ for driver in module("drivers").PASSES
        }
        signature = module("drivers").signature()
        matrices = PROGRAMS["winograd_header"](module("toom_cook"), module("abi").WINOGRAD)
        transforms = PROGRAMS["fourier_header"](module("fourier"), module("abi").FOURIER)
    passes = " ".join(f"DO({name}, {kind})" for name, kind in kinds.items())
    listed = [
        f"#define FOR_PASSES(DO) {passes}",
        f"enum {{ PASS_COUNT = {len(kinds)}, P_ITEMS = 0, P_GROUP = 1, P_WORKSPACE = 2 }};",
        f'#define FASTCONV_PASSES "{" ".join(kinds)}"',
        f'#define FASTCONV_SIGNATURE "{signature}"',
    ]
    about = "/* Made from fastconv/kernels by _cython/printer.py. */\n"
    guard = "#ifndef FASTCONV_STRUCTURES_H\n#define FASTCONV_STRUCTURES_H\n"
    structures = "".join([guard, *printer.structures.values(), *printer.tuples.values()])
    return {
        "structures.h": about + structures + "\n".join([*listed, "#endif", ""]),
        "drivers.h": about + "".join(printer.functions.values()),
        "toom_cook.h": about + matrices,
        "fourier.h": about + transforms,
    }
