"""Puts faults into a prepared dataset: one function for each kind, which returns what seeds it."""

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from changeable import ChangeableDataset
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from scipy.ndimage import distance_transform_edt, zoom
from tiny_networks import write_weights

from nnunet_difftumor.files import write_json
from nnunet_difftumor.prepared.made_from import records
from nnunet_difftumor.prepared.pools import pool_list

POOL, OTHER = "Dataset514_Pool", "Dataset509_Test"


@dataclass(frozen=True)
class Place:
    """Where a fault is put.

    Attributes:
        dataset: prepared; it may be changed.
        base, real: a healthy case, and one with tumors that validates in some fold.
        other: a further case.
        strangers: three pairs of cases of different patients.
        bank: a bank that was made from the dataset.
        scratch: an empty folder.
    """

    dataset: ChangeableDataset
    base: str
    real: str
    other: str
    strangers: tuple[tuple[str, str], ...]
    bank: Path
    scratch: Path

    @property
    def number(self) -> str:
        return self.dataset.raw.name[7:10]

    def beside(self, name: str) -> ChangeableDataset:
        """A raw dataset beside this one, without cases yet."""
        raw = self.dataset.raw.with_name(name)
        for part in ("imagesTr", "labelsTr"):
            (raw / part).mkdir(parents=True)
        shutil.copy(self.dataset.raw / "dataset.json", raw)
        return ChangeableDataset(raw, self.dataset.folder.with_name(name))


def edit(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Changes the voxels of a file, (x, y, z)."""
    image = nib.load(path)
    nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj).copy()), image.affine, image.header), path)


def moved(values: np.ndarray, voxels: int, axis: int) -> np.ndarray:
    """What comes in at the border is 0."""
    result = np.roll(values, voxels, axis)
    index = [slice(None)] * values.ndim
    index[axis] = slice(0, voxels) if voxels >= 0 else slice(voxels, None)
    result[tuple(index)] = 0
    return result


def offset(hu: int) -> Callable[[Place], None]:
    return lambda place: edit(place.dataset.image(place.base), lambda values: (values + hu).astype(values.dtype))


def header(*patches: tuple[int, bytes]) -> Callable[[Place], None]:
    """Writes bytes into the NIfTI header of the base's image."""

    def seed(place: Place) -> None:
        path = place.dataset.image(place.base)
        content = bytearray(gzip.decompress(path.read_bytes()))
        for at, values in patches:
            content[at : at + len(values)] = values
        path.write_bytes(gzip.compress(bytes(content), 1))

    return seed


def qform(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Place], None]:
    def seed(place: Place) -> None:
        for path in (place.dataset.image(place.base), place.dataset.label(place.base)):
            image = nib.load(path)
            image.set_qform(change(image.affine.copy()), code=1)
            image.set_sform(image.affine, code=1)
            nib.save(image, path)

    return seed


def away(*mm: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(affine: np.ndarray) -> np.ndarray:
        affine[:3, 3] += mm
        return affine

    return change


def lost_spacing(affine: np.ndarray | None) -> Callable[[Place], None]:
    def seed(place: Place) -> None:
        for path in (place.dataset.image(place.base), place.dataset.label(place.base)):
            nib.save(nib.Nifti1Image(np.asarray(nib.load(path).dataobj), affine), path)

    return seed


def bytes_of_image(change: Callable[[bytearray], bytearray]) -> Callable[[Place], None]:
    def seed(place: Place) -> None:
        path = place.dataset.image(place.base)
        path.write_bytes(change(bytearray(path.read_bytes())))

    return seed


def one_bit(at: float | int) -> Callable[[bytearray], bytearray]:
    """Flips a bit of the byte at an index, or at a part of the length."""

    def change(content: bytearray) -> bytearray:
        content[int(at * len(content)) if isinstance(at, float) else at] ^= 1
        return content

    return change


def misplaced(mm: float, axis: int, *, mirrored: bool = False) -> Callable[[Place], None]:
    """Labels that lie elsewhere: moved along an axis (x, y, z), and before it mirrored left to right."""

    def seed(place: Place) -> None:
        path = place.dataset.label(place.base)
        step_mm = nib.load(path).header.get_zooms()[axis]
        voxels = int(np.sign(mm) * np.ceil(abs(mm) / step_mm - 1e-3))
        edit(path, lambda labels: moved(labels[::-1] if mirrored else labels, voxels, axis))

    return seed


def of_another(number: int) -> Callable[[Place], None]:
    """Labels of another patient, as they lie in arrays that begin at the same place."""

    def seed(place: Place) -> None:
        case, stranger = place.strangers[number]
        other = np.asarray(nib.load(place.dataset.label(stranger)).dataobj)

        def replaced(labels: np.ndarray) -> np.ndarray:
            shared = tuple(slice(0, min(a, b)) for a, b in zip(labels.shape, other.shape, strict=True))
            labels[:] = 0
            labels[shared] = other[shared]
            return labels

        edit(place.dataset.label(case), replaced)

    return seed


def labels_of(case: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Place], None]:
    return lambda place: edit(place.dataset.label(getattr(place, case)), change)


