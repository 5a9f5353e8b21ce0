# SPDX-License-Identifier: Apache-2.0
"""Read a rule: the grammar of the Common Expression Language, by precedence.

Written by hand because the reason and the place of a mistake are half of what a rule editor is for; see ADR 0003.
"""

from svc_segmentation.domain.lexer import Token, tokens
from svc_segmentation.domain.syntax import (
    MAX_DEPTH,
    MAX_NODES,
    Binary,
    Call,
    Chain,
    Index,
    Items,
    Literal,
    Name,
    RuleError,
    Select,
    Syntax,
    Ternary,
    Unary,
)

_RELATIONS = ("<", "<=", ">", ">=", "==", "!=", "in")
_LEVELS = (_RELATIONS, ("+", "-"), ("*", "/", "%"))
_WORDS = {"true": True, "false": False, "null": None}
_JOINERS = {"and": "&&", "or": "||", "not": "!"}


def parse(rule: str) -> Syntax:
    """Return the syntax of a rule; raises `RuleError` with the reason and the place."""
    return _Parser(tokens(rule)).whole()


class _Parser:
    def __init__(self, stream: list[Token]) -> None:
        self._tokens = stream
        self._next = 0
        self._depth = 0
        if len(stream) > 2 * MAX_NODES:
            raise RuleError(f"the rule is too long: at most {MAX_NODES} operators and operands", stream[-1].at)

    def whole(self) -> Syntax:
        expression = self._expression()
        if self._peek.kind != "end":
            raise self._unexpected("an operator")
        return expression

    @property
    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _accept(self, *values: str) -> Token | None:
        token = self._peek
        return self._take() if token.kind in ("sign", "word") and token.value in values else None

    def _expect(self, value: str) -> Token:
        token = self._accept(value)
        if token is None:
            raise self._unexpected(repr(value))
        return token

    def _unexpected(self, wanted: str) -> RuleError:
        token = self._peek
        found = token.value if token.kind == "end" else repr(token.value)
        hint = _JOINERS.get(token.value.lower()) if token.kind == "name" else None
        suffix = f"; write {hint} for {token.value.lower()}" if hint else ""
        return RuleError(f"expected {wanted}, found {found}{suffix}", token.at)

    def _deeper(self, at: int) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise RuleError(f"the rule is nested too deeply: at most {MAX_DEPTH} levels", at)

    def _expression(self) -> Syntax:
        self._deeper(self._peek.at)
        condition = self._chain("||")
        if self._accept("?"):
            then = self._chain("||")
            self._expect(":")
            condition = Ternary(condition.at, condition, then, self._expression())
        self._depth -= 1
        return condition

    def _chain(self, operator: str) -> Syntax:
        def operand() -> Syntax:
            return self._chain("&&") if operator == "||" else self._binary(0)

        operands = [operand()]
        while self._accept(operator):
            operands.append(operand())
        return operands[0] if len(operands) == 1 else Chain(operands[0].at, operator, tuple(operands))

    def _binary(self, level: int) -> Syntax:
        if level == len(_LEVELS):
            return self._unary()
        left, entered = self._binary(level + 1), 0
        while operator := self._accept(*_LEVELS[level]):
            # A row of operators nests to the left: each is one level more for whoever walks the tree.
            self._deeper(operator.at)
            entered += 1
            left = Binary(left.at, operator.value, operator.at, left, self._binary(level + 1))
        self._depth -= entered
        return left

    def _unary(self) -> Syntax:
        signs: list[Token] = []
        while sign := self._accept("!", "-"):
            self._deeper(sign.at)
            signs.append(sign)
        operand = self._member()
        for sign in reversed(signs):
            operand = Unary(sign.at, sign.value, operand)
        self._depth -= len(signs)
        return operand

    def _member(self) -> Syntax:
        operand, entered = self._primary(), 0
        while token := self._accept(".", "[", "{"):
            self._deeper(token.at)
            entered += 1
            if token.value == ".":
                operand = self._field(operand)
            elif token.value == "[":
                operand = Index(operand.at, operand, self._expression())
                self._expect("]")
            else:
                raise RuleError("a rule makes no messages", token.at)
        self._depth -= entered
        return operand

    def _field(self, operand: Syntax) -> Syntax:
        name = self._peek
        if name.kind not in ("name", "word"):
            raise self._unexpected("a name after '.'")
        self._take()
        if self._accept("("):
            return Call(operand.at, name.value, name.at, operand, self._list(")"))
        return Select(operand.at, operand, name.value)

    def _primary(self) -> Syntax:
        token = self._peek
        if token.kind in ("text", "number"):
            self._take()
            return Literal(token.at, token.literal)
        if token.kind == "word" and token.value in _WORDS:
            self._take()
            return Literal(token.at, _WORDS[token.value])
        if token.kind == "name":
            return self._name()
        if self._accept("("):
            expression = self._expression()
            self._expect(")")
            return expression
        if self._accept("["):
            return Items(token.at, self._list("]"))
        if token.value == "{" and token.kind == "sign":
            raise RuleError("a rule has no maps", token.at)
        raise self._unexpected("a value")

    def _name(self) -> Syntax:
        name = self._take()
        if self._accept("("):
            return Call(name.at, name.value, name.at, None, self._list(")"))
        if name.value.lower() in _JOINERS and self._peek.kind != "sign" and self._peek.kind != "end":
            hint = _JOINERS[name.value.lower()]
            raise RuleError(f"write {hint} for {name.value.lower()}", name.at)
        return Name(name.at, name.value)

    def _list(self, end: str) -> tuple[Syntax, ...]:
        if self._accept(end):
            return ()
        items = [self._expression()]
        while self._accept(","):
            if end == "]" and self._peek.value == "]" and self._peek.kind == "sign":
                break
            items.append(self._expression())
        self._expect(end)
        return tuple(items)
