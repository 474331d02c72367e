"""The synthesis server: one process that owns the device and the models, and draws what the workers ask for.

`python -m nnunet_difftumor.pipeline.live.server JSON`, started by `keeper.ServerKeeper`. The main thread renders, in
batches of what waits together; each connection has a thread that reads and one that writes, so that no client can keep
others waiting. It ends with its parent, however that ends.
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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.pipeline.live import messages
from nnunet_difftumor.pipeline.live.account import ServerAccount
from nnunet_difftumor.pipeline.live.address import ServerAddress
from nnunet_difftumor.pipeline.live.messages import BrokenConnectionError, Message
from nnunet_difftumor.pipeline.live.ring import LesionRing
from nnunet_difftumor.synthesis.patch import Patch, RenderedTumor, Renderer
from nnunet_difftumor.synthesis.spec import TumorSpec

# Exit status after an InputError, such as missing weights.
REFUSED = 2
_PARENT_S = 0.5


@dataclass(frozen=True)
class ServerTask:
    """What a server process is started with.

    Attributes:
        folder: of its address.
        parent: number of the process that it ends with.
        factory: "module:function" that makes the renderer of `arguments`.
        arguments: JSON-ready.
        batch_size, batch_wait_ms: as in `LiveSettings`.
        ring_folder, ring, ring_name: of a `LesionRing`; None: no ring.
    """

    folder: str
    parent: int
    factory: str
    arguments: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 8
    batch_wait_ms: float = 5.0
    ring_folder: str | None = None
    ring: int = 0
    ring_name: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class _Request:
    """A tumor that is waited for."""

    connection: "_Connection"
    number: int
    case: str
    patch: Patch
    spec: TumorSpec
    came: float = field(default_factory=time.monotonic)


class _Connection:
    """One client. Answers wait in a queue of its own until it takes them."""

    def __init__(self, connection: socket.socket, server: "SynthesisServer") -> None:
        self._socket, self._server = connection, server
        self.answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        for work in (self._read, self._write):
            threading.Thread(target=work, daemon=True).start()

    def _read(self) -> None:
        try:
            while True:
                message = messages.receive(self._socket, timeout_s=None)
                if message.header.get("kind") == "status":
                    status = self._server.status()
                    self.answers.put(messages.encode(Message({"kind": "status", **status})))
                else:
                    patch, spec = messages.requested(message)
                    number, case = int(message.header["number"]), str(message.header["case"])
                    self._server.requests.put(_Request(self, number, case, patch, spec))
                    self._server.account.queued(self._server.requests.qsize())
        except (BrokenConnectionError, ValueError, KeyError, TypeError):
            self.answers.put(None)

    def _write(self) -> None:
        with suppress(BrokenConnectionError):
            while (frame := self.answers.get()) is not None:
                messages.send(self._socket, frame, timeout_s=None)
        # The reader waits in recv, which closing alone does not end.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class SynthesisServer:
    """Takes requests at an address and renders them.

    Args:
        address: where it listens; the socket appears there when the server is ready.
        renderer: of everything that is asked.
        batch_size, batch_wait_ms: as in `LiveSettings`.
        ring: keeps the newest lesions; None: nothing is kept.
    """

    def __init__(
        self,
        address: ServerAddress,
        renderer: Renderer,
        *,
        batch_size: int,
        batch_wait_ms: float,
        ring: LesionRing | None = None,
    ) -> None:
        self.renderer, self.ring = renderer, ring
        self.batch_size, self.batch_wait_ms = batch_size, batch_wait_ms
        self.requests: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        self.account = ServerAccount()
        self._busy_since: float | None = None
        new = address.socket.with_name(f"{address.socket.name}.new")
        new.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(new))
        self._listener.listen(128)
        # Under its final name it takes requests at once; that of a server that was killed is replaced.
        new.replace(address.socket)

    def run(self) -> None:
        """Serves until the process ends. Raises what makes the GPU unusable; another process has to go on."""
        threading.Thread(target=self._accept, daemon=True).start()
        while True:
            batch = self._next_batch()
            self._busy_since = time.monotonic()
            self._render(batch)
            self._busy_since = None

    def status(self) -> dict[str, Any]:
        """For `LiveClient.status`."""
        since = self._busy_since
        return {
            "pid": os.getpid(),
            "queue": self.requests.qsize(),
            "busy_s": 0.0 if since is None else round(time.monotonic() - since, 3),
            "gpu_memory_gb": _gpu_memory_gb(),
            **self.account.to_dict(),
        }

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # out of file descriptors, for example: those who wait get their turn
                time.sleep(_PARENT_S)
                continue
            _Connection(connection, self)

    def _next_batch(self) -> list[_Request]:
        """The next request, and what comes within the waiting time after it."""
        batch = [self.requests.get()]
        until = time.monotonic() + self.batch_wait_ms / 1e3
        while len(batch) < self.batch_size:
            try:
                batch.append(self.requests.get(timeout=max(0.0, until - time.monotonic())))
            except queue.Empty:
                break
        return batch

    def _render(self, batch: Sequence[_Request]) -> None:
        start = time.perf_counter()
        try:
            tumors = self.renderer.render([request.patch for request in batch], [request.spec for request in batch])
            failure = None
        except Exception as error:  # whatever it is, the other tumors shall be drawn, and the server go on
            if _lost_gpu(error):
                raise
            # Nothing more in here: as long as the error lives, so does the GPU memory of a batch that did not fit.
            failure = f"{type(error).__name__}: {error}"
        if failure is not None and len(batch) > 1:
            for request in batch:
                self._render([request])
            return
        if failure is not None:
            self._answer(batch[0], failure)
            return
        self.account.rendered(tumors=len(batch), milliseconds=(time.perf_counter() - start) * 1e3)
        for request, tumor in zip(batch, tumors, strict=True):
            self._answer(request, tumor if tumor.mask.any() else "nothing of the tumor has room")

    def _answer(self, request: _Request, found: RenderedTumor | str) -> None:
        refused = found if isinstance(found, str) else None
        if refused is None:
            message = messages.answer(request.number, found)
        else:
            message = Message({"kind": "refused", "number": request.number, "reason": refused})
        request.connection.answers.put(messages.encode(message))
        self.account.answered((time.monotonic() - request.came) * 1e3, refused=refused)
        if self.ring is not None and refused is None:
            try:
                self.ring.write(request.case, request.patch, found)
            except OSError:  # a full disk, for example: training does not need the ring
                self.account.ring_failures += 1


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


def make_renderer(factory: str, arguments: Mapping[str, Any]) -> Renderer:
    """Calls "module:function" with the arguments."""
    module, _, function = factory.partition(":")
    return getattr(importlib.import_module(module), function)(**arguments)


def _end_with(parent: int, folder: str) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_S)
    shutil.rmtree(folder, ignore_errors=True)  # a trainer that was killed could not do it
    os._exit(0)


def main() -> int:
    """Runs the server of a `ServerTask`; the exit status is `REFUSED` where another start would not help."""
    task = ServerTask(**json.loads(sys.argv[1]))
    threading.Thread(target=_end_with, args=(task.parent, task.folder), daemon=True).start()
    address = ServerAddress(task.folder)
    try:
        renderer = make_renderer(task.factory, task.arguments)
    except InputError as error:
        print(error, file=sys.stderr, flush=True)
        return REFUSED
    ring = LesionRing(Path(task.ring_folder), size=task.ring, name=task.ring_name) if task.ring_folder else None
    SynthesisServer(address, renderer, batch_size=task.batch_size, batch_wait_ms=task.batch_wait_ms, ring=ring).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
