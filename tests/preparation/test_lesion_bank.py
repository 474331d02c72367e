"""`difftumor synthesize --bank`: which files it makes, going on, several processes, and training on what it made."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_networks
from trainer_of import trainer_of

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.preparation import lesion_bank
from nnunet_difftumor.preparation.lesion_bank import BankReport, make_bank
from nnunet_difftumor.synthesis.spec import NoRoom, TumorSpec

pytestmark = pytest.mark.slow(file_seconds=25)

CASES = 4


def fill(folder: Path, per_case: int = 2, **options) -> BankReport:
    return make_bank(501, per_case=per_case, output=folder, report=lambda line: None, **options)


def content(folder: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def spec_of(path: Path) -> TumorSpec:
    with np.load(path) as values:
        return TumorSpec.from_dict(json.loads(str(values["spec"])))


@pytest.fixture(scope="module")
def made(prepared_phantom, tmp_path_factory) -> Path:
    """A bank with two lesions of each case; not to be changed."""
    folder = tmp_path_factory.mktemp("bank") / "made"
    assert replace(fill(folder), faint=0) == BankReport(folder, 2 * CASES, 0, 0)
    return folder


@pytest.fixture
def bank(made, tmp_path) -> Path:
    """A copy of it."""
    return shutil.copytree(made, tmp_path / "bank")


def test_every_base_gets_its_lesions_and_each_is_another(made):
    lesions = sorted(made.glob("*/*.lesion.npz"))
    assert [str(path.relative_to(made)) for path in lesions] == [
        f"phantom_{case:03d}/{number:05d}.lesion.npz" for case in range(CASES) for number in range(2)
    ]
    assert set(content(made)) == {"bank.json", *(str(path.relative_to(made)) for path in lesions)}
    assert len({spec_of(path).seed for path in lesions}) == len(lesions)


def test_another_folder_gets_the_same_files_and_another_seed_gives_others(made, tmp_path):
    fill(tmp_path / "again")
    assert content(tmp_path / "again") == content(made)
    fill(tmp_path / "other", 1, seed=1)
    other = content(tmp_path / "other")
    assert not {other[name] for name in other} & set(content(made).values())


def test_a_later_call_makes_what_is_missing_and_leaves_the_rest(bank, made):
    (bank / "phantom_001" / "00000.lesion.npz").unlink()
    (bank / "phantom_001" / ".tmp-1234-00000.lesion.npz").write_bytes(b"of a process that was killed")
    before = {path: path.stat().st_mtime_ns for path in bank.rglob("*.*") if path.is_file()}
    report = fill(bank, 3)
    assert (report.made, report.kept, report.refused) == (CASES + 1, 2 * CASES - 1, 0)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    again = content(bank)
    assert content(made).items() <= again.items()
    assert fill(bank, 3).made == 0


def test_processes_fill_a_bank_together_as_one_alone_would(prepared_phantom, tmp_path):
    together, alone = tmp_path / "together", tmp_path / "alone"
    code = (
        "import sys\nfrom nnunet_difftumor.preparation.lesion_bank import make_bank\nprint('ready', flush=True)\n"
        f"input()\nprint(make_bank(501, per_case=4, output={str(together)!r}, report=lambda line: None).made)"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
    for process in processes:  # they begin together, whatever the imports took
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sum(int(output) for output, _ in outputs) >= 4 * CASES
    fill(alone, 4)
    assert content(together) == content(alone)


def test_an_interrupted_call_goes_on(made, tmp_path, monkeypatch, capsys):
    draft, calls = lesion_bank._LesionMaker.draft, []

    def interrupted(self, name, number):
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return draft(self, name, number)

    command = ["synthesize", "--bank", "-d", "501", "--per-case", "2", "-o", str(tmp_path / "bank")]
    with monkeypatch.context() as patched:
        patched.setattr(lesion_bank._LesionMaker, "draft", interrupted)
        assert main(command) == 130
    assert "interrupted; the same command resumes where it stopped" in capsys.readouterr().err
    assert main(command) == 0
    assert f"{tmp_path / 'bank'}: {2 * CASES - 2} lesions made, 2 kept, 0 refused" in capsys.readouterr().out
    assert content(tmp_path / "bank") == content(made)


def test_a_bank_of_other_settings_or_a_damaged_one_is_refused(bank):
    before = content(bank)
    with pytest.raises(InputError, match=r"bank: holds a bank made with other settings \(seed; see bank.json\)"):
        fill(bank, 3, seed=5)
    assert content(bank) == before
    (bank / "bank.json").write_text('{"version": ')
    with pytest.raises(InputError, match=r"bank\.json: is damaged .* delete the folder"):
        fill(bank, 3)
    (bank / "bank.json").unlink()
    with pytest.raises(InputError, match=r"holds lesion files, but no bank\.json; choose another `output`"):
        fill(bank, 3)
    assert content(bank).items() <= before.items()


def test_where_there_is_no_room_is_noted_and_not_tried_again(bank, made, monkeypatch):
    tried = []

    def no_room(self, volume, statistics, rng, **_):
        tried.append(self.organ.name)
        return NoRoom(self.organ.name, "large", "no place")

    with monkeypatch.context() as patched:
        patched.setattr(lesion_bank.TumorSampler, "sample", no_room)
        assert fill(bank, 3) == BankReport(bank, 0, 2 * CASES, CASES)
    assert len(tried) == 3 * CASES and len(set(tried)) > 1
    note = json.loads((bank / "phantom_002" / "00002.refused.json").read_text())
    assert (note["case"], note["number"], len(note["reasons"])) == ("phantom_002", 2, 3)
    assert all(reason.endswith(", large: no place") for reason in note["reasons"])
    assert fill(bank, 3) == BankReport(bank, 0, 2 * CASES, CASES)
    assert content(made).items() <= content(bank).items()


def mended(dataset):
    dataset.mend("phantom_002", old=5, new=0)


def withdrawn(dataset):
    dataset.withdraw("phantom_002")


def cut_short(dataset):
    path = dataset.arrays / "phantom_001.b2nd"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (mended, "phantom_002: .*phantom_002.nii.gz has changed since the dataset was prepared"),
        (withdrawn, "phantom_002: was withdrawn from Dataset501_Phantom"),
        (cut_short, "phantom_001: .*phantom_001.b2nd has .* bytes, but .* were written"),
    ],
)
def test_a_bank_of_data_that_are_not_what_was_prepared_is_not_begun_unless_told_otherwise(
    dataset, tmp_path, change, seen
):
    change(dataset)
    with pytest.raises(InputError, match=f"the bank does not begin: {seen}.*`difftumor prepare -d 501`"):
        fill(tmp_path / "bank", 1)
    assert not (tmp_path / "bank").exists()
    edit_settings(dataset.folder, on_wrong_data="warn")
    lines = []
    if change is cut_short:  # nothing can be made from that
        return
    report = make_bank(501, per_case=1, output=tmp_path / "bank", report=lines.append)
    assert report.made == CASES and any(line.startswith("ERROR phantom_002") for line in lines)
    assert any("the bank begins all the same" in line for line in lines)


def test_the_command_names_what_has_changed_and_goes_on_once_it_is_prepared_again(dataset, tmp_path):
    dataset.mend("phantom_002", old=5, new=0)
    script = Path(sys.executable).with_name("difftumor")
    words = [script, "synthesize", "--bank", "-d", "501", "--per-case", "1", "-o", tmp_path / "bank"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2 and not (tmp_path / "bank").exists()
    assert "the bank does not begin: phantom_002: " in done.stderr and "`difftumor prepare -d 501`" in done.stderr
    assert main(["prepare", "-d", "501", "-np", "1"]) == 0
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0 and f"{CASES} lesions made" in done.stdout, done.stderr


@contextmanager
def files_up_to(size: int):
    """As on a full disk: what would make a file larger than this many bytes fails."""
    resource = pytest.importorskip("resource")  # not on Windows
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_no_half_file_and_the_same_command_goes_on(bank, made):
    lesion = bank / "phantom_003" / "00001.lesion.npz"
    lesion.unlink()
    before = content(bank)
    with files_up_to(500), pytest.raises(InputError) as caught:
        fill(bank)
    message = str(caught.value)
    assert message.startswith(f"{bank}: cannot be written (File too large); free disk space") and "\n" not in message
    assert message.endswith("the same command resumes where it stopped")
    assert content(bank) == before
    assert fill(bank).made == 1
    assert content(bank) == content(made)


def test_a_folder_that_is_a_file_is_refused(prepared_phantom, tmp_path):
    (tmp_path / "bank").write_text("")
    with pytest.raises(InputError, match=r"bank: cannot be written \((File exists|Not a directory)\)"):
        fill(tmp_path / "bank")


def edit_settings(folder: Path, **changes) -> None:
    path = folder / "difftumor.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_real_cases_as_bases_and_a_dataset_that_trains_on_a_bank_already(
    prepared_phantom, copy_of_prepared_phantom, tmp_path
):
    edit_settings(copy_of_prepared_phantom, real_cases_as_bases=True, source="bank", bank_folder="/none")
    report = make_bank(501, per_case=1, report=lambda line: None)
    assert report.folder == copy_of_prepared_phantom / "difftumor_bank" / "nnUNetPlansDiffTumor_3d_fullres"
    cases = {path.parent.name for path in report.folder.glob("*/*.lesion.npz")}
    assert report.made == 6 and len(cases) == 6 and any("tumor" in case for case in cases)


def test_the_last_line_says_where_tumors_are_hard_to_see(prepared_phantom, copy_of_prepared_phantom, tmp_path):
    notes = {}
    for contrast_hu in (-60, -3):
        edit_settings(copy_of_prepared_phantom, contrast_hu=[contrast_hu, contrast_hu], size_weights={"small": 1})
        lines = []
        make_bank(501, per_case=1, output=tmp_path / str(contrast_hu), report=lines.append)
        notes[contrast_hu] = lines[-1]
        make_bank(501, per_case=1, output=tmp_path / str(contrast_hu), report=lines.append)
        # The second call has none of its own to speak of.
        assert len([line for line in lines if not line.startswith("NOTE")]) == 3
    assert re.fullmatch(r"contrast of those made: median -[56]\d HU, nine of ten from -\d+ to -[45]\d HU", notes[-60])
    assert re.fullmatch(
        r"contrast of those made: median -[2-5] HU, nine of ten from -\d+ to -\d+ HU; [34] of 4 have less contrast "
        r"than 0\.5 times the noise, hardly to be seen, most lesions of phantom_000, .* among them",
        notes[-3],
    )


def test_lesions_that_nobody_could_see_are_drawn_again_where_that_is_asked_for(
    prepared_phantom, copy_of_prepared_phantom, tmp_path
):
    edit_settings(copy_of_prepared_phantom, contrast_hu=[-30, 0], size_weights={"small": 1})
    anything = fill(tmp_path / "anything", 3)
    assert 0 < anything.faint < anything.made == 3 * CASES
    clear = fill(tmp_path / "clear", 3, minimum_contrast_to_noise=0.5)
    assert clear.faint == 0 and clear.made + clear.refused == 3 * CASES and clear.made >= anything.made - anything.faint
    # Those that can be seen are the same, and the order in which they are made changes nothing.
    first, second = content(tmp_path / "anything"), content(tmp_path / "clear")
    same = {name for name in first if first[name] == second.get(name)}
    assert len(same) == anything.made - anything.faint
    assert json.loads((tmp_path / "clear" / "bank.json").read_text())["minimum_contrast_to_noise"] == 0.5
    with pytest.raises(InputError, match=r"other settings \(minimum_contrast_to_noise; see bank.json\)"):
        fill(tmp_path / "anything", 4, minimum_contrast_to_noise=0.5)
    with pytest.raises(InputError, match="`minimum_contrast_to_noise` is -1, expected a number from 0 to 10"):
        fill(tmp_path / "wrong", minimum_contrast_to_noise=-1)

    # As the settings say it, by the command; nothing has that much.
    edit_settings(copy_of_prepared_phantom, minimum_contrast_to_noise=9)
    script = Path(sys.executable).with_name("difftumor")
    words = [script, "synthesize", "--bank", "-d", "501", "--per-case", "1", "-o", tmp_path / "none"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"0 lesions made, 0 kept, {CASES} refused (no room, or too faint)" in done.stdout
    note = json.loads((tmp_path / "none" / "phantom_000" / "00000.refused.json").read_text())
    assert len(note["reasons"]) == 3
    assert any(reason.endswith("small: contrast is less than 9 times the noise") for reason in note["reasons"])


def test_a_bank_of_diffusion_tumors_is_trained_on(prepared_phantom, copy_of_prepared_phantom, tmp_path, monkeypatch):
    edit_settings(copy_of_prepared_phantom, size_weights={"tiny": 1, "small": 1, "large": 0})
    # Late models are not needed for these sizes.
    weights = tiny_networks.write_weights(tmp_path / "weights", "liver_early", "kidney_early", "pancreas_early")
    bank = tmp_path / "bank"
    script = Path(sys.executable).with_name("difftumor")
    words = ["synthesize", "--bank", "-d", "501", "--per-case", "2", "-o", bank, "--renderer", "diffusion"]
    done = subprocess.run([script, *words, "--weights", weights], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{2 * CASES} lesions made, 0 kept, 0 refused" in done.stdout
    lesions = sorted(bank.glob("*/*.lesion.npz"))
    assert len(lesions) == 2 * CASES and {spec_of(path).renderer for path in lesions} == {"diffusion"}
    recorded = json.loads((bank / "bank.json").read_text())
    assert recorded["renderer"] == "diffusion" and set(recorded["weights"]) == {"liver", "kidney", "pancreas"}
    assert [file["file"] for file in recorded["weights"]["liver"]] == [
        "autoencoder.safetensors",
        "liver_early.safetensors",
    ]

    assert (recorded["mode"], recorded["sampler_steps"]) == ("exact", None)
    # One that was made before there were modes is exact; a fast one is another.
    old = {key: value for key, value in recorded.items() if key not in ("mode", "sampler_steps")}
    (bank / "bank.json").write_text(json.dumps(old))
    again = [script, *words, "--weights", weights]
    assert "0 lesions made" in subprocess.run(again, capture_output=True, text=True).stdout
    assert "other settings (mode" in subprocess.run([*again, "--fast"], capture_output=True, text=True).stderr

    lines = done.stdout.splitlines()[-2:]
    edit_settings(copy_of_prepared_phantom, **json.loads("{" + "".join(lines).rstrip(",") + "}"))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    training, _ = trainer_of(copy_of_prepared_phantom).get_dataloaders()
    samples = [sample for _ in range(6) for sample in next(training)["samples"]]
    assert len(samples) > 5 and np.mean([sample["in_target"] for sample in samples]) >= 0.75
    assert not [reason for sample in samples for reason in sample["refused"]]


def test_what_diffusion_models_cannot_draw_is_refused_before_anything_is_made(
    prepared_phantom, copy_of_prepared_phantom, tmp_path
):
    weights = tiny_networks.write_weights(tmp_path / "weights", "liver_early", "liver_late", "kidney_early")
    with pytest.raises(InputError, match=r"kidney_late\.safetensors not found") as caught:
        fill(tmp_path / "bank", renderer="diffusion", weights=weights)
    assert "--size" not in str(caught.value)
    edit_settings(copy_of_prepared_phantom, contrast_hu=[-40, -20])
    with pytest.raises(InputError, match="contrast_hu: diffusion models decide the contrast by themselves"):
        fill(tmp_path / "bank", renderer="diffusion", weights=weights)
    assert not (tmp_path / "bank").exists()


BANK = ["--bank", "-d", "501", "--per-case", "1"]
SCAN = ["ct.nii.gz", "--organ-mask", "mask.nii.gz", "-o", "out"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ct.nii.gz", *BANK], "the CT scan: not with --bank"),
        ([*BANK, "--organ-mask", "mask.nii.gz"], "--organ-mask: not with --bank"),
        ([*BANK, "--organ", "liver", "--preset", "realistic"], "--organ, --preset: not with --bank"),
        ([*BANK, "--organ-label", "1", "--tumor-label", "2"], "--organ-label, --tumor-label: not with --bank"),
        ([*BANK, "--avoid-label", "2", "--size", "mix"], "--avoid-label, --size: not with --bank"),
        ([*BANK, "--count", "1", "--contrast-hu", "-30"], "--count, --contrast-hu: not with --bank"),
        ([*BANK, "--from-spec", "manifest.json"], "--from-spec: not with --bank"),
        ([*BANK, "--device", "cpu"], "--device: for --renderer diffusion only"),
        ([*BANK, "--seed", "-1"], "--seed is -1"),
        (["--bank", "--per-case", "1"], "-d is missing"),
        (["--bank", "-d", "501"], "--per-case is missing"),
        (["--bank", "-d", "501", "--per-case", "0"], "--per-case is 0, expected at least 1"),
        ([*SCAN, "-d", "501", "--per-case", "1"], "-d, --per-case: for a lesion bank only; add --bank"),
        ([*SCAN, "--configuration", "3d_fullres"], "--configuration: for a lesion bank only"),
        (["ct.nii.gz", "-o", "out"], "--organ-mask is missing; tumors in a scan need"),
        (["ct.nii.gz", "--organ-mask", "mask.nii.gz"], "-o is missing"),
        ([], "the CT scan, --organ-mask, -o are missing"),
    ],
)
def test_options_that_do_not_go_together_are_refused_by_name(words, message, capsys):
    assert main(["synthesize", *words]) == 2
    assert message in capsys.readouterr().err
