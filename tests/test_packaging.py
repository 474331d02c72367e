"""What a user installs: the wheel's content, nnU-Net finding the trainers without any setting, a light import."""

import os
import statistics
import subprocess
import sys
import tarfile
import time
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from environments import REPOSITORY, Environment, copy_of_sources
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from nnunet_difftumor import __version__
from nnunet_difftumor.backbones import BACKBONES
from nnunet_difftumor.trainers import TRAINERS

SAY = "import os; print(os.environ.get('nnUNet_extTrainer', ''))"
EXT_TRAINER = f"import nnunetv2; {SAY}"


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    return copy_of_sources(tmp_path_factory.mktemp("sources") / "clone")


@pytest.fixture(scope="module")
def wheel(clone, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, clone]
    done = subprocess.run([*map(str, build)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def source(clone, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    build = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", folder, clone]
    done = subprocess.run([*map(str, build)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module", params=["normal", "editable"])
def installed(request, clone, wheel, tmp_path_factory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp(request.param) / "venv")
    if request.param == "normal":
        environment.pip("install", "--no-deps", wheel)
    else:
        environment.pip("install", "--no-deps", "--no-build-isolation", "-e", clone)
    return environment


def test_what_is_pinned_installs_on_the_first_release_of_the_oldest_python():
    """Debian 12 has 3.11.2, and some packages want a later patch of it."""
    (oldest,) = (
        part.version
        for part in SpecifierSet(metadata.metadata("nnunet-difftumor")["Requires-Python"])
        if part.operator == ">="
    )
    pins = [Requirement(line) for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    wanted = {}
    for pin in pins:
        try:
            wanted[pin.name] = metadata.metadata(pin.name)["Requires-Python"] or ""
        except metadata.PackageNotFoundError:
            continue  # of an extra that is not installed here
    assert len(wanted) > 40
    assert [name for name, python in wanted.items() if not SpecifierSet(python).contains(f"{oldest}.0")] == []


def test_wheel_installs_nothing_but_the_package_and_its_pth_file(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    top_level = {name.split("/")[0] for name in names if ".data/" not in name and ".dist-info/" not in name}
    data = [name.split(".data/")[1] for name in names if ".data/" in name]

    assert top_level == {"nnunet_difftumor"}
    assert data == ["purelib/nnunet_difftumor.pth"]
    assert "nnunet_difftumor/nnunet_ext/nnunet_difftumor_trainers.py" in names
    assert {
        "nnunet_difftumor/dataset_conversion/__init__.py",
        "nnunet_difftumor/generative/networks/unet.py",
        "nnunet_difftumor/kernels/reference/depth_attention.py",
    } <= set(names)
    assert not [name for name in names if {"tests", "benchmarks"} & set(Path(name).parts)]


def test_a_wheel_made_of_the_source_distribution_is_the_same(source, wheel, tmp_path):
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        source,
    ]
    subprocess.run([*map(str, build)], check=True, capture_output=True)
    made = zipfile.ZipFile(tmp_path / wheel.name)
    assert {i.filename: i.CRC for i in made.infolist()} == {
        i.filename: i.CRC for i in zipfile.ZipFile(wheel).infolist()
    }


def test_the_source_distribution_has_what_its_tests_read(source):
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "Makefile", "docs/commands.md", "docs/images/before_after.png"} <= names
    assert {"mkdocs.yml", "docs/site_files.py", "docs/site.css"} <= names
    assert {"tests/conftest.py", "benchmarks/realism.py", "nnunet_difftumor/pages/assets/page.css"} <= names


def test_both_distributions_are_fit_for_upload(source, wheel):
    check = [sys.executable, "-m", "twine", "check", "--strict", str(source), str(wheel)]
    done = subprocess.run(check, capture_output=True, text=True, env=os.environ | {"NO_COLOR": "1"})
    assert done.returncode == 0 and done.stdout.count("PASSED") == 2, done.stdout + done.stderr


def test_the_extras_ask_for_releases_that_are_constrained(wheel):
    """What `pip install nnunet-difftumor[backbones]` adds; a version that the tests run with satisfies it."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
    needed = [
        Requirement(line.partition(": ")[2]) for line in metadata.splitlines() if line.startswith("Requires-Dist: ")
    ]
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    extras = {line.partition(": ")[2] for line in metadata.splitlines() if line.startswith("Provides-Extra: ")}
    assert extras == {"backbones", "docs", "test"}
    for one in needed:
        name = canonicalize_name(one.name)
        assert name not in pinned or one.specifier.contains(pinned[name], prereleases=True), one


def test_folder_that_nnunet_imports_holds_nothing_but_the_shim():
    import nnunet_difftumor.nnunet_ext

    folder = Path(nnunet_difftumor.nnunet_ext.__file__).parent
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == {"__init__.py", "nnunet_difftumor_trainers.py"}


def test_importing_nnunet_announces_the_shim_and_imports_no_package(installed):
    done = installed.run(f"{EXT_TRAINER}; import sys; print('nnunet_difftumor' in sys.modules, 'torch' in sys.modules)")
    folder, imported = done.stdout.splitlines()
    assert imported == "False False"
    assert (Path(folder) / "nnunet_difftumor_trainers.py").is_file()
    assert done.stderr == ""


def test_announcing_keeps_the_users_own_folders_first_and_adds_itself_once(installed):
    ours = installed.run(EXT_TRAINER).stdout.strip()
    assert installed.run(EXT_TRAINER, nnUNet_extTrainer="/mine:/other").stdout.strip() == f"/mine:/other:{ours}"
    assert installed.run(EXT_TRAINER, nnUNet_extTrainer=f"{ours}:/mine").stdout.strip() == f"{ours}:/mine"


def test_a_python_that_does_not_import_nnunet_tells_its_children_nothing(installed):
    """Whose children may be Pythons of other environments."""
    child = f"import subprocess, sys; subprocess.run([{sys.executable!r}, '-S', '-c', {SAY!r}], check=True)"
    assert installed.run(f"{SAY}; {child}").stdout.split() == []
    assert installed.run(f"import nnunetv2; {child}").stdout.split() != []


def test_the_shim_knows_no_trainer_in_an_environment_without_the_package(installed, tmp_path):
    """To which a process that had imported nnU-Net gave its variable."""
    other = Environment(tmp_path / "other")
    code = f"""
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
folder = {installed.run(EXT_TRAINER).stdout.strip()!r}
print(recursive_find_python_class(folder, 'nnUNetTrainerDiffTumor', None, folder))
"""
    assert other.run(code, nnUNet_extTrainer="/mine").stdout == "None\n"


def test_announcing_can_be_switched_off(installed):
    assert installed.run(EXT_TRAINER, DIFFTUMOR_NO_AUTOLOAD="1").stdout.strip() == ""


@pytest.mark.parametrize("failure", ["1 / 0", "__import__('sys').exit(3)", "(_ for _ in ()).throw(KeyboardInterrupt)"])
def test_a_broken_import_hook_does_not_disturb_interpreter_start(installed, failure):
    hook = installed.site_packages / "a_broken_hook.pth"
    hook.write_text(
        "import sys; sys.meta_path.insert(0, type('Broken', (), {'find_spec': lambda self, name, *_: "
        f"{failure} if name == 'nnunet_difftumor' else None}})())\n"
    )
    try:
        done = installed.run("import nnunetv2; print('started')")
    finally:
        hook.unlink()
    assert (done.stdout, done.stderr) == ("started\n", "")


@pytest.mark.parametrize("cwd", ["/", "clone"])
def test_mapped_packages_are_found_wherever_python_is_started(installed, clone, cwd):
    done = installed.run(
        "import nnunet_difftumor, nnunet_difftumor.dataset_conversion as module; print(module.__file__)",
        cwd=clone if cwd == "clone" else cwd,
    )
    assert done.stdout.strip().endswith("dataset_conversion/__init__.py")


def test_command_is_installed(installed):
    done = installed.call([installed.folder / "bin" / "difftumor", "--version"])
    assert done.stdout.startswith("difftumor ")


def test_nnunets_search_finds_every_name_in_the_shim_and_leaves_other_names_alone(installed, clone):
    """nnU-Net's own search function, in the shim's folder; the trainers' modules are stand-ins of the same names."""
    code = f"""
import os, sys, types
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
folder = os.environ['nnUNet_extTrainer']
def find(name):
    return recursive_find_python_class(folder, name, None, folder, cleanup_imports_from_base_folder=True)
assert find('nnUNetTrainerOfSomebodyElse') is None
assert 'nnunet_difftumor' not in sys.modules
for name, module in {TRAINERS | BACKBONES!r}.items():
    stand_in = sys.modules.setdefault(module, types.ModuleType(module))
    setattr(stand_in, name, type(name, (), {{}}))
    assert find(name).__name__ == name
assert find('nnUNetTrainerDiffTumorUnheardOf') is None and find('nnUNetTrainerUNETRUnheardOf') is None
"""
    installed.run(code)


def test_uninstalling_leaves_no_file_and_no_setting(clone, wheel, tmp_path):
    for arguments in (["install", "--no-deps", wheel], ["install", "--no-deps", "--no-build-isolation", "-e", clone]):
        environment = Environment(tmp_path / f"venv{len(arguments)}")
        environment.pip(*arguments)
        assert environment.files() > environment.fresh_files
        environment.pip("uninstall", "-y", "nnunet-difftumor")
        assert environment.files() == environment.fresh_files
        assert environment.run(EXT_TRAINER).stdout.strip() == ""


def test_trainer_names_survive_nnunets_folder_names():
    assert not [
        name for name in TRAINERS | BACKBONES if "__" in name
    ]  # nnU-Net splits the names of result folders there


def test_import_is_light():
    heavy = ("torch", "nnunetv2", "numpy", "scipy", "nibabel")
    code = f"import sys, nnunet_difftumor; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_import_takes_less_than_50_ms_beyond_bare_python():
    def milliseconds(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return (time.perf_counter() - start) * 1000

    # Alternating, and the median of the differences: other work on the machine disturbs both alike.
    milliseconds("import nnunet_difftumor")
    differences = [milliseconds("import nnunet_difftumor") - milliseconds("pass") for _ in range(11)]
    assert statistics.median(differences) < 50, differences


def test_the_citation_is_of_this_version():
    import yaml

    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert {"cff-version", "title", "message", "authors", "license"} <= citation.keys()
    assert all({"type", "title", "authors", "year"} <= reference.keys() for reference in citation["references"])
