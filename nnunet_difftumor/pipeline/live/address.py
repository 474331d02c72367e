"""Where a server is found: a folder that only its user may enter, with the socket and, at the end, the reason."""

import os
import socket
import tempfile
from pathlib import Path

from nnunet_difftumor.errors import InputError

# Linux takes 107 bytes for the path of a socket, macOS 103.
_MOST_BYTES = 100
_SOCKET, _GONE = "socket", "gone"
_PREFIX = "difftumor-"


class ServerAddress:
    """The folder of one server.

    Args:
        folder: made by `new`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.socket = self.folder / _SOCKET

    @classmethod
    def new(cls) -> "ServerAddress":
        """Makes the folder, with rights for its user only.

        Raises:
            InputError: on Windows, or if no temporary folder can be written, or their names are too long for a socket.
        """
        if not hasattr(socket, "AF_UNIX"):
            raise InputError(
                "live tumors need Unix sockets, which Python on Windows does not have; draw a bank beforehand "
                "(`difftumor synthesize --bank`)"
            )
        tried = []
        for parent in dict.fromkeys((tempfile.gettempdir(), "/tmp")):
            longest = Path(parent) / f"{_PREFIX}{'x' * 8}" / f"{_SOCKET}.new"
            if len(os.fsencode(longest)) > _MOST_BYTES:
                tried.append(f"{parent} (its name is too long for a socket)")
                continue
            try:
                return cls(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            except OSError as error:
                tried.append(f"{parent} ({error.strerror})")
        raise InputError(
            f"no folder for the socket of the synthesis server: {'; '.join(tried)}; name a short one that can be "
            "written in TMPDIR"
        )

    def give_up(self, reason: str) -> None:
        """Tells every client that the server will not come back."""
        new = self.folder / f"{_GONE}.new"
        new.write_text(reason)
        new.replace(self.folder / _GONE)

    @property
    def gone(self) -> str | None:
        """Why there will be no more answers; None while there may be."""
        try:
            return (self.folder / _GONE).read_text()
        except FileNotFoundError:
            return None if self.folder.is_dir() else "the training has ended"
