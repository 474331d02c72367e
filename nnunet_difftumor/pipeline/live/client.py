"""The workers' side: asks for tumors, continues, and waits for the answers only when they are needed."""

import os
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from nnunet_difftumor.pipeline.live import messages
from nnunet_difftumor.pipeline.live.address import ServerAddress
from nnunet_difftumor.pipeline.live.messages import BrokenConnectionError, Message
from nnunet_difftumor.pipeline.live.pages import Pages
from nnunet_difftumor.synthesis.networks.sketch import Sketch

# A server that does not even take a request within this time hangs.
_SEND_S = 10.0
# After a request that was given up, until the server is heard of again, no other one is waited for longer.
_DOUBT_S = 0.5
# How often a client that waits looks whether the server is gone for good, and tries to reach it again.
_LOOK_S = 0.5
_RETRY_S = 0.05


@dataclass(frozen=True)
class Refusal:
    """Why a tumor was not made."""

    reason: str


@dataclass(frozen=True, eq=False)
class Drawn:
    """A tumor that was made.

    Attributes:
        hu: float32 (z, y, x) of the sketch's `near`, with the tumor.
        place: of its lesion file among those of its case; None: it is not kept.
    """

    hu: np.ndarray
    place: int | None = None


@dataclass(eq=False)
class _Asked:
    """A request, and the pages that it lies in until it is answered."""

    header: dict[str, Any]
    shape: tuple[int, ...]
    pages: Pages


class LiveClient:
    """A connection to the server. Every process has its own, made when it is first used.

    It outlives a restart of the server: what was not answered is asked again. Voxels lie in pages that the server
    reads and writes too; those of an answered request serve the next one.

    Args:
        address: of the server.
        timeout_s: how long an answer is waited for; None: as long as the server is not given up.
    """

    def __init__(self, address: ServerAddress, *, timeout_s: float | None) -> None:
        self.address, self.timeout_s = address, timeout_s
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"address": self.address, "timeout_s": self.timeout_s}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["address"], timeout_s=state["timeout_s"])

    def ask(self, case: str, sketch: Sketch) -> int:
        """Asks for a tumor; returns the number of the request. Hardly waits.

        Raises:
            OSError: if there is no memory for the sketch.
        """
        self._own_process()
        number = next(self._numbers)
        pages = self._pages_of(messages.places(sketch)[2])
        messages.write_sketch(sketch, pages)
        header = messages.request(number, case, sketch, pages=id(pages))
        self._open[number] = _Asked(header, sketch.alpha.shape, pages)
        if self._connection is None:
            self._connect()  # sends it with everything else that is open
        else:
            self._send([number])
        return number

    def answers(self, numbers: Sequence[int]) -> list[Drawn | Refusal]:
        """The answers to requests, waited for if they are not there yet, all of them together no longer than one."""
        self._own_process()
        until = time.monotonic() + self._patience(float("inf"))
        return [self._answer(number, until) for number in numbers]

    def _answer(self, number: int, until: float) -> Drawn | Refusal:
        while number not in self._answers:
            remaining = until - time.monotonic()
            gone = self.address.gone
            if gone is not None or remaining <= 0:
                # The server may still read and write there: the pages serve nobody else before it has answered.
                self._given_up[number] = self._open.pop(number)
                self._doubted = True
                return Refusal(f"no answer: {gone}" if gone is not None else f"no answer within {self.timeout_s:g} s")
            if self._connection is None and not self._connect():
                time.sleep(min(_RETRY_S, remaining))
                continue
            self._wait(min(_LOOK_S, remaining))
        return self._answers.pop(number)

    def status(self, *, timeout_s: float) -> dict[str, Any] | None:
        """The server's account of itself; None if it does not answer in time. For clients that ask nothing else."""
        self._own_process()
        if self._connection is None and not self._connect():
            return None
        try:
            messages.send(self._connection, Message({"kind": "status"}), timeout_s=timeout_s)
            return dict(messages.receive(self._connection, timeout_s=timeout_s).header)
        except BrokenConnectionError:
            self.close()
            return None

    def note_ring_failure(self) -> None:
        """Tells the server, which keeps the account, that a lesion file could not be written."""
        with suppress(BrokenConnectionError):
            if self._connection is not None:
                messages.send(self._connection, Message({"kind": "ring failure"}), timeout_s=self._patience(_SEND_S))

    def close(self) -> None:
        """Drops the connection; the next call makes another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _patience(self, most: float) -> float:
        """How long to wait for the server."""
        if self.timeout_s is None:
            return most
        return min(most, self.timeout_s, _DOUBT_S if self._doubted else most)

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._connection: socket.socket | None = None
        self._numbers = count()
        self._open: dict[int, _Asked] = {}
        self._given_up: dict[int, _Asked] = {}
        self._answers: dict[int, Drawn | Refusal] = {}
        self._spare: list[Pages] = []
        # Pages that the server has; their numbers are those of the objects here.
        self._shared: dict[int, Pages] = {}
        self._doubted = False

    def _own_process(self) -> None:
        """After a fork the parent's connection is not this process's."""
        if self._pid != os.getpid():
            self._forget()

    def _connect(self) -> bool:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_SEND_S)
        try:
            connection.connect(str(self.address.socket))
        except OSError:
            connection.close()
            return False
        self._connection = connection
        # Another server, or one that may still be busy with what the old connection asked.
        self._shared.clear()
        self._given_up.clear()
        for asked in self._open.values():
            asked.pages = asked.pages.copied()
            asked.header["pages"] = id(asked.pages)
        self._send(list(self._open))
        return self._connection is not None

    def _send(self, numbers: Iterable[int]) -> None:
        try:
            for number in numbers:
                asked = self._open[number]
                new = asked.header["pages"] not in self._shared
                self._shared[asked.header["pages"]] = asked.pages
                message = Message(asked.header, asked.pages.file if new else None)
                messages.send(self._connection, message, timeout_s=self._patience(_SEND_S))
        except BrokenConnectionError:
            self.close()

    def _wait(self, seconds: float) -> None:
        """Takes one answer, if one begins to arrive within the time."""
        self._connection.settimeout(seconds)
        try:
            if not self._connection.recv(1, socket.MSG_PEEK):
                raise BrokenConnectionError("closed the connection")
            message = messages.receive(self._connection, timeout_s=_SEND_S)
            number = message.header["number"]
            refused = message.header["kind"] == "refused"
            found = Refusal(str(message.header["reason"])) if refused else message.header.get("place")
        except TimeoutError:
            return
        except (OSError, ValueError, KeyError, TypeError):
            self.close()
            return
        self._doubted = False
        # Nobody waits any more for one that was given up.
        asked = self._given_up.pop(number, None)
        if asked is None and (asked := self._open.pop(number, None)) is not None:
            if not refused:
                hu = asked.pages.array(asked.header["answer"], "float32", asked.shape).copy()
                found = Drawn(hu, None if found is None else int(found))
            self._answers[number] = found
        if asked is not None:
            self._spare.append(asked.pages)

    def _pages_of(self, nbytes: int) -> Pages:
        """Pages with room for so many bytes: the smallest that are free, or new ones."""
        fitting = [pages for pages in self._spare if pages.nbytes >= nbytes]
        if fitting:
            found = min(fitting, key=lambda pages: pages.nbytes)
            self._spare.remove(found)
            return found
        return Pages.new(nbytes)
