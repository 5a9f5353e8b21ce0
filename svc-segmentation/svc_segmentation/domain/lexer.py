# SPDX-License-Identifier: Apache-2.0
"""Cut a rule into the tokens of the Common Expression Language."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from svc_segmentation.domain.syntax import RuleError

WORDS = frozenset({"true", "false", "null", "in"})
RESERVED = frozenset(
    {
        "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package",
        "namespace", "return", "var", "void", "while",
    }
)  # fmt: skip

_TOKEN = re.compile(
    r"""
      (?P<space>(?:[ \t\n\f\r]+|//[^\n]*)+)
    | (?P<raw>[rR](?:\"{3}(?s:.*?)\"{3}|'{3}(?s:.*?)'{3}|"[^"\r\n]*"|'[^'\r\n]*'))
    | (?P<text>(?P<prefix>[rRbB]{0,2})(?:\"{3}(?s:\\.|.)*?\"{3}|'{3}(?s:\\.|.)*?'{3}
          |"(?:\\.|[^"\\\r\n])*"|'(?:\\.|[^'\\\r\n])*'))
    | (?P<number>0[xX][0-9a-fA-F]+[uU]?|(?:[0-9]+\.[0-9]+|\.[0-9]+|[0-9]+)(?:[eE][+-]?[0-9]+)?[uU]?)
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<sign>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}])
    """,
    re.VERBOSE,
)
_ESCAPE = re.compile(
    r"\\(?:(?P<plain>[abfnrtv\\'\"`?])|x(?P<x>[0-9a-fA-F]{2})|X(?P<X>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})"
    r"|U(?P<U>[0-9a-fA-F]{8})|(?P<octal>[0-3][0-7]{2})|(?P<wrong>.?))",
    re.DOTALL,
)
_PLAIN = dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True))
_HINTS = {
    "=": "write == to compare",
    "&": "write && for and",
    "|": "write || for or",
    "“": "write straight quotes",
    "”": "write straight quotes",
    "‘": "write straight quotes",
    "’": "write straight quotes",
    "`": "write straight quotes",
    ";": "a rule is one expression",
}
_MAX_INTEGER = 2**63 - 1
_MAX_FLOAT = Decimal("1.7976931348623157e308")


@dataclass(frozen=True)
class Token:
    """One word, sign or literal; `kind` is `text`, `number`, `name`, `word`, `sign` or `end`."""

    kind: str
    value: str
    at: int
    literal: str | Decimal | None = None


def tokens(rule: str) -> list[Token]:
    """Return the tokens of a rule, an `end` token last; raises `RuleError`."""
    return [*_tokens(rule), Token("end", "the end of the rule", len(rule))]


def _tokens(rule: str) -> Iterator[Token]:
    at = 0
    while at < len(rule):
        match = _TOKEN.match(rule, at)
        if match is None:
            raise _unknown(rule, at)
        kind, value = match.lastgroup or "", match.group()
        if kind == "raw":
            yield Token("text", value, at, _body(value[1:]))
        elif kind == "text":
            yield Token("text", value, at, _text(match))
        elif kind == "number":
            _check_number_ends(rule, match.end())
            yield Token("number", value, at, _number(value, at))
        elif kind == "word":
            if value in RESERVED:
                raise RuleError(f"{value!r} is a reserved word", at)
            yield Token("word" if value in WORDS else "name", value, at)
        elif kind == "sign":
            yield Token("sign", value, at)
        at = match.end()


def _unknown(rule: str, at: int) -> RuleError:
    character = rule[at]
    if character in "'\"":
        return RuleError("the text that begins here has no end", at)
    if character in _HINTS:
        return RuleError(f"unexpected {character!r}; {_HINTS[character]}", at)
    if character.isalpha():
        return RuleError(
            'a name has letters a to z, digits and _; write traits["…"] for a trait with any other name', at
        )
    return RuleError(f"unexpected {character!r}", at)


def _check_number_ends(rule: str, at: int) -> None:
    if at < len(rule) and (rule[at].isalnum() or rule[at] == "_"):
        raise RuleError(f"unexpected {rule[at]!r} in a number", at)


def _number(text: str, at: int) -> Decimal:
    body = text.rstrip("uU") if text[:2] in ("0x", "0X") or text[-1] in "uU" else text
    value = Decimal(int(body, 16)) if body[:2] in ("0x", "0X") else Decimal(body)
    if body.isdigit() or body[:2] in ("0x", "0X"):
        if value > _MAX_INTEGER:
            raise RuleError(f"a whole number is at most {_MAX_INTEGER}", at)
    elif text[-1] in "uU":
        raise RuleError("only a whole number may end with u", at)
    elif value > _MAX_FLOAT or (value and value.adjusted() < -300):
        raise RuleError("the number is out of range", at)
    return value


def _text(match: re.Match[str]) -> str:
    prefix, at = match.group("prefix"), match.start()
    if "b" in prefix.lower():
        raise RuleError("a rule has no byte strings", at)
    if prefix:
        raise RuleError("one r is enough before a text", at)
    body = _body(match.group())
    value = _unescape(body, at + (len(match.group()) - len(body)) // 2)
    if "\x00" in value:
        raise RuleError("a text cannot hold the character NUL", at)
    return value


def _body(quoted: str) -> str:
    quote = 3 if quoted[:3] in ('"""', "'''") and len(quoted) >= 6 else 1
    return quoted[quote:-quote]


def _unescape(body: str, start: int) -> str:
    def replace(match: re.Match[str]) -> str:
        at = start + match.start()
        if match["wrong"] is not None:
            raise RuleError(f"unknown escape {match.group()!r}; write \\\\ for a backslash", at)
        if match["plain"]:
            return _PLAIN.get(match["plain"], match["plain"])
        if match["octal"]:
            return chr(int(match["octal"], 8))
        code = int(match["x"] or match["X"] or match["u"] or match["U"], 16)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise RuleError(f"{match.group()} is no character", at)
        return chr(code)

    return _ESCAPE.sub(replace, body)
