"""Training volumes on disk, as `difftumor preprocess-generative` writes them: crops are read without the volume.

A folder holds dataset.json, and per case in `cases/` NAME.json and three compressed arrays of one shape (z, x, y):
NAME_ct.b2nd (int16, whole HU, clipped to the window), NAME_labels.b2nd (the dataset's label values) and
NAME_lesions.b2nd (number of the lesion, 0 outside). The JSON of a case is written last.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import atomic_path, write_json
from nnunet_difftumor.generative.weights import Volumes
from nnunet_difftumor.json_checks import load_json

VERSION = 1
INDEX_FILE, CASES_FOLDER = "dataset.json", "cases"
ARRAYS = ("ct", "labels", "lesions")
# A crop touches few blocks beside its own voxels, and a block is still large enough to compress well.
_CHUNKS, _BLOCKS = (64, 64, 64), (16, 16, 16)

# First and one past the last voxel along each axis.
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Lesion:
    """One connected component of a tumor label.

    Attributes:
        number: its value in the array of lesions, from 1.
        organ: name of the organ that it belongs to.
        diameter_mm: of the ball of its volume.
        voxels: its size.
        box: where it is.
        centre: the voxel of the lesion that is nearest to its centre of mass.
    """

    number: int
    organ: str
    diameter_mm: float
    voxels: int
    box: Box
    centre: tuple[int, int, int]


@dataclass(frozen=True)
class StoredCase:
    """One case.

    Attributes:
        name: of the case, and of its files.
        shape: voxels (z, x, y).
        spacing_mm: voxel size: that of the dataset up to the rounding to whole voxels.
        affine: 4 x 4 rows, from stored indices (z, x, y) to RAS+ mm.
        organs: box of each organ with its tumors.
        lesions: those of at least the least number of voxels.
        specks: how many smaller components there were, which are no lesions.
        made_from: raw files and settings.
    """

    name: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    affine: tuple[tuple[float, ...], ...]
    organs: dict[str, Box]
    lesions: tuple[Lesion, ...]
    specks: int
    made_from: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"has_tumors": bool(self.lesions) or self.specks > 0}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "StoredCase":
        record = {key: value for key, value in record.items() if key != "has_tumors"}
        lesions = tuple(
            Lesion(**(item | {"box": _box(item["box"]), "centre": tuple(item["centre"])})) for item in record["lesions"]
        )
        tuples = {key: tuple(record[key]) for key in ("shape", "spacing_mm")}
        affine = tuple(tuple(row) for row in record["affine"])
        organs = {name: _box(box) for name, box in record["organs"].items()}
        return cls(**(record | tuples | {"affine": affine, "lesions": lesions, "organs": organs}))


@dataclass(frozen=True)
class StoredIndex:
    """dataset.json.

    Attributes:
        dataset: name of the raw dataset.
        volumes: window, spacing and axes of every case.
        margin_mm: kept around the organs.
        organs: organ and tumor label values: {"name", "organ_labels", "tumor_label"}.
        cases: names.
        rejected: reasons by name.
        settings_sha256: of all that decides what a case becomes, apart from its raw files.
        version: of this format.
    """

    dataset: str
    volumes: Volumes
    margin_mm: float
    organs: tuple[dict[str, Any], ...]
    cases: tuple[str, ...]
    rejected: dict[str, str] = field(default_factory=dict)
    settings_sha256: str = ""
    version: int = VERSION


class StoredDataset:
    """A folder of stored cases, for reading.

    Args:
        folder: with dataset.json.

    Raises:
        InputError: if it is missing, damaged, of another version, or names cases that are not there.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        path = self.folder / INDEX_FILE
        if not path.is_file():
            raise InputError(f"{path}: not found; run `difftumor preprocess-generative -d DATASET_ID` first")
        try:
            record = load_json(path)
            if record["version"] != VERSION:
                raise InputError(f"{path}: version {record['version']}; this program reads version {VERSION}")
            volumes = record["volumes"]
            volumes = Volumes(tuple(volumes["window_hu"]), tuple(volumes["spacing_mm"]), volumes["axes"])
            lists = {key: tuple(record[key]) for key in ("organs", "cases")}
            self.index = StoredIndex(**(record | lists | {"volumes": volumes}))
            self.cases = {name: self._case(name) for name in self.index.cases}
        except InputError:
            raise
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            raise InputError(
                f"{path}: damaged or incomplete ({error!r}); run `difftumor preprocess-generative` again"
            ) from error

    def lesions(self, organ: str) -> list[tuple[str, Lesion]]:
        """Case name and lesion, of every lesion of an organ."""
        return [(name, lesion) for name, case in self.cases.items() for lesion in case.lesions if lesion.organ == organ]

    def volume(self, case: str, corner: Sequence[int], size: Sequence[int]) -> np.ndarray:
        """Crop of the CT, float32 of shape `size` in [-1, 1]; beyond the stored volume its last voxels are repeated."""
        low, high = self.index.volumes.window_hu
        hu = self._crop(case, "ct", corner, size=size, repeat=True)
        return (hu.astype(np.float32) - low) * (2 / (high - low)) - 1

    def lesion_mask(self, case: str, lesion: int, corner: Sequence[int], *, size: Sequence[int]) -> np.ndarray:
        """Crop of one lesion, boolean of shape `size`; False beyond the stored volume."""
        return self._crop(case, "lesions", corner, size=size, repeat=False) == lesion

    def labels(self, case: str, corner: Sequence[int], size: Sequence[int]) -> np.ndarray:
        """Crop of the dataset's label values; 0 beyond the stored volume."""
        return self._crop(case, "labels", corner, size=size, repeat=False)

    def _case(self, name: str) -> StoredCase:
        record = read_case(self.folder, name)
        if record is None:
            raise FileNotFoundError(f"the files of case {name}")
        return record

    def _crop(self, case: str, array: str, corner: Sequence[int], *, size: Sequence[int], repeat: bool) -> np.ndarray:
        import blosc2

        blosc2.set_nthreads(1)
        stored = blosc2.open(str(array_path(self.folder, case, array)), mode="r")
        wanted = [np.arange(start, start + n) for start, n in zip(corner, size, strict=True)]
        there = [index.clip(0, end - 1) for index, end in zip(wanted, stored.shape, strict=True)]
        crop = stored[tuple(slice(int(index[0]), int(index[-1]) + 1) for index in there)]
        if all(np.array_equal(*pair) for pair in zip(wanted, there, strict=True)):
            return crop
        crop = crop[np.ix_(*(index - index[0] for index in there))]
        if not repeat:
            z, x, y = (a != b for a, b in zip(wanted, there, strict=True))
            crop[z[:, None, None] | x[:, None] | y] = 0
        return crop


