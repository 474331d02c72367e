"""What a trainer will see of a prepared dataset, before any training: samples with tumors of every organ and size.

They are made by the training's own dataset and tumor source; only the organ and the size are chosen where a row of the
montage asks for them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_difftumor.pictures.montage_pictures import Panel
from nnunet_difftumor.pipeline.dataset import TrainingSample
from nnunet_difftumor.pipeline.sources import Outcome, TumorSource
from nnunet_difftumor.pipeline.training_synthesis import TrainingSynthesis
from nnunet_difftumor.prepared.config import FILE_NAME, DiffTumorConfig
from nnunet_difftumor.prepared.dataset import read_plans
from nnunet_difftumor.prepared.orientation import directions
from nnunet_difftumor.prepared.overlay_case import OverlayCase
from nnunet_difftumor.prepared.roles import Roles, label_free_roles, roles_with_real_cases
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.placement.sampler import equivalent_diameter_mm
from nnunet_difftumor.synthesis.scans.planes import View, views
from nnunet_difftumor.synthesis.scans.sweep import box_around
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM
from nnunet_difftumor.synthesis.volume import clipped_box

# What a picture shows around a tumor.
_FIELD_MM: Mapping[str, float] = {"tiny": 60.0, "small": 80.0, "medium": 120.0, "large": 160.0}
# Batches that are looked through for the synthetic samples of the mix.
_BATCHES = 1000
# Enters the random numbers of the rows, which are not those of a run.
_STREAM = 11


@dataclass(frozen=True)
class PreviewSample:
    """One sample of the montage.

    Attributes:
        case: identifier.
        outcome: its tumors, and what was refused.
        diameters_mm: equivalent diameters of the tumors' masks.
        panel: the slice with most of the largest tumor; None if there is none.
        number: of the sample in the run (batch * batch size + position), in the mix only.
    """

    case: str
    outcome: Outcome
    diameters_mm: tuple[float, ...]
    panel: Panel | None
    number: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "case": self.case,
            "number": self.number,
            "tumors": [
                {
                    "spec": tumor.spec.to_dict(),
                    "equivalent_diameter_mm": round(diameter, 3),
                    "measured_contrast_hu": tumor.measured_contrast_hu(),
                }
                for tumor, diameter in zip(self.outcome.tumors, self.diameters_mm, strict=True)
            ],
            "look_alikes": [lesion.spec.to_dict() for lesion in self.outcome.look_alikes],
            "refused": self.outcome.refused,
        }


@dataclass(frozen=True)
class Sweep:
    """A case with tumors of every size.

    Attributes:
        case: identifier.
        before, after: HU (slice, row, column).
        contour: boolean of the same shape, the tumor labels.
        slices: numbers of the slices in the preprocessed case, from 1.
        pixel_mm: size of a pixel, (down, right).
        outcomes: the tumors, by organ and size.
    """

    case: str
    before: np.ndarray
    after: np.ndarray
    contour: np.ndarray
    slices: list[int]
    pixel_mm: tuple[float, float]
    outcomes: dict[str, Outcome]


class Montage:
    """The samples of one prepared dataset.

    Args:
        dataset_folder: `nnUNet_preprocessed/DatasetXXX_NAME`.
        configuration: name of a configuration.
        seed: instead of the one in difftumor.json.

    Raises:
        InputError: if the dataset was not prepared, or has no case into which tumors could be put.
    """

    def __init__(self, dataset_folder: str | Path, *, configuration: str, seed: int | None = None) -> None:
        folder = Path(dataset_folder)
        plans, dataset_json = read_plans(folder, configuration)
        self.config = DiffTumorConfig.load(folder / FILE_NAME)
        if seed is not None:
            self.config = replace(self.config, seed=seed)
        self.synthesis = TrainingSynthesis(
            folder, plans, dataset_json=dataset_json, configuration=configuration, fold=0, config=self.config
        )
        self._grid = self.synthesis.grid
        self.roles = self._roles()
        self._dataset = self.synthesis.dataset(self.roles)
        self._batch_size = int(plans["configurations"][configuration]["batch_size"])

    def row(self, organ: Organ, size: str, *, columns: int) -> Iterator[PreviewSample]:
        """Samples with tumors of one organ and size, in different bases as far as there are; none without a base."""
        known = self.synthesis.statistics.cases(organ.name)
        bases = [case for case in self.roles.bases if case in known]
        if not bases:
            return
        entropy = (self.config.seed, _STREAM, self.config.organs.index(organ), list(SIZE_BANDS_MM).index(size))
        order = np.random.default_rng(entropy).permutation(len(bases))
        source = self._source(organ, size)
        for column in range(columns):
            sample = TrainingSample(bases[order[column % len(bases)]], np.random.default_rng((*entropy, column)))
            yield self._draw(sample, source)

    def mix(self, count: int) -> Iterator[PreviewSample]:
        """The first synthetic samples of fold 0, in their order, before they are cropped and augmented."""
        source = self.synthesis.source()
        plan = self.synthesis.plan(self.roles, rank=0, first_batch=0)
        for batch, position in product(range(_BATCHES), range(self._batch_size)):
            if not count:
                return
            sample = plan.sample(batch, position)
            if sample.tumor_rng is not None:
                count -= 1
                yield replace(self._draw(sample, source), number=batch * self._batch_size + position)

    def sweep(self) -> Sweep | None:
        """A case that has most of the organs, with tumors of every size in each; None if none found room."""
        rng = np.random.default_rng((self.config.seed, _STREAM))
        cases = {organ: self.synthesis.statistics.cases(organ.name) for organ in self.config.organs}
        organs = {base: [organ for organ in cases if base in cases[organ]] for base in self.roles.bases}
        most = max(map(len, organs.values()))
        fitting = [base for base in self.roles.bases if len(organs[base]) == most]
        name = fitting[int(rng.integers(len(fitting)))]
        loaded = self._dataset.load_case(name)
        case, view = OverlayCase.of(name, loaded, self._grid), self._axial(loaded[3])
        sizes = [size for size in reversed(SIZE_BANDS_MM) if self.synthesis.live is None or size in self.config.sizes()]
        # Large ones first, while there is room. What is there is labelled as tumor, and no further one touches it.
        outcomes = {
            f"{organ.name}, {size}": self._source(organ, size).begin(case, rng)()
            for organ, size in product(organs[name], sizes)
        }
        boxes = [tumor.box for outcome in outcomes.values() for tumor in outcome.tumors]
        if not boxes:
            return None
        box = box_around(boxes, case.shape, case.spacing_mm)
        return Sweep(
            case=name,
            before=view.stack(self._hu(case.data.base, box)),
            after=view.stack(self._hu(case.data, box)),
            contour=view.stack(np.isin(case.labels(box), self.synthesis.tumor_labels)),
            slices=[number + 1 for number in view.numbers(box[view.fixed], case.shape)],
            pixel_mm=view.pixel_mm(case.spacing_mm),
            outcomes=outcomes,
        )

    def _roles(self) -> Roles:
        """Those of fold 0 of the trainer that fits the dataset."""
        splits = self.synthesis.splits()
        if any(split["train"] for split in splits):
            roles = roles_with_real_cases(splits, 0, real_as_bases=self.config.real_cases_as_bases)
        else:
            roles = label_free_roles(splits, 0)
        return self.synthesis.with_usable_bases(roles)

    def _source(self, organ: Organ, size: str) -> TumorSource:
        """The source of the training, with one organ and one size instead of the mix."""
        config = replace(self.config, organs=(organ,), size_weights={size: 1.0}, curriculum=())
        return self.synthesis.source(config)

    def _draw(self, sample: TrainingSample, source: TumorSource) -> PreviewSample:
        self._dataset.source = source
        data, seg, _, properties = self._dataset.load_case(sample)
        outcome = self._dataset.take_records()[0].outcome
        if not outcome.tumors:
            return PreviewSample(str(sample), outcome, (), None)
        spacing = self._grid.spacing_mm
        diameters = tuple(equivalent_diameter_mm(tumor.mask, spacing) for tumor in outcome.tumors)
        view = self._axial(properties)
        tumor = outcome.tumors[int(np.argmax(diameters))]
        centre = _middle_of_largest_slice(tumor.mask, view.fixed) + [part.start for part in tumor.box]
        field = _FIELD_MM[tumor.spec.size_class]
        # Two more voxels than are shown: interpolation looks at them.
        half = np.ceil(np.divide(field / 2, spacing)).astype(int) + 2
        half[view.fixed] = 0
        lower, upper = centre - half, centre + half + 1
        box = clipped_box(lower, upper, data.shape[1:])
        # Where the scan ends, the picture continues: the tumor stays in its middle.
        ends = [(part.start - a, b - part.stop) for part, a, b in zip(box, lower, upper, strict=True)]
        before, after = (
            np.pad(self._hu(array, box), ends, constant_values=self._grid.intensity.window_hu[0])
            for array in (data.base, data)
        )
        contour = np.pad(np.isin(seg[(slice(0, 1), *box)][0], self.synthesis.tumor_labels), ends)
        planes = (view.stack(array)[0] for array in (before, after, contour))
        panel = Panel(*planes, view.pixel_mm(spacing), field)
        return PreviewSample(str(sample), outcome, diameters, panel)

    def _hu(self, array: Any, box: tuple[slice, ...]) -> np.ndarray:
        return self._grid.intensity.to_hu(array[(slice(0, 1), *box)][0])

    def _axial(self, properties: Mapping[str, Any]) -> View:
        return views(directions(properties, self._grid.transpose_forward))[0]


def _middle_of_largest_slice(mask: np.ndarray, axis: int) -> np.ndarray:
    """Voxel (3,) in the slice along an axis that has most of the mask, in the middle of what it has."""
    number = int(mask.sum(axis=tuple(other for other in range(3) if other != axis)).argmax())
    middle = np.rint(np.argwhere(mask.take(number, axis)).mean(0)).astype(int)
    return np.insert(middle, axis, number)
