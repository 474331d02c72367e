"""The page of results, through the command, and in a browser."""

import json

import nibabel as nib
import numpy as np
import pytest
from browser import check_page, chromium
from evaluation_results import scan, write_result

from nnunet_difftumor import report
from nnunet_difftumor.cli.main import main
from nnunet_difftumor.errors import InputError

SHAPE, SPACING_MM = (48, 80, 80), (3.0, 1.5, 1.5)


def ball(centre, radius_mm) -> np.ndarray:
    grid = np.ogrid[tuple(slice(0, n) for n in SHAPE)]
    return sum(((a - c) * s) ** 2 for a, c, s in zip(grid, centre, SPACING_MM, strict=True)) <= radius_mm**2


def save(path, array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([*SPACING_MM[::-1], 1.0])
    nib.save(nib.Nifti1Image(array.transpose(2, 1, 0), affine), path)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Two networks on three scans: an early and a large tumor in two of them, and a false positive of one network."""
    folder = tmp_path_factory.mktemp("evaluated")
    rng = np.random.default_rng(0)
    early, large, elsewhere = ball((16, 30, 30), 7), ball((30, 50, 52), 16), ball((12, 60, 25), 5)
    for number in range(3):
        truth = (early | large) if number < 2 else np.zeros(SHAPE, bool)
        hu = np.where(ball((24, 40, 40), 62), 110, -90) + rng.normal(0, 12, SHAPE) - 45 * truth
        save(folder / "images" / f"case_{number}_0000.nii.gz", hu.astype(np.int16))
        save(folder / "labels" / f"case_{number}.nii.gz", truth.astype(np.uint8) * 2)
        save(folder / "first" / f"case_{number}.nii.gz", (large & truth | elsewhere).astype(np.uint8) * 2)
        save(folder / "second" / f"case_{number}.nii.gz", truth.astype(np.uint8) * 2)
    (folder / "cases.csv").write_text("case,site\ncase_0,north\ncase_1,south\ncase_2,south\n")
    for name in ("first", "second"):
        words = ["evaluate", folder / "labels", folder / name, "--tumor-label", 2, "--case-table", folder / "cases.csv"]
        assert main([*map(str, words), "-np", "1", "-o", str(folder / f"{name}.json")]) == 0
    return folder


def test_a_page_of_two_networks_shows_figures_conclusions_hits_and_errors(evaluated, capsys):
    page = evaluated / "report.html"
    words = [
        "report",
        evaluated / "first.json",
        evaluated / "second.json",
        "--images",
        evaluated / "images",
        "-o",
        page,
    ]
    assert main([*map(str, words), "--each", "2"]) == 0
    assert capsys.readouterr().out == f"written: {page}\n"
    text = page.read_text()
    for said in ("early tumors detected", "By site:", "north", "Nothing may be concluded about second against first"):
        assert said in text, said
    # Of the first network two early tumors missed, two large ones found, two of three false positives; of the second
    # two of four found.
    assert text.count('class="slices"') == 2 + 2 + 2 + 2
    assert "Tumors that were missed: label 2, first" in text and "missed: label 2, second" not in text
    assert "False positives: label 2, first" in text and "SHA-256" in text
    with chromium() as browser:
        check_page(browser, page)


def test_one_result_without_images_is_a_page_too(evaluated, tmp_path):
    page = report([evaluated / "first.json"], tmp_path / "one.html", names=["baseline"])
    text = page.read_text()
    assert "<h1>Evaluation</h1>" in text and "baseline" in text and 'class="slices"' not in text


def test_probabilities_give_a_froc_curve(tmp_path):
    cases = {f"c{n}": scan([(12.0, True)], confidences=[0.5 + n / 20], false_confidences=[n / 10]) for n in range(6)}
    result = write_result(tmp_path / "ranked.json", cases, settings={"candidates": {"threshold": 0.1}})
    assert "sensitivity over false positives per scan" in report([result], tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"output": "page.txt"}, r"page\.txt: expected a name that ends in \.html"),
        ({"each": 0}, "`each` is 0, expected 1 to 20"),
        ({"images": "nowhere"}, r"nowhere: no CT of case_\d; expected case_\d_0000"),
        ({"names": ["a", "b"]}, "`names`: expected one, for one result"),
    ],
)
def test_mistakes_are_named(evaluated, tmp_path, change, said):
    arguments = {"output": "page.html"} | change
    output = tmp_path / arguments.pop("output")
    with pytest.raises(InputError, match=said):
        report([evaluated / "first.json"], output, **arguments)
    assert not output.exists()


def test_label_maps_that_have_gone_are_named(evaluated, tmp_path):
    content = json.loads((evaluated / "first.json").read_text())
    (tmp_path / "empty").mkdir()
    save(tmp_path / "empty" / "other.nii.gz", np.zeros(SHAPE, np.uint8))
    content["prediction"] = str(tmp_path / "empty")
    (tmp_path / "moved.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"no label map of case_\d any more"):
        report([tmp_path / "moved.json"], tmp_path / "page.html", images=evaluated / "images")
