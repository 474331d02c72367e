"""`difftumor doctor` finds what is wrong, repairs torchvision and takes the repair back; `difftumor env`."""

import errno
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import nnunetv2  # noqa: F401 (its import announces the trainers, once a process: tests set the variable after it)
import pytest
from environments import REPOSITORY, Environment

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.installation import SHIM_FOLDER, checks, machine, shell_line
from nnunet_difftumor.installation.torchvision_repair import MODULE, Probe, probe

# The beginning of torchvision, as far as the failure goes: its compiled operators could not be loaded (they would be
# defined in `extension`), and a description of the operator that should be there is registered.
STAND_IN = {
    "__init__.py": "__version__ = '0'\nfrom . import extension\nfrom torchvision import _meta_registrations\n",
    "extension.py": "import torch\n",
    "_meta_registrations.py": "import torch\n\n@torch.library.register_fake('torchvision::nms')\n"
    "def meta_nms(dets, scores, iou_threshold):\n    return dets\n",
}
FITTING_EXTENSION = (
    "import torch\nlibrary = torch.library.Library('torchvision', 'DEF')\n"
    "library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
)


@pytest.fixture
def broken(tmp_path) -> Environment:
    """An environment whose torchvision has lost its operators."""
    environment = Environment(tmp_path / "venv")
    folder = environment.site_packages / "torchvision"
    folder.mkdir()
    for name, text in STAND_IN.items():
        (folder / name).write_text(text)
    return environment


def doctor(environment: Environment, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    code = f"import sys; from nnunet_difftumor.cli.main import main; sys.exit(main(['doctor', *{arguments!r}]))"
    return environment.run(code, check=False, PYTHONPATH=str(REPOSITORY), **variables)


def repair(environment: Environment, function: str) -> str:
    code = f"from nnunet_difftumor.installation import torchvision_repair as r; print(r.{function}())"
    return environment.run(code, PYTHONPATH=str(REPOSITORY)).stdout.strip()


@pytest.mark.slow(file_seconds=55)
def test_doctor_names_missing_operators_and_fails(broken):
    done = doctor(broken)
    line = next(line for line in done.stdout.splitlines() if "torchvision" in line)
    assert done.returncode == 1
    assert line.startswith("problem") and "doctor --fix" in line


@pytest.mark.slow
def test_fix_makes_torchvision_importable_here_and_in_spawned_children(broken, tmp_path):
    assert "declared from now on" in repair(broken, "repair")
    script = tmp_path / "spawn.py"
    script.write_text(
        "import multiprocessing\n\ndef child():\n    import torchvision\n\n"
        "if __name__ == '__main__':\n    import torchvision\n"
        "    process = multiprocessing.get_context('spawn').Process(target=child)\n"
        "    process.start(); process.join(); raise SystemExit(process.exitcode)\n"
    )
    broken.call([broken.python, script])  # the environment has no nnunet-difftumor: the repair stands alone


def test_fix_costs_nothing_where_torchvision_is_not_imported(broken):
    repair(broken, "repair")
    done = broken.run(f"import sys; print('{MODULE}' in sys.modules, 'torch' in sys.modules)")
    assert (done.stdout, done.stderr) == ("True False\n", "")


def test_fix_twice_changes_nothing(broken):
    repair(broken, "repair")
    files = broken.files()
    assert repair(broken, "repair") == "None"
    assert broken.files() == files


def test_unfix_removes_every_file(broken):
    files = broken.files()
    repair(broken, "repair")
    assert broken.files() - files == {
        str((broken.site_packages / f"{MODULE}{suffix}").relative_to(broken.folder.resolve()))
        for suffix in (".py", ".pth")
    }
    assert doctor(broken, "--unfix").stdout == "removed the repair\n"
    assert broken.files() == files
    assert doctor(broken, "--unfix").stdout == "there was no repair to remove\n"


@pytest.mark.slow
def test_repair_leaves_a_fitting_torchvision_alone_and_fix_then_removes_it(broken):
    repair(broken, "repair")
    (broken.site_packages / "torchvision" / "extension.py").write_text(FITTING_EXTENSION)
    assert broken.run(f"import torchvision, sys; print(sys.modules['{MODULE}'].declared)").stdout == "[]\n"
    assert "removed" in repair(broken, "repair")
    assert not list(broken.site_packages.glob(f"{MODULE}*"))


def test_a_lost_module_does_not_disturb_interpreter_start(broken):
    repair(broken, "repair")
    (broken.site_packages / f"{MODULE}.py").unlink()
    (broken.site_packages / "zz_running_environment.pth").unlink()  # the running one may hold the module too
    assert broken.run("print(1)").stderr == ""


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda folder: None, "is not a folder"),
        (lambda folder: folder.write_text(""), "is not a folder"),
        (lambda folder: folder.mkdir(), "ok"),
    ],
)
def test_folder_variables_are_checked(prepare, expected, tmp_path, monkeypatch):
    folder = tmp_path / "raw"
    prepare(folder)
    monkeypatch.setenv("nnUNet_raw", str(folder))
    assert expected in str(checks.check_folder("nnUNet_raw"))


