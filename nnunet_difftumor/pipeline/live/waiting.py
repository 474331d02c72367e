"""Requests that wait to be drawn, in an order that is fair to every client."""

import queue
import threading
import time
from collections import deque
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """What waits."""

    @property
    def connection(self) -> object:
        """Of the client who asked."""


# Of one client, more than any has pages for.
_MOST_REQUESTS = 1024

Request = TypeVar("Request", bound=Waiting)


class FairQueue(Generic[Request]):
    """A queue in which clients take turns: who asks for many waits for those, and nobody else does."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # Clients in the order of their turns, each with what it asks for; nobody without.
        self._turns: dict[object, deque[Request]] = {}
        self._size = 0

    def put(self, request: Request) -> None:
        """Adds a request to those of its client.

        Raises:
            ValueError: if that waits for more than any client should.
        """
        with self._changed:
            own = self._turns.setdefault(request.connection, deque())
            if len(own) >= _MOST_REQUESTS:
                raise ValueError(f"{len(own)} requests wait already")
            own.append(request)
            self._size += 1
            self._changed.notify()

    def get(self, timeout_s: float | None = None) -> Request:
        """Waits for a request and takes it.

        Raises:
            queue.Empty: if there is none within the time.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not self._turns:
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise queue.Empty
                self._changed.wait(left)
            client = next(iter(self._turns))
            waiting = self._turns.pop(client)
            request = waiting.popleft()
            if waiting:
                self._turns[client] = waiting  # behind all others
            self._size -= 1
            return request

    def forget(self, client: object) -> None:
        """Drops what a client asked for that has gone."""
        with self._changed:
            self._size -= len(self._turns.pop(client, ()))

    def __len__(self) -> int:
        return self._size
