"""Where a command's output goes: `--quiet` and `--log-file`, which every verb takes, anywhere among its arguments."""

import argparse
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from nnunet_difftumor.cli.colour import without_colour
from nnunet_difftumor.cli.parser import Parser
from nnunet_difftumor.errors import InputError

OPTIONS = Parser(add_help=False, allow_abbrev=False)
OPTIONS.add_argument("--quiet", action="store_true", help="print nothing but errors")
OPTIONS.add_argument("--log-file", type=Path, metavar="FILE", help="also append all output to a file")


@contextmanager
def going_to(options: argparse.Namespace, command: Sequence[str]) -> Iterator[None]:
    """Sends what this process prints where the options say; what programs that it starts print is not in the log file.

    Args:
        options: parsed by `OPTIONS`.
        command: its words, for the log file.

    Raises:
        InputError: if the log file cannot be written.
    """
    if not options.quiet and options.log_file is None:
        yield
        return
    with ExitStack() as stack:
        log = None
        if options.log_file is not None:
            try:
                log = stack.enter_context(open(options.log_file, "a", encoding="utf-8"))
            except OSError as error:
                raise InputError(
                    f"--log-file {options.log_file}: cannot be written ({error.strerror}); name a file in a folder "
                    "that is there"
                ) from error
            log.write(f"# {time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(command)}\n")
        copies = _Copy(sys.stdout, log, shown=not options.quiet), _Copy(sys.stderr, log, shown=True)
        stack.enter_context(redirect_stdout(copies[0]))
        stack.enter_context(redirect_stderr(copies[1]))
        try:
            yield
        finally:
            for copy in copies:
                copy.finish()


class _Copy:
    """A stream whose text goes to a file, too. Of progress that overwrites itself the file gets the last state, and
    no colours.
    """

    def __init__(self, stream: TextIO, log: TextIO | None, *, shown: bool) -> None:
        self._stream, self._log, self._shown = stream, log, shown
        self._line = ""

    def write(self, text: str) -> int:
        if self._shown:
            self._stream.write(text)
        if self._log is not None:
            *lines, self._line = (self._line + text).split("\n")
            for line in lines:
                self._log.write(without_colour(line).rstrip("\r").rpartition("\r")[2] + "\n")
            self._log.flush()
        return len(text)

    def finish(self) -> None:
        """A line that was begun ends here."""
        if self._log is not None and self._line:
            self.write("\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
