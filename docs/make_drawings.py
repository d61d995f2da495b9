"""Draw the concepts: docs/images/method.svg, two-levels.svg, training.svg.

python docs/make_drawings.py

Lines and letters have the colour of the text around them where a page puts the drawing into itself, as the site does;
in a picture by itself they follow the reader's light or dark setting.
"""

from __future__ import annotations

from pathlib import Path

IMAGES = Path(__file__).parent / "images"
LOCAL = ("#2b7cb0", "#bb4d36", "#00785a", "#8f6400")
COARSE, AGGREGATION, GLOBAL = "#a34c80", "#005f9c", "#626c77"
# of a picture by itself
STYLE = "<style>:root{color:#1d2227}@media(prefers-color-scheme:dark){:root{color:#e7e5e0}}</style>"
LETTERS = 'font-family="system-ui,sans-serif" font-size="13" fill="currentColor" stroke="none"'


def main() -> None:
    for name, size, parts in (
        ("method", (760, 300), method()),
        ("two-levels", (760, 360), two_levels()),
        ("training", (760, 330), training()),
    ):
        width, height = size
        body = "".join(parts)
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round">{STYLE}{body}</svg>\n'
        )
        (IMAGES / f"{name}.svg").write_text(svg, encoding="utf-8")


def method() -> list[str]:
    parts = [scene(20, 80, 140), cuts(20, 80, 140), label(90, 250, "image"), label(90, 268, "(C, H, W)", small=True)]
    for n, colour in enumerate(LOCAL):
        y = 22 + 68 * n
        parts += [subimage(n, 215, y, 48), arrow(160, 150, 210, y + 24), *chain(n, y, colour)]
    parts += [label(239, 292, "subimages"), label(345, 292, "local CNNs"), label(470, 292, "probabilities")]
    return parts + decision(150, 120)


def two_levels() -> list[str]:
    parts = [scene(20, 100, 140), cuts(20, 100, 140), label(90, 270, "image")]
    for n, colour in enumerate(LOCAL):
        y = 12 + 62 * n
        parts += [subimage(n, 215, y, 48), arrow(160, 165, 210, y + 24), *chain(n, y, colour)]
    y = 276
    parts += [scene(215, y, 48), framed(215, y, 48, COARSE)]
    parts += [path("M 90 278 Q 120 318 208 302", COARSE), arrow(200, 303, 210, 301), *chain(4, y, COARSE)]
    parts += [label(239, 344, "reduced whole image", small=True), label(345, 344, "coarse CNN", small=True)]
    return parts + decision(165, 150)


def training() -> list[str]:
    parts = []
    left, unit = 130, 250
    local = [(0, 0.55, colour, f"local CNN {n}") for n, colour in enumerate(LOCAL)]
    rows = (
        ("global", [(0, 2 * 0.8, GLOBAL, "global CNN")]),
        ("local", [*local, (0.6, 0.35, AGGREGATION, "DNN")]),
        ("coherent", [(0, 1.0, AGGREGATION, "local CNNs and DNN as one")]),
        ("transfer", [*local, (0.6, 0.35, AGGREGATION, "DNN"), (1.0, 1.0, AGGREGATION, "all as one")]),
    )  # fmt: skip
    y = 18
    for name, bars in rows:
        several = len(bars) > 1
        middle = y + (36 if several else 13)
        parts.append(label(left - 16, middle + 4, name, anchor="end"))
        for start, length, colour, text in bars:
            local = text.startswith("local CNN ")
            top = y + 18 * int(text[-1]) if local else (middle - 13)
            height = 15 if local else 26
            x = left + unit * start
            parts.append(filled(x, top, unit * length, height, colour))
            parts.append(label(x + unit * length / 2, top + height / 2 + 4, text, colour="#ffffff", small=local))
        y += 92 if several else 48
    time = label(left, y + 28, "time, with a worker for each local CNN", anchor="start", small=True)
    return [*parts, arrow(left, y + 8, 704, y + 8), time]


