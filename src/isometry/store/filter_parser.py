"""The filter language: recursive descent from text to `isometry.store.filter`.

::

    filter  = and {"or" and}              and = not {"and" not}            not = ["not"] atom
    atom    = "(" filter ")" | "exists" field | field test
    test    = ("=" | "!=" | "<" | "<=" | ">" | ">=") value | ["not"] "in" "(" value {"," value} ")"
            | ["not"] "between" value "and" value | ["not"] "exists"
    field   = word {"." word} | `any characters`          value = 'text' | "text" | number | true | false | null

A quote inside text is doubled (``'it''s'``); words are case-insensitive; ``[...]`` may stand for ``(...)``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from isometry.errors import FilterError, InputError
from isometry.store.filter import And, Exists, Filter, Not, OneOf, Or, Range, Scalar

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
    | (?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    | (?P<name>`[^`]+`)
    | (?P<word>[^\W\d][\w\-]*(?:\.[\w\-]+)*)
    | (?P<mark><=|>=|!=|<>|==|[=<>()\[\],]))""",
    re.VERBOSE,
)
_KEYWORDS = frozenset({"and", "or", "not", "in", "between", "exists", "true", "false", "null"})
_CONSTANTS: dict[str, Scalar] = {"true": True, "false": False, "null": None}
_CLOSING = {"(": ")", "[": "]"}
_DEEPEST = 100  # nested parentheses


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def parse(expression: str) -> Filter:
    """Read a filter expression.

    >>> parse("year >= 2020 and lang in ('de', 'fr')")  # doctest: +ELLIPSIS
    And(parts=(Range(field='year', low=2020, ...), OneOf(field='lang', values=('de', 'fr'))))

    Raises
    ------
    FilterError
        With the position of the first thing that cannot be read.
    """
    return _Parser(expression).run()


class _Parser:
    def __init__(self, expression: str) -> None:
        self.expression, self.at, self.depth = expression, 0, 0
        self.tokens = self._tokens()

    def run(self) -> Filter:
        if self.next.kind == "end":
            self._fail("it is empty; write for example year >= 2020 and lang = 'de'.")
        try:
            found = self._any()
        except FilterError:
            raise
        except InputError as error:  # a node refused its arguments
            raise FilterError(self.expression, self.tokens[self.at - 1].at, str(error)) from None
        if self.next.kind != "end":
            self._fail(f"{self.next.text!r} is one too many; join conditions with and / or.")
        return found

    def _tokens(self) -> list[_Token]:
        tokens, at, end = [], 0, len(self.expression.rstrip())
        while at < end:
            match = _TOKEN.match(self.expression, at)
            if match is None:
                at += len(self.expression[at:]) - len(self.expression[at:].lstrip())
                character = self.expression[at]
                hint = "this text is not closed" if character in "'\"`" else f"{character!r} has no meaning here"
                raise FilterError(self.expression, at, f"{hint}; put text in quotes, as in lang = 'de'.")
            kind = str(match.lastgroup)
            text, at = match[kind], match.end()
            if kind == "word" and text.lower() in _KEYWORDS:
                kind, text = "key", text.lower()
            tokens.append(_Token(kind, text, match.start(match.lastgroup or 0)))
        return [*tokens, _Token("end", "", end)]

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def _take(self, *texts: str) -> str | None:
        """Step over the next token if it is one of these marks or keywords."""
        token = self.next
        if token.kind in ("mark", "key") and token.text in texts:
            self.at += 1
            return token.text
        return None

    def _expect(self, text: str) -> None:
        if not self._take(text):
            self._fail(f"{text!r} is expected here.")

    def _fail(self, problem: str) -> NoReturn:
        raise FilterError(self.expression, self.next.at, problem)

    def _any(self) -> Filter:
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _all(self) -> Filter:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _one(self) -> Filter:
        negated = False
        while self._take("not"):
            negated = not negated
        found = self._atom()
        return Not(found) if negated else found

    def _atom(self) -> Filter:
        if opening := self._take("("):
            self.depth += 1
            if self.depth > _DEEPEST:
                self._fail(f"parentheses nest deeper than {_DEEPEST}.")
            found = self._any()
            self._expect(_CLOSING[opening])
            self.depth -= 1
            return found
        if self._take("exists"):
            return Exists(self._field())
        return self._test(self._field())

    def _field(self) -> str:
        token = self.next
        if token.kind not in ("word", "name"):
            named = f"the {'word' if token.kind == 'key' else token.kind} {token.text}" if token.text else "the end"
            self._fail(f"the name of a field is expected, not {named}; put unusual names in `backticks`.")
        self.at += 1
        return token.text.strip("`")

    def _test(self, field: str) -> Filter:
        negated = self._take("not") is not None
        if self._take("exists"):
            return Not(Exists(field)) if negated else Exists(field)
        found: Filter
        if self._take("in"):
            found = OneOf(field, self._list())
        elif self._take("between"):
            low = self._bound()
            self._expect("and")
            found = Range(field, low, self._bound())
        elif negated:
            self._fail("in, between or exists is expected after not.")
        else:
            return self._comparison(field)
        return And((Exists(field), Not(found))) if negated else found

    def _comparison(self, field: str) -> Filter:
        match self._take("=", "==", "!=", "<>", "<", "<=", ">", ">="):
            case "=" | "==":
                return OneOf(field, (self._value(),))
            case "!=" | "<>":
                return And((Exists(field), Not(OneOf(field, (self._value(),)))))
            case "<" | "<=" as operator:
                return Range(field, high=self._bound(), with_high=operator == "<=")
            case ">" | ">=" as operator:
                return Range(field, low=self._bound(), with_low=operator == ">=")
        self._fail(f"a comparison is expected after {field!r}: = != < <= > >= in between exists.")

    def _list(self) -> tuple[Scalar, ...]:
        opening = self._take("(", "[")
        if opening is None:
            self._fail("a list is expected after in, as in lang in ('de', 'fr').")
        values = [self._value()]
        while self._take(","):
            values.append(self._value())
        self._expect(_CLOSING[opening])
        return tuple(values)

    def _bound(self) -> str | float | int:
        value = self._value()
        if value is None or isinstance(value, bool):
            self.at -= 1
            self._fail("only numbers and text have an order.")
        return value

    def _value(self) -> Scalar:
        token = self.next
        if token.kind == "key" and token.text in _CONSTANTS:
            self.at += 1
            return _CONSTANTS[token.text]
        if token.kind == "text":
            self.at += 1
            quote = token.text[0]
            return token.text[1:-1].replace(quote * 2, quote)
        if token.kind == "number":
            self.at += 1
            whole = token.text.lstrip("+-").isdigit() and len(token.text) < 40
            return int(token.text) if whole else float(token.text)
        self._fail("a value is expected here: 'text' in quotes, a number, true, false or null.")
