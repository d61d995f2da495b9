"""The gallery of the most confident mistakes: pictures, and on each what the local CNNs say of their subdomains."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ddcnn.errors import RunError
from ddcnn.report.image_axes import displayable, limits_of
from ddcnn.report.labels_and_formats import percent
from ddcnn.report.results import Results
from ddcnn.runs.folder import MISTAKES, RunFolder

_MOST_BYTES = 2**26  # of the file: far above what is written
_MOST = 24  # cards
_LONGEST = 128  # pixels along an axis that are shown, as many as a run keeps
_WIDTH, _TALLEST = 168.0, 252.0  # of a picture, in units that are at least a pixel on the screen
_LETTER = 6.6  # the width of one, in the same units, at `_FONT`
_FONT = 11
_FEWEST = 4  # letters of a word that is shortened
_WORDS = 3  # classes that are named in the summary of the votes


@dataclass(frozen=True)
class PlacedVote:
    """What the local CNN of a subdomain says, at its place in a picture; ``kind`` is right, same or other."""

    x: float
    y: float
    width: float
    height: float
    word: str
    kind: str


@dataclass(frozen=True)
class Card:
    """One mistake: a picture, PNG as a data URI, with votes over it, and words."""

    picture: str
    width: float
    height: float
    votes: tuple[PlacedVote, ...]
    true: str
    decided: str
    probability: str
    sample: int
    summary: str
    alt: str


def read_mistakes(folder: RunFolder, subdomains: int) -> dict[str, np.ndarray]:
    """Read and check `mistakes.safetensors`; empty where the run has none.

    Raises
    ------
    RunError
        One line that names the file and what does not fit.
    """
    path = folder.path / MISTAKES
    if not folder.has(MISTAKES) or path.stat().st_size > _MOST_BYTES:
        return {}
    tensors = folder.read_arrays(MISTAKES)
    images = tensors.get("images", np.zeros(0))
    m = len(images)
    if images.ndim != 4 or 0 in images.shape or m > _MOST or images.dtype.kind not in "uf":
        raise RunError(f"{path} should hold 1 to {_MOST} images (m, C, h, w), got {images.dtype} {images.shape}")
    expected = {"labels": "i", "decided": "i", "probabilities": "f", "samples": "i", "slices": "i"}
    expected |= {"votes": "i", "shares": "f"} if "votes" in tensors else {}
    for name, kind in expected.items():
        shape = (m, subdomains) if name in ("votes", "shares") else (m,)
        found = tensors.get(name, np.zeros(()))
        if found.shape != shape or found.dtype.kind != kind:
            raise RunError(f"{path} should hold {name} of shape {shape}, got {found.dtype} {found.shape}")
    return {name: np.nan_to_num(tensors[name], posinf=0, neginf=0) for name in ("images", *expected)}


def gallery(results: Results, mistakes: Mapping[str, np.ndarray]) -> list[Card]:
    """Return a card for each mistake."""
    return [_card(results, mistakes, i) for i in range(len(mistakes.get("images", ())))]


def _card(results: Results, mistakes: Mapping[str, np.ndarray], i: int) -> Card:
    image = mistakes["images"][i]
    h, w = image.shape[1:]
    scale = min(_WIDTH / w, _TALLEST / h)
    true, decided = (_word(results, mistakes[name][i]) for name in ("labels", "decided"))
    votes = mistakes["votes"][i] if "votes" in mistakes else np.zeros(0, int)
    said = [_word(results, vote) for vote in votes if vote >= 0]
    summary = _summary(said)
    return Card(
        picture=_png(displayable(image[:, :: -(-h // _LONGEST), :: -(-w // _LONGEST)], limits_of(image))),
        width=round(w * scale, 1),
        height=round(h * scale, 1),
        votes=_placed(results, votes, mistakes, i, (w * scale, h * scale)),
        true=true,
        decided=decided,
        probability=percent(float(np.clip(mistakes["probabilities"][i], 0, 1))),
        sample=int(mistakes["samples"][i]),
        summary=summary,
        alt=f"An image of class {true}, taken for {decided}{f'; {summary}' if summary else ''}",
    )


def _placed(
    results: Results, votes: np.ndarray, mistakes: Mapping[str, np.ndarray], i: int, size: tuple[float, float]
) -> tuple[PlacedVote, ...]:
    """Return the votes at their places; none where subdomains cannot be told apart by their boxes."""
    boxes = [s.box for s in results.subdomains]
    extent = [int(length) for length in results.details.image_shape[1:]]
    order = _axes(results, len(extent))
    if not len(votes) or not order or min(extent) < 1 or any(len(box) != len(extent) for box in boxes):
        return ()
    whole = tuple((0, length) for length in extent)
    shown = {n: box for n, box in enumerate(boxes) if box != whole and votes[n] >= 0}
    if len(set(shown.values())) < len(shown) or any(results.subdomains[n].sees for n in shown):
        return ()
    at, label, decided = (mistakes[name][i] for name in ("slices", "labels", "decided"))
    placed = []
    for n, box in shown.items():
        *depth, (top, bottom), (left, right) = (box[axis] for axis in order)
        if depth and not depth[0][0] <= at < depth[0][1]:
            continue
        across, down = size[0] / extent[order[-1]], size[1] / extent[order[-2]]
        width, height = round((right - left) * across, 1), round((bottom - top) * down, 1)
        kind = "right" if votes[n] == label else "same" if votes[n] == decided else "other"
        word = _fitting(_word(results, votes[n]), width, height)
        placed.append(PlacedVote(round(left * across, 1), round(top * down, 1), width, height, word, kind))
    return tuple(placed)


def _axes(results: Results, axes: int) -> Sequence[int]:
    """Return the axes of the image that are the depth (of a volume), the rows and the columns of a picture."""
    if axes != 3:
        return (0, 1) if axes == 2 else ()
    rows, columns = (axis % 3 for axis in results.details.plane)
    return () if rows == columns else (3 - rows - columns, rows, columns)


def _fitting(word: str, width: float, height: float) -> str:
    """Shorten a word to what fits into a box; empty if nothing does.

    >>> _fitting("dandelion", 60, 20), _fitting("9", 12, 12), _fitting("nine", 24, 24)
    ('dandeli…', '9', '')
    """
    letters = int((width - 4) / _LETTER)
    if height < _FONT or letters < min(len(word), _FEWEST):
        return ""
    return word if len(word) <= letters else f"{word[: letters - 1]}…"


def _summary(said: Sequence[str]) -> str:
    """Return how many local CNNs say what.

    >>> _summary(["4", "4", "9"]), _summary([])
    ('2 of 3 subdomains say 4, 1 says 9', '')
    """
    if not said:
        return ""
    first, *more = Counter(said).most_common()
    parts = [f"{first[1]} of {len(said)} subdomains say{'s' if first[1] == 1 else ''} {first[0]}"]
    parts += [f"{count} say{'s' if count == 1 else ''} {word}" for word, count in more[: _WORDS - 1]]
    rest = sum(count for _, count in more[_WORDS - 1 :])
    return ", ".join([*parts, f"{rest} something else"] if rest else parts)


def _word(results: Results, label: float | int) -> str:
    classes = results.details.classes
    return classes[int(label)] if 0 <= label < len(classes) else str(int(label))


def _png(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