def one_voxel_more(labels: np.ndarray) -> np.ndarray:
    labels[tuple(np.argwhere(labels == 1)[0] - [1, 0, 0])] = 1
    return labels


def without_tumor(labels: np.ndarray) -> np.ndarray:
    return np.where(labels == 2, 1, labels).astype(labels.dtype)


def lower_half(labels: np.ndarray) -> np.ndarray:
    labels[:, :, np.argwhere(labels == 1)[:, 2].max() // 2 :] = 0
    return labels


def speck(voxels: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(labels: np.ndarray) -> np.ndarray:
        keep = np.argwhere(labels == 1)[:voxels]
        labels[:] = 0
        labels[tuple(keep.T)] = 1
        return labels

    return change


def sieve(labels: np.ndarray) -> np.ndarray:
    labels[(np.indices(labels.shape) // 3 % 2 == 0).any(axis=0)] = 0
    return labels


def far_tumor(distance_mm: float) -> Callable[[Place], None]:
    """A speck of tumor so far from the organ."""

    def seed(place: Place) -> None:
        path = place.dataset.label(place.real)
        spacing_mm = nib.load(path).header.get_zooms()

        def change(labels: np.ndarray) -> np.ndarray:
            few = slice(None, None, 2)
            organ = np.isin(labels[few, few, few], (1, 2))
            away_mm = distance_transform_edt(~organ, sampling=np.multiply(spacing_mm, 2))
            place = np.unravel_index(np.abs(away_mm - distance_mm).argmin(), organ.shape)
            labels[tuple(np.multiply(place, 2))] = 2
            return labels

        edit(path, change)

    return seed


def withdrawn(count: int) -> Callable[[Place], None]:
    def seed(place: Place) -> None:
        for case in (place.base, place.real, place.other)[:count]:
            place.dataset.withdraw(case)

    return seed


def added(count: int) -> Callable[[Place], None]:
    def seed(place: Place) -> None:
        for number in range(1, count + 1):
            place.dataset.add(f"new{number}", like=place.base)

    return seed


def pool(labels_of_case: Callable[[np.ndarray], np.ndarray]) -> Callable[[Place], None]:
    """A healthy pool of one case, whose label map is changed."""

    def seed(place: Place) -> None:
        there = place.beside(POOL)
        shutil.copy(place.dataset.image(place.base), there.image("healthy"))
        shutil.copy(place.dataset.label(place.base), there.label("healthy"))
        edit(there.label("healthy"), labels_of_case)
        there.count()
        write_json(pool_list(place.dataset.folder), [POOL])

    return seed


def lesion(voxels: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(labels: np.ndarray) -> np.ndarray:
        labels[tuple(np.argwhere(labels == 1)[:voxels].T)] = 2
        return labels

    return change


# Ways in which one scan is two files: images (x, y, z) and labels with their affine, of the same patient.
Variant = Callable[[nib.Nifti1Image], nib.Nifti1Image]


def as_it_is(image: nib.Nifti1Image) -> nib.Nifti1Image:
    return image


def turned(image: nib.Nifti1Image) -> nib.Nifti1Image:
    return image.as_reoriented([[0, -1], [1, 1], [2, -1]])


def noisier(image: nib.Nifti1Image) -> nib.Nifti1Image:
    values = np.asarray(image.dataobj)
    if values.dtype == np.uint8:  # a label map
        return image
    noise = np.random.default_rng(0).normal(0, 5, values.shape)
    return nib.Nifti1Image(np.rint(values + noise).astype(np.int16), image.affine, image.header)


def cropped(share: float) -> Variant:
    """That share of the volume: cut in the middle of the last axis, and at the beginning of the one before."""

    def variant(image: nib.Nifti1Image) -> nib.Nifti1Image:
        edge = np.sqrt(share)
        begin = [0, *(round(n * (1 - edge) / (1, 2)[axis]) for axis, n in enumerate(image.shape[1:]))]
        end = [image.shape[0], image.shape[1], begin[2] + int(np.ceil(image.shape[2] * edge))]
        return image.slicer[tuple(slice(a, b) for a, b in zip(begin, end, strict=True))]

    return variant


def coarser(factor: float) -> Variant:
    """Voxels that are so many times as large along every axis."""

    def variant(image: nib.Nifti1Image) -> nib.Nifti1Image:
        values = np.asarray(image.dataobj)
        order = 0 if values.dtype == np.uint8 else 1
        small = zoom(values, 1 / factor, order=order, mode="nearest", grid_mode=True)
        steps = np.divide(values.shape, small.shape)
        affine = image.affine @ np.diag([*steps, 1.0])
        affine[:3, 3] += image.affine[:3, :3] @ ((steps - 1) / 2)
        return nib.Nifti1Image(small, affine)

    return variant


def twin(variant: Variant, *, into: str | None = None) -> Callable[[Place], None]:
    """The scan of the real case under another name, as a base that trains; or in a pool, or in another dataset."""

    def seed(place: Place) -> None:
        there = place.dataset if into is None else place.beside(into)
        nib.save(variant(nib.load(place.dataset.image(place.real))), there.image("twin"))
        nib.save(variant(nib.load(place.dataset.label(place.real))), there.label("twin"))
        edit(there.label("twin"), without_tumor)
        there.count()
        if into == OTHER:
            return
        if into == POOL:
            write_json(pool_list(place.dataset.folder), [POOL])
        name = "twin" if into is None else f"{POOL}_twin"
        splits = place.dataset.splits()
        assert any(place.real in split["val"] for split in splits)
        for split in splits:
            split["synthesis_bases"].append(name)
        write_json(place.dataset.folder / "splits_final.json", splits)

    return seed


def arrays(change: Callable[[np.ndarray, np.ndarray], None]) -> Callable[[Place], None]:
    """Changes the base's preprocessed image and labels (z, y, x), and the record with them."""

    def seed(place: Place) -> None:
        folder, case = place.dataset.arrays, place.base
        data, seg, _, properties = nnUNetDatasetBlosc2(str(folder), [case]).load_case(case)
        image, labels = data[:], seg[:]
        del data, seg
        change(image[0], labels[0])
        path = records.cases_folder(place.dataset.folder) / f"{case}.json"
        record = records.read_case_record(path)
        for name in record.arrays:
            (folder / name).unlink()
        nnUNetDatasetBlosc2.save_case(image, labels, properties, str(folder / case))
        hashes = records.file_hashes(place.dataset.folder)
        written = {name: ((folder / name).stat().st_size, hashes.sha256(folder / name)) for name in record.arrays}
        records.write_case_record(path, replace(record, arrays=written))

    return seed


def constant(value: float, least_label: int) -> Callable[[np.ndarray, np.ndarray], None]:
    def change(image: np.ndarray, labels: np.ndarray) -> None:
        image[labels >= least_label] = value

    return change


def one_nan(image: np.ndarray, labels: np.ndarray) -> None:
    image[tuple(np.argwhere(labels == 1)[0])] = np.nan


def damaged_array(change: Callable[[bytearray], bytearray], ending: str = ".b2nd") -> Callable[[Place], None]:
    def seed(place: Place) -> None:
        path = place.dataset.arrays / f"{place.base}{ending}"
        path.write_bytes(change(bytearray(path.read_bytes())))

    return seed


def bank_before(change: Callable[[np.ndarray, np.ndarray, tuple[slice, ...]], None]) -> Callable[[Place], None]:
    """A bank; then image or labels of the base change. The change gets the box of the base's lesion."""

    def seed(place: Place) -> None:
        path = place.dataset.folder / "difftumor.json"
        write_json(path, {**json.loads(path.read_text()), "source": "bank", "bank_folder": str(place.bank)})
        with np.load(next((place.bank / place.base).glob("*.npz"))) as file:
            box = tuple(slice(a, a + n) for a, n in zip(file["start"], file["mask"].shape, strict=True))
        arrays(lambda image, labels: change(image, labels, box))(place)

    return seed


def one_voxel(image: np.ndarray, _: np.ndarray, box: tuple[slice, ...]) -> None:
    image[tuple(part.start for part in box)] += 0.5


def all_voxels(image: np.ndarray, _: np.ndarray, box: tuple[slice, ...]) -> None:
    image += 0.5


def one_label(_: np.ndarray, labels: np.ndarray, box: tuple[slice, ...]) -> None:
    labels[tuple(np.argwhere(labels[box] > 0)[0] + [part.start for part in box])] = 0


def window(low: float, high: float) -> Callable[[Place], None]:
    def seed(place: Place) -> None:
        path = place.dataset.folder / "nnUNetPlansDiffTumor.json"
        plans = json.loads(path.read_text())
        plans["foreground_intensity_properties_per_channel"]["0"] |= {"percentile_00_5": low, "percentile_99_5": high}
        write_json(path, plans)

    return seed


def weights(file: str, part: str, **values) -> Callable[[Place], None]:
    """Live tumors of the liver, with weights of which one description says something else."""

    def seed(place: Place) -> None:
        folder = write_weights(place.scratch / "weights", "liver_early", "liver_late")
        live(place.dataset, folder)
        content = json.loads((folder / f"{file}.json").read_text())
        content[part] |= values
        write_json(folder / f"{file}.json", content)

    return seed


def live(dataset: ChangeableDataset, folder: Path) -> None:
    """Makes tumors of the first organ come from a folder of weights."""
    path = dataset.folder / "difftumor.json"
    content = json.loads(path.read_text())
    content |= {"source": "live", "organs": content["organs"][:1], "live": {"weights_folder": str(folder)}}
    write_json(path, content)
    made = records.read_dataset_record(dataset.folder)
    records.write_dataset_record(dataset.folder, replace(made, organs=made.organs[:1]))