def scene(x: float, y: float, size: float) -> str:
    """Return a small picture: a house under a sun."""
    s = size / 140
    return (
        f'<g transform="translate({x} {y}) scale({s})" stroke="none">'
        '<rect width="140" height="140" rx="3" fill="#cfe3f1"/><rect y="98" width="140" height="42" fill="#9cc59a"/>'
        '<circle cx="108" cy="32" r="16" fill="#f0b840"/><rect x="34" y="66" width="62" height="52" fill="#d98f78"/>'
        '<path d="M26 68 L65 34 L104 68 Z" fill="#a4523f"/><rect x="57" y="88" width="17" height="30" fill="#6b4a3a"/>'
        "</g>"
    )


def cuts(x: float, y: float, size: float) -> str:
    half = size / 2
    boxes = (framed(x + half * (n % 2), y + half * (n // 2), half, colour) for n, colour in enumerate(LOCAL))
    return "".join(boxes)


def subimage(n: int, x: float, y: float, size: float) -> str:
    """Return a quarter of the picture, in the colour of its subdomain."""
    whole = 2 * size
    return (
        f'<svg x="{x}" y="{y}" width="{size}" height="{size}">{scene(-size * (n % 2), -size * (n // 2), whole)}</svg>'
        + framed(x, y, size, LOCAL[n])
    )


def chain(n: int, y: float, colour: str) -> list[str]:
    """Return a local CNN, and the bars of what it says."""
    middle = y + 24
    parts = [arrow(268, middle, 296, middle)]
    parts += [filled(300, y + 4, 90, 40, colour)]
    parts += [
        label(345, middle + 5, "coarse" if n == 4 else f"CNN {n}", colour="#ffffff"),
        arrow(394, middle, 426, middle),
    ]
    heights = ((12, 30, 8), (10, 24, 16), (14, 34, 6), (20, 18, 12), (6, 36, 8))[n]
    for k, height in enumerate(heights):
        parts.append(filled(440 + 20 * k, y + 44 - height, 13, height, colour, corners=0))
    return [*parts, path(f"M 434 {y + 44} H 500")]


def decision(middle: float, half: float) -> list[str]:
    top, bottom = middle - half, middle + half
    parts = [path(f"M 512 {top} Q 528 {top} 528 {top + 15} V {bottom - 15} Q 528 {bottom} 512 {bottom}")]
    parts += [arrow(530, middle, 556, middle)]
    parts += [filled(560, middle - 32, 106, 64, AGGREGATION)]
    parts += [label(613, middle + 5, "aggregation", colour="#ffffff"), arrow(670, middle, 696, middle)]
    return [
        *parts,
        label(702, middle + 5, "house", anchor="start"),
        label(613, middle + 50, "(N, K) → (K)", small=True),
    ]


def filled(x: float, y: float, width: float, height: float, colour: str, *, corners: int = 5) -> str:
    size = f'width="{width:g}" height="{height:g}"'
    return f'<rect x="{x:g}" y="{y:g}" {size} rx="{corners}" fill="{colour}" stroke="none"/>'


def framed(x: float, y: float, size: float, colour: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{size:g}" height="{size:g}" stroke="{colour}" stroke-width="3"/>'


def label(x: float, y: float, text: str, *, anchor: str = "middle", colour: str = "", small: bool = False) -> str:
    style = ";".join([*([f"fill:{colour}"] if colour else []), *(["font-size:11px"] if small else [])])
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" {LETTERS} style="{style}">{text}</text>'


def path(data: str, colour: str = "currentColor") -> str:
    return f'<path d="{data}" stroke="{colour}"/>'


def arrow(x0: float, y0: float, x1: float, y1: float) -> str:
    """Return a line with a head."""
    length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    corners = [f"{x1 - 7 * ux + side * 4 * uy:.1f} {y1 - 7 * uy - side * 4 * ux:.1f}" for side in (1, -1)]
    return path(f"M {x0:g} {y0:g} L {x1:g} {y1:g} M {corners[0]} L {x1:g} {y1:g} L {corners[1]}")


if __name__ == "__main__":
    main()
