"""Text that is safe to print: whatever goes in, one line that steers nothing comes out, and readable text stays."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from ddcnn.text import name_fault, printable


@given(st.text(st.characters()))
def test_no_control_comes_through(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    shown.encode()
    for char in shown:
        category = unicodedata.category(char)
        assert category not in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp"), hex(ord(char))
        assert unicodedata.bidirectional(char) not in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    assert printable(shown) == shown


@given(st.text(st.characters(categories=["L", "M", "N", "P", "S", "Zs"])))
def test_letters_of_all_languages_stay(text: str) -> None:
    assert printable(text) == text


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_whatever_shows_something_is_a_name(text: str) -> None:
    assert (name_fault(text) is None) == any(
        unicodedata.category(char) not in ("Zs", "Zl", "Zp", "Cf") for char in text
    )


def test_bytes_of_a_file_name_that_are_no_utf8() -> None:
    name = b"caf\xe9\x1b[31m".decode("utf-8", "surrogateescape")
    assert printable(name) == "caf\\udce9\\x1b[31m"


def test_joiners_stay_where_the_spelling_needs_them() -> None:
    for word in ("می\u200cخواهم", "क्\u200dष", "\U0001f468\u200d\U0001f469\u200d\U0001f467"):
        assert printable(word) == word
    assert printable("ca\u200dt") == "ca\\u200dt"
    assert printable("\u200dक") == "\\u200dक"
