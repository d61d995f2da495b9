"""Rows of `fusion.py` -> a table, a summary against the targets, and a plot."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

Result = dict[str, Any]
CANDIDATES = ("global", "loop", "vmap", "fused", "chosen")
COLOURS = {"resnet20": "#0067a8", "vgg9": "#c8553d", "densenet": "#00815f", "convnext": "#bd7f00"}

HEAD = (
    "| network | image | N | batch | precision | global ms | loop ms | vmap ms | fused ms | chosen ms | "
    "loop / chosen | vmap / chosen | global / chosen | chosen | MiB: global, loop, vmap, fused, chosen | "
    "% of peak: global, loop, chosen | % of roof: global, loop, chosen |"
)
NOTES = [
    "A training step (forward, backward, SGD with momentum) of N local CNNs of width 1 / sqrt(N) on random images.",
    "Milliseconds: medians. Ratios: median of the turns [quartiles]; above 1 the chosen backend is faster.",
    "MiB: growth of the memory in use during a step (activations, gradients, workspace). % of peak: useful operations",
    "of convolutions and matrix products, per second, of what a large matrix product reaches in the same precision.",
    "% of roof: time that the operators of networks apart would take if each computed at that peak, or moved its",
    "tensors once at the bandwidth of memory, whichever is longer, over the time taken. Small tensors stay in caches,",
    "which are faster than memory.",
]


def line(result: Result) -> str:
    """Return a row of the table."""
    ms = [f"{1000 * np.median(result['seconds'][c]):.1f}" if c in result["seconds"] else "-" for c in CANDIDATES]
    pixels = "x".join(map(str, result["size"]))
    first = [result["network"], pixels, str(result["N"]), str(result["batch"]), result["precision"], *ms]
    ratios = [_spread(result, "loop"), _spread(result, "vmap"), _spread(result, "global")]
    memory = [result["bytes"].get(c) for c in CANDIDATES]
    megabytes = " ".join("-" if m is None else f"{m / 2**20:.0f}" for m in memory)
    shares = (" ".join("-" if x is None else f"{x:.1f}" for x in some) for some in (_shares(result), _roofs(result)))
    return "| " + " | ".join([*first, *ratios, result["backend"], megabytes, *shares]) + " |"


def _spread(result: Result, other: str) -> str:
    ratios = _ratios(result, other)
    if ratios is None:
        return "-"
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def _ratios(result: Result, other: str, of: str = "chosen") -> np.ndarray | None:
    """Return the time of the other candidate over that of the chosen one, turn by turn."""
    seconds = result["seconds"]
    if other not in seconds or of not in seconds:
        return None
    return np.array(seconds[other]) / np.array(seconds[of])


def _shares(result: Result) -> list[float | None]:
    """Return the per cent of the peak that each reaches; the local CNNs' operations are counted apart."""
    flops, rate = result["flops"], result["peak_flops_per_second"]
    return _per_cent(result, {kind: count / rate for kind, count in flops.items()})


def _roofs(result: Result) -> list[float | None]:
    """Return the per cent of the reachable speed that each has."""
    return _per_cent(result, result["roof_seconds"])


def _per_cent(result: Result, least: dict[str, float]) -> list[float | None]:
    kinds = {"global": "global", "loop": "local", "chosen": "local"}
    medians = {name: float(np.median(times)) for name, times in result["seconds"].items()}
    return [100 * least[kind] / medians[c] if c in medians else None for c, kind in kinds.items()]


def summary(results: Sequence[Result]) -> list[str]:
    """Return the measures of the targets, one per line."""
    lines = [
        _measure(results, "loop", "chosen", "Target on CPUs: at least 0.97 everywhere, 2 in the mean over N >= 4."),
        _measure(results, "vmap", "chosen", "Target: at least 1 everywhere."),
        _measure(results, "loop", "chosen", "Target on GPUs: 8 in the mean, 15 at best.", least=16),
        _measure(results, "loop", "fused", ""),
        _measure(results, "loop", "vmap", ""),
    ]
    slower = [r["name"] for r in results if (x := _median(r, "loop", "chosen")) is not None and x < 0.97]
    lines.append(f"- Chosen below 0.97 of the loop: {', '.join(slower) or 'never'}.")
    missing = [f"{r['name']} {c} ({why})" for r in results for c, why in r["missing"].items()]
    return [text for text in lines if text] + [f"- Not measured: {text}." for text in missing]


