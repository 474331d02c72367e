"""Memory that two processes share: voxels are written once, and read where they are.

A file without a name, whose descriptor goes through the socket: nothing of it is left when both processes are gone,
and it needs no /dev/shm, which containers keep small.
"""

import fcntl
import mmap
import os
import tempfile
from collections.abc import Sequence

import numpy as np

# Parts begin at multiples of so many bytes.
ALIGNMENT = 64
# Sizes are powers of two from here on: pages of few sizes fit again.
_LEAST_BYTES = 1 << 18


class Pages:
    """Shared memory.

    Args:
        file: descriptor of an open file, which is closed here; None for those that were received, after that.
        nbytes: of the file.
    """

    def __init__(self, file: int, nbytes: int) -> None:
        try:
            self._map = mmap.mmap(file, nbytes)
        except BaseException:
            os.close(file)
            raise
        self.file: int | None = file
        self.nbytes = nbytes

    @classmethod
    def new(cls, nbytes: int) -> "Pages":
        """At least so many bytes.

        Raises:
            OSError: if there is no memory for them.
        """
        nbytes = max(_LEAST_BYTES, 1 << (nbytes - 1).bit_length())
        if hasattr(os, "memfd_create"):
            file = os.memfd_create("difftumor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        else:  # macOS
            with tempfile.TemporaryFile() as unnamed:
                file = os.dup(unnamed.fileno())
        os.ftruncate(file, nbytes)
        if hasattr(fcntl, "F_ADD_SEALS"):
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        return cls(file, nbytes)

    @classmethod
    def received(cls, file: int, *, most_bytes: int) -> "Pages":
        """Those of another process.

        Raises:
            ValueError: if there are more than may be, or the other process could take them away, which would end this
                one when it reads.
        """
        nbytes = os.fstat(file).st_size
        sealed = not hasattr(fcntl, "F_GET_SEALS")
        try:
            sealed = sealed or bool(fcntl.fcntl(file, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
        except OSError:  # no memory, but some other file
            sealed = False
        if not sealed or not 0 < nbytes <= most_bytes:
            os.close(file)
            raise ValueError(f"shared memory of {nbytes} bytes{'' if sealed else ', which is not sealed'}")
        pages = cls(file, nbytes)
        # The map keeps the memory; a server has few files to open for all its clients.
        os.close(file)
        pages.file = None
        return pages

    def array(self, offset: int, dtype: str, shape: Sequence[int]) -> np.ndarray:
        """A part as an array; writing into it writes into the pages.

        Raises:
            ValueError: for what does not lie inside.
        """
        count = int(np.prod(shape, dtype=np.int64))
        if min(shape, default=0) < 0 or offset < 0 or offset + count * np.dtype(dtype).itemsize > self.nbytes:
            raise ValueError(f"an array of {tuple(shape)} {dtype} at {offset} of {self.nbytes} bytes")
        return np.frombuffer(self._map, dtype, count, offset).reshape(tuple(shape))

    def copied(self) -> "Pages":
        """The same bytes in other pages."""
        other = Pages.new(self.nbytes)
        other.array(0, "uint8", (self.nbytes,))[:] = self.array(0, "uint8", (self.nbytes,))
        return other

    def __del__(self) -> None:
        # The memory goes when the last array that lies in it has gone.
        file = getattr(self, "file", None)
        if file is not None:
            os.close(file)
