"""Options with choices: they are shown, others are refused, and the parsers stay light."""

import subprocess
import sys

import pytest

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.synthesis.look.preset import SIZES
from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.look.realistic import ORGANS

WITH_CHOICES = {
    ("prepare", "-d", "1", "--preset"): PRESETS,
    ("synthesize", "ct", "--organ-mask", "mask", "-o", "out", "--preset"): PRESETS,
    ("synthesize", "ct", "--organ-mask", "mask", "-o", "out", "--size"): SIZES,
}


@pytest.mark.parametrize(("words", "choices"), WITH_CHOICES.items(), ids=["prepare", "synthesize", "size"])
def test_another_value_is_refused_with_all_choices(capsys, words, choices):
    with pytest.raises(SystemExit) as stop:
        main([*words, "best"])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert f"argument {words[-1]}: invalid choice: 'best'" in error
    assert all(choice in error.rpartition("choose from")[2] for choice in choices)


def test_help_of_organ_names_the_organs_that_have_tumors_of_their_own(capsys):
    with pytest.raises(SystemExit):
        main(["synthesize", "--help"])
    text = " ".join(capsys.readouterr().out.partition("--organ NAME ")[2].partition("--organ-label")[0].split())
    assert "shapes, contrast and growth" in text
    assert all(name in text for name in ORGANS)


@pytest.mark.parametrize("words", [["--help"], ["prepare", "--help"], ["synthesize", "--help"]])
def test_help_does_not_import_torch(words):
    code = f"import sys\nfrom nnunet_difftumor.cli.main import main\ntry: main({words})\n"
    code += "finally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: difftumor"), done.stderr
