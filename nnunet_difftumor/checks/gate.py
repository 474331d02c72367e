"""What is looked at before a training or a bank begins: all that costs nothing where nothing has changed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nnunet_difftumor.checks.examine import Remembered, content_key
from nnunet_difftumor.checks.finding import NOTE, Finding, errors
from nnunet_difftumor.checks.stale import dataset_number, stale_data
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.prepared.config import FILE_NAME, DiffTumorConfig
from nnunet_difftumor.prepared.made_from.records import file_hashes, read_case_records

_SHOWN = 8


def check_before(
    what: str,
    folder: Path,
    *,
    plans: Mapping[str, Any],
    configuration: str,
    config: DiffTumorConfig,
    more: Callable[[], list[Finding]] = list,
    report: Callable[[str], None],
    remember: bool = True,
) -> None:
    """Reports what is wrong with a prepared dataset, and stops if its settings say so.

    Args:
        what: is about to begin, for the message.
        folder: of the preprocessed dataset.
        plans, configuration, config: that it begins with.
        more: further findings; asked for last.
        report: gets a line per finding.
        remember: what was seen of files, so that they need not be read again.

    Raises:
        InputError: if something is wrong and `on_wrong_data` is "stop".
    """
    hashes = file_hashes(folder)
    findings = stale_data(folder, plans=plans, configuration=configuration, config=config, hashes=hashes)
    if remember:
        hashes.save()
    findings += more()
    keys = {case: content_key(record.files) for case, record in read_case_records(folder).items()}
    seen_before, unseen = Remembered(folder).result(keys)
    findings += seen_before
    if unseen:
        do = f"`difftumor check -d {dataset_number(folder)}` does"
        findings.append(Finding("unchecked", "", NOTE, f"nobody has looked at the raw data of {unseen} cases", do))
    for finding in findings[:_SHOWN]:
        report(finding.line())
    if len(findings) > _SHOWN:
        more_lines = f"... and {len(findings) - _SHOWN} more"
        report(f"{more_lines}; `difftumor check -d {dataset_number(folder)}` lists them")
    if wrong := errors(findings):
        if config.on_wrong_data == "stop":
            others = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise InputError(
                f"{what} does not begin: {wrong[0].line().removeprefix('ERROR ')}{others}. To begin all the same, set "
                f'"on_wrong_data" to "warn" in {folder / FILE_NAME}'
            )
        report(f'{what} begins all the same: "on_wrong_data" is "warn" in {folder / FILE_NAME}')
