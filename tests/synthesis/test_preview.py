import numpy as np
import pytest
from matplotlib.image import imread

from nnunet_difftumor.synthesis.scans.preview import draw_preview, views

# Columns are the array axes z, y, x in RAS+ space.
ORIENTATIONS = {
    "RAS": np.eye(3)[:, ::-1],
    "LPS": np.diag([-1.0, -1.0, 1.0])[:, ::-1],
    "LAI": np.diag([-1.0, 1.0, -1.0])[:, ::-1],
    "coronal slices": np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]),
    "sagittal slices": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "slightly oblique": np.diag([-1.0, -1.0, 1.0])[:, ::-1] @ np.array([[1, -0.2, 0.1], [0.2, 1, 0], [-0.1, 0, 1]]),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_planes_lie_as_radiologists_see_them(orientation):
    directions = ORIENTATIONS[orientation]
    shape = (8, 9, 10)
    # How far each voxel is to the patient's right, front and head.
    index = np.stack(np.indices(shape), -1) - (np.array(shape) - 1) / 2
    right, front, head = np.moveaxis(index @ directions.T, -1, 0)
    centre = [n // 2 for n in shape]
    axial, coronal, sagittal = views(directions)
    for view, down, across in ((axial, -front, -right), (coronal, -head, -right), (sagittal, -head, -front)):
        assert (np.diff(view(down, centre), axis=0) > 0).all(), "towards the back or the feet"
        assert (np.diff(view(across, centre), axis=1) > 0).all(), "towards the patient's left, or the back"


def test_the_marked_voxel_is_found_again_in_every_plane():
    image = np.zeros((8, 9, 10))
    image[2, 3, 7] = 1
    for directions in ORIENTATIONS.values():
        for view in views(directions):
            plane = view(image, (2, 3, 7))
            assert view.position((2, 3, 7), image.shape) == tuple(np.argwhere(plane)[0])


@pytest.mark.parametrize("tumors", [0, 1, 3, 9])
def test_a_row_per_tumor_and_never_an_empty_file(tmp_path, tumors):
    before, mask, boxes = np.zeros((40, 40, 40), np.float32), np.zeros((40, 40, 40), bool), []
    for number in range(tumors):
        start = 4 * number
        box = (slice(start, start + 4),) * 3
        mask[box], boxes = True, [*boxes, box]
    after = np.where(mask, np.float32(-100), before)
    draw_preview(
        tmp_path / "p.png",
        before,
        after,
        mask=mask,
        boxes=boxes,
        spacing_mm=(2.0, 1.0, 1.0),
        directions=ORIENTATIONS["LPS"],
    )
    picture = imread(tmp_path / "p.png")
    assert picture.shape[:2] == (260 * min(max(tumors, 1), 4), 1500)
    red = (picture[..., 0] > 0.9) & (picture[..., 1] < 0.4)
    assert red.any() == (tumors > 0)


def test_drawing_leaves_matplotlibs_backend_alone(tmp_path):
    import matplotlib

    matplotlib.use("svg")
    draw_preview(
        tmp_path / "p.png",
        *[np.zeros((5, 5, 5), np.float32)] * 2,
        mask=np.zeros((5, 5, 5), bool),
        boxes=[],
        spacing_mm=(1, 1, 1),
        directions=np.eye(3),
    )
    assert matplotlib.get_backend() == "svg"
