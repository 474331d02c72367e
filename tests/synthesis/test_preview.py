"""The pictures of `difftumor synthesize`: how planes lie, what the sheets say, and that mm are mm on them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from PIL import Image
from scans import body, command, content, files_below, save

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.ct import read_ct
from nnunet_difftumor.synthesis.scans import preview
from nnunet_difftumor.synthesis.scans.planes import views
from nnunet_difftumor.synthesis.scans.preview import ShownTumor, draw_previews, preview_names
from nnunet_difftumor.synthesis.scans.sweep import sweep_scan

# Columns are the array axes z, y, x in RAS+ space.
ORIENTATIONS = {
    "RAS": np.eye(3)[:, ::-1],
    "LPS": np.diag([-1.0, -1.0, 1.0])[:, ::-1],
    "LAI": np.diag([-1.0, 1.0, -1.0])[:, ::-1],
    "coronal slices": np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]),
    "sagittal slices": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "slightly oblique": np.diag([-1.0, -1.0, 1.0])[:, ::-1] @ np.array([[1, -0.2, 0.1], [0.2, 1, 0], [-0.1, 0, 1]]),
}
SHAPE = (40, 44, 48)


def away_from_middle(directions, shape=SHAPE, spacing_mm=(1.0, 1.0, 1.0)) -> tuple[np.ndarray, ...]:
    """How far each voxel of an array is to the patient's right, front and head of the array's middle, in mm."""
    index = (np.stack(np.indices(shape), -1) - np.array(shape) // 2) * spacing_mm
    return tuple(np.moveaxis(index @ np.asarray(directions).T, -1, 0))


def tumor(number=1, *, at=(20, 20, 20), edge=6) -> ShownTumor:
    """A cube of so many voxels."""
    box = tuple(slice(start, start + edge) for start in at)
    return ShownTumor(f"#{number} small {10 + number} mm -30 HU", 100.0, box, np.ones((edge,) * 3, bool))


@pytest.fixture
def texts(monkeypatch) -> dict[str, list[str]]:
    """The texts of every figure that is saved, by the number of the figure."""
    found, save_figure = {}, Figure.savefig

    def savefig(figure, *arguments, **more):
        found[len(found) + 1] = [text.get_text() for text in figure.findobj(Text) if text.get_text()]
        return save_figure(figure, *arguments, **more)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return found


def draw(folder, hu, tumors, *, directions=ORIENTATIONS["LPS"], spacing_mm=(1.0, 1.0, 1.0)) -> np.ndarray:
    draw_previews(folder, hu, hu, tumors=tumors, spacing_mm=spacing_mm, directions=directions)
    return np.rint(255 * imread(folder / "preview.png")[..., :3]).astype(int)


def panel_of(sheet: np.ndarray, *, row: int, column: int) -> np.ndarray:
    """The pixels of a panel of the first tumor: a plane (row) before, after or with its mask (column)."""
    step = preview.PANEL_PX + preview._GAP
    top = preview._HEAD + preview._TITLES + row * step
    left = preview._MARGIN + preview._LABELS + column * step
    return sheet[top : top + preview.PANEL_PX, left : left + preview.PANEL_PX]


def is_red(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., 0] - pixels[..., 1] > 60


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_planes_lie_as_radiologists_see_them(orientation):
    directions = ORIENTATIONS[orientation]
    right, front, head = away_from_middle(directions, (8, 9, 10))
    axial, coronal, sagittal = views(directions)
    for view, across, down, aside in (
        (axial, head, -front, -right),
        (coronal, front, -head, -right),
        (sagittal, right, -head, -front),
    ):
        assert (np.diff(view.stack(across), axis=0) > 0).all(), "slices to the head, the front or the right"
        assert (np.diff(view.stack(down), axis=1) > 0).all(), "down to the back or the feet"
        assert (np.diff(view.stack(aside), axis=2) > 0).all(), "to the patient's left, or the back"
    assert [view.sides for view in (axial, coronal, sagittal)] == ["RLAP", "RLHF", "APHF"]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_voxel_its_slice_and_its_surroundings_are_found_again(orientation):
    image, spacing_mm = np.arange(8 * 9 * 10).reshape(8, 9, 10), (5.0, 2.0, 1.0)
    for view in views(ORIENTATIONS[orientation]):
        for voxel in ((2, 3, 7), (0, 0, 9), (7, 8, 0)):
            assert view.stack(image)[view.place(voxel, image.shape)] == image[voxel]
            around = view.around(image, voxel, field_mm=30.0, spacing_mm=spacing_mm, outside=-1)
            assert around[tuple(n // 2 for n in around.shape)] == image[voxel]
            assert all(n * mm >= 30 for n, mm in zip(around.shape, view.pixel_mm(spacing_mm), strict=True))
        numbers = view.numbers(slice(1, 4), image.shape)
        part = [slice(None)] * 3
        part[view.fixed] = slice(1, 4)
        expected = [image.take(number, view.fixed).min() for number in numbers]
        assert [plane.min() for plane in view.stack(image[tuple(part)])] == expected


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_what_lies_right_in_front_and_above_is_drawn_at_the_top_left(tmp_path, orientation):
    directions = ORIENTATIONS[orientation]
    # Bright where a voxel of a plane through the middle is on the first side of both axes of the plane.
    far = np.sum([away > 3 for away in away_from_middle(directions)], axis=0) >= 2
    hu = np.where(far, np.float32(400), np.float32(-900))
    sheet = draw(tmp_path, hu, [tumor(at=[n // 2 for n in SHAPE], edge=1)], directions=directions)
    half = preview.PANEL_PX // 2
    for row in range(3):
        pixels = panel_of(sheet, row=row, column=0)
        corner = pixels[:half, :half].mean()
        others = pixels[:half, half:], pixels[half:, :half], pixels[half:, half:]
        # A plane through an oblique scan meets a part of what is bright elsewhere.
        assert corner > 80 and max(part.mean() for part in others) < 0.8 * corner


@pytest.mark.parametrize(("count", "sheets"), [(0, 1), (1, 1), (2, 1), (9, 3)])
def test_every_tumor_has_its_block_and_a_sheet_has_four(tmp_path, texts, count, sheets):
    hu = np.zeros(SHAPE, np.float32)
    tumors = [tumor(number + 1, at=(4 * number, 10, 10), edge=3) for number in range(count)]
    sheet = draw(tmp_path, hu, tumors)
    expected = ["preview.png", "preview_2.png", "preview_3.png"][:sheets]
    assert preview_names(count) == expected and files_below(tmp_path) == set(expected)
    titles = [[text for text in said if text in {tumor.text for tumor in tumors}] for said in texts.values()]
    assert titles == [[tumor.text for tumor in tumors[i : i + 4]] for i in range(0, max(count, 1), 4)]
    block = preview._Block
    wide, high = (1, 1) if count < 2 else (2, 1) if count == 2 else (2, 2)
    expected = high * block.HEIGHT + preview._HEAD + preview._MARGIN, wide * block.WIDTH + preview._MARGIN
    assert sheet.shape[:2] == expected
    assert is_red(sheet).any() == (count > 0)
    assert ("No tumor." in texts[1]) == (count == 0)


def test_a_block_says_all_that_is_needed_to_judge_a_tumor(tmp_path, texts):
    draw(tmp_path, np.zeros(SHAPE, np.float32), [tumor(3, at=(5, 17, 20), edge=5)], spacing_mm=(2.0, 1.0, 1.0))
    said = texts[1]
    assert "#3 small 13 mm -30 HU" in said
    assert "window -20 to 230 HU, field of view 50 mm" in said
    assert {"axial, slice 8 of 40", "coronal, slice 20 of 44", "sagittal, slice 23 of 48"} <= set(said)
    assert {"before", "after", "after, with the mask"} <= set(said)
    assert said.count("10 mm") == 9, "a bar in each panel"
    assert {side: said.count(side) for side in "RLAPHF"} == {"R": 6, "L": 6, "A": 6, "P": 6, "H": 6, "F": 6}
    assert sum(mark in text for text in said for mark in ("R right", "L left", "A front", "P back")) == 4


def test_only_the_last_panel_of_a_row_has_the_mask_on_it(tmp_path):
    sheet = draw(tmp_path, np.full(SHAPE, 100, np.float32), [tumor()])
    for row in range(3):
        assert [is_red(panel_of(sheet, row=row, column=column)).any() for column in range(3)] == [False, False, True]


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (5.0, 1.0, 1.0), (1.0, 3.0, 0.5)])
def test_millimetres_are_as_long_in_every_direction(tmp_path, spacing_mm):
    """A cube of 15 mm in a field of 50: thick slices do not squeeze it."""
    size = tuple(round(15 / mm) for mm in spacing_mm)
    shown = ShownTumor("#1", 0.0, tuple(slice(10, 10 + n) for n in size), np.ones(size, bool))
    sheet = draw(tmp_path, np.zeros((30, 30, 60), np.float32), [shown], spacing_mm=spacing_mm)
    field = shown.field_mm(spacing_mm)
    for row in range(3):
        red = is_red(panel_of(sheet, row=row, column=2))
        for axis in (0, 1):
            assert np.ptp(np.flatnonzero(red.any(axis))) + 1 == pytest.approx(15 / field * preview.PANEL_PX, abs=4)


def test_bars_are_as_long_as_they_say(tmp_path, texts):
    sheet = draw(tmp_path, np.full(SHAPE, -900, np.float32), [tumor()])
    bottom = panel_of(sheet, row=0, column=0)[-10:]
    white = (bottom.min(-1) > 250).any(0)
    assert "10 mm" in texts[1]
    assert np.ptp(np.flatnonzero(white)) + 1 == pytest.approx(10 / 50 * preview.PANEL_PX, abs=4)


def test_a_tumor_of_6_mm_is_large_enough_to_judge(tmp_path):
    assert preview.PANEL_PX >= 320
    sheet = draw(tmp_path, np.zeros(SHAPE, np.float32), [tumor(edge=6)])
    across = np.flatnonzero(is_red(panel_of(sheet, row=0, column=2)).any(0))
    assert np.ptp(across) >= 35


def test_large_tumors_fit_into_their_field():
    for edge in (6, 20, 40, 80):
        shown = ShownTumor("#1", 0.0, (slice(0, edge),) * 3, np.ones((edge,) * 3, bool))
        assert shown.field_mm((1.0, 1.0, 1.0)) >= 2.5 * edge
    without_room = ShownTumor("#1", 0.0, (slice(4, 8),) * 3, np.zeros((4, 4, 4), bool))
    assert without_room.middle() == (6, 6, 6) and without_room.field_mm((1.0, 1.0, 1.0)) == 50


def test_drawing_does_not_touch_nor_heed_what_others_have_set(tmp_path):
    import matplotlib

    hu, before = np.zeros(SHAPE, np.float32), tmp_path / "before"
    plain = draw(before, hu, [tumor()])
    backend = matplotlib.get_backend()
    matplotlib.use("svg")
    try:
        with matplotlib.rc_context({"font.size": 40, "axes.grid": True, "savefig.bbox": "tight", "lines.linewidth": 9}):
            assert (draw(tmp_path / "after", hu, [tumor()]) == plain).all()
            assert matplotlib.rcParams["font.size"] == 40
        assert matplotlib.get_backend() == "svg"
    finally:
        matplotlib.use(backend)


@pytest.mark.parametrize("orientation", ["LPS", "LAI"])
def test_the_sweep_has_a_frame_for_every_slice_and_says_which(tmp_path, monkeypatch, orientation):
    said = []
    write = preview.style.write
    monkeypatch.setattr(
        preview.style,
        "write",
        lambda *where_and_what, **more: said.append(where_and_what[3]) or write(*where_and_what, **more),
    )
    directions = ORIENTATIONS[orientation]
    hu = np.random.default_rng(0).normal(100, 20, SHAPE).astype(np.float32)
    shown = [tumor(1, at=(18, 20, 22), edge=4)]
    sweep_scan(tmp_path / "s.gif", hu, hu - 50, tumors=shown, spacing_mm=(4.0, 4.0, 4.0), directions=directions)
    axis = views(directions)[0].fixed
    start = (18, 20, 22)[axis]
    with Image.open(tmp_path / "s.gif") as image:
        frames = image.n_frames
        image.seek(frames // 2)
        assert is_red(np.asarray(image.convert("RGB")).astype(int)).any()
    slices = [int(re.search(r"slice (\d+) of", text)[1]) for text in said if text.startswith("before, axial")]
    # 12 mm are three slices on each side.
    assert sorted(slices) == list(range(start - 3 + 1, start + 7 + 1)) and frames == len(slices)
    towards_head = directions[2, axis] > 0
    assert (slices == sorted(slices)) == towards_head
    assert said.count(shown[0].text) == 4


@pytest.fixture
def small_case(tmp_path) -> Path:
    """A scan of few slices, for commands that draw many pictures."""
    hu, labels = body((36, 36, 20), radius_mm=26.0)
    save(tmp_path / "small" / "ct.nii.gz", hu)
    save(tmp_path / "small" / "liver.nii.gz", labels == 1, dtype=np.uint8)
    return tmp_path / "small"


def sheets_of(folder: Path) -> set[str]:
    return {name for name in files_below(folder) if name.endswith((".png", ".gif"))}


def test_the_installed_command_draws_every_tumor_that_it_prints(small_case, tmp_path):
    script, out = Path(sys.executable).with_name("difftumor"), tmp_path / "out"
    if not script.exists():
        pytest.skip("the package is not installed in this environment")
    words = command(small_case, out, "--size", "tiny", "--count", 5, "--organ", "liver", "--sweep")
    done = subprocess.run([script, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = re.findall(r"#(\d) tiny \d\.\d mm [+-]\d+ HU", done.stdout)
    assert printed == ["1", "2", "3", "4", "5"]
    assert sheets_of(out) == {"preview.png", "preview_2.png", "sweep.gif"}
    manifest = json.loads((out / "manifest.json").read_text())
    assert {"preview.png", "preview_2.png", "sweep.gif"} < set(manifest["files"])
    with Image.open(out / "preview.png") as first, Image.open(out / "preview_2.png") as second:
        assert first.width > second.width > 3 * 320 and first.height > second.height > 3 * 320
    again = subprocess.run([script, *words], capture_output=True, text=True)
    assert "finished before" in again.stdout


def test_the_pictures_say_what_was_printed(small_case, tmp_path, texts, capsys):
    assert main(command(small_case, tmp_path / "out", "--size", "tiny", "--count", 2)) == 0
    printed = re.findall(r"#\d tiny \d\.\d mm [+-]\d+ HU", capsys.readouterr().out)
    assert len(printed) == 2 and [text for text in texts[1] if text in printed] == printed


def test_a_sweep_that_was_not_made_is_made_and_one_that_was_stays(small_case, tmp_path, capsys):
    out, words = tmp_path / "out", ("--size", "tiny", "--count", 1)
    assert main(command(small_case, out, *words)) == 0
    assert sheets_of(out) == {"preview.png"}
    assert main(command(small_case, out, *words, "--sweep")) == 0
    assert "sweep.gif missing" in capsys.readouterr().out
    assert sheets_of(out) == {"preview.png", "sweep.gif"}
    whole = content(out)
    for more in ((), ("--sweep",)):
        assert main(command(small_case, out, *words, *more)) == 0
        assert "finished before" in capsys.readouterr().out
    assert content(out) == whole


def test_sheets_of_tumors_that_are_gone_do_not_stay(small_case, tmp_path):
    out, kept = tmp_path / "out", tmp_path / "kept.json"
    assert main(command(small_case, out, "--size", "tiny", "--count", 5, "--sweep")) == 0
    assert sheets_of(out) == {"preview.png", "preview_2.png", "sweep.gif"}
    manifest = json.loads((out / "manifest.json").read_text())
    kept.write_text(json.dumps(manifest | {"tumors": manifest["tumors"][:4]}))
    assert main(command(small_case, out, "--from-spec", kept)) == 0
    assert sheets_of(out) == {"preview.png"}


def test_a_folder_with_pictures_of_somebody_is_left_alone(case, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "preview_2.png").write_bytes(b"somebody's work")
    assert main(command(case, tmp_path / "other", "--size", "tiny")) == 2
    assert "holds preview_2.png, but not from `difftumor synthesize`" in capsys.readouterr().err
    assert files_below(tmp_path / "other") == {"preview_2.png"}


def test_a_manifest_cannot_name_files_elsewhere(small_case, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(command(small_case, out, "--size", "tiny", "--count", 1)) == 0
    whole = (out / "manifest.json").read_text()
    for name in ("../../elsewhere", "/etc/hostname", "x" * 300, "a\0b"):
        manifest = json.loads(whole)
        manifest["files"][name] = "0"
        (out / "manifest.json").write_text(json.dumps(manifest))
        assert main(command(small_case, out, "--size", "tiny", "--count", 1)) == 2
        assert "expected a plain file name" in capsys.readouterr().err


def test_a_folder_of_scans_gets_sweeps(small_case, tmp_path):
    words = ["synthesize", small_case.parent, "--organ-mask", "liver.nii.gz", "-o", tmp_path / "out"]
    words = [str(word) for word in (*words, "--size", "tiny", "--count", 1, "--sweep")]
    assert main(words) == 0
    assert sheets_of(tmp_path / "out" / "small") == {"preview.png", "sweep.gif"}


@pytest.mark.parametrize("codes", ["LPS", "ASL", "IPR"])
def test_one_patient_stored_in_any_order_gives_one_picture(tmp_path, codes):
    """The same scan, its axes flipped and exchanged in the file, with the same tumor."""
    hu = body((30, 32, 28), radius_mm=24.0)[0]
    hu[2:9, 20:26, 16:24] = 300
    image = nib.Nifti1Image(hu.astype(np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes))
    for name, source in (("plain", image), ("turned", image.as_reoriented(turn))):
        nib.save(source, tmp_path / f"{name}.nii.gz")
    sheets = []
    for name in ("plain", "turned"):
        scan = read_ct(tmp_path / f"{name}.nii.gz")
        middle = np.rint(np.linalg.inv(scan.affine) @ (*(16.0, 44.0, 40.0), 1.0)).astype(int)[2::-1]
        shown = [tumor(at=middle, edge=1)]
        sheet = draw(
            tmp_path / f"{name}_{codes}", scan.hu, shown, directions=scan.direction, spacing_mm=scan.spacing_mm
        )
        sheets.append(sheet[preview._HEAD + preview._TITLES :, preview._MARGIN + preview._LABELS :])
    assert np.abs(sheets[0] - sheets[1]).max() <= 3
