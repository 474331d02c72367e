"""What a server has done, as trainer, log and `difftumor monitor` hear of it."""

import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Quantiles are those of the newest so many answers.
_KEPT = 2000
# Reasons that are counted one by one, and their characters.
_MOST_REASONS, _LONGEST_REASON = 100, 500


@dataclass
class ServerAccount:
    """Counts and times since the server's start. Several threads write to it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    tumors: int = 0
    batches: int = 0
    ring_failures: int = 0
    refused: Counter = field(default_factory=Counter)
    deepest_queue: int = 0
    latency_ms: deque = field(default_factory=lambda: deque(maxlen=_KEPT))
    render_ms: deque = field(default_factory=lambda: deque(maxlen=_KEPT))

    def rendered(self, *, tumors: int, milliseconds: float) -> None:
        """Counts a batch."""
        with self.lock:
            self.batches += 1
            self.tumors += tumors
            self.render_ms.append(milliseconds / max(1, tumors))

    def answered(self, milliseconds: float, *, refused: str | None) -> None:
        """Counts an answer, this long after the request came."""
        with self.lock:
            self.latency_ms.append(milliseconds)
            if refused is not None:
                known = refused in self.refused or len(self.refused) < _MOST_REASONS
                self.refused[refused[:_LONGEST_REASON] if known else "other reasons"] += 1

    def ring_failed(self) -> None:
        """Counts a lesion file that could not be written."""
        with self.lock:
            self.ring_failures += 1

    def queued(self, depth: int) -> None:
        """Notes how many requests wait."""
        with self.lock:
            self.deepest_queue = max(self.deepest_queue, depth)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        with self.lock:
            return {
                "tumors": self.tumors,
                "batches": self.batches,
                "refused": dict(self.refused.most_common(6)),
                "deepest_queue": self.deepest_queue,
                "ring_failures": self.ring_failures,
                "latency_ms": quantiles(self.latency_ms),
                "render_ms_per_tumor": quantiles(self.render_ms),
            }


def quantiles(values) -> dict[str, float] | None:
    """Median, 95th percentile and greatest of some numbers; None if there are none."""
    if not values:
        return None
    p50, p95, most = np.quantile(np.asarray(values, float), (0.5, 0.95, 1.0))
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2), "max": round(float(most), 2)}
