"""Values on the command line, `--cfg-options KEY=VALUE`: as mmdetection reads them, but spaces and paths stay whole."""
import ast
from typing import Any, NamedTuple

# The last parts of keys whose values are paths, where a comma separates nothing.
_PATHS = frozenset({
    'ann_file', 'checkpoint', 'data_root', 'dir', 'img', 'load_from', 'outfile_prefix', 'resume', 'seg', 'work_dir',
})  # fmt: skip
_CLOSING = {'(': ')', '[': ']', '{': '}'}
_WORDS = {'true': True, 'True': True, 'TRUE': True, 'false': False, 'False': False, 'FALSE': False, 'None': None}


def option_value(key: str, text: str) -> Any:
    """What a value on the command line means.

    * `1`, `1e-3`, `True`, `None`: a number, a truth value, None;
    * `[a, b c, (1, 2)]`, `(a, b)`, or `a, b` for a list: a list or a tuple of such values, quoted as a whole or not;
    * `{'a': 1}`: a dict as in Python;
    * `"a, b"` or `'1'`, quotes included: that string, as it is;
    * `my data/a,b`: what has a slash, or stands under the key of a path, is one string;
    * anything else: a string. Spaces count, but for those around it.

    Args:
        key: dotted.
        text: what stands behind the `=`.

    Raises:
        ValueError: brackets or quotes that do not match.
    """
    text = text.strip()
    if _is_quoted(text) and _is_bracketed(text[1:-1].strip()):
        text = text[1:-1].strip()
    is_path = key.rpartition('.')[2] in _PATHS or '/' in text or '\\' in text
    if is_path and not _is_quoted(text) and text[:1] not in _CLOSING:
        return _WORDS.get(text, text)
    return _values(text) if len(_scanned(text).items) > 1 else _value(text)


def _value(text: str) -> Any:
    """What one item means, which no comma divides."""
    text = text.strip()
    if _is_quoted(text):
        return text[1:-1]
    if _is_bracketed(text):
        if text[0] == '{':
            return ast.literal_eval(text)
        values = _values(text[1:-1])
        return tuple(values) if text[0] == '(' else values
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return _WORDS.get(text, text)


def _values(text: str) -> list:
    """What items between commas mean; there is none behind a last comma."""
    items = _scanned(text).items
    return [_value(item) for item in (items if items[-1].strip() else items[:-1])]


def _is_quoted(text: str) -> bool:
    """Whether a pair of quotes stands around all of it."""
    return len(text) > 1 and text[0] in '\'"' and text.find(text[0], 1) == len(text) - 1


def _is_bracketed(text: str) -> bool:
    """Whether a pair of brackets stands around all of it."""
    try:
        return _scanned(text).is_bracketed
    except ValueError:
        return False


class _Scanned(NamedTuple):
    """A text with brackets and quotes.

    Attributes:
        items: what stands between the commas that are in no brackets and no quotes.
        is_bracketed: whether a pair of brackets stands around all of it.
    """

    items: list[str]
    is_bracketed: bool


def _scanned(text: str) -> _Scanned:
    items, start = [], 0
    open_brackets: list[str] = []
    quote = before = ''
    first_close = -1
    for i, character in enumerate(text):
        if quote:
            quote = '' if character == quote else quote
        elif character in '\'"' and before in ('', ',', *_CLOSING, ':'):  # within a word it is an apostrophe
            quote = character
        elif character in _CLOSING:
            open_brackets.append(_CLOSING[character])
        elif character in _CLOSING.values():
            if not open_brackets or open_brackets.pop() != character:
                raise ValueError(f'{text}: brackets that do not match')
            if not open_brackets and first_close < 0:
                first_close = i
        elif character == ',' and not open_brackets:
            items.append(text[start:i])
            start = i + 1
        before = before if character.isspace() else character
    if quote or open_brackets:
        raise ValueError(f'{text}: {"quotes" if quote else "brackets"} that do not match')
    return _Scanned([*items, text[start:]], text[:1] in _CLOSING and first_close == len(text) - 1)
