"""docs/converters.md: its commands exist as they are written there, and its tables are those of the modules."""

import argparse
import re
import shlex
from pathlib import Path

import pytest

from nnunet_difftumor.cli import convert
from nnunet_difftumor.dataset_conversion import CONVERTERS, kits19, kits23, lits
from nnunet_difftumor.dataset_conversion.healthy_layouts import LAYOUTS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "converters.md").read_text()
COMMANDS = [line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S) for line in block.splitlines()]


def rows(header: str) -> list[list[str]]:
    """Cells of the table below a header line."""
    table = PAGE.partition(header)[2].split("\n\n")[0].strip().splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


@pytest.mark.parametrize("line", COMMANDS)
def test_the_command_parses(line):
    words = shlex.split(line)
    assert words[:2] == ["difftumor", "convert"]
    parser = argparse.ArgumentParser()
    convert.add_arguments(parser)
    parser.parse_args(words[2:])


def test_every_converter_is_in_the_table_and_has_its_section():
    names = {
        name for row in rows("| converter | for | labels of the dataset |") for name in re.findall(r"`(\w+)`", row[0])
    }
    assert names == set(CONVERTERS)
    headings = " ".join(re.findall(r"^## (.*)$", PAGE, re.M))
    assert set(re.findall(r"`(\w+)`", headings)) == set(CONVERTERS) - {"phantom"}


def test_links_within_the_page_lead_somewhere():
    headings = {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^## (.*)$", PAGE, re.M)}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= headings


def test_the_layouts_and_their_organs_are_those_of_the_module():
    assert {row[0].strip("`") for row in rows("| `--layout` | masks | download, licence |")} == set(LAYOUTS)
    table = {row[0].strip("`"): row[1:] for row in rows("| organ | AbdomenAtlas | TotalSegmentator | BTCV |")}
    for column, layout in enumerate(("abdomenatlas", "totalsegmentator", "btcv")):
        in_page = {organ: cells[column] for organ, cells in table.items() if cells[column] != "-"}
        assert in_page == {organ: ", ".join(map(str, parts)) for organ, parts in LAYOUTS[layout].organs.items()}


def test_the_label_tables_are_those_of_the_modules():
    assert [row[1] for row in rows("| value in the files | label |")] == [
        f"`{name}` {value}" for name, value in lits.LABELS.items() if value
    ]
    for column, module in ((1, kits23), (2, kits19)):
        in_page = {
            row[0].strip("`"): tuple(map(int, re.findall(r"\d", row[column])))
            for row in rows("| region | values of KiTS23 | values of KiTS19 |")
            if row[column] != "-"
        }
        labels = {name: value if isinstance(value, tuple) else (value,) for name, value in module.LABELS.items()}
        assert in_page == {name: value for name, value in labels.items() if name != "background"}
