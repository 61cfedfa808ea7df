"""What the labelling page is sent, checked before anything is done with it."""

import json
import re
from typing import Any, NoReturn

from ssl_lightning.labelling.records import LONGEST, Answer, Given, require_class_name, require_text

AT_ONCE = 500  # answers in one request
HELD = 200  # queries that one browser's tab may hold
LARGEST = 2**53 - 1  # whole number that every browser and database can keep
LONGEST_NAME = 80  # characters of an annotator's name


class Fields:
    """The fields of a JSON object, each asked for by its name and type.

    Args:
        content: Of a request's body.

    Raises:
        ValueError: If it is no JSON object.

    Example:
        >>> Fields(b'{"count": 3}').whole("count", 1, 10)
        3
        >>> Fields(b'{"count": -3}').whole("count", 1, 10)
        Traceback (most recent call last):
        ValueError: `count=-3` must be a whole number from 1 to 10.
    """

    def __init__(self, content: bytes | dict[str, Any]) -> None:
        if isinstance(content, bytes):
            content = _parsed(content)
        if not isinstance(content, dict):
            raise ValueError("the body must be a JSON object, as `{...}`.")
        self._content = content

    def has(self, name: str) -> bool:
        """Tell whether a field is there, and not null."""
        return self._content.get(name) is not None

    def whole(self, name: str, least: int, most: int) -> int:
        """Return a whole number of a range."""
        value = self._content.get(name)
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"`{name}={_short(value)}` must be a whole number from {least} to {most}.")
        return value

    def number(self, name: str) -> int | None:
        """Return the number of a query, answer or line, or null where there is none."""
        return self.whole(name, 0, LARGEST) if self.has(name) else None

    def numbers(self, name: str) -> list[int]:
        """Return a list of numbers, as of answers; empty where it is missing."""
        some = self._content.get(name, [])
        if not isinstance(some, list) or len(some) > AT_ONCE:
            raise ValueError(f"`{name}={_short(some)}` must be a list of at most {AT_ONCE} numbers.")
        return [Fields({name: one}).whole(name, 1, LARGEST) for one in some]

    def flag(self, name: str) -> bool:
        """Return true or false; false where it is missing."""
        value = self._content.get(name, False)
        if type(value) is not bool:
            raise ValueError(f"`{name}={_short(value)}` must be true or false.")
        return value

    def text(self, name: str, longest: int) -> str:
        """Return a text that databases keep."""
        value = self._content.get(name)
        if not isinstance(value, str) or len(value) > longest or "\0" in value:
            raise ValueError(
                f"`{name}={_short(value)}` must be a text of at most {longest} characters, none of it NUL."
            )
        require_text(**{name: [value]})
        return value

    def annotator(self) -> str:
        """Return who answers: `annotator`, a name that can be read."""
        name = self.text("annotator", LONGEST_NAME)
        if not name or name != name.strip() or not name.isprintable():
            raise ValueError(
                f"`annotator={_short(name)}` must be a name of 1 to {LONGEST_NAME} printable characters without spaces "
                "at its ends; say who you are."
            )
        return name

    def session(self) -> str:
        """Return which browser's tab asks: `session`, an identifier that it drew."""
        name = self.text("session", 64)
        if not re.fullmatch(r"[A-Za-z0-9_-]{8,64}", name):
            raise ValueError(f"`session={_short(name)}` must be 8 to 64 letters, digits, `-` or `_`.")
        return name

    def answers(self) -> list[Given]:
        """Return the answers of `annotator`."""
        some, who = self._content.get("answers"), self.annotator()
        if not isinstance(some, list) or not 1 <= len(some) <= AT_ONCE:
            raise ValueError(f"`answers` must be a list of 1 to {AT_ONCE} answers.")
        given = [_given(Fields(one), who) for one in some]
        if len({one.query for one in given}) < len(given):
            raise ValueError("`answers` has two answers to one query; send one of them.")
        return given


def _given(fields: Fields, annotator: str) -> Given:
    kind = fields.text("kind", 16)
    if kind not in ("class", "skip", "unsure"):
        raise ValueError(f"`kind={_short(kind)}` must be class, skip or unsure.")
    label = None
    if kind == "class":
        label = fields.text("label", LONGEST)
        if fields.flag("new_class"):  # the store knows the others
            require_class_name(label)
    elif fields.has("label"):
        raise ValueError(f"`kind={kind}` goes without a `label`; leave it out, or answer with `kind=class`.")
    answer = Answer(
        fields.text("key", 4096), label, annotator, kind,  # type: ignore[arg-type]
        milliseconds=fields.whole("milliseconds", 0, 2**31 - 1) if fields.has("milliseconds") else None,
        source="page", new_class=fields.flag("new_class"),
    )  # fmt: skip
    return Given(fields.whole("query", 1, LARGEST), answer, fields.number("replaces"))


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is one
        raise ValueError(f"the body is no JSON: {str(error).splitlines()[0][:200]}; send an object in UTF-8.") from None


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _short(value: Any) -> str:
    """Show a value in a message, whatever it is."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