def test_unset_folder_variable_says_what_to_export(monkeypatch):
    monkeypatch.delenv("nnUNet_results", raising=False)
    assert "export nnUNet_results=" in str(checks.check_folder("nnUNet_results"))


def test_folder_that_cannot_be_written_is_a_problem(tmp_path, monkeypatch):
    def refuse(**kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    monkeypatch.setattr(checks.tempfile, "TemporaryFile", refuse)  # root may write everywhere
    finding = checks.check_folder("nnUNet_raw")
    assert finding.status == "problem" and "Read-only file system" in finding.text


def test_folder_check_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    checks.check_folder("nnUNet_raw")
    assert not list(tmp_path.iterdir())


def usage_of(free_gb: float) -> SimpleNamespace:
    return SimpleNamespace(total=1000e9, used=0, free=free_gb * 1e9)


@pytest.mark.parametrize(("free_gb", "status"), [(29, "note"), (31, "ok")])
def test_little_free_disk_is_noted_and_does_not_fail(free_gb, status, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: usage_of(free_gb))
    finding = checks.check_folder("nnUNet_preprocessed")
    assert finding.status == status and f"{free_gb} GB free" in finding.text


@pytest.mark.parametrize(("version", "status"), [((3, 10, 4), "problem"), ((3, 13, 0), "ok"), ((3, 14, 0), "problem")])
def test_python_version_is_checked(version, status):
    assert checks.check_python(version).status == status


@pytest.mark.parametrize(
    ("version", "status"), [("2.7.0", "problem"), ("2.8.0", "ok"), ("2.10.1", "ok"), ("3.0.0", "problem")]
)
def test_nnunet_version_is_checked(version, status, monkeypatch):
    monkeypatch.setattr(checks.metadata, "version", lambda name: version)
    assert checks.check_nnunet().status == status


def test_kill_switch_is_named_as_the_reason(monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", "/somewhere/else")
    monkeypatch.setenv("DIFFTUMOR_NO_AUTOLOAD", "1")
    assert "unset DIFFTUMOR_NO_AUTOLOAD" in str(checks.check_announcement())


def test_missing_announcement_points_to_env(monkeypatch):
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    monkeypatch.delenv("DIFFTUMOR_NO_AUTOLOAD", raising=False)
    assert "difftumor env" in str(checks.check_announcement())
    monkeypatch.setenv("nnUNet_extTrainer", f"/mine:{SHIM_FOLDER}")
    assert checks.check_announcement().status == "ok"


def test_versions_are_those_of_the_environment():
    finding = checks.check_versions()
    assert finding.status == "ok"
    for name in ("nnunet-difftumor ", "torch ", "batchgeneratorsv2 ", "dynamic-network-architectures ", "numpy "):
        assert name in finding.text
    assert f"numpy {metadata.version('numpy')}" in finding.text


def test_missing_package_is_a_problem_but_triton_is_not(monkeypatch):
    versions = dict.fromkeys(checks.VERSIONS_OF, "1.0") | {"triton": None}
    monkeypatch.setattr(checks, "_version", versions.get)
    assert checks.check_versions().status == "ok"
    versions["batchgeneratorsv2"] = None
    assert checks.check_versions().advice == "pip install batchgeneratorsv2"


def test_missing_cuda_device_is_no_problem_and_brings_the_cpu_settings(monkeypatch):
    monkeypatch.setattr(machine, "_driver", lambda: None)
    finding = machine.check_gpu(Probe(torch="2.8.0"))
    assert finding.status == "note" and "OMP_WAIT_POLICY=PASSIVE" in finding.advice


def test_gpu_is_described(monkeypatch):
    monkeypatch.setattr(machine, "_driver", lambda: "580.95.05")
    seen = Probe(torch="2.8.0", cuda="12.8", cuda_device="NVIDIA H100", cuda_memory_bytes=85_000_000_000)
    finding = machine.check_gpu(seen)
    assert str(finding) == "ok       CUDA device NVIDIA H100, 85 GB, driver 580.95.05, CUDA 12.8"
    assert machine.check_gpu(replace(seen, cuda_memory_bytes=4_000_000_000)).status == "note"


@pytest.mark.parametrize(("cuda", "advice"), [(None, "for CUDA, see https"), ("12.8", "update the driver")])
def test_gpu_that_torch_cannot_use_is_not_taken_for_none(cuda, advice, monkeypatch):
    monkeypatch.setattr(machine, "_driver", lambda: "470.1")
    finding = machine.check_gpu(Probe(torch="2.8.0", cuda=cuda))
    assert finding.status == "note" and "there is a GPU (driver 470.1)" in finding.text and advice in finding.advice


def test_driver_is_asked_of_nvidia_smi(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine._driver() is None
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 580.95.05\necho 580.95.05\n")
    program.chmod(0o755)
    assert machine._driver() == "580.95.05"
    program.write_text("#!/bin/sh\necho NVIDIA-SMI has failed\nexit 9\n")
    assert machine._driver() is None


TORCH_WITH_CUDA = ["numpy", 'triton==3.4.0; platform_system != "None"', 'optree; extra == "optree"']


@pytest.mark.parametrize(
    ("requires", "seen", "expected"),
    [
        (TORCH_WITH_CUDA, Probe(triton="3.4.0"), "ok"),
        (TORCH_WITH_CUDA, Probe(triton="3.5.0"), 'pip install "triton==3.4.0"'),
        (["numpy"], Probe(triton="3.5.0"), "asks for no particular one"),
        (['triton==3.4.0; platform_system == "None"'], Probe(triton="3.5.0"), "asks for no particular one"),
        (
            TORCH_WITH_CUDA,
            Probe(triton_error="ImportError: libcuda.so"),
            "cannot be imported (ImportError: libcuda.so)",
        ),
        (["numpy"], Probe(triton_error="ModuleNotFoundError: No module named 'triton'"), "no Triton"),
    ],
)
def test_triton_must_be_the_one_that_torch_asks_for(requires, seen, expected, monkeypatch):
    monkeypatch.setattr(machine.metadata, "requires", lambda name: requires)
    finding = machine.check_triton(replace(seen, torch="2.8.0"))
    assert expected in str(finding) and finding.status in ("ok", "note")


def test_probe_sees_torch_and_triton_of_this_environment():
    seen = probe()
    # Builds add to their version what CUDA they are for, and wheels may leave it out.
    assert seen.torch.partition("+")[0] == metadata.version("torch").partition("+")[0]
    assert (seen.triton is None) == (seen.triton_error is not None)


@pytest.mark.parametrize(
    ("workers", "cores", "status"), [("4", 8, "ok"), ("12", 8, "note"), ("many", 8, "problem"), (None, 2, "note")]
)
def test_workers_are_compared_with_cores(workers, cores, status, monkeypatch):
    monkeypatch.delenv("nnUNet_n_proc_DA", raising=False)
    if workers is not None:
        monkeypatch.setenv("nnUNet_n_proc_DA", workers)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(machine, "usable_cores", lambda: cores)
    finding = machine.check_workers()
    assert finding.status == status
    assert (f"nnUNet_n_proc_DA={cores}" in finding.advice) == (status != "ok")


def test_number_of_workers_is_nnunets(monkeypatch):
    from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

    for value in ("0", "1", "500", None):
        monkeypatch.setenv("nnUNet_n_proc_DA", value) if value else monkeypatch.delenv("nnUNet_n_proc_DA")
        assert machine.augmentation_workers() == get_allowed_n_proc_DA()


@pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 1), ("max 100000", None), ("50000 100000", 1)])
def test_quota_of_a_container_limits_the_cores(quota, cores, tmp_path):
    (tmp_path / "cpu.max").write_text(quota)
    assert machine.usable_cores(tmp_path / "cpu.max") == (cores or machine.usable_cores(tmp_path / "missing"))