def array_path(folder: Path, case: str, array: str) -> Path:
    """File of one of the ARRAYS of a case."""
    return Path(folder) / CASES_FOLDER / f"{case}_{array}.b2nd"


def read_case(folder: Path, name: str) -> StoredCase | None:
    """The record of a case, or None unless all its files are there."""
    path = Path(folder) / CASES_FOLDER / f"{name}.json"
    if not path.is_file() or not all(array_path(folder, name, array).is_file() for array in ARRAYS):
        return None
    return StoredCase.from_dict(load_json(path))


def write_case(folder: Path, case: StoredCase, arrays: dict[str, np.ndarray]) -> None:
    """Writes the arrays (by the names in ARRAYS), then the record; an older record is removed first."""
    page = Path(folder) / CASES_FOLDER / f"{case.name}.json"
    page.unlink(missing_ok=True)
    for name in ARRAYS:
        _write_array(array_path(folder, case.name, name), arrays[name])
    write_json(page, case.to_dict())


def write_index(folder: Path, index: StoredIndex) -> None:
    """Writes dataset.json."""
    write_json(Path(folder) / INDEX_FILE, asdict(index))


def _write_array(path: Path, array: np.ndarray) -> None:
    import blosc2

    blosc2.set_nthreads(1)
    chunks = tuple(min(chunk, n) for chunk, n in zip(_CHUNKS, array.shape, strict=True))
    blocks = tuple(min(block, n) for block, n in zip(_BLOCKS, chunks, strict=True))
    with atomic_path(path) as temporary:
        blosc2.asarray(
            np.ascontiguousarray(array),
            urlpath=str(temporary),
            mode="w",
            chunks=chunks,
            blocks=blocks,
            cparams={"codec": blosc2.Codec.ZSTD, "clevel": 5, "filters": [blosc2.Filter.BITSHUFFLE]},
        )


def _box(pairs: Sequence[Sequence[int]]) -> Box:
    return tuple((int(start), int(stop)) for start, stop in pairs)
