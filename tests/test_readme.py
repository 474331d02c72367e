"""The README: its quick commands run, its tables are those of the code. What holds for all pages is in test_docs."""

import os
import re

import pages
import pytest
from pages import REPOSITORY, as_id, commands

from nnunet_difftumor.cli.main import VERBS, main
from nnunet_difftumor.dataset_conversion import CONVERTERS
from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.look.realistic import ORGANS
from nnunet_difftumor.synthesis.look.sample_shares import SampleShares
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM
from nnunet_difftumor.trainers import TRAINERS

LIVER = ORGANS["liver"].contrast
README = pages.README.read_text()


def test_every_fenced_block_is_shell():
    assert set(re.findall(r"^```(\w*)", README, re.MULTILINE)) == {"sh", ""}


@pytest.mark.parametrize("words", commands("make"), ids=as_id)
def test_make_line_names_a_target_and_variables_of_the_makefile(words):
    makefile = (REPOSITORY / "Makefile").read_text()
    assert f"\n{words[1]}: " in makefile
    for assignment in words[2:]:
        assert re.search(rf"^{assignment.partition('=')[0]} \?=", makefile, re.MULTILINE)


def test_every_verb_and_converter_but_no_other_is_in_the_table():
    cells = re.findall(
        r"^\| (`[^|]*) \|", README.partition("## What there is")[2].partition("trainer (")[0], re.MULTILINE
    )
    words = {word.split()[0] for cell in cells for word in re.findall(r"`([^`]+)`", cell)}
    assert words - {"difftumor"} == {*VERBS, *CONVERTERS} - {"folder"}


def test_trainers_that_are_named_exist():
    named = set(re.findall(r"`(nnUNetTrainerDiffTumor\w*)`", README))
    assert named <= set(TRAINERS)
    for ending in re.findall(r"`(_\d+epochs)`", README):
        assert {f"{trainer}{ending}" for trainer in named} <= set(TRAINERS)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_table_gives_the_presets_own_figures(name):
    preset = PRESETS[name]
    row = next(line for line in README.splitlines() if line.startswith(f"| `{name}`"))
    diameters, mix, contrast, share = (cell.strip() for cell in row.split("|")[3:7])

    def interval(size: str) -> str:
        low, high = (f"{2 * radius:g}" for radius in preset.sizes[size].radius_mm)
        return low if low == high else f"{low}-{high}"

    assert diameters == ", ".join(interval(size) for size in SIZE_BANDS_MM)
    assert mix == ", ".join(f"{100 * preset.weights[size]:g}" for size in SIZE_BANDS_MM)
    if isinstance(preset.shares, SampleShares):
        expected = "/".join(f"{100 * part:g}" for part in preset.shares.to_dict().values())
    else:
        expected = "as the public code"
    assert share == expected
    if name == "realistic":
        least, usual, most = (f"{100 * share:.0f}" for share in LIVER.lacking)
        assert contrast.startswith(f"{least} to {most} %, mostly {usual} % (liver)")
        assert f"{100 * LIVER.faint['small']:.0f} % hardly differ, {100 * LIVER.hyperdense:.0f} % brighter" in contrast


def test_pictures_are_there_and_small():
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)
    assert pictures
    for picture in pictures:
        assert 10_000 < (REPOSITORY / picture).stat().st_size < 300_000


@pytest.mark.slow
def test_quick_lines_run_on_the_phantom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    convert = next(
        words for words in commands("difftumor", pages=[pages.README]) if words[1:3] == ["convert", "phantom"]
    )
    synthesize = next(words for words in commands("difftumor", pages=[pages.README]) if words[1] == "synthesize")
    few = ["--cases", "1", "--tumor-cases", "0", "--spacing", "3", "3", "3"]
    for words in ([*convert, *few], synthesize):
        assert main([os.path.expandvars(word) for word in words[1:]]) == 0
    made = {path.name for path in (tmp_path / "synthetic").iterdir()}
    assert made == {"ct.nii.gz", "tumor_mask.nii.gz", "labels.nii.gz", "preview.png", "report.html", "manifest.json"}
