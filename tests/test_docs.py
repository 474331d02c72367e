"""The pages of docs/ and the README: commands parse, links lead somewhere, examples are read by the code itself."""

import argparse
import ast
import dataclasses
import importlib
import json
import re
import runpy
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import nnunetv2
import pytest
import tiny_networks
from pages import DOCS, PAGES, REPOSITORY, anchors, as_id, blocks, commands, links

from nnunet_difftumor.backbones import BACKBONES
from nnunet_difftumor.cli.main import VERBS, module_name
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.preparation.organs import find_organs
from nnunet_difftumor.prepared.config import PLANS_NAME, DiffTumorConfig
from nnunet_difftumor.prepared.live_settings import LiveSettings
from nnunet_difftumor.synthesis import spec as spec_module
from nnunet_difftumor.synthesis.look.realistic import ORGANS
from nnunet_difftumor.synthesis.look.sample_shares import SampleShares
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.trainers import LABEL_FREE_ON, ON, TRAINERS

PAGE = {page.stem: page for page in DOCS}
NNUNET_COMMANDS = {entry.name: entry for entry in entry_points(group="console_scripts") if "nnUNetv2_" in entry.name}
ORGAN = {"name": "liver", "organ_labels": [1], "tumor_label": 2, "avoid_labels": [2]}


def cells(text: str) -> list[list[str]]:
    """Cells of all rows of tables."""
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def table(page: Path, header: str) -> list[list[str]]:
    """Cells of the rows below a header."""
    return cells(page.read_text().partition(f"{header}\n")[2].partition("\n\n")[0])


def json_examples() -> list[tuple[str, dict]]:
    return [(page.name, json.loads(text)) for page in PAGES for text in blocks(page, "json")]


