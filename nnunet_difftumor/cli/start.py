"""What the installed command calls: quick to import, so that Ctrl-C in the first moments is no traceback."""

import signal
import sys


def start() -> None:
    """Runs `difftumor` and exits with its status."""
    # Until the command's own answers to signals are there, and unless Ctrl-C is ignored, as behind `nohup`.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from nnunet_difftumor.cli.main import main

    sys.exit(main())
