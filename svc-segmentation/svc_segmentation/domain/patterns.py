# SPDX-License-Identifier: Apache-2.0
"""Regular expressions: the part of RE2 that a rule may use, written for PostgreSQL.

CEL says that `matches` speaks RE2. PostgreSQL's own dialect differs in small things (`\\b` is a backspace, `.` is also
a line break, back-references exist), so a pattern is read as RE2, whatever both do not share is refused, and what
PostgreSQL gets cannot mean anything else. Letters, digits and blanks are those of ASCII, as in RE2.
"""

from dataclasses import dataclass

MAX_LENGTH = 500
MAX_REPEAT = 255
MAX_REPEATS_NESTED = 1000

_CLASSES = {"d": "0-9", "w": "0-9A-Za-z_", "s": "\\t\\n\\f\\r "}
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "a": "\a"}
_EDGES = {"b": "\\y", "B": "\\Y", "A": "^", "z": "$"}
_POSIX = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "digit": "0-9", "lower": "a-z", "upper": "A-Z", "blank": "\\t ",
    "space": "\\t\\n\\v\\f\\r ", "word": "0-9A-Za-z_", "xdigit": "0-9A-Fa-f",
    "punct": "!-\\/:-@\\[-`\\{-~",
}  # fmt: skip


class PatternError(Exception):
    """A pattern that is none, or that the two engines would read differently."""


def to_postgres(pattern: str) -> str:
    """Translate a pattern of RE2; raises `PatternError`."""
    if len(pattern) > MAX_LENGTH:
        raise PatternError(f"at most {MAX_LENGTH} characters")
    return _Reader(pattern).whole()


@dataclass
class _Atom:
    text: str
    repeats: int = 1
    quantifiable: bool = True


