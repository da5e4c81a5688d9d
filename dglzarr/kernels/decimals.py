"""Owns the reading of plain decimal numbers from text, many at once.

What it gains over pandas' parser is in docs/reproduce.md (Decimals), by ``bench_decimals.py``.

References
----------
Clinger (1990), doi 10.1145/93542.93557: when one division of exact numbers is correctly rounded.
"""

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.intp]

_WORD = 8
_MOST_DIGITS = 15
_BYTE = np.uint64(8)
_ASCII_ZEROS = np.uint64(0x3030303030303030)
_LAST = np.array([2**64 - 2 ** (8 * (_WORD - k)) for k in range(_WORD + 1)], dtype=np.uint64)
_TENS = 10.0 ** np.arange(_MOST_DIGITS + 1)


def parse_decimals(text: bytes, separator: bytes) -> NDArray[np.float64] | None:
    """Return the numbers of cells that each end with a separator; None where one is not plain.

    Plain are an optional minus and up to 15 digits, at most 8 before a point. They are read as
    ``float`` reads them, to the last bit.

    Parameters
    ----------
    text : cells of ASCII, each followed by the separator
    separator : one byte

    Examples
    --------
    >>> parse_decimals(b"7.25,-3,.5,", b",")
    array([ 7.25, -3.  ,  0.5 ])
    >>> parse_decimals(b"7.25,1e3,", b",") is None
    True
    """
    data = np.frombuffer(b"0" * _WORD + text, np.uint8)
    found = _find_parts(data, np.flatnonzero(data - np.uint8(ord("0")) > 9), ord(separator))
    if found is None:
        return None
    starts, points, ends, is_negative = found
    n_before, n_after = points - starts, np.maximum(ends - points - 1, 0)
    n_digits = n_before + n_after
    if n_before.min() < 0 or n_digits.min() < 1 or n_digits.max() > _MOST_DIGITS:
        return None
    if n_before.max() > _WORD:
        return None
    scale = _TENS[n_after]
    values: NDArray[np.float64]
    if n_digits.max() < _WORD:
        values = _short_numbers(data, points, ends, n_digits)
    elif n_after.max() <= _WORD:
        values = _digits_before(data, points, n_before) * scale
        values += _digits_before(data, ends, n_after)
    else:
        values = _digits_before(data, points, n_before) * scale
        n_last = np.maximum(n_after - _WORD, 0)
        values += _digits_before(data, ends - n_last, n_after - n_last) * _TENS[n_last]
        values += _digits_before(data, ends, n_last)
    values /= scale
    values[is_negative] *= -1.0
    return values


def _find_parts(
    data: NDArray[np.uint8], others: Index, separator: int
) -> tuple[Index, Index, Index, Index] | None:
    """Return where the digits of cells start, their points (or ends), ends, and negative cells.

    None where bytes other than digits, ``others``, are anything but a minus at the start of a
    cell, one point and the separator at its end.
    """
    kinds = data[others]
    if not kinds.size or kinds[-1] != separator or others[-1] != data.size - 1:
        return None
    points, ends = others[::2], others[1::2]
    if (kinds[::2] == ord(".")).all() and (kinds[1::2] == separator).all():
        return np.append(_WORD, ends[:-1] + 1), points, ends, np.empty(0, dtype=np.intp)
    at = np.flatnonzero(kinds == separator)
    first = np.append(0, at[:-1] + 1)
    ends = others[at]
    starts = np.append(_WORD, ends[:-1] + 1)
    has_point = (kinds[at - 1] == ord(".")) & (at > first)
    is_negative = (kinds[first] == ord("-")) & (others[first] == starts)
    if (first + has_point + is_negative != at).any():
        return None
    points = np.where(has_point, others[at - 1], ends)
    return starts + is_negative, points, ends, np.flatnonzero(is_negative)


def _short_numbers(
    data: NDArray[np.uint8], points: Index, ends: Index, n_digits: Index
) -> NDArray[np.float64]:
    """Return the number that the digits of each cell make without its point; with it, eight bytes.

    The digits before the point move on to its place.
    """
    words = _words(data, ends)
    has_point = (points < ends).astype(np.uint64)
    moved = words << (has_point * _BYTE)
    moved ^= words
    moved &= ~_LAST[np.maximum(ends - points - 1, 0)]
    words ^= moved
    return _numbers(words, n_digits)


def _digits_before(data: NDArray[np.uint8], places: Index, n_digits: Index) -> NDArray[np.float64]:
    """Return the number that each run of at most eight digits before a place makes."""
    return _numbers(_words(data, places), n_digits)


def _words(data: NDArray[np.uint8], places: Index) -> NDArray[np.uint64]:
    """Return the eight bytes before each place."""
    words = np.ndarray(data.size - _WORD + 1, "<u8", data, strides=(1,))
    return words[places - _WORD]


def _numbers(words: NDArray[np.uint64], n_digits: Index) -> NDArray[np.float64]:
    """Return the number that the last bytes of each word, so many digits, make; changes words."""
    words ^= _ASCII_ZEROS
    words &= _LAST[n_digits]
    for factor, shift, mask in _STEPS:
        words *= factor
        words >>= shift
        words &= mask
    return words.astype(np.float64)


_STEPS = [
    (np.uint64(10 * 2**8 + 1), np.uint64(8), np.uint64(0x00FF00FF00FF00FF)),
    (np.uint64(100 * 2**16 + 1), np.uint64(16), np.uint64(0x0000FFFF0000FFFF)),
    (np.uint64(10_000 * 2**32 + 1), np.uint64(32), np.uint64(0x00000000FFFFFFFF)),
]
