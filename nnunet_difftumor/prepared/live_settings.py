"""The part of difftumor.json that says how live tumors are made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.weights_folder import default_weights_folder
from nnunet_difftumor.json_checks import Checker, check_keys, is_integer, is_number
from nnunet_difftumor.names import is_plain_name
from nnunet_difftumor.synthesis.networks.modes import EXACT, FAST, MODES, usual_mode

if TYPE_CHECKING:
    from nnunet_difftumor.synthesis.renderers import RendererChoice

DEVICES = ("auto", "cpu", "cuda")
LIVE_MODES = ("auto", *MODES)


@dataclass(frozen=True)
class LiveSettings:
    """How the synthesis server draws.

    Attributes:
        weights_folder: of the diffusion models; None: `difftumor_weights` in the folder that nnUNet_results names.
        weights_organs: whose models draw, by the organ's name; None, and organs that are not named: their own. Banks go
            by it too.
        device: "auto": the device of the training; "cpu" or "cuda".
        mode: "exact": float32, the same noise on every device; "fast": bfloat16, noise made on the device; "auto": fast
            on a GPU, if not `deterministic`, which is exact.
        sampler_steps: of models of late tumors, which sample by DDIM; None: 10, or as their weights say if that is less
            or their schedule has no 10 steps.
        batch_size: at most this many tumors go through the networks together; None: 8 on a GPU, and 1 on a CPU, where
            a batch takes as long as its tumors one by one.
        batch_wait_ms: a request waits at most this long for others to join it.
        timeout_s: after this time without an answer a sample continues without its tumor, which is counted.
        gpu_memory_gb: what the server may take of the GPU; None: what it needs.
        deterministic: one tumor at a time, and no timeout: voxels do not depend on workers and load.
        ring: newest lesions of each case that are kept as files in `bank_folder`; 0: none.
    """

    weights_folder: str | None = None
    weights_organs: Mapping[str, str] | None = None
    device: str = "auto"
    mode: str = "auto"
    sampler_steps: int | None = None
    batch_size: int | None = None
    batch_wait_ms: float = 5.0
    timeout_s: float = 60.0
    gpu_memory_gb: float | None = None
    deterministic: bool = False
    ring: int = 0

    @property
    def folder(self) -> Path:
        """The folder of weights.

        Raises:
            InputError: if it is the default one, and nnUNet_results is not set.
        """
        return Path(self.weights_folder or default_weights_folder(option='"weights_folder" in difftumor.json'))

    def choose_renderer(self, *, organs: Sequence[str], sizes: Sequence[str]) -> "RendererChoice":
        """What draws the tumors of these organs and sizes.

        Raises:
            InputError: for weights that are missing, damaged or of another organ or stage.
        """
        from nnunet_difftumor.synthesis.renderers import choose_renderer

        return choose_renderer(
            "diffusion",
            organs=organs,
            sizes=sizes,
            weights=self.folder.absolute(),
            weights_organ=self.weights_organs,
            sampler_steps=self.sampler_steps,
            settings='"live" of difftumor.json',
        )

    def mode_on(self, device: str) -> str:
        """How tumors are drawn on a device, cpu or cuda."""
        if self.deterministic:
            return EXACT
        return usual_mode(device) if self.mode == "auto" else self.mode

    @classmethod
    def from_dict(cls, record: Any, *, where: str) -> "LiveSettings":
        """Checks a record; `where` names its origin in errors.

        Raises:
            InputError: naming the key, for whatever is unknown, of the wrong type or out of range.
        """
        check_keys(record, cls, where)
        check = Checker(record, where)
        check.value("weights_folder", lambda v: v is None or (isinstance(v, str) and v), "null or a folder")
        check.value("weights_organs", _good_organs, "null, or names of organs with that of whose models draw in each")
        check.value("device", lambda v: v in DEVICES, f"one of {', '.join(DEVICES)}")
        check.value("mode", lambda v: v in LIVE_MODES, f"one of {', '.join(LIVE_MODES)}")
        if record.get("deterministic") and record.get("mode") == FAST:
            raise InputError(f'{where}: mode is "fast", but deterministic tumors are exact; set one of them otherwise')
        check.value("sampler_steps", _good_steps, "null or an integer of at least 1")
        check.value("batch_size", _good_batch, "null or an integer from 1 to 256")
        check.value("batch_wait_ms", lambda v: is_number(v) and 0 <= v <= 1000, "a number from 0 to 1000")
        check.value("timeout_s", lambda v: is_number(v) and 0 < v <= 3600, "a number above 0, at most 3600")
        check.value("gpu_memory_gb", lambda v: v is None or (is_number(v) and v > 0), "null or a number above 0")
        check.value("deterministic", lambda v: isinstance(v, bool), "true or false")
        check.value("ring", lambda v: is_integer(v) and v >= 0, "an integer of at least 0")
        return cls(**record)


def _good_organs(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and all(map(is_plain_name, (*value, *value.values()))))


def _good_steps(value: Any) -> bool:
    return value is None or (is_integer(value) and value >= 1)


def _good_batch(value: Any) -> bool:
    return value is None or (is_integer(value) and 1 <= value <= 256)
