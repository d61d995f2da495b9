"""Colours of the report; matplotlib figure -> SVG that lives inside a page and follows its light or dark theme."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

PALETTE = {
    "ink": ("#1d2227", "#e7e5e0"),
    "muted": ("#5a636c", "#a7aeb6"),
    "rule": ("#d5d9dd", "#3b4148"),
    "paper": ("#fefefe", "#15181c"),
    "global": ("#6b7580", "#aab3bc"),
    "local": ("#c8553d", "#ec8268"),
    "average": ("#3a92c8", "#6cbdec"),
    "vote": ("#b3588f", "#dc92be"),
    "cnn-dnn": ("#0067a8", "#4a9fdc"),
    "coherent": ("#bd7f00", "#eeb02e"),
    "transfer": ("#00815f", "#2fbf97"),
    "other": ("#82705d", "#b9a693"),
}
"""Colours by role or strategy, (light, dark): apart for colour-blind eyes, at least 3:1 against the paper."""

_OF_THE_PAGE = {"link": ("#00588f", "#7fbdec"), "shade": ("#00000038", "#ffffff40")}
"""Colours that no figure has."""

_SMALLEST = 10
"""Pixels on the screen of the smallest letters of a figure: a wider figure than fits is scrolled, not reduced."""

_NARROW, _ENLARGED = 260, 1.35
"""Points of a figure that fits a phone, and how much larger it may be where there is room."""

INK, MUTED, RULE, PAPER = (PALETTE[name][0] for name in ("ink", "muted", "rule", "paper"))

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "text.usetex": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.titlesize": 9.5,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "axes.unicode_minus": False,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "legend.frameon": False,
    "image.interpolation": "none",
    "path.simplify": True,
}


@contextmanager
def style() -> Iterator[None]:
    """Use the look of the report, whatever the user's own matplotlib settings are."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the browser has the glyph
        yield


def colour(name: str) -> str:
    """Return the (light) colour of a strategy or of a stage such as ``local/fold0``."""
    base = {"dnn": "cnn-dnn"}.get(name.partition("/")[0], name.partition("/")[0])
    return PALETTE.get(base, PALETTE["other"])[0]


def variable(name: str) -> str:
    """Return the colour of a strategy as a CSS value."""
    return f"var(--{name if name in PALETTE else 'other'})"


def theme() -> str:
    """Return the CSS that defines every colour as a variable, for light and dark."""
    colours = PALETTE | _OF_THE_PAGE
    light, dark = (";".join(f"--{name}:{pair[i]}" for name, pair in colours.items()) for i in (0, 1))
    return (
        f":root{{color-scheme:light dark;{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
    )


def shades(values: np.ndarray, name: str = "cnn-dnn") -> np.ndarray:
    """Return (H, W) values in 0..1 as an (H, W, 4) image whose opacity is the value; NaN is transparent."""
    red, green, blue = (int(PALETTE[name][0][i : i + 2], 16) for i in (1, 3, 5))
    image = np.zeros((*values.shape, 4), np.uint8)
    image[..., :3] = red, green, blue
    image[..., 3] = np.round(255 * np.nan_to_num(np.clip(values, 0, 1)))
    return image


def ink_on(shade: float) -> str:
    """Return the colour of text that is legible on a shade in both themes."""
    return "#ffffff" if shade > 0.8 else INK


def to_svg(figure: Figure, *, name: str, alt: str) -> str:
    """Return a figure as an SVG element.

    Parameters
    ----------
    figure
        Any figure.
    name
        Unique in the page; makes the identifiers inside the element unique.
    alt
        What a reader who cannot see the figure should know.
    """
    file = io.StringIO()
    metadata: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with style(), mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata=metadata)
    text = file.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*</defs>", "", text).replace("xlink:href=", "href=")
    text = _own_ids(text, name)
    for role, (light, _) in PALETTE.items():
        text = text.replace(f": {light}", f": var(--{role})")
    width = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert width is not None
    sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", text)]
    least = f"min-width:{float(width[1]) * _SMALLEST / min(sizes):.0f}px;" if sizes else ""
    most = float(width[1]) * (_ENLARGED if float(width[1]) <= _NARROW else 1)
    look = f"{least}max-width:{most:.0f}pt"
    head = f'<svg class="plot" role="img" aria-label="{html.escape(alt)}" {width[0]} style="{look}">'
    text = head + text[text.index(">") + 1 :]
    return re.sub(r"\n\s*", "\n", text)


def _own_ids(text: str, name: str) -> str:
    """Drop identifiers that nothing refers to; prefix the others."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)


def mean_of(lines: np.ndarray) -> np.ndarray:
    """Return the mean of (epochs, M) over M; NaN where nothing was measured."""
    known = np.isfinite(lines)
    total = np.where(known, lines, 0).sum(axis=1)
    return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)


def ticks(n: int, most: int) -> Sequence[int]:
    """Return at most about ``most`` of the positions 0..n-1.

    >>> list(ticks(10, 5))
    [0, 2, 4, 6, 8]
    """
    return range(0, n, max(1, -(-n // most)))
