import importlib
import inspect

import pytest

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.dataset_conversion import CONVERTERS


@pytest.mark.parametrize("name", CONVERTERS)
def test_every_converter_has_help_and_takes_the_common_arguments(name, capsys):
    module = importlib.import_module(f"nnunet_difftumor.dataset_conversion.{name}")
    parameters = inspect.signature(module.convert).parameters
    assert {"dataset_id", "name", "overwrite"} <= set(parameters)
    with pytest.raises(SystemExit) as stop:
        main(["convert", name, "--help"])
    assert stop.value.code == 0
    assert module.__doc__.splitlines()[0] in capsys.readouterr().out


def test_the_help_lists_the_converters(capsys):
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    output = capsys.readouterr().out
    assert all(name in output for name in CONVERTERS)
