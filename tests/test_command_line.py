"""Options with choices: they are shown, others are refused, and the parsers stay light."""

import subprocess
import sys

import pytest

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.synthesis.preset import SIZES
from nnunet_difftumor.synthesis.presets import PRESETS

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


@pytest.mark.parametrize("words", [["--help"], ["prepare", "--help"], ["synthesize", "--help"]])
def test_help_does_not_import_torch(words):
    code = f"import sys\nfrom nnunet_difftumor.cli.main import main\ntry: main({words})\n"
    code += "finally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: difftumor"), done.stderr