@cache
def texts_of(*folders: Path) -> list[str]:
    """Every string in the sources, with … where a value is filled in."""
    found = []
    for path in (path for folder in folders for path in sorted(folder.rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


@pytest.mark.parametrize("words", commands("difftumor"), ids=as_id)
def test_difftumor_line_parses(words):
    assert words[1] in VERBS
    parser = argparse.ArgumentParser(prog=" ".join(words[:2]))
    importlib.import_module(f"nnunet_difftumor.cli.{module_name(words[1])}").add_arguments(parser)
    parser.parse_args(words[2:])


def parse_nnunet(words: list[str], monkeypatch) -> argparse.Namespace:
    """Parses a line with the parser of nnU-Net's own command, and stops there."""

    class ParsedError(Exception):
        pass

    parse = argparse.ArgumentParser.parse_known_args

    def stop(self, *_):
        parsed, rest = parse(self, words[1:])
        assert not rest, f"unknown options {rest}"
        raise ParsedError(parsed)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
    with pytest.raises(ParsedError) as caught:
        NNUNET_COMMANDS[words[0]].load()()
    return caught.value.args[0]


@pytest.mark.parametrize("words", commands(*NNUNET_COMMANDS), ids=as_id)
def test_nnunet_line_parses_and_names_trainers_and_plans_that_exist(words, monkeypatch):
    parsed = parse_nnunet(words, monkeypatch)
    if hasattr(parsed, "tr"):
        stock = (Path(nnunetv2.__path__[0]) / "training" / "nnUNetTrainer").rglob("*.py")
        name = parsed.tr.removeprefix(ON).removeprefix(LABEL_FREE_ON)
        assert name in TRAINERS | BACKBONES or any(f"class {name}(" in path.read_text() for path in stock)
        assert parsed.p == PLANS_NAME


def test_lines_with_unknown_options_would_not_parse(monkeypatch):
    with pytest.raises(AssertionError, match="no-such-option"):
        parse_nnunet(["nnUNetv2_train", "3", "3d_fullres", "0", "--no-such-option"], monkeypatch)


def test_every_fenced_block_says_its_language():
    for page in DOCS:
        fences = re.findall(r"^ *```(\w*)", page.read_text(), re.MULTILINE)
        assert set(fences[::2]) <= {"sh", "json", "python", "dockerfile", "yaml", ""}, page.name
        assert set(fences[1::2]) <= {""}, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page):
    for link in links(page):
        path, _, part = link.partition("#")
        target = page.parent / path if path else page
        assert target.is_file(), link
        assert not part or part in anchors(target), link


def test_pictures_are_small():
    """But for the montage of all tumors."""
    sizes = {path.name: path.stat().st_size for path in (REPOSITORY / "docs" / "images").iterdir()}
    assert len(sizes) > 5
    assert {name for name, size in sizes.items() if size > 400_000} == {"tumors.png"}


def test_the_index_has_every_page_and_the_readme_the_index():
    assert {link.partition("#")[0] for link in links(PAGE["README"])} == {
        page.name for page in DOCS if page.stem != "README"
    }
    assert "docs/README.md" in links(REPOSITORY / "README.md")


def test_the_page_of_commands_is_what_the_parsers_say():
    script = runpy.run_path(str(REPOSITORY / "docs" / "make_commands.py"))
    assert PAGE["commands"].read_text() == script["page"](), "run: python docs/make_commands.py"


def test_examples_of_difftumor_json_are_valid():
    settings = {field.name for field in dataclasses.fields(DiffTumorConfig)}
    found = [(page, example) for page, example in json_examples() if set(example) & settings]
    assert len(found) >= 2
    for page, example in found:
        config = DiffTumorConfig.from_dict({"organs": [ORGAN]} | example, where=page)
        record = config.to_dict()
        example["live"] = record["live"] | example.get("live", {})
        assert {"organs": [ORGAN]} | record | example == record


def test_examples_of_dataset_json_give_the_organs_that_the_pages_say():
    found = {page: find_organs(example) for page, example in json_examples() if "labels" in example}
    (shown,) = [example for page, example in json_examples() if page == "several_organs.md" and "organs" in example]
    config = DiffTumorConfig(organs=found["several_organs.md"])
    assert config.to_dict() == shown
    assert Organ("kidney", (1,), 2, (2, 3)) in found["own_data.md"]


def test_parameters_has_every_key_with_the_codes_default_and_range():
    settings = {row[0].strip("`"): row for row in table(PAGE["parameters"], "| key | default | allowed | meaning |")}
    for field in dataclasses.fields(DiffTumorConfig):
        _, default, allowed, _ = settings[field.name]
        if field.default is not dataclasses.MISSING:
            value = list(field.default) if isinstance(field.default, tuple) else field.default
            value = value.to_dict() if isinstance(value, SampleShares) else value
            assert default == f"`{json.dumps(value)}`"
        wrong = 5 if field.name == "bank_folder" else "no such thing"
        with pytest.raises(InputError) as caught:
            DiffTumorConfig.from_dict({"organs": [ORGAN], field.name: wrong})
        assert str(caught.value).endswith(f"expected {allowed}")
    live = {
        row[0].strip("`"): row for row in table(PAGE["parameters"], "| key of live | default | allowed | meaning |")
    }
    for field in dataclasses.fields(LiveSettings):
        _, default, allowed, _ = live[field.name]
        assert default == f"`{json.dumps(field.default)}`"
        wrong = 5 if field.name == "weights_folder" else "no such thing"
        with pytest.raises(InputError) as caught:
            DiffTumorConfig.from_dict({"organs": [ORGAN], "live": {field.name: wrong}})
        assert str(caught.value).endswith(f"expected {allowed}")
    organ = {row[0].strip("`"): row[1] for row in table(PAGE["parameters"], "| key | allowed | meaning |")}
    for field in dataclasses.fields(Organ):
        with pytest.raises(InputError) as caught:
            DiffTumorConfig.from_dict({"organs": [ORGAN | {field.name: "no such thing"}]})
        assert str(caught.value).endswith(f"expected {organ[field.name]}")


def test_parameters_has_every_field_of_a_spec_with_its_range_and_unit():
    rows = {row[0].strip("`"): row for row in table(PAGE["parameters"], "| field | unit | allowed | meaning |")}
    fields = {field.name for field in dataclasses.fields(TumorSpec)}
    assert fields == set(rows)
    for names, _, _, expected in spec_module.RANGES:
        for name in names:
            assert rows[name][2] == expected, name
    for name in fields:
        unit = "mm" if name.endswith("_mm") else "HU" if name.endswith("_hu") else "-"
        assert rows[name][1] == unit, name


def test_size_bands_are_those_of_the_code():
    rows = table(PAGE["parameters"], "| size | equivalent diameter in mm |")
    assert rows == [[f"`{size}`", f"{low:g} to {high:g}"] for size, (low, high) in SIZE_BANDS_MM.items()]


def test_messages_in_troubleshooting_are_those_of_the_programs():
    """Others than ours and nnU-Net's are Python's, torch's and torchvision's."""
    others = (
        "torchvision::nms",
        "NVIDIA driver",
        "not compiled with CUDA",
        "CUDA out of memory",
        "find_best_",
        "No such file",
    )
    own = [REPOSITORY / folder for folder in ("nnunet_difftumor", "dataset_conversion", "generative", "kernels")]
    known = texts_of(*own, Path(nnunetv2.__path__[0]))
    known = [" ".join(text.split()) for text in [*known, "One or more background workers are no longer alive"]]
    # The command line says the library's arguments as options.
    short = {"output": "-o", "dataset_id": "-d", "processes": "-np"}
    known += [
        re.sub(r"`(\w+)`", lambda name: short.get(name[1], f"--{name[1].replace('_', '-')}"), text) for text in known
    ]
    checked = 0
    for first, *_ in cells(PAGE["troubleshooting"].read_text()):
        for message in re.findall(r"`([^`]+)`", first):
            if message.startswith("--") or any(other in message for other in others):
                continue
            parts = [part.strip() for part in message.split("…") if len(part.strip()) > 3]
            assert any(all(part in text for part in parts) for text in known), message
            checked += 1
    assert checked > 40


def test_the_worked_example_of_an_organ_is_one():
    (example,) = blocks(PAGE["add_an_organ"], "python")
    organ: dict = {}
    exec(example, organ)
    assert dataclasses.fields(organ["spleen"]) == dataclasses.fields(ORGANS["liver"])
    rows = table(PAGE["add_an_organ"], "| field | unit | meaning |")
    assert [row[0].strip("`") for row in rows] == [field.name for field in dataclasses.fields(organ["spleen"])]


def test_the_python_example_of_the_models_runs(tmp_path, monkeypatch):
    (example,) = blocks(PAGE["models"], "python")
    tiny_networks.write_weights(tmp_path / "weights", "liver_early")
    monkeypatch.chdir(tmp_path)
    # A smaller patch, to be quick.
    smaller = example.replace("96, 96, 96", "32, 32, 32").replace("44:52", "12:20")
    assert smaller.count("32, 32, 32") == 1 and smaller.count("12:20") == 3
    result: dict = {}
    exec(smaller, result)
    assert result["drawn"].shape == (1, 1, 32, 32, 32)
    assert result["drawn"].isfinite().all() and result["drawn"].std() > 0


def test_every_file_that_the_pages_name_exists():
    for page in PAGES:
        folders = "nnunet_difftumor|dataset_conversion|generative|kernels|benchmarks|docs|tests"
        for name in re.findall(rf"`((?:{folders})/[\w/.]+)`", page.read_text()):
            assert (REPOSITORY / name).exists(), f"{page.name}: {name}"


def test_every_point_of_the_comparison_with_the_papers_has_code_test_and_verdict():
    rows = [line for line in PAGE["faithful"].read_text().splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows if "| code | test |" not in row]
    assert len(rows) > 40
    for item, where, code, test, verdict in rows:
        assert item and where
        assert (REPOSITORY / code.strip("`")).is_file() and (REPOSITORY / test.strip("`")).is_file(), item
        assert verdict.startswith("same") or re.match("different.*, because ", verdict), item
