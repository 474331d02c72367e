"""The synthesis server: one process that owns the device and the models, and draws what the workers ask for.

`python -m nnunet_difftumor.pipeline.live.server JSON`, started by `server_keeper.ServerKeeper`. The main thread draws,
in batches of what waits together, while another brings the next batch to the device; each connection has a thread that
reads and one that writes, so that no client can keep others waiting. It ends with its parent, however that ends.
"""

import importlib
import json
import os
import queue
import shutil
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.pipeline.live import messages
from nnunet_difftumor.pipeline.live.account import ServerAccount
from nnunet_difftumor.pipeline.live.address import ServerAddress
from nnunet_difftumor.pipeline.live.messages import BrokenConnectionError, Message
from nnunet_difftumor.pipeline.live.pages import Pages
from nnunet_difftumor.pipeline.live.waiting import FairQueue
from nnunet_difftumor.synthesis.networks.sketch import Sketch

# Exit status after an InputError, such as missing weights.
REFUSED = 2
_PARENT_S = 0.5
# Of all pages of one connection, and how many they may be: each is an open file.
_MOST_BYTES = 8 << 30
_MOST_PAGES = 256
# Files that may be open where the system has no limit.
_FILES = 1 << 16
# Answers that one client has not taken.
_MOST_ANSWERS = 2048
# Cases whose kept lesions are counted; a training has thousands.
_MOST_CASES = 100_000
# How much the newest interval between two requests counts in their mean.
_NEWEST = 0.1
# How often it is looked whether the device waits.
_LOOK_S = 0.001


class Painter(Protocol):
    """What draws, such as a `DiffusionRenderer`."""

    def load(self, sketches: Sequence[Sketch]) -> Any:
        """Brings sketches to the device; called in another thread than `draw_loaded`."""

    def draw_loaded(self, sketches: Sequence[Sketch], loaded: Any) -> list[np.ndarray]:
        """HU of each sketch's `near` with the tumor, float32 (z, y, x)."""


@dataclass(frozen=True)
class ServerTask:
    """What a server process is started with.

    Attributes:
        folder: of its address.
        parent: number of the process that it ends with.
        factory: "module:function" that makes the painter of `arguments`.
        arguments: JSON-ready.
        batch_size, batch_wait_ms: as in `LiveSettings`.
        ring: lesions of each case that are kept; 0: none.
    """

    folder: str
    parent: int
    factory: str
    arguments: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 8
    batch_wait_ms: float = 5.0
    ring: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class _Request:
    """A tumor that is waited for."""

    connection: "_Connection"
    number: int
    case: str
    sketch: Sketch
    answer: np.ndarray
    came: float = field(default_factory=time.monotonic)


class _Connection:
    """One client. Answers wait in a queue of its own until it takes them."""

    def __init__(self, connection: socket.socket, server: "SynthesisServer") -> None:
        self._socket, self._server = connection, server
        self.answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.gone = False
        self._pages: dict[int, Pages] = {}
        for work in (self._read, self._write):
            threading.Thread(target=work, daemon=True).start()

    def _read(self) -> None:
        try:
            while True:
                message = messages.receive(self._socket, timeout_s=None)
                if self.answers.qsize() > _MOST_ANSWERS:
                    raise ValueError("takes no answers")
                kind = message.header.get("kind")
                if kind == "draw":
                    self._server.take(self._requested(message))
                    continue
                message.close()
                if kind == "status":
                    self.answers.put({"kind": "status", **self._server.status()})
                elif kind == "ring failure":
                    self._server.account.ring_failed()
                else:
                    raise ValueError(f"no kind of message: {kind!r}")
        except Exception:  # whatever a client sends, it ends no more than its own connection
            self.gone = True
            self._server.requests.forget(self)
            self.answers.put(None)
            # The writer may wait in send.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _requested(self, message: Message) -> _Request:
        header, number = message.header, message.header.get("pages")
        if message.file is not None:
            others = [pages.nbytes for other, pages in self._pages.items() if other != number]
            most = _MOST_BYTES - sum(others) if len(others) < _MOST_PAGES else 0
            self._pages[number] = Pages.received(message.file, most_bytes=most)
        sketch, answer = messages.requested(header, self._pages[number])
        return _Request(self, header["number"], header["case"], sketch, answer)

    def _write(self) -> None:
        with suppress(BrokenConnectionError):
            while (header := self.answers.get()) is not None:
                messages.send(self._socket, Message(header), timeout_s=None)
        # The reader waits in recv, which closing alone does not end.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class _Failure(str):
    """Why a batch could not be brought to the device."""


