"""Which small faults a source file can be given, found in its syntax tree."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
CLAMPS = {"clamp", "clip", "round", "abs", "nan_to_num", "minimum", "maximum", "sorted", "detach"}
COMMUTES = {"min", "max", "minimum", "maximum", "isclose"}
QUIET = {"info", "debug"}  # methods of a logger whose loss only a reader would notice
DEFENSIVE = {"strict"}  # keywords that only guard against a fault elsewhere


class Mutant(NamedTuple):
    """One fault.

    Attributes:
        path: The file, from the repository's root.
        function: Qualified name of the function it is in, "" outside of any.
        first: Line on which that function's code begins (its first decorator), 0 outside of any.
        text: The line that the fault begins on, without indentation.
        what: The fault in words.
        number: Tells equal faults of equal lines of one function apart.
        begin: Offset in bytes of what is replaced.
        end: Offset after it.
        new: The replacement.
    """

    path: str
    function: str
    first: int
    text: str
    what: str
    number: int
    begin: int
    end: int
    new: str

    @property
    def kind(self) -> str:
        """The first word of `what`."""
        return self.what.partition(":")[0]

    @property
    def key(self) -> str:
        """Names the mutant; the same while its line and the function's name stay."""
        extra = f" #{self.number}" if self.number else ""
        return f"{self.path} | {self.function} | {self.text} | {self.what}{extra}"

    def apply(self, source: bytes) -> bytes:
        """Returns the file's contents with the fault."""
        return source[: self.begin] + self.new.encode() + source[self.end :]


def find(path: str, source: bytes) -> list[Mutant]:
    """Returns all mutants of a file, in its order; a few are no valid Python (see `parses`)."""
    finder = _Finder(path, source)
    finder.visit(ast.parse(source))
    return finder.found


def parses(source: bytes) -> bool:
    """Returns whether it is Python."""
    try:
        compile(source, "mutant", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


class _Finder(ast.NodeVisitor):
    """Collects faults; messages, annotations, decorators and assertions stay as they are."""

    def __init__(self, path: str, source: bytes) -> None:
        self.found: list[Mutant] = []
        self._path = path
        self._lines = source.splitlines(keepends=True)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))
        self._scope: list[str] = []
        self._first = 0
        self._seen: Counter[tuple[str, str, str]] = Counter()

    def visit(self, node: ast.AST) -> None:
        """Adds the faults of a node, then those inside of it."""
        if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr):
            return
        for kind, rule in _RULES.items():
            for what, target, new in rule(node):
                self._add(f"{kind}: {what}", target, new)
        super().visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Visits defaults and body."""
        before = self._first
        self._scope.append(node.name)
        self._first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        for child in (*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body):
            self.visit(child)
        self._first = before
        self._scope.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Visits the body."""
        self._scope.append(node.name)
        for child in node.body:
            self.visit(child)
        self._scope.pop()

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Visits the value."""
        if node.value is not None:
            self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        """Visits all, unless only a type checker sees it."""
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        """Visits the value, unless it is only a guard."""
        if node.arg not in DEFENSIVE:
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Visits all, unless it is a message."""
        if not _is_message(node):
            self.generic_visit(node)

    def _add(self, what: str, target: ast.expr | ast.stmt, new: str) -> None:
        text = self._lines[target.lineno - 1].decode().strip()
        function = ".".join(self._scope)
        begin = self._starts[target.lineno - 1] + target.col_offset
        assert target.end_lineno is not None
        assert target.end_col_offset is not None
        end = self._starts[target.end_lineno - 1] + target.end_col_offset
        number = self._seen[function, text, what]
        self._seen[function, text, what] += 1
        self.found.append(
            Mutant(self._path, function, self._first, text, what, number, begin, end, new)
        )


def _is_message(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in QUIET
    )


Fault = tuple[str, "ast.expr | ast.stmt", str]  # in words, what is replaced, by what


def _changed(node: ast.expr, **fields: object) -> Fault:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return f"{_short(node)} -> {_short(new)}", node, f"({ast.unparse(new)})"


def _replaced(node: ast.expr, new: ast.expr) -> Fault:
    return f"{_short(node)} -> {_short(new)}", node, f"({ast.unparse(new)})"


def _short(node: ast.AST) -> str:
    text = ast.unparse(node).replace("\n", " ").replace("|", "OR")
    return text if len(text) <= 72 else f"{text[:34]} ... {text[-34:]}"


