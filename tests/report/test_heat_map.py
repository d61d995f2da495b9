"""Heat maps are drawn where they are brightest."""

from __future__ import annotations

import numpy as np

from ddcnn.report.heat_map import draw_heat_maps


def test_a_row_per_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 8, 12), dtype=np.uint8)
    heat = np.zeros((8, 12), np.float32)
    heat[2, 7], heat[5, 5] = 4.0, 2.0
    figure = draw_heat_maps(
        [image, image], [heat, np.zeros_like(heat)], ["a", "b"], {0: ((0, 8), (0, 6)), 1: ((0, 8), (6, 12))}
    )
    assert len(figure.axes) == 4
    assert [axes.get_title("left") for axes in figure.axes] == ["a", "", "b", ""]
    drawn, nothing = (np.asarray(figure.axes[n].images[1].get_array())[..., 3] for n in (1, 3))
    assert np.unravel_index(int(drawn.argmax()), drawn.shape) == (2, 7)
    assert (drawn > 0).sum() == 2
    assert nothing.max() == 0


def test_slices_of_a_volume_go_through_the_brightest_voxel() -> None:
    image = np.random.default_rng(0).normal(size=(1, 4, 6, 8)).astype(np.float32)
    heat = np.zeros((4, 6, 8), np.float32)
    heat[3, 1, 6] = 1.0
    figure = draw_heat_maps([image], [heat], ["a"], {0: ((0, 4), (0, 3), (0, 8)), 1: ((0, 4), (3, 6), (0, 8))})
    said = [text.get_text() for axes in figure.axes for text in axes.texts if text.get_text() not in "01"]
    assert said == ["depth 3", "row 1", "column 6"]
    for axes, place in zip(figure.axes, ((1, 6), (3, 6), (3, 1)), strict=True):
        drawn = np.asarray(axes.images[1].get_array())[..., 3]
        assert np.unravel_index(int(drawn.argmax()), drawn.shape) == place
