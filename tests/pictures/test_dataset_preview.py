"""`difftumor preview`: pictures of what the trainer will see, made as the training makes its samples."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from PIL import Image
from trainer_of import trainer_of

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.pictures.montage import Montage
from nnunet_difftumor.pipeline.sources import Outcome
from nnunet_difftumor.pipeline.training_synthesis import TrainingSynthesis
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.prepared.statistics import StatisticsStore
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM


def preview(dataset, output, *arguments: str) -> dict:
    assert main(["preview", "-d", str(dataset.dataset_id), "-o", str(output), *arguments]) == 0
    return json.loads((output / "preview.json").read_text())


@pytest.fixture(scope="module")
def phantom_preview(prepared_phantom, tmp_path_factory):
    output = tmp_path_factory.mktemp("preview")
    return output, preview(prepared_phantom, output, "--sweep")


@pytest.mark.slow(file_seconds=60)
def test_every_organ_has_a_picture_with_a_row_of_every_size(phantom_preview):
    output, record = phantom_preview
    assert set(record["pictures"]) == {"liver", "kidney", "pancreas", "mix"}
    for organ in ("liver", "kidney", "pancreas"):
        assert [label.split(",")[0] for label in record["pictures"][organ]] == list(SIZE_BANDS_MM)
        for label, samples in record["pictures"][organ].items():
            size = label.split(",")[0]
            assert len({sample["case"] for sample in samples}) == 4  # there are four bases
            for tumor in itertools.chain(*(sample["tumors"] for sample in samples)):
                assert (tumor["spec"]["organ"], tumor["spec"]["size_class"]) == (organ, size)
                low, high = SIZE_BANDS_MM[size]
                assert low <= tumor["equivalent_diameter_mm"] < high
        with Image.open(output / f"{organ}.png") as image:
            assert image.width > 1500 and image.height > 900


class FullOrgans:
    """A source that finds no room anywhere."""

    def begin(self, case, rng, epoch=0, **_):
        return lambda: Outcome(refused=["large: no place with enough room in the organ"] * 3)


@pytest.mark.slow
def test_samples_without_a_tumor_are_counted_with_their_reason(
    prepared_phantom, copy_of_prepared_phantom, tmp_path, monkeypatch, capsys
):
    path = StatisticsStore(copy_of_prepared_phantom, "nnUNetPlansDiffTumor_3d_fullres").path("phantom_001", "liver")
    dataclasses.replace(OrganStatistics.load(path), parenchyma_hu=45.0).save(path)
    monkeypatch.setattr(TrainingSynthesis, "source", lambda self, config=None: FullOrgans())
    record = preview(prepared_phantom, tmp_path / "pictures", "--sweep")
    samples = [s for rows in record["pictures"].values() for row in rows.values() for s in row]
    assert record["samples"] == record["samples_without_tumor"] == len(samples) == 3 * 4 * 4 + 8
    assert all(sample["refused"] and not sample["tumors"] for sample in samples)
    said = capsys.readouterr().out
    assert "liver, tiny: 0 of 4 samples, 0 tumors; refused: 12 x large: no place with enough room" in said
    assert "sweep: no tumor found room" in said
    assert said.count("NOTE: 1 of 4 bases look unenhanced (liver 45 HU)") == 1
    with Image.open(tmp_path / "pictures" / "liver.png") as image:
        # The reason is written in every place, in orange.
        red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")).astype(int), -1, 0)
        orange = (red > 200) & (abs(green - 176) < 40) & (blue < 100)
    rows, columns = (image_part.any(axis) for image_part, axis in ((orange, 1), (orange, 0)))
    assert (np.diff(rows.astype(int)) == 1).sum() >= 4 and columns.sum() > 100


@pytest.mark.slow
def test_sweep_is_animated(phantom_preview):
    output, _ = phantom_preview
    with Image.open(output / "sweep.gif") as image:
        assert image.n_frames > 10
        frames = []
        for number in (0, image.n_frames // 2):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")))
    assert (frames[0] != frames[1]).any()


def test_row_contour_is_where_the_picture_changed(prepared_phantom):
    montage = Montage(prepared_phantom.preprocessed, configuration="3d_fullres")
    (sample,) = montage.row(montage.config.organs[0], "medium", columns=1)
    panel = sample.panel
    changed = panel.before != panel.after
    assert panel.contour.any() and changed[panel.contour].mean() > 0.95
    assert not changed[0].any() and panel.before.shape == panel.after.shape == panel.contour.shape
    # The tumor is in the middle of its picture.
    middle = np.argwhere(panel.contour).mean(0)
    assert np.abs(middle - (np.array(panel.contour.shape) - 1) / 2).max() < 1.5


def test_mix_is_what_the_training_draws(prepared_phantom, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    loader = trainer_of(prepared_phantom.preprocessed).get_dataloaders()[0].data_loader
    trained_on = [sample for number in range(6) for sample in loader.make_batch(number)["samples"]]
    assert len(trained_on) >= 3
    mix = list(Montage(prepared_phantom.preprocessed, configuration="3d_fullres").mix(len(trained_on)))
    for shown, trained in zip(mix, trained_on, strict=True):
        assert (shown.number, shown.case) == (trained["number"], trained["case"])
        assert [tumor.spec.to_dict() for tumor in shown.outcome.tumors] == trained["tumors"]


def test_seed_chooses_the_samples(prepared_phantom):
    def specs(seed):
        montage = Montage(prepared_phantom.preprocessed, configuration="3d_fullres", seed=seed)
        samples = [*montage.mix(2), *montage.row(montage.config.organs[0], "small", columns=1)]
        return [tumor.spec for sample in samples for tumor in sample.outcome.tumors]

    assert specs(3) == specs(3) != specs(4)


ONLY_REAL = {"real": 1, "synthetic": 0, "healthy": 0}


def test_settings_of_the_dataset_are_followed(prepared_phantom, copy_of_prepared_phantom):
    path = copy_of_prepared_phantom / "difftumor.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "contrast_hu": [20, 25], "shares": ONLY_REAL}))
    montage = Montage(copy_of_prepared_phantom, configuration="3d_fullres")
    (sample,) = montage.row(montage.config.organs[0], "small", columns=1)
    assert all(20 <= tumor.spec.contrast_hu <= 25 for tumor in sample.outcome.tumors)
    # What is seen is less: the edges are soft.
    seen = [tumor["measured_contrast_hu"] for tumor in sample.to_dict()["tumors"]]
    assert seen and all(12 <= contrast <= 25 for contrast in seen)
    assert list(montage.mix(2)) == []


def test_nothing_but_the_output_is_written(prepared_phantom, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in prepared_phantom.preprocessed.rglob("*")}
    config = DiffTumorConfig.load(prepared_phantom.preprocessed / "difftumor.json")
    Montage(prepared_phantom.preprocessed, configuration="3d_fullres", seed=config.seed + 1).sweep()
    assert before == {p: p.stat().st_mtime_ns for p in prepared_phantom.preprocessed.rglob("*")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", "777"], "difftumor prepare -d 777"),
        (["-d", "501", "--configuration", "3d_cascade"], "expected one in nnUNetPlansDiffTumor.json: "),
        (["-d", "501", "--seed", "-1"], "--seed is -1"),
    ],
)
def test_wrong_arguments_are_named(prepared_phantom, capsys, arguments, message):
    assert main(["preview", *arguments]) == 2
    assert message in capsys.readouterr().err