def _comparisons(node: ast.AST) -> Iterator[Fault]:
    if isinstance(node, ast.Compare):
        for place, op in enumerate(node.ops):
            ops = list(node.ops)
            ops[place] = COMPARED[type(op)]()
            yield _changed(node, ops=ops)


def _arithmetic(node: ast.AST) -> Iterator[Fault]:
    if not isinstance(node, ast.BinOp) or type(node.op) not in COMPUTED:
        return
    texts = (ast.JoinedStr, ast.List, ast.Tuple)
    for side in (node.left, node.right):  # paths, texts and lists only raise TypeError
        if isinstance(side, texts) or (
            isinstance(side, ast.Constant) and not isinstance(side.value, int | float)
        ):
            return
    yield _changed(node, op=COMPUTED[type(node.op)]())


def _constants(node: ast.AST) -> Iterator[Fault]:
    if not isinstance(node, ast.Constant):
        return
    if isinstance(node.value, bool):
        yield _changed(node, value=not node.value)
    elif isinstance(node.value, int | float):
        yield _changed(node, value=node.value + 1)
        yield _replaced(node, ast.BinOp(node, ast.Sub(), ast.Constant(1)))


def _logic(node: ast.AST) -> Iterator[Fault]:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield _replaced(node, node.operand)
    if isinstance(node, ast.BoolOp):
        yield _changed(node, op=ast.And() if isinstance(node.op, ast.Or) else ast.Or())
        for place in range(len(node.values)):
            rest = [*node.values[:place], *node.values[place + 1 :]]
            yield _replaced(node, rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest))


def _statements(node: ast.AST) -> Iterator[Fault]:
    dropped = isinstance(node, ast.AugAssign | ast.Delete | ast.Continue | ast.Break) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await)
    )
    if dropped and not (isinstance(node, ast.Expr) and _is_message(node.value)):
        assert isinstance(node, ast.stmt)
        yield f"drop {_short(node)}", node, "pass"


def _arguments(node: ast.AST) -> Iterator[Fault]:
    if not isinstance(node, ast.Call) or _is_message(node):
        return
    args = node.args
    for place in range(len(args) - 1) if _name(node) not in COMMUTES else ():
        pair = args[place : place + 2]
        if not any(isinstance(each, ast.Starred) for each in pair) and _differ(*pair):
            yield _changed(node, args=[*args[:place], *pair[::-1], *args[place + 2 :]])
    for place, keyword in enumerate(node.keywords):
        if keyword.arg is not None and keyword.arg not in DEFENSIVE:
            keywords = [*node.keywords[:place], *node.keywords[place + 1 :]]
            what, target, new = _changed(node, keywords=keywords)
            yield f"without {keyword.arg}= in {what.partition(' -> ')[0]}", target, new


def _differ(first: ast.expr, second: ast.expr) -> bool:
    return ast.dump(first) != ast.dump(second)


def _clamps(node: ast.AST) -> Iterator[Fault]:
    if not isinstance(node, ast.Call):
        return
    if isinstance(node.func, ast.Name) and node.func.id in ("min", "max") and len(node.args) > 1:
        for kept in node.args:
            if not isinstance(kept, ast.Starred):
                yield _replaced(node, kept)
    elif _name(node) in CLAMPS:
        of_module = isinstance(node.func, ast.Name) or (
            isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id in ("np", "torch", "math")
        )
        kept = node.args[:1] if of_module else [node.func.value]  # type: ignore[attr-defined]
        yield from (_replaced(node, each) for each in kept if not isinstance(each, ast.Starred))


def _name(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _branches(node: ast.AST) -> Iterator[Fault]:
    if isinstance(node, ast.IfExp):
        yield _replaced(node, node.body)
        yield _replaced(node, node.orelse)
    if isinstance(node, ast.If):
        yield f"never if {_short(node.test)}", node.test, "False"
        if not isinstance(node.body[0], ast.Raise):
            yield f"always if {_short(node.test)}", node.test, "True"
    if isinstance(node, ast.comprehension):
        for test in node.ifs:
            yield f"all, not only if {_short(test)}", test, "True"


_RULES: dict[str, Callable[[ast.AST], Iterator[Fault]]] = {
    "comparison": _comparisons,
    "arithmetic": _arithmetic,
    "constant": _constants,
    "logic": _logic,
    "statement": _statements,
    "argument": _arguments,
    "clamp": _clamps,
    "branch": _branches,
}
