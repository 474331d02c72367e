"""Makes the validation cases of label-free training, at the resolution of the raw images."""

import shutil
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_difftumor.files import blaming_the_disk, write_json
from nnunet_difftumor.json_checks import load_json
from nnunet_difftumor.preparation.preprocessing.plans import CONFIGURATION
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.prepared.made_from.raw_files import RawFiles
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.placement.sampler import Placement, TumorSampler
from nnunet_difftumor.synthesis.scene import insert_tumors
from nnunet_difftumor.synthesis.volume import ArrayVolume

# Enters the random numbers, so that a single case is not validated on the tumors that it is trained with.
_STREAM = 7
_SCENES = 5


class ValidationCaseMaker:
    """Makes validation cases: synthetic tumors in the raw image, then nnU-Net's own preprocessing.

    Args:
        folder: of the validation cases (see `pipeline.label_free_validation`).
        plans: nnU-Net's plans.
        dataset_json: of the dataset.
        config: whose organs and distributions the tumors follow.
    """

    def __init__(
        self, folder: Path, plans: dict[str, Any], *, dataset_json: dict[str, Any], config: DiffTumorConfig
    ) -> None:
        self.folder, self.config, self._dataset_json = folder, config, dataset_json
        self._plans = PlansManager(plans)
        self._configuration = self._plans.get_configuration(CONFIGURATION)

    def is_made(self, case: str, version: str) -> bool:
        """Whether it is there, whole, and made from this version of the case with these settings."""
        try:
            record = load_json(self._specs(case))
            sizes = {name: (self.folder / name).stat().st_size for name in record["bytes"]}
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return record["made_for"] == self._made_for(version) and record["bytes"] == sizes

    def make(self, case: str, version: str, files: RawFiles) -> int:
        """Makes one case; its specs are written last.

        Args:
            case: name.
            version: changes with whatever the case was made from.
            files: raw.

        Returns:
            Number of tumors; 0 if there was no room, then the case stays healthy.
        """
        specs = []

        class PreprocessorWithTumors(DefaultPreprocessor):
            """nnU-Net's preprocessing of the image with tumors; writes the true labels on the way."""

            def run_case_npy(inner, data, seg, properties, *args):  # noqa: N805
                specs.extend(self._insert(case, data[0], seg[0], tuple(properties["spacing"])))
                self._plans.image_reader_writer_class().write_seg(seg[0], str(unfinished / truth.name), properties)
                return super().run_case_npy(data, seg, properties, *args)

        final = self.folder / self._configuration.data_identifier
        truth = self.folder / "gt_segmentations" / f"{case}{self._dataset_json['file_ending']}"
        unfinished = self.folder / ".unfinished" / case
        shutil.rmtree(unfinished.parent, ignore_errors=True)
        for folder in (unfinished, final, truth.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with blaming_the_disk(unfinished):
            PreprocessorWithTumors(verbose=False).run_case_save(
                str(unfinished / case),
                [str(path) for path in files.images],
                str(files.label),
                self._plans,
                self._configuration,
                self._dataset_json,
            )
        made = []
        for file in sorted(unfinished.iterdir()):
            target = truth if file.name == truth.name else final / file.name
            file.replace(target)
            made.append(target)
        shutil.rmtree(unfinished.parent)
        sizes = {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in made}
        content = {"case": case, "tumors": specs, "made_for": self._made_for(version), "bytes": sizes}
        write_json(self._specs(case), content)
        return len(specs)

    def _made_for(self, version: str) -> dict[str, Any]:
        """All that its voxels depend on."""
        settings = self.config.to_dict()
        keys = ("organs", "preset", "contrast_hu", "size_weights", "clear_of_vessels", "seed")
        return {"case": version, **{key: settings[key] for key in keys}}

    def _specs(self, case: str) -> Path:
        return self.folder / "specs" / f"{case}.json"

    def _insert(self, case: str, hu: np.ndarray, labels: np.ndarray, spacing_mm: tuple[float, ...]) -> list[dict]:
        """Tumors into the raw image, in place; (z, y, x) as the reader gives it."""
        rng = np.random.default_rng((self.config.seed, crc32(case.encode()), _STREAM))
        organs = [organ for organ in self.config.organs if organ.mask(labels).any()]
        volume = ArrayVolume(hu, labels, spacing_mm)
        for _ in range(_SCENES):
            organ = organs[int(rng.integers(len(organs)))]
            sampler = TumorSampler(
                organ,
                self.config.preset,
                contrast_hu=self.config.contrast_hu,
                weights=self.config.size_weights,
                clear_of_vessels=self.config.clear_of_vessels,
            )
            statistics = OrganStatistics.measure(hu, labels, organ=organ, spacing_mm=spacing_mm)
            placed: list[Placement] = sampler.sample_scene(volume, statistics, rng)[0]
            if placed:
                insert_tumors(volume, [placement.spec for placement in placed], organ)
                return [
                    {"spec": placement.spec.to_dict(), "equivalent_diameter_mm": round(placement.diameter_mm, 3)}
                    for placement in placed
                ]
        return []
