"""The trainer's side of the server: starts it, watches it, starts it again after a crash, and ends it."""

import atexit
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import write_json
from nnunet_difftumor.pipeline.live.address import ServerAddress
from nnunet_difftumor.pipeline.live.client import LiveClient
from nnunet_difftumor.pipeline.live.server import REFUSED, ServerTask

# A server that crashes more often than this within the time is given up.
_RESTARTS, _WITHIN_S = 5, 600.0
_LOOK_S = 0.1
_STATUS_S = 2.0
_END_S = 5.0
# Loading models from a slow file system.
_START_S = 300.0
_TAIL_LINES = 12


class ServerKeeper:
    """Keeps one server alive.

    Args:
        task: what the server does; `folder` and `parent` are filled in here.
        log: file that the server's output is added to.
        status_file: rewritten every two seconds with the server's account of itself; None: nowhere.
        hang_s: a server that neither answers nor finishes a batch for this long is killed and started again.
        gpu: index among the GPUs that this process sees, the only one that the server sees; None: as this process.
    """

    def __init__(
        self,
        task: ServerTask,
        *,
        log: str | Path,
        status_file: str | Path | None = None,
        hang_s: float = 120.0,
        gpu: int | None = None,
    ) -> None:
        self.log, self.hang_s, self.gpu = Path(log), hang_s, gpu
        self.status_file = None if status_file is None else Path(status_file)
        self.address = ServerAddress.new()
        self.task = replace(task, folder=str(self.address.folder), parent=os.getpid())
        self.restarts = 0
        self.process: subprocess.Popen | None = None
        self._starts: deque[float] = deque(maxlen=_RESTARTS + 1)
        self._account: dict[str, Any] = {}
        self._state = "starting"
        self._ending = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Starts the server and waits until it takes requests.

        Raises:
            InputError: if it cannot be started; the message is the server's own.
        """
        atexit.register(self.stop)
        self._launch()
        until = time.monotonic() + _START_S
        while not self.address.socket.exists():
            if self.process.poll() is not None:
                code = self.process.returncode
                self.stop()
                said = self._last_words(1 if code == REFUSED else _TAIL_LINES)
                raise InputError(f"the synthesis server could not be started: {said or f'exit status {code}'}")
            if time.monotonic() > until:
                self.stop()
                raise InputError(f"the synthesis server was not ready within {_START_S:g} s; see {self.log}")
            time.sleep(_LOOK_S)
        self._state = "running"
        self._watcher.start()

    def stop(self) -> None:
        """Ends the server. Workers that still ask are told so. May be called again."""
        self._ending.set()
        atexit.unregister(self.stop)
        if self._watcher.is_alive() and self._watcher is not threading.current_thread():
            self._watcher.join(_END_S + _STATUS_S)
        self._end_process()
        if self.status_file is not None and self._state in ("running", "restarting"):
            self._state = "ended"
            self._write_status()
        shutil.rmtree(self.address.folder, ignore_errors=True)

    def status(self) -> dict[str, Any]:
        """State, restarts, and the last account that the server gave (counts are those since its last start)."""
        return {"state": self._state, "restarts": self.restarts, **self._account}

    def _launch(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"}
        if self.gpu is not None:
            seen = os.environ.get("CUDA_VISIBLE_DEVICES")
            environment["CUDA_VISIBLE_DEVICES"] = seen.split(",")[self.gpu] if seen else str(self.gpu)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "nnunet_difftumor.pipeline.live.server", self.task.to_json()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                # Ctrl-C is for the trainer, which ends the server.
                start_new_session=True,
            )
        self._starts.append(time.monotonic())

    def _watch(self) -> None:
        try:
            self._keep_alive()
        except Exception as error:  # nobody would end the waiting of those who ask
            self._state = "gone"
            self.address.give_up(f"the synthesis server is not watched any more ({type(error).__name__}: {error})")

    def _keep_alive(self) -> None:
        client = LiveClient(self.address, timeout_s=None)
        heard = looked = time.monotonic()
        while not self._ending.wait(_LOOK_S):
            if self.process.poll() is not None:
                if not self._start_again(f"ended with status {self.process.returncode}"):
                    return
                client.close()
                heard = time.monotonic()
                continue
            if time.monotonic() - looked < min(_STATUS_S, self.hang_s / 4):
                continue
            account = client.status(timeout_s=_STATUS_S)
            looked = time.monotonic()
            if account is not None:
                self._account = {key: value for key, value in account.items() if key not in ("kind", "arrays")}
                self._state = "running"
                if account["busy_s"] < self.hang_s:
                    heard = looked
            allowed = self.hang_s if self._state == "running" else max(self.hang_s, _START_S)
            if looked - heard > allowed or (account is not None and account["busy_s"] >= self.hang_s):
                self.process.kill()
            self._write_status()

    def _start_again(self, how: str) -> bool:
        recent = [start for start in self._starts if time.monotonic() - start < _WITHIN_S]
        refused = self.process.returncode == REFUSED
        if refused or len(recent) > _RESTARTS:
            self._state = "gone"
            said = self._last_words(1)
            crashed = f"{how} {len(recent)} times in {_WITHIN_S / 60:g} minutes"
            reason = f"the synthesis server {'could not be started again' if refused else crashed}"
            self.address.give_up(f"{reason} ({said})" if said else reason)
            self._write_status()
            return False
        self._state = "restarting"
        self.restarts += 1
        self._write_status()
        # One after another, at longer and longer distances: what made it crash may pass.
        if not self._ending.wait(_LOOK_S * 2 ** len(recent)):
            self._launch()
        return True

    def _write_status(self) -> None:
        if self.status_file is None:
            return
        # The time of day is for people; nothing here is measured with it. A full disk must not end the training.
        with suppress(OSError):
            write_json(self.status_file, {**self.status(), "updated": time.strftime("%Y-%m-%d %H:%M:%S")})

    def _end_process(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(_END_S)
        except subprocess.TimeoutExpired:  # stopped, or stuck in the driver
            self.process.kill()
            self.process.wait()

    def _last_words(self, lines: int) -> str:
        try:
            text = self.log.read_text(errors="replace").strip()
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])
