"""The figures and rows of the page, section by section; None or empty where the run holds nothing to show."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from ddcnn.report import draw, matrices, plots, svg
from ddcnn.report.curves import Curves, curves_figure
from ddcnn.report.labels_and_formats import by, count, percent, strategy_label
from ddcnn.report.read import RunContent
from ddcnn.report.reliability import reliability_figure, reliability_lines
from ddcnn.report.results import Results


def _figure(figure: Figure, name: str, alt: str) -> Markup:
    return Markup(svg.to_svg(figure, name=name, alt=alt))  # both matplotlib and to_svg escape what they write


def accuracy(results: Results, samples: int | None) -> Markup | None:
    """Draw the test accuracies."""
    if results.best is None:
        return None
    return _figure(plots.accuracy_figure(results, samples), "accuracy", plots.accuracy_alt(results))


def drawings(run: RunContent) -> list[tuple[str, Markup]]:
    """Draw the first image of each class: at most three, two of volumes, one if there are many subdomains."""
    boxes = [s.box for s in run.results.subdomains]
    if run.images is None or run.labels is None or not boxes or not all(boxes):
        return []
    _, first = np.unique(run.labels, return_index=True)
    most = 2 if run.images.ndim == 5 else 3 if len(boxes) <= 16 else 1
    chosen = sorted(int(i) for i in first)[:most]
    classes = run.results.details.classes
    drawings = []
    for i in chosen:
        label = int(run.labels[i])
        word = classes[label] if 0 <= label < len(classes) else str(label)
        alt = f"An image of class {word}, cut into {len(boxes)} subdomains"
        mask = None if run.annotation is None else run.annotation[i]
        figure = draw.draw_decomposition(
            run.images[i],
            boxes,
            footprints=run.footprints,
            subimages={n: seen[i] for n, seen in run.subimages.items()},
            mask=mask,
            plane=run.results.details.plane,
        )
        drawings.append((word, _figure(figure, f"drawing{i}", alt)))
    return drawings


def drawn_as(run: RunContent) -> str:
    """Return how subdomains are shown over an image: as boxes, as outlines, or not at all."""
    if run.footprints is not None:
        return "outlines"
    return "nothing" if set(run.subimages) - set(coarse(run)) else "boxes"


def coarse(run: RunContent) -> list[int]:
    """Return the subdomains behind the grid, or else those that see the whole image: a coarse level."""
    if run.results.grid:
        return [index for index, _ in split_by_grid(run.results)[1]]
    seen = [] if run.footprints is None else run.footprints != 0
    found = [s.index for s, mask in zip(run.results.subdomains, seen, strict=False) if mask.all()]
    return found if len(found) < len(run.results.subdomains) else []


def overlapping(run: RunContent) -> bool:
    """Return whether any two subdomains share a pixel, a coarse level aside."""
    results = run.results
    if drawn_as(run) != "boxes":
        masks = [] if run.footprints is None else [mask for mask in run.footprints != 0 if not mask.all()]
        return bool(masks) and bool((np.sum(masks, 0) > 1).any())
    boxes = np.array([s.box for s in results.subdomains if s.box])
    if len(boxes):
        whole = np.stack([boxes[..., 0].min(0), boxes[..., 1].max(0)], axis=-1)
        boxes = boxes[(boxes != whole).any((1, 2))]
    if len(boxes) < 2:
        return False
    start, stop = boxes[..., 0], boxes[..., 1]
    shared = (np.maximum(start[:, None], start) < np.minimum(stop[:, None], stop)).all(-1)
    return bool(shared.sum() > len(boxes))


def split_by_grid(results: Results) -> tuple[list[float | None], list[tuple[int, float | None]]]:
    """Return the accuracies that lie on the grid, and (index, accuracy) of further subdomains (a coarse level)."""
    cells_ = int(np.prod(results.grid)) if results.grid else 0
    inside, more = results.subdomains[:cells_], results.subdomains[cells_:]
    if not cells_ or len(inside) < cells_ or len(results.grid) > 3:
        return [], []
    return [s.test_accuracy for s in inside], [(s.index, s.test_accuracy) for s in more]


def beside_the_map(run: RunContent) -> list[tuple[int, float | None]]:
    """Return (index, accuracy) of the subdomains that have no place in the map."""
    return [(s.index, s.test_accuracy) for s in run.results.subdomains if s.index in coarse(run)]


def subdomain_map(run: RunContent) -> Markup | None:
    """Draw the accuracy per subdomain, if there are at least two."""
    results = run.results
    values = [s.test_accuracy for s in results.subdomains]
    chance = 1 / len(results.details.classes) if results.details.classes else 0.0
    figure = matrices.place_figure(values, results.grid, run.footprints, chance)
    if figure is None:
        return None
    alt = "Test accuracy per subdomain: " + ", ".join(f"{i}: {percent(v, ' %')}" for i, v in enumerate(values))
    return _figure(figure, "map", alt)


def class_map(results: Results) -> Markup | None:
    """Draw the accuracy per subdomain and class."""
    classes = results.details.classes
    rows = [s for s in results.details.subdomains if classes and len(s.class_accuracy) == len(classes)]
    if not rows:
        return None
    values = np.array([[np.nan if a is None else a for a in s.class_accuracy] for s in rows])
    figure = matrices.class_figure(values, classes, [s.index for s in rows])
    return _figure(figure, "classes", "Test accuracy of each local CNN on each class")


def subdomain_rows(results: Results) -> list[tuple[str, ...]]:
    """Return one row per subdomain: index, pixels, parameters, three accuracies, best epoch."""
    more = {s.index: s for s in results.details.subdomains}
    rows = []
    for s in results.subdomains:
        box = s.sees or by(tuple(f"{start}:{stop}" for start, stop in s.box))
        other = more.get(s.index)
        held, seen = (other.validation_accuracy, other.train_accuracy) if other else (None, None)
        accuracies = (percent(a) for a in (s.test_accuracy, held, seen))
        epoch = count(s.best_epoch) + (f" (diverged in {count(s.diverged_epoch)})" if s.diverged_epoch else "")
        epoch = "missing" if s.missing else epoch
        rows.append((str(s.index), box, count(s.parameters), *accuracies, epoch))
    return rows


def confusion(results: Results) -> list[tuple[str, Markup, bool]]:
    """Return (strategy, figure, whether counts are written) per confusion matrix, the best strategy first."""
    found = []
    for strategy in results.strategies:
        counts = results.details.confusion.get(strategy.name)
        if counts:
            found.append((strategy.test_accuracy or 0.0, strategy.name, np.array(counts)))
    found.sort(key=lambda entry: -entry[0])
    figures = []
    for i, (_, name, matrix) in enumerate(found):
        K = len(matrix)
        classes = results.details.classes
        names = classes if len(classes) == K else tuple(str(k) for k in range(K))
        alt = f"Confusion matrix of {strategy_label(name)}: {int(np.trace(matrix))} of {int(matrix.sum())} are correct"
        figure = matrices.confusion_figure(matrix, names)
        figures.append((strategy_label(name), _figure(figure, f"confusion{i}", alt), matrices.writes_counts(matrix)))
    return figures


def reliability(results: Results) -> Markup | None:
    """Draw how often decisions are right that are made with some probability."""
    lines = reliability_lines(results)
    alt = "Share of right decisions over their probability"
    return _figure(reliability_figure(lines), "reliability", alt) if lines else None


def time(results: Results) -> Markup | None:
    """Draw the training time per strategy."""
    if not any(s.seconds is not None or s.critical_path_seconds is not None for s in results.strategies):
        return None
    return _figure(plots.time_figure(results), "time", "Training time per strategy; the table above holds the totals")


def parameters(results: Results) -> Markup | None:
    """Draw the numbers of parameters."""
    bars = plots.parameter_bars(results)
    if not bars:
        return None
    alt = ", ".join(f"{label}: {count(round(sum(v for _, v in bar)))}" for label, bar in bars)
    return _figure(plots.parameter_figure(bars), "parameters", f"Parameters. {alt}")


def training(panels: Curves) -> Markup | None:
    """Draw the training curves."""
    return _figure(curves_figure(panels), "curves", "Accuracy over epochs") if panels else None
