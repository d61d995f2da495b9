import numpy as np
import pytest

from ddcnn.errors import DataError, DecompositionError
from ddcnn.report import draw_decomposition
from ddcnn.report.draw import _explode
from ddcnn.report.image_axes import inner_point
from ddcnn.report.svg import to_svg


def texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_image(channels, dtype, synthetic):
    image = synthetic.images_of((20, 30), channels=channels)[0].astype(dtype)
    overlay, exploded = draw_decomposition(image, synthetic.boxes_of((2, 3), (20, 30))).axes
    assert texts(overlay) == [str(i) for i in range(6)]
    assert len(overlay.images) == 1  # no overlap to shade
    assert exploded.images[0].get_array().shape == (21, 32, 4)


def test_overlap_is_shaded(synthetic):
    figure = draw_decomposition(synthetic.images_of((20, 20))[0], synthetic.boxes_of((2, 2), (20, 20), overlap=2))
    shade = figure.axes[0].images[1].get_array()
    assert (shade[..., 3] > 0).sum() == 20 * 20 - 4 * 8 * 8


def test_volume_shows_the_subdomains_of_each_slice(synthetic):
    figure = draw_decomposition(
        synthetic.images_of((12, 20, 30))[0], synthetic.boxes_of((2, 2, 3), (12, 20, 30), overlap=1)
    )
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == [
        "depth 7 of 12",
        "row 11 of 20",
        "column 15 of 30",
    ]
    assert texts(figure.axes[0]) == ["6", "7", "8", "9", "10", "11"]
    assert texts(figure.axes[1]) == ["3", "4", "5", "9", "10", "11"]
    assert texts(figure.axes[2]) == ["1", "4", "7", "10"]


def test_large_images_are_thinned(synthetic):
    figure = draw_decomposition(np.zeros((1, 1000, 600), np.uint8), synthetic.boxes_of((2, 2), (1000, 600)))
    assert figure.axes[0].images[0].get_array().shape == (250, 200, 4)
    assert figure.axes[0].images[0].get_extent() == [0, 600, 1000, 0]


def test_coarse_level_is_not_drawn(synthetic):
    boxes = [*synthetic.boxes_of((2, 2), (20, 20)), [[0, 20], [0, 20]]]
    overlay = draw_decomposition(synthetic.images_of((20, 20))[0], boxes).axes[0]
    assert texts(overlay) == ["0", "1", "2", "3"]
    assert len(overlay.images) == 1


def test_one_subdomain_is_drawn(synthetic):
    assert texts(draw_decomposition(synthetic.images_of((20, 20))[0], [[(0, 20), (0, 20)]]).axes[0]) == ["0"]


def test_exploded_subimages_hold_every_pixel():
    pixels = np.arange(5 * 7 * 4, dtype=np.uint8).reshape(5, 7, 4)
    exploded = _explode(pixels, [((0, 2), (0, 4)), ((0, 2), (4, 7)), ((2, 5), (0, 4)), ((2, 5), (4, 7))])
    kept = np.delete(np.delete(exploded, 2, axis=0), 4, axis=1)
    np.testing.assert_array_equal(kept, pixels)


def test_wrong_input():
    with pytest.raises(DataError, match=r"expected an image \(C, H, W\) or \(C, D, H, W\), got shape \(4, 4\)"):
        draw_decomposition(np.zeros((4, 4)), [])
    with pytest.raises(DecompositionError, match=r"subdomain 1: box \[\[0, 9\], \[0, 4\]\] is not in an image"):
        draw_decomposition(np.zeros((1, 8, 8)), [[(0, 4), (0, 4)], [(0, 9), (0, 4)]])


def test_the_block_shows_the_mean_along_each_axis(synthetic):
    volume = np.random.default_rng(0).random((1, 6, 8, 10)).astype(np.float32)
    figure = draw_decomposition(volume, synthetic.boxes_of((1, 2, 2), (6, 8, 10)))
    block = figure.axes[3]
    shown = [image.get_array()[..., 0] for image in block.images]
    for pixels, over in zip(shown, (1, 0, 2), strict=True):
        mean = volume[0].mean(over)
        stretched = np.round(255 * (mean.astype(float) - mean.min()) / (mean.max() - mean.min()))
        np.testing.assert_allclose(pixels, stretched, atol=1)
    assert len(block.patches) == 2 + 4 + 2  # front: 1 x 2 of (depth, column); top: 2 x 2; right: 1 x 2
    assert "matrix(" in to_svg(figure, name="x", alt="x")  # the faces are sheared pictures


def test_the_faces_of_the_block_meet(synthetic):
    figure = draw_decomposition(synthetic.images_of((6, 8, 10))[0], synthetic.boxes_of((1, 1, 1), (6, 8, 10)))
    front, top, right = ({tuple(np.round(p, 6)) for p in patch.get_xy()} for patch in figure.axes[3].patches)
    assert front == {(0, 0), (10, 0), (10, 6), (0, 6)}
    assert front & top == {(0, 0), (10, 0)}
    assert front & right == {(10, 0), (10, 6)}
    assert len(top & right) == 2