class _Reader:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._any = "[^\\n]"
        self._depth = 0

    def whole(self) -> str:
        options = self._options()
        atom = self._alternatives()
        if self._at < len(self._pattern):
            raise self._error("a ) without (")
        return options + atom.text

    def _error(self, reason: str) -> PatternError:
        return PatternError(f"{reason}, at character {min(self._at, len(self._pattern)) + 1} of the pattern")

    def _ahead(self, length: int = 1) -> str:
        return self._pattern[self._at : self._at + length]

    def _take(self, reason: str = "the pattern ends too early") -> str:
        if self._at >= len(self._pattern):
            raise self._error(reason)
        self._at += 1
        return self._pattern[self._at - 1]

    def _options(self) -> str:
        """Read `(?i)` and `(?s)`, which may only stand at the very beginning."""
        end = self._pattern.find(")")
        flags = self._pattern[2:end]
        if not self._pattern.startswith("(?") or not flags or not set(flags) <= {"i", "s"}:
            return ""
        self._at = end + 1
        if "s" in flags:
            self._any = "."
        return "(?i)" if "i" in flags else ""

    def _alternatives(self) -> _Atom:
        self._depth += 1
        if self._depth > 20:
            raise self._error("too many groups inside one another")
        branches = [self._branch()]
        while self._ahead() == "|":
            self._at += 1
            branches.append(self._branch())
        self._depth -= 1
        return _Atom("|".join(branch.text for branch in branches), max(b.repeats for b in branches))

    def _branch(self) -> _Atom:
        pieces = [_Atom("")]
        while self._ahead() and self._ahead() not in "|)":
            pieces.append(self._quantified())
        return _Atom("".join(piece.text for piece in pieces), max(piece.repeats for piece in pieces))

    def _quantified(self) -> _Atom:
        atom = self._atom()
        quantifier, most = self._quantifier()
        if not quantifier:
            return atom
        if not atom.quantifiable:
            raise self._error("there is nothing to repeat")
        if self._ahead() == "?":
            self._at += 1  # Greedy or not is all the same to whether it matches.
        if self._ahead() and self._ahead() in "*+?":
            raise self._error("a repetition of a repetition")
        repeats = atom.repeats * max(most, 1)
        if repeats > MAX_REPEATS_NESTED:
            raise self._error(f"more than {MAX_REPEATS_NESTED} repetitions in all")
        return _Atom(atom.text + quantifier, repeats)

    def _quantifier(self) -> tuple[str, int]:
        sign = self._ahead()
        if sign and sign in "*+?":
            self._at += 1
            return sign, 1
        end = self._pattern.find("}", self._at)
        low, comma, high = self._pattern[self._at + 1 : end].partition(",") if sign == "{" and end > 0 else ("", "", "")
        if not low.isascii() or not low.isdigit() or (high and not (high.isascii() and high.isdigit())):
            return "", 1
        self._at = end + 1
        least, most = int(low), int(high or low)
        if max(least, most) > MAX_REPEAT or most < least:
            raise self._error(f"a repetition is at most {MAX_REPEAT} times, the smaller number first")
        return f"{{{least}{comma}{high and most}}}", most

    def _atom(self) -> _Atom:
        character = self._take()
        if character in "*+?{":
            self._at -= 1
            if self._quantifier()[0]:
                raise self._error("there is nothing to repeat")
            self._at += 1
        if character == "(":
            return self._group()
        if character == "[":
            return _Atom(self._bracket())
        if character == "\\":
            return self._escape()
        if character == ".":
            return _Atom(self._any)
        if character in "^$":
            return _Atom(character, quantifiable=False)
        return _Atom(_literal(character))

    def _group(self) -> _Atom:
        if self._ahead() == "?":
            self._group_kind()
        inner = self._alternatives()
        if self._ahead() != ")":
            raise self._error("a ( without )")
        self._at += 1
        return _Atom(f"(?:{inner.text})", inner.repeats)

    def _group_kind(self) -> None:
        for start in ("?:", "?P<", "?<"):
            if self._ahead(len(start)) == start and self._ahead(3) not in ("?<=", "?<!"):
                self._at += len(start)
                if start != "?:":
                    self._group_name()
                return
        raise self._error("only (?:…), (?P<name>…) and, at the beginning, (?i) and (?s) are known")

    def _group_name(self) -> None:
        end = self._pattern.find(">", self._at)
        if end < 0 or not self._pattern[self._at : end].isidentifier():
            raise self._error("a group's name is letters, digits and _")
        self._at = end + 1

    def _escape(self) -> _Atom:
        character = self._take("a \\ at the end")
        if character in _CLASSES:
            return _Atom(f"[{_CLASSES[character]}]")
        if character.lower() in _CLASSES:
            return _Atom(f"[^{_CLASSES[character.lower()]}]")
        if character in _EDGES:
            return _Atom(_EDGES[character], quantifiable=False)
        return _Atom(_literal(self._character(character)))

    def _character(self, escaped: str) -> str:
        """Read what a backslash makes of a character, where it is a single one."""
        if escaped in _CONTROLS:
            return _CONTROLS[escaped]
        if escaped == "x":
            return self._hexadecimal()
        if escaped.isascii() and not escaped.isalnum():
            return escaped
        self._at -= 1
        raise self._error(f"\\{escaped} is not known")

    def _hexadecimal(self) -> str:
        if self._ahead() == "{":
            end = self._pattern.find("}", self._at)
            digits, self._at = self._pattern[self._at + 1 : end], end + 1
        else:
            digits, self._at = self._ahead(2), self._at + 2
        try:
            character = chr(int(digits, 16))
            character.encode()
        except (ValueError, OverflowError):
            character = "\x00"
        if character == "\x00" or not digits.isalnum():
            raise self._error("\\x has two hexadecimal digits, or more in {}")
        return character

    def _bracket(self) -> str:
        negated = self._ahead() == "^"
        self._at += negated
        items = ""
        while self._ahead() != "]" or not items:
            items += self._bracket_item()
        self._at += 1
        return f"[{'^' if negated else ''}{items}]"

    def _bracket_item(self) -> str:
        if self._ahead(2) == "[:":
            return self._posix()
        first = self._bracket_character()
        if len(first) > 1 or self._ahead() != "-" or self._ahead(2) in ("-]", "-"):
            return first if len(first) > 1 else _literal(first)
        self._at += 1
        last = self._bracket_character()
        if len(last) > 1 or last < first:
            raise self._error("a range goes from the smaller to the greater character")
        return f"{_literal(first)}-{_literal(last)}"

    def _bracket_character(self) -> str:
        """Return one character as it is, or the inside of a class such as `\\d`."""
        character = self._take("a [ without ]")
        if character != "\\":
            return character
        escaped = self._take("a \\ at the end")
        return _CLASSES.get(escaped) or self._character(escaped)

    def _posix(self) -> str:
        end = self._pattern.find(":]", self._at)
        name = self._pattern[self._at + 2 : end]
        if end < 0 or name not in _POSIX:
            raise self._error(f"a class is one of {', '.join(sorted(_POSIX))}")
        self._at = end + 2
        return _POSIX[name]


def _literal(character: str) -> str:
    return "\\" + character if character.isascii() and not character.isalnum() and character > " " else character
