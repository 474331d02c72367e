"""Live tumors of one training: which models draw what, their server, and the source that asks it."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.stages import ORGANS
from nnunet_difftumor.pipeline.live.client import LiveClient
from nnunet_difftumor.pipeline.live.server import ServerTask, make_renderer
from nnunet_difftumor.pipeline.live.server_keeper import ServerKeeper
from nnunet_difftumor.pipeline.live.source import LiveSource, PainterInProcess
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.prepared.live_settings import LiveSettings
from nnunet_difftumor.prepared.statistics import StatisticsStore
from nnunet_difftumor.synthesis.networks.weights import (
    DiffusionWeights,
    describe_files,
    organ_of_weights,
    stage_of,
)

# Makes the renderer in the server's process.
FACTORY = "nnunet_difftumor.synthesis.organ_renderers:open_renderers"
_ON_GPU = 8


class LiveSynthesis:
    """What live tumors need.

    Args:
        config: of the dataset.

    Raises:
        InputError: for weights that are missing, damaged or of another organ or stage than the settings ask for.
    """

    def __init__(self, config: DiffTumorConfig) -> None:
        self.config, self.settings = config, config.live
        self.folder = self.settings.folder.absolute()
        chosen: Mapping[str, str] = self.settings.weights_organs or {}
        names = [organ.name for organ in config.organs]
        unknown = sorted(set(chosen) - set(names))
        if unknown:
            raise InputError(
                f"difftumor.json: live: weights_organs names {', '.join(unknown)}, expected some of {', '.join(names)}"
            )
        self.organs = {name: _drawn_by(name, chosen.get(name)) for name in names}
        self.stages = sorted({stage_of(size) for size in config.sizes()})
        option = '"weights_folder" in difftumor.json'
        weights = {organ: DiffusionWeights(self.folder, organ, option) for organ in dict.fromkeys(self.organs.values())}
        for of_organ in weights.values():
            for stage in self.stages:  # one by one: what to do without one of them is said for commands
                of_organ.check([stage])
        self.weights: list[dict[str, Any]] = []
        for of_organ in weights.values():
            self.weights += [file for file in of_organ.record(self.stages) if file not in self.weights]
        self.views = {
            (n, stage): weights[organ].view(stage) for n, organ in self.organs.items() for stage in self.stages
        }
        self.keeper: ServerKeeper | None = None

    def start(self, *, device: str, gpu: int | None, folder: Path, rank: int) -> None:
        """Starts the server.

        Args:
            device: of the training, cpu or cuda; taken for the setting "auto".
            gpu: index of the GPU of this rank.
            folder: of the run's log of samples.
            rank: of this process.

        Raises:
            InputError: if it does not start.
        """
        settings, arguments = self.settings, self.arguments(device)
        usual = _ON_GPU if arguments["device"] == "cuda" else 1
        task = ServerTask(
            folder="",
            parent=0,
            factory=FACTORY,
            arguments=arguments,
            batch_size=1 if settings.deterministic else settings.batch_size or usual,
            batch_wait_ms=float(settings.batch_wait_ms),
            ring_folder=self.config.bank_folder if settings.ring else None,
            ring=settings.ring,
            ring_name=f"rank{rank}",
        )
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
        """Of the factory, JSON-ready."""
        usual = "cuda" if device == "cuda" else "cpu"  # a training on mps
        return {
            "weights_folder": str(self.folder),
            "organs": self.organs,
            "stages": self.stages,
            "device": usual if self.settings.device == "auto" else self.settings.device,
            "gpu_memory_gb": self.settings.gpu_memory_gb,
        }

    def source(self, config: DiffTumorConfig, statistics: StatisticsStore) -> LiveSource:
        """Asks the server; where none was started, as for replays and previews, it draws in the process itself."""
        if self.keeper is not None:
            timeout_s = None if self.settings.deterministic else float(self.settings.timeout_s)
            painter = LiveClient(self.keeper.address, timeout_s=timeout_s)
        else:
            painter = PainterInProcess(partial(make_renderer, FACTORY, self.arguments("cpu")))
        return LiveSource(config, statistics, views=self.views, painter=painter)

    def describe(self) -> str:
        """For the log of a training."""
        exactly = ", deterministic" if self.settings.deterministic else ""
        files = describe_files(self.weights)
        return f"live, drawn by diffusion models while training{exactly}; weights {files} of {self.folder}"


def _drawn_by(name: str, chosen: str | None) -> str:
    if chosen is None and sum(organ in name.lower() for organ in ORGANS) != 1:
        raise InputError(
            f"difftumor.json: live: organ {name}: diffusion models are for {', '.join(ORGANS)}; name in weights_organs "
            'whose tumors shall grow in it, or set "source" to "handcrafted"'
        )
    return organ_of_weights(name, chosen=chosen)


def hang_s(settings: LiveSettings) -> float:
    """After how many seconds without a finished batch a server is taken to hang.

    Far more than any batch takes: one that is only slow must not be killed.
    """
    return max(300.0, 5 * settings.timeout_s)