class SynthesisServer:
    """Takes requests at an address and draws them. Clients take turns, and those that have gone get nothing drawn.

    Args:
        address: where it listens; the socket appears there when the server is ready.
        painter: of everything that is asked.
        batch_size, batch_wait_ms: as in `LiveSettings`.
        ring: lesions of each case that their askers keep; 0: none.
    """

    def __init__(
        self,
        address: ServerAddress,
        painter: Painter,
        *,
        batch_size: int,
        batch_wait_ms: float,
        ring: int = 0,
    ) -> None:
        self.painter, self.ring = painter, ring
        self.batch_size, self.batch_wait_ms = batch_size, batch_wait_ms
        self.requests: FairQueue[_Request] = FairQueue()
        self.account = ServerAccount()
        # Of the batch that is being loaded, and of the one that is being drawn.
        self._busy_since: dict[str, float] = {}
        self._loaded: queue.Queue[tuple[list[_Request], Any]] = queue.Queue(maxsize=1)
        self._kept: Counter[str] = Counter()
        self._newest_request: float | None = None
        self._interval_s = 0.0
        new = address.socket.with_name(f"{address.socket.name}.new")
        new.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(new))
        self._listener.listen(128)
        # Under its final name it takes requests at once; that of a server that was killed is replaced.
        new.replace(address.socket)

    def run(self) -> None:
        """Serves until the process ends. Raises what makes the GPU unusable; another process has to take over."""
        for work in (self._accept, self._load_batches):
            threading.Thread(target=work, daemon=True).start()
        while True:
            batch, loaded = self._loaded.get()
            with self._busy("drawing"):
                self._draw(batch, loaded)

    def take(self, request: _Request) -> None:
        """Puts a request into the queue."""
        before, self._newest_request = self._newest_request, request.came
        if before is not None:
            self._interval_s += _NEWEST * (request.came - before - self._interval_s)
        self.requests.put(request)
        self.account.queued(len(self.requests))

    def status(self) -> dict[str, Any]:
        """For `LiveClient.status`."""
        since = min(self._busy_since.copy().values(), default=None)
        return {
            "pid": os.getpid(),
            "queue": len(self.requests),
            "busy_s": 0.0 if since is None else round(time.monotonic() - since, 3),
            "gpu_memory_gb": _gpu_memory_gb(),
            **self.account.to_dict(),
        }

    @contextmanager
    def _busy(self, what: str) -> Iterator[None]:
        self._busy_since[what] = time.monotonic()
        try:
            yield
        finally:
            del self._busy_since[what]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # out of file descriptors, for example: those who wait get their turn
                time.sleep(_PARENT_S)
                continue
            _Connection(connection, self)

    def _load_batches(self) -> None:
        while True:
            batch = [request for request in self._next_batch() if not request.connection.gone]
            if batch:
                with self._busy("loading"):
                    loaded = self._load(batch)
                self._loaded.put((batch, loaded))

    def _next_batch(self) -> list[_Request]:
        """The next request, and others that wait or are likely to come in time.

        Waiting costs nothing while another batch is waiting for the device. Otherwise it does, and pays only where
        requests come quickly.
        """
        batch = [self.requests.get()]
        wait_s = self.batch_wait_ms / 1e3
        until = time.monotonic() + (wait_s if self._interval_s <= wait_s else 0.0)
        while len(batch) < self.batch_size:
            left = max(0.0, until - time.monotonic())
            try:
                batch.append(self.requests.get(max(left, _LOOK_S if self._loaded.full() else 0.0)))
            except queue.Empty:
                if not left and not self._loaded.full():
                    break
        return batch

    def _load(self, batch: Sequence[_Request]) -> Any:
        """What the painter loaded, a `_Failure`, or an error after which nothing can be done in this process."""
        try:
            return self.painter.load([request.sketch for request in batch])
        except Exception as error:  # as in `_draw`
            return error if _lost_gpu(error) else _Failure(f"{type(error).__name__}: {error}")

    def _draw(self, batch: Sequence[_Request], loaded: Any) -> None:
        if isinstance(loaded, Exception):
            raise loaded
        start, drawn, failure = time.perf_counter(), [], loaded if isinstance(loaded, _Failure) else None
        if failure is None:
            try:
                drawn = self.painter.draw_loaded([request.sketch for request in batch], loaded)
            except Exception as error:  # whatever it is, the other tumors are drawn, and the server continues
                if _lost_gpu(error):
                    raise
                # Nothing more in here: as long as the error lives, so does the GPU memory of a batch that did not fit.
                failure = f"{type(error).__name__}: {error}"
        if failure is not None and len(batch) > 1:
            del loaded
            for request in batch:
                self._draw([request], self._load([request]))
            return
        if failure is not None:
            self._answer(batch[0], {"kind": "refused", "reason": failure}, refused=failure)
            return
        self.account.rendered(tumors=len(batch), milliseconds=(time.perf_counter() - start) * 1e3)
        for request, hu in zip(batch, drawn, strict=True):
            request.answer[...] = hu
            place = None
            if self.ring and (request.case in self._kept or len(self._kept) < _MOST_CASES):
                place = self._kept[request.case] % self.ring
                self._kept[request.case] += 1
            self._answer(request, {"kind": "drawn", "place": place})

    def _answer(self, request: _Request, header: dict[str, Any], *, refused: str | None = None) -> None:
        request.connection.answers.put(header | {"number": request.number})
        self.account.answered((time.monotonic() - request.came) * 1e3, refused=refused)


