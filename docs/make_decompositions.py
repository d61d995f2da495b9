"""Draw each decomposition of docs/concepts/decompositions.md over one digit, from the views: docs/images/cuts-*.png.

python docs/make_decompositions.py
"""

from __future__ import annotations

from pathlib import Path

import torch

import ddcnn
from ddcnn.config import Config
from ddcnn.decomposition import build_decomposition
from ddcnn.report import draw_decomposition

IMAGES = Path(__file__).parent / "images"
SHOWN = {
    "grid": {"grid": "2x2"},
    "coarse": {"grid": "2x2", "coarse": "auto"},
    "interleaved": {"name": "interleaved:2x2"},
    "triangles": {"name": "triangles"},
    "voronoi": {"name": "voronoi:6"},
    "rings": {"name": "rings:3"},
    "sectors": {"name": "sectors:6"},
    "boxes": {"name": "boxes:6"},
}


def main() -> None:
    dataset = ddcnn.open_data(Config.parse({"data": {"source": "mnist5k"}}).data)
    image = dataset.images[torch.nonzero(dataset.labels == 8)[:1, 0]]
    for name, cuts in SHOWN.items():
        decomposition = build_decomposition(Config.parse({"decomposition": cuts}).decomposition)
        subdomains = decomposition.subdomains(dataset.image_size)
        figure = draw_decomposition(
            image[0].numpy(),
            [s.box for s in subdomains],
            footprints=None if decomposition.layout else torch.stack([s.seen() for s in subdomains]).numpy(),
            subimages={
                s.index: s.cut(image)[0].numpy()
                for s in subdomains
                if s.shape != tuple(stop - start for start, stop in s.box)
            },
        )
        figure.savefig(IMAGES / f"cuts-{name}.png", dpi=80)


if __name__ == "__main__":
    main()