def test_a_mask_is_red_and_draws_the_slices(synthetic):
    image = synthetic.images_of((12, 20, 30))[0]
    mask = np.zeros((12, 20, 30), np.uint8)
    mask[9:11, 2:6, 25:29] = 1
    mask[10, 2, 25:29] = 0
    figure = draw_decomposition(image, synthetic.boxes_of((2, 2, 3), (12, 20, 30)), mask=mask)
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == [
        "depth 9 of 12",
        "row 3 of 20",
        "column 25 of 30",
    ]
    red = figure.axes[0].images[1].get_array()[..., 3] > 0
    np.testing.assert_array_equal(red, mask[9] > 0)
    assert texts(figure.axes[0]) == ["6", "7", "8", "9", "10", "11"]
    assert len(figure.axes[3].images) == 6
    assert len(draw_decomposition(image, [[(0, 12), (0, 20), (0, 30)]], mask=0 * mask).axes[0].images) == 1


def test_slices_lie_in_the_plane_of_the_scanner(synthetic):
    volume = synthetic.images_of((12, 20, 30))[0]
    boxes = synthetic.boxes_of((1, 1, 3), (12, 20, 30))
    figure = draw_decomposition(volume, boxes, plane=(0, 1))
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == [
        "depth 15 of 30",
        "row 6 of 12",
        "column 10 of 20",
    ]
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array()[..., 0], volume[0, :, :, 15])
    assert texts(figure.axes[0]) == ["1"]
    assert texts(figure.axes[1]) == ["0", "1", "2"]


def test_shapes_are_drawn_as_outlines_and_tiles(synthetic):
    """Two halves, whose label lies in them, and a coarse level, which is shown as the network sees it."""
    image = synthetic.images_of((20, 30))[0]
    footprints = np.ones((3, 20, 30), np.uint8)
    footprints[0, :, 15:] = footprints[1, :, :15] = 0
    boxes = [[[0, 20], [0, 15]], [[0, 20], [15, 30]], [[0, 20], [0, 30]]]
    left, right = draw_decomposition(image, boxes, footprints=footprints, subimages={2: image[:, ::2, ::2]}).axes
    assert texts(left) == ["0", "1"]
    assert texts(right) == ["0", "1", "2"]
    tiles = right.images[0].get_array()
    assert tiles.shape == (2 * 20 + 1, 2 * 30 + 1, 4)
    np.testing.assert_array_equal(tiles[:20, :15, 0], image[0, :, :15])
    assert (tiles[:20, 15:30] == (128, 128, 128, 45)).all()  # not black, which might be seen
    np.testing.assert_array_equal(tiles[21:41:2, 0:30:2, 0], image[0, ::2, ::2])


def test_a_coarse_level_is_drawn_beside_the_grid(synthetic):
    image = synthetic.images_of((20, 20))[0]
    boxes = [*synthetic.boxes_of((2, 2), (20, 20)), [[0, 20], [0, 20]]]
    overlay, _, coarse = draw_decomposition(image, boxes, subimages={4: image[:, ::2, ::2]}).axes
    assert texts(overlay) == ["0", "1", "2", "3"]
    assert texts(coarse) == ["4"]
    np.testing.assert_array_equal(coarse.images[0].get_array()[..., 0], image[0, ::2, ::2])


def test_scattered_pixels_have_no_outline(synthetic):
    image = synthetic.images_of((8, 8))[0]
    footprints = np.zeros((2, 8, 8), np.uint8)
    footprints[0, ::2, ::2] = footprints[1, 1::2, 1::2] = 1
    left, right = draw_decomposition(image, [[[0, 8], [0, 8]]] * 2, footprints=footprints).axes
    assert texts(left) == []
    assert not left.collections
    assert texts(right) == ["0", "1"]


def test_a_ring_is_labelled_inside(synthetic):
    ring = np.ones((20, 20), bool)
    ring[6:14, 6:14] = False
    row, column = inner_point(ring)
    assert ring[int(row), int(column)]


def test_shapes_of_volumes_are_outlined_in_each_slice(synthetic):
    image = synthetic.images_of((8, 10, 12))[0]
    footprints = np.zeros((2, 8, 10, 12), np.uint8)
    footprints[0, :, :5], footprints[1, :, 5:] = 1, 1
    boxes = [[[0, 8], [0, 5], [0, 12]], [[0, 8], [5, 10], [0, 12]]]
    figure = draw_decomposition(image, boxes, footprints=footprints)
    assert [texts(axes) for axes in figure.axes[:3]] == [["0", "1"], ["1"], ["0", "1"]]
