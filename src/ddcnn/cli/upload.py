"""Answer one uploaded file: what is decided, what each subdomain says, and where it looked."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ddcnn.cli.inputs import Wanted, read_batches
from ddcnn.data.images import SUFFIXES, bombs_are_errors
from ddcnn.errors import DdcnnError
from ddcnn.report.heat_map import draw_heat_maps, shown_boxes
from ddcnn.text import printable, size_text

if TYPE_CHECKING:
    from ddcnn.explaining import Explanation
    from ddcnn.network import CNNDNN

MOST_BYTES = 20 * 2**20
"""Of a file."""

KINDS = tuple(sorted(SUFFIXES | {".npy"}))
"""What names of files end in; .npz is packed, and may be far larger than it looks."""


@dataclass(frozen=True)
class Answer:
    """What is shown of an upload.

    Attributes
    ----------
    message
        The decision, or why there is none, in a line.
    probabilities
        Of each class, 0..1.
    votes
        Per subdomain: index, class, probability, what the decision loses without it.
    picture
        (h, w, 3) uint8: the image, and the heat map over it; None if there is none.
    """

    message: str
    probabilities: dict[str, float] = field(default_factory=dict)
    votes: list[list[str]] = field(default_factory=list)
    picture: np.ndarray | None = None


@dataclass(frozen=True)
class Answering:
    """Answers uploads with a trained network of images.

    Attributes
    ----------
    network, strategy
        What answers.
    wanted
        The images that it was trained on.
    classes
        Their names.
    """

    network: CNNDNN
    strategy: str
    wanted: Wanted
    classes: tuple[str, ...]

    def __call__(self, file: str | None) -> Answer:
        """Return the answer to a file, whatever it is: bad ones are answered as well."""
        if file is None:
            return Answer("Drop an image above.")
        path, wanted = Path(file), self.wanted.afresh()
        try:
            return self._explained(self._read(path, wanted), wanted.note_of_one)
        except DdcnnError as error:
            return Answer(printable(str(error).replace(str(path), path.name)))
        except OSError as error:
            return Answer(f"{printable(path.name)} cannot be read: {error.strerror}; drop it again")
        except MemoryError:
            return Answer(f"{printable(path.name)} does not fit into memory; give a smaller image")

    def _read(self, path: Path, wanted: Wanted) -> np.ndarray:
        """Return the image (1, C, H, W); what was done to it is noted in ``wanted``."""
        if path.suffix.lower() not in KINDS:
            raise DdcnnError(f"{path} is no image ({', '.join(KINDS)}); give one")
        size = path.stat().st_size
        if size > MOST_BYTES:
            has, most = size_text(size, unlike=MOST_BYTES), size_text(MOST_BYTES, unlike=size)
            raise DdcnnError(f"{path} has {has}; {most} are the most, give less")
        with bombs_are_errors():
            ((_, images),) = read_batches([path], wanted, 1)
        return images

    def _explained(self, image: np.ndarray, note: str | None) -> Answer:
        found = self.network.explain(image)
        decided, p = int(found.target[0]), found.probabilities[0].tolist()
        said = f"{self.classes[decided]} ({p[decided]:.1%}), decided by {self.strategy}"
        if decided != int(found.probabilities[0].argmax()):
            said += ", by the thresholds that were chosen in the training"
        return Answer(
            printable("; ".join([said, *found.notes, *filter(None, [note])])),
            {printable(name): share for name, share in zip(self.classes, p, strict=True)},
            [self._vote(found, n) for n in range(self.network.local_cnns.members)],
            self._picture(image, found),
        )

    def _vote(self, found: Explanation, n: int) -> list[str]:
        name = self.network.local_cnns.subdomains[n].name.removeprefix("subdomain ")
        if n in self.network.missing:
            return [name, "missing", "", ""]
        p, lost = found.local_probabilities[0, n], float(found.ablation[0, n])
        says = int(p.argmax())
        return [name, printable(self.classes[says]), f"{float(p[says]):.1%}", "" if np.isnan(lost) else f"{lost:+.1%}"]

    def _picture(self, image: np.ndarray, found: Explanation) -> np.ndarray | None:
        if found.heat_map is None:
            return None
        boxes = shown_boxes(self.network.local_cnns.subdomains)
        figure = draw_heat_maps([*image], [*found.heat_map.numpy()], [""], boxes)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=200)
        with Image.open(file) as drawn:
            return np.asarray(drawn.convert("RGB"))
