"""Organs are free names; what one without shapes of its own gets is said where it is drawn."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scans import command

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.names import nearest_name
from nnunet_difftumor.synthesis.look.organ_names import note_on_organ
from nnunet_difftumor.synthesis.look.realistic import ORGANS


@pytest.mark.parametrize("name", [*ORGANS, "Liver", "left_kidney", "liver_segment_4"])
def test_organs_with_shapes_of_their_own_need_no_note(name):
    assert note_on_organ(name, "realistic") is None


@pytest.mark.parametrize(
    ("name", "meant"),
    [("lver", "liver"), ("kindey", "kidney"), ("Panceras", "pancreas"), ("spleen", None), ("thyroid", None)],
)
def test_the_others_are_said_with_what_is_used_and_what_may_be_meant(name, meant):
    note = note_on_organ(name, "realistic")
    known = ", ".join(ORGANS)
    assert note == f"organ {name}: no shapes or contrast of its own; drawn as in the liver (known: {known})" + (
        f"; is {meant} meant?" if meant else ""
    )


def test_that_no_organ_was_named_is_said_with_the_option(case, tmp_path, capsys):
    assert main([str(word) for word in command(case, tmp_path / "out", "--size", "small", "--count", 1)]) == 0
    assert f"NOTE: no organ is named (--organ); drawn as in the liver (known: {', '.join(ORGANS)})\n" in (
        capsys.readouterr().out
    )


def test_presets_that_draw_all_organs_alike_need_no_note():
    assert note_on_organ("lver", "hu2023") is None


def test_the_nearest_name_is_no_other_spelling_of_the_same():
    assert nearest_name("Liver", ["liver", "kidney"]) is None
    assert nearest_name("livre", ["liver", "kidney"]) == "liver"


def test_a_mistyped_organ_is_said_by_the_installed_command_and_recorded(case, tmp_path):
    out, again = tmp_path / "out", tmp_path / "again"
    words = command(case, out, "--organ", "lver", "--size", "small", "--count", 1)
    done = subprocess.run([Path(sys.executable).with_name("difftumor"), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    note = note_on_organ("lver", "realistic")
    assert note.endswith("; is liver meant?") and f"NOTE: {note}\n" in done.stdout
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["notes"] == [note] and manifest["organ"]["name"] == "lver"
    assert main(command(case, again, "--from-spec", out / "manifest.json")) == 0
    assert json.loads((again / "manifest.json").read_text())["notes"] == [note]


def test_a_folder_of_scans_says_it_once(case, tmp_path, capsys):
    words = ["synthesize", case.parent, "--organ-mask", "liver.nii.gz", "-o", tmp_path / "out", "--organ", "spleen"]
    assert main([str(word) for word in [*words, "--size", "small", "--count", 1]]) == 0
    assert capsys.readouterr().out.count("NOTE: organ spleen: no shapes or contrast of its own") == 1