def _measure(results: Sequence[Result], other: str, of: str, target: str, *, least: int = 1) -> str:
    ratios = {r["name"]: (r["N"], x) for r in results if r["N"] >= least and (x := _median(r, other, of)) is not None}
    if not ratios:
        return ""
    (worst, (_, low)), (best, (_, high)) = (pick(ratios.items(), key=_value) for pick in (min, max))
    means = [(n, [x for members, x in ratios.values() if members >= n]) for n in sorted({4, 16, least}) if n >= least]
    texts = [f"{math.exp(np.mean(np.log(some))):.2f} over N >= {n}" for n, some in means if some and n > 1]
    where = f" at N >= {least}" if least > 1 else ""
    mean = f"; geometric mean {', '.join(texts)}" if texts else ""
    return f"- {other} / {of}{where}: least {low:.2f} ({worst}), most {high:.2f} ({best}){mean}. {target}".rstrip()


def _value(item: tuple[str, tuple[int, float]]) -> float:
    return item[1][1]


def _median(result: Result, other: str, of: str) -> float | None:
    ratios = _ratios(result, other, of)
    return None if ratios is None else float(np.median(ratios))


def write_report(results: Sequence[Result], machine: str, path: Path) -> None:
    """Write the table to the path, and the plot beside it."""
    picture = path.with_suffix(".png")
    plot(results).savefig(picture, dpi=120)
    rule = "|" + "---|" * (HEAD.count("|") - 1)
    title = "# A training step of N local CNNs: fused, vmapped, looped, as chosen, and the global CNN"
    closing = ["## Summary", "", *summary(results)]
    plotted = [f"![Time of the loop over that of the chosen backend and of vmap]({picture.name})", ""]
    text = "\n".join([title, "", machine, "", *NOTES, "", *plotted, HEAD, rule, *map(line, results), "", *closing, ""])
    path.write_text(text, encoding="utf-8")
    print("\n".join(closing))
    print(path, picture)


def plot(results: Sequence[Result]) -> Figure:
    """Draw loop / chosen (solid) and loop / vmap (dashed) over N, a panel per image size and precision."""
    sizes = list(dict.fromkeys(tuple(r["size"]) for r in results))
    precisions = list(dict.fromkeys(r["precision"] for r in results))
    figure = Figure(figsize=(3.4 * max(1, len(sizes)), 2.9 * max(1, len(precisions))), layout="constrained")
    panels = figure.subplots(len(precisions) or 1, len(sizes) or 1, squeeze=False, sharey=True)
    for i, precision in enumerate(precisions):
        for j, size in enumerate(sizes):
            axes = panels[i][j]
            here = [r for r in results if (tuple(r["size"]), r["precision"]) == (size, precision)]
            for network in dict.fromkeys(r["network"] for r in here):
                _draw(axes.plot, [r for r in here if r["network"] == network], network)
            axes.axhline(1, color="grey", linewidth=0.8)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.set(title=f"{'x'.join(map(str, size))}, {precision}", xlabel="N", ylabel="times the loop's speed")
    handles = {label: line for panel in panels.flat for line, label in zip(*panel.get_legend_handles_labels())}  # noqa: B905
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _draw(draw: Callable[..., Any], results: Sequence[Result], network: str) -> None:
    colour = COLOURS.get(network, "black")
    for of, style in (("chosen", "-"), ("vmap", "--")):
        points = [(r["N"], x) for r in sorted(results, key=lambda r: r["N"]) if (x := _median(r, "loop", of))]
        if points:
            draw(*zip(*points, strict=True), style, color=colour, marker="o", markersize=3, label=f"{network}: {of}")
