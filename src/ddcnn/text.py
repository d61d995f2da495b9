r"""Any text, such as the name of a file or of a class, made safe to print in one line.

Names come from file systems, archives and tables, and may hold what steers a terminal (ESC), ends a line, or shows
another order of letters than there is (bidirectional overrides: CVE-2021-42574). They are kept as they are, and escaped
where they are printed.
"""

from __future__ import annotations

import unicodedata

LONGEST_NAME = 1_000  # characters of the name of a class
_MOST_DIGITS = 15  # of a float
_INVISIBLE = frozenset({"Zs", "Zl", "Zp", "Cf"})
_JOINERS = "\u200c\u200d"  # ZWNJ, ZWJ: Persian, Hindi and many emoji are misspelt without them
_VISIBLE_FORMATS = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")


def printable(text: object) -> str:
    r"""Return text as one line that no terminal obeys; what could steer one is shown as Python would write it.

    Letters, marks, digits, signs and spaces of all languages stay. Escaped are controls (C0, DEL, C1), line and
    paragraph separators, invisible formats (bidirectional controls, zero-width space, soft hyphen, tags), lone
    surrogates (bytes of a file name that are no UTF-8), private and unassigned characters. A zero-width joiner or
    non-joiner stays between two letters, marks or symbols beyond ASCII, where the spelling needs it, and is escaped
    elsewhere, where it could only make two equal-looking names. A backslash stays single, so the result is for eyes: it
    cannot always be turned back.

    >>> printable("Größe 猫 हिन्दी می\u200cخواهم")
    'Größe 猫 हिन्दी می\u200cخواهم'
    >>> print(printable("\x1b[2Jcat\r\nd\u202eog\udcff\u2028\x9b"))
    \x1b[2Jcat\r\nd\u202eog\udcff\u2028\x9b
    >>> print(printable("ca\u200dt \u200b"))
    ca\u200dt \u200b
    >>> printable(printable("a\tb")) == printable("a\tb") == r"a\tb"
    True
    """
    text = str(text)
    if text.isprintable():
        return text
    around = ["", *text, ""]
    return "".join(
        char if _stays(char, around[i], around[i + 2]) else char.encode("unicode_escape").decode("ascii")
        for i, char in enumerate(text)
    )


def _stays(char: str, before: str, after: str) -> bool:
    if char.isprintable() or unicodedata.category(char) == "Zs" or char in _VISIBLE_FORMATS:
        return True
    return char in _JOINERS and _joins(before) and _joins(after)


def _joins(char: str) -> bool:
    return bool(char) and not char.isascii() and unicodedata.category(char)[0] in "LMS"


def name_fault(name: str) -> str | None:
    r"""Return what is wrong with the name of a class, as the end of a sentence; None: nothing.

    Any text of any language is a name, spaces, joiners and controls included: they are escaped where they are printed
    (`printable`). The same rule holds where data are read and where a run is read, so what trains can be loaded.

    >>> name_fault("می\u200cخواهم"), name_fault("\x1b[2J"), name_fault(" \u200b")
    (None, None, 'holds no visible character')
    >>> name_fault("caf\udce9")
    'holds bytes that are no UTF-8'
    """
    if any(unicodedata.category(char) == "Cs" for char in name):
        return "holds bytes that are no UTF-8"
    if len(name) > LONGEST_NAME:
        return f"has more than {LONGEST_NAME:,} characters"
    # the separators and formats of Unicode show nothing by themselves; all else does, escaped if need be
    return None if any(unicodedata.category(char) not in _INVISIBLE for char in name) else "holds no visible character"


def duration(seconds: float) -> str:
    """Write a time for people.

    >>> duration(0.4), duration(40), duration(200), duration(9000)
    ('less than 1 s', '40 s', '3 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "less than 1 s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size_text(size: float, *, unlike: float | None = None) -> str:
    """Write a number of bytes with three digits, or with as many as tell it from another number.

    >>> size_text(300 * 2**20), size_text(1_300_000_000), size_text(40_000), size_text(0)
    ('300 MiB', '1.21 GiB', '39.1 KiB', '0 KiB')
    >>> size_text(4_000_000, unlike=4_000_100), size_text(4_000_100, unlike=4_000_000)
    ('3.8147 MiB', '3.8148 MiB')
    """
    digits = 3
    if unlike is not None and unlike != size:
        while digits < _MOST_DIGITS and _size_text(size, digits) == _size_text(unlike, digits):
            digits += 1
    return _size_text(size, digits)


def _size_text(size: float, digits: int) -> str:
    size, unit = size / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if size >= 999.5:
            size, unit = size / 1024, larger
    return f"{size:.{digits}g} {unit}"