def _lost_gpu(error: Exception) -> bool:
    """Whether it is an error after which a process can do nothing more on its GPU; a new one can."""
    torch = sys.modules.get("torch")
    by_torch = torch is not None and isinstance(error, torch.AcceleratorError)
    return by_torch or str(error).startswith("Triton Error [CUDA]")


def _gpu_memory_gb() -> float | None:
    """What this process has taken of the GPU; None without one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return round(torch.cuda.max_memory_reserved() / 1e9, 3)


def make_painter(factory: str, arguments: Mapping[str, Any]) -> Any:
    """Calls "module:function" with the arguments."""
    module, _, function = factory.partition(":")
    return getattr(importlib.import_module(module), function)(**arguments)


def _end_with(parent: int, folder: str) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_S)
    shutil.rmtree(folder, ignore_errors=True)  # a trainer that was killed could not do it
    os._exit(0)


def _allow_open_files() -> None:
    """As many as the system lets: clients' pages are open files."""
    import resource  # here, as Windows does not have it, nor sockets of this kind

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES if most == resource.RLIM_INFINITY else most, most))


def main() -> int:
    """Runs the server of a `ServerTask`; the exit status is `REFUSED` where another start would not help."""
    task = ServerTask(**json.loads(sys.argv[1]))
    _allow_open_files()
    threading.Thread(target=_end_with, args=(task.parent, task.folder), daemon=True).start()
    address = ServerAddress(task.folder)
    try:
        painter = make_painter(task.factory, task.arguments)
    except InputError as error:
        print(error, file=sys.stderr, flush=True)
        return REFUSED
    SynthesisServer(
        address, painter, batch_size=task.batch_size, batch_wait_ms=task.batch_wait_ms, ring=task.ring
    ).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
