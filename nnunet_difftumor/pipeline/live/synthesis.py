"""Live tumors of one training: which models draw what, their server, and the source that asks it."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_difftumor.pipeline.live.client import LiveClient
from nnunet_difftumor.pipeline.live.ring import LesionRing
from nnunet_difftumor.pipeline.live.server import ServerTask, make_painter
from nnunet_difftumor.pipeline.live.server_keeper import ServerKeeper
from nnunet_difftumor.pipeline.live.source import LiveSource, PainterInProcess
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.prepared.live_settings import LiveSettings
from nnunet_difftumor.prepared.statistics import StatisticsStore
from nnunet_difftumor.synthesis.networks.modes import FAST

# Makes the renderer in the server's process.
FACTORY = "nnunet_difftumor.synthesis.renderers:open_diffusion"
_ON_GPU = 8
# Of late tumors: what 50 steps draw but for half of what another start noise makes (docs/performance.md).
_FEW_STEPS = 10


class LiveSynthesis:
    """What live tumors need.

    Args:
        config: of the dataset.

    Raises:
        InputError: for weights that are missing, damaged or of another organ or stage than the settings ask for.
    """

    def __init__(self, config: DiffTumorConfig) -> None:
        self.config, self.settings = config, config.live
        self.choice = self.settings.choose_renderer(
            organs=[organ.name for organ in config.organs], sizes=config.sizes()
        )
        if self.settings.sampler_steps is None and all(
            found.can_take_fewer(_FEW_STEPS, self.choice.stages) for found in self.choice.weights.values()
        ):
            self.choice = replace(self.choice, sampler_steps=_FEW_STEPS)
        self.weights: list[dict[str, Any]] = []
        for files in self.choice.files().values():
            self.weights += [file for file in files if file not in self.weights]
        self.views = self.choice.views()
        self.keeper: ServerKeeper | None = None
        self._ring: LesionRing | None = None
        self._rounded = False
        self.drawn_as = "by no server"

    def start(self, *, device: str, gpu: int | None, folder: Path, rank: int) -> None:
        """Starts the server; `drawn_as` says then how it draws.

        Args:
            device: of the training, cpu or cuda; taken for the setting "auto".
            gpu: index of the GPU of this rank.
            folder: of the run's log of samples.
            rank: of this process.

        Raises:
            InputError: if it does not start, for example because its device computes wrongly (`networks.self_test`).
        """
        settings, arguments = self.settings, self.arguments(device)
        usual = _ON_GPU if arguments["device"] == "cuda" else 1
        batch_size = 1 if settings.deterministic else settings.batch_size or usual
        task = ServerTask(
            folder="",
            parent=0,
            factory=FACTORY,
            arguments=arguments | {"self_test_batch": batch_size},
            batch_size=batch_size,
            batch_wait_ms=float(settings.batch_wait_ms),
            ring=settings.ring,
        )
        self._rounded = arguments["mode"] == FAST
        self.drawn_as = f"on {arguments['device']}, {arguments['mode']}, {task.batch_size} at a time"
        if settings.ring:
            self._ring = LesionRing(Path(self.config.bank_folder), f"rank{rank}")
        self.keeper = ServerKeeper(
            task,
            log=folder / f"server_rank_{rank}.log",
            status_file=folder / f"server_rank_{rank}.json",
            hang_s=hang_s(settings),
            gpu=gpu if arguments["device"] == "cuda" else None,
        )
        self.keeper.start()

    def stop(self) -> None:
        """Ends the server, if there is one."""
        if self.keeper is not None:
            self.keeper.stop()

    def arguments(self, device: str) -> dict[str, Any]:
        """Of the factory in the server, JSON-ready; `device` is the training's."""
        usual = "cuda" if device == "cuda" else "cpu"  # a training on mps
        chosen = usual if self.settings.device == "auto" else self.settings.device
        choice = self.choice.on(chosen, mode=self.settings.mode_on(chosen))
        return {**choice.arguments(), "gpu_memory_gb": self.settings.gpu_memory_gb}

    def source(self, config: DiffTumorConfig, statistics: StatisticsStore) -> LiveSource:
        """Asks the server; where none was started, as for replays and previews, it draws in the process itself.

        In the process it draws on the CPU, whatever device the settings name for the server: a preview must be possible
        on a machine without a GPU.
        """
        if self.keeper is not None:
            timeout_s = None if self.settings.deterministic else float(self.settings.timeout_s)
            painter = LiveClient(self.keeper.address, timeout_s=timeout_s)
        else:
            painter = PainterInProcess(
                partial(make_painter, FACTORY, self.choice.on("cpu", mode=self.settings.mode_on("cpu")).arguments())
            )
        return LiveSource(config, statistics, views=self.views, painter=painter, rounded=self._rounded, ring=self._ring)


def hang_s(settings: LiveSettings) -> float:
    """After how many seconds without a finished batch a server is taken to hang.

    Far more than any batch takes: one that is only slow must not be killed.
    """
    return max(300.0, 5 * settings.timeout_s)