def test_shared_memory_of_a_container_is_too_small(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage_of(0.064))
    finding = machine.check_shared_memory(tmp_path)
    assert finding.status == "note" and "--shm-size=1g" in finding.advice
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage_of(2))
    assert machine.check_shared_memory(tmp_path).status == "ok"
    assert machine.check_shared_memory(tmp_path / "missing").status == "ok"


def test_rule_for_shared_memory_counts_the_batches_of_nnunets_loaders():
    assert machine.batches_in_flight(0) == 0
    # 12 workers: 12 + 12 + 6 in training, 6 + 2 * 3 in validation.
    assert machine.batches_in_flight(12) == 42
    # 2 workers: 2 + 2 * 6 in training (nnU-Net's own trainer has the larger cache), 1 + 2 * 3 in validation.
    assert machine.batches_in_flight(2) == 21


def test_other_import_errors_are_reported_as_they_are():
    finding = checks.check_torchvision(Probe(torch="2.8.0", error="ImportError: libjpeg.so is missing"))
    assert finding.status == "problem" and "libjpeg.so" in finding.text and "--fix" not in finding.advice


@pytest.mark.parametrize(("statuses", "exit_status"), [(("ok", "note"), 0), (("ok", "problem", "note"), 1)])
def test_exit_status_tells_whether_there_is_a_problem(statuses, exit_status, monkeypatch, capsys):
    from nnunet_difftumor.cli import doctor as command

    monkeypatch.setattr(command, "findings", lambda: [checks.Finding(status, "found", "act") for status in statuses])
    assert main(["doctor"]) == exit_status
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(statuses)


def test_env_prints_a_line_that_a_shell_understands(monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", "/my folder")
    echo = subprocess.run(
        ["sh", "-c", f'{shell_line()}; printf %s "$nnUNet_extTrainer"'], capture_output=True, text=True, check=True
    )
    assert echo.stdout == f"/my folder:{SHIM_FOLDER}"
    assert (Path(SHIM_FOLDER) / "nnunet_difftumor_trainers.py").is_file()


def test_env_command_runs():
    code = "import sys; from nnunet_difftumor.cli.main import main; sys.exit(main(['env']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("export nnUNet_extTrainer=")
