"""What the installed command calls: quick to import, so that Ctrl-C in the first moments is no traceback."""

import _signal  # built in: `signal` itself is read from a file, while Ctrl-C may come
import sys


def start() -> None:
    """Runs `difftumor` and exits with its status."""
    # Until the command's own answers to signals are there, and unless Ctrl-C is ignored, as behind `nohup`.
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from nnunet_difftumor.cli.main import main

    sys.exit(main())
