"""Few steps for late tumors: what does DDIM lose when it takes fewer than 50 of the schedule's 200 steps?

Two late models of the liver are trained by `difftumor train-diffusion`, on the metastases of at least 20 mm of
liver_tumors, with the autoencoder that `generative_demo.py --pair seen` has trained: one with the published schedule,
T = 200, and one with that of early tumors, T = 4, of which DDPM takes every step. What is done is kept; an interrupted
call resumes.

Medium tumors are then drawn into liver_healthy, each into the scan as it was, with every number of steps: same place,
shape and start noise. Measured is what comes out of `DiffusionRenderer.render`:

difference: RMS and mean of the difference in HU to 50 steps, inside the tumor, 2 mm from its border. Beside it the same
    for 50 steps from another start noise, which are as good as the first: no difference below that one is a loss.
mean, sd: of the HU inside. Beside them those of the real metastases of at least 20 mm, in a scan of their own.
contrast, structure, noise and upper frequencies: as in generative_comparison.py.
first estimate: see `first_estimate`.
seconds: of CPU time on one thread for the networks alone, on the patch of a tumor of middle size; and for networks of
    the published size (random weights, which decide no time) on the published patch.

Medians over the tumors. Reads the folder that DIFFTUMOR_TEST_DATA names. The picture stays outside of the repository:
the scans' licences do not allow more.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import edt
import numpy as np
import torch
from generative_comparison import BASE, EARLY_MM, MARGIN_MM, Tumor, real_tumors, trained_as
from generative_demo import copy_scan, train_diffusion
from matplotlib.figure import Figure
from result_rows import FOLDER, provenance

from nnunet_difftumor.ct import Scan, read_ct, read_labels
from nnunet_difftumor.demonstration.commands import Commands, nnunet_variables
from nnunet_difftumor.files import write_json
from nnunet_difftumor.generative.diffusion.fast import FastSampler
from nnunet_difftumor.generative.diffusion.latent_diffusion import LatentDiffusion
from nnunet_difftumor.generative.diffusion.samplers import ddim_steps_taken
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder
from nnunet_difftumor.generative.networks.unet import UNet
from nnunet_difftumor.generative.weights import Description, LoadedAutoencoder, load_autoencoder, load_diffusion
from nnunet_difftumor.generative.weights_folder import AUTOENCODER_FILE, diffusion_file
from nnunet_difftumor.synthesis.networks.diffusion import DiffusionRenderer, as_diffusion
from nnunet_difftumor.synthesis.networks.view import NetworkView
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.placement.sampler import Placement, TumorSampler
from nnunet_difftumor.synthesis.scene import patch_of
from nnunet_difftumor.synthesis.spec import SeedStream, TumorSpec
from nnunet_difftumor.synthesis.volume import ArrayVolume, box_within, grown_box

RESULT = "sampler_steps.json"
DATASET = 31  # of generative_demo.py, pair seen
STEPS = 600
# Cubes that show liver around metastases of 20 to 30 mm. Those of 32 mm, as for early tumors, would show hardly any.
LATE = {"patch_size": [48, 48, 48], "batch_size": 4}
# The models by their folder, with what differs in their settings.
MODELS: dict[str, dict[str, Any]] = {"late_200": LATE, "late_4": LATE | {"diffusion_steps": 4}}
PUBLISHED_PATCH = (96, 96, 96)
FIRST_PATCH = (64, 64, 64)
INSIDE_MM = 2.0
WINDOW_HU = (-20, 220)
SHOWN = 6
# Where another row tells it, or there is none.
NO_TIME = {"cpu_s": None, "published_cpu_s": None}
# Tumors that find no room are replaced by others, at most so many times as many.
ATTEMPTS = 4


@dataclass(frozen=True)
class Variant:
    """One way to draw.

    Attributes:
        name: for people.
        model: one of MODELS.
        sampler: ddim or ddpm.
        steps: that the sampler takes.
        other_start: whether the start noise is another than that of all others.
    """

    name: str
    model: str
    sampler: str
    steps: int
    other_start: bool = False


REFERENCE = Variant("DDIM, 50 steps", "late_200", "ddim", 50)
VARIANTS = (
    Variant("DDIM, all 200 steps", "late_200", "ddim", 200),
    REFERENCE,
    Variant("DDIM, 50 steps, other noise", "late_200", "ddim", 50, other_start=True),
    *(Variant(f"DDIM, {steps} steps", "late_200", "ddim", steps) for steps in (25, 10, 5)),
    Variant("T = 4, DDPM, all 4 steps", "late_4", "ddpm", 4),
)


class OtherStart(TumorSpec):
    """The same tumor, with another start noise of the diffusion."""

    def generator(self, stream: SeedStream) -> np.random.Generator:
        if stream is SeedStream.LATENT:
            return np.random.default_rng((self.seed, int(stream), 1))
        return super().generator(stream)


def figures(tumor: Tumor, reference: Tumor | None) -> dict[str, float | None]:
    """In HU, but for the diameter and the ratios of noise; without a reference there are no differences."""
    inside = edt.edt(tumor.mask, anisotropy=tumor.spacing_mm) > INSIDE_MM
    hu = tumor.hu[inside].astype(float)
    found: dict[str, float | None] = {"rms_difference_hu": None, "mean_difference_hu": None}
    if reference is not None:
        difference = hu - reference.hu[inside]
        found["rms_difference_hu"] = float(np.sqrt(np.square(difference).mean()))
        found["mean_difference_hu"] = float(difference.mean())
    return found | {"mean_hu": float(hu.mean()), "sd_hu": float(hu.std())} | tumor.figures


class Liver:
    """The healthy scan, and tumors that have a place in it.

    Args:
        folder: with ct.nii.gz and labels.nii.gz, the liver as 1.
    """

    organ = Organ("liver", (1,), 2, ())

    def __init__(self, folder: Path) -> None:
        self.ct: Scan = read_ct(folder / "ct.nii.gz")
        self.labels = read_labels(folder / "labels.nii.gz", like=self.ct)
        self.volume = ArrayVolume(self.ct.hu, self.labels, self.ct.spacing_mm, self.ct.direction)
        self.statistics = OrganStatistics.measure(
            self.ct.hu, self.labels, organ=self.organ, spacing_mm=self.ct.spacing_mm
        )

    def specs(self, count: int, *, size: str) -> list[TumorSpec]:
        """Tumors for the diffusion renderer, the same every time.

        Raises:
            RuntimeError: if too few find room.
        """
        sampler, found = TumorSampler(self.organ, "realistic"), []
        for number in range(ATTEMPTS * count):
            rng = np.random.default_rng((0, number))
            placement = sampler.sample(self.volume, self.statistics, rng, size=size)
            if isinstance(placement, Placement):
                found.append(as_diffusion(placement.spec))
            if len(found) == count:
                return found
        raise RuntimeError(f"only {len(found)} of {count} {size} tumors found room in the liver")

    def drawn(self, renderer: DiffusionRenderer, spec: TumorSpec) -> Tumor:
        """The tumor in the scan, which stays as it is."""
        patch = patch_of(self.volume, spec, self.organ, box=renderer.region(self.volume, spec))
        (rendered,) = renderer.render([patch], [spec])
        # A copy of what is measured only: a scan for each tumor would take gigabytes.
        margin = np.ceil(MARGIN_MM / np.asarray(self.ct.spacing_mm)).astype(int)
        box = grown_box(rendered.box, margin, self.ct.hu.shape)
        hu, mask = self.ct.hu[box].copy(), np.zeros(self.ct.hu[box].shape, bool)
        inner = box_within(rendered.box, box)
        hu[inner], mask[inner] = rendered.hu, rendered.mask
        return Tumor(
            hu,
            mask,
            spacing_mm=self.ct.spacing_mm,
            statistics=self.statistics,
            liver=self.labels[box] == 1,
            before=self.ct.hu[box],
        )


Models = dict[str, tuple[LatentDiffusion, Description]]


def load(folder: Path, autoencoder: Path) -> Models:
    """The trained models by their names in MODELS; they share their autoencoder."""
    shared = LoadedAutoencoder(autoencoder, *load_autoencoder(autoencoder))
    return {
        name: load_diffusion(folder / name / diffusion_file("liver", "late"), autoencoder=shared) for name in MODELS
    }


def renderer_of(variant: Variant, models: Models) -> DiffusionRenderer:
    """Draws as the variant does: the weights' description says how."""
    model, described = models[variant.model]
    chosen = replace(described.diffusion, sampler=variant.sampler, sampler_steps=variant.steps)
    return DiffusionRenderer({"late": (model, replace(described, diffusion=chosen))}, organ="liver", threads=1)


def network_seconds(variant: Variant, model: LatentDiffusion, shape: Sequence[int]) -> float:
    """CPU seconds on one thread for a tumor: encode, all steps, quantize, decode.

    Args:
        variant: gives sampler and steps.
        model: what is in it and in the patch decides no time.
        shape: voxels of the networks' patch.
    """
    volume = torch.zeros(1, 1, *shape)
    tumor, latent = volume.bool(), model.latent_shape(volume.shape)
    once = FastSampler(model, sampler="ddim", steps=1)
    once(volume, tumor, torch.randn(once.draws, 1, *latent))  # kernels are chosen
    sampler = FastSampler(model, sampler=variant.sampler, steps=variant.steps if variant.sampler == "ddim" else None)
    noises = torch.randn(sampler.draws, 1, *latent)
    start = time.process_time()
    sampler(volume, tumor, noises)
    return time.process_time() - start


def first_estimate(variant: Variant, model: LatentDiffusion) -> float | None:
    """RMS of the clean latent that the first step computes, scaled as codes, which lie in [-1, 1]; None for DDPM.

    DDIM divides by the root of the signal at that step, and clips nothing: the nearer the start to the schedule's last
    step, the more it amplifies what the network predicts wrongly. On an even patch with a cube as tumor.
    """
    if variant.sampler != "ddim":
        return None
    step = ddim_steps_taken(model.schedule, steps=variant.steps)[-1]
    volume = torch.zeros(1, 1, *FIRST_PATCH)
    tumor = torch.zeros_like(volume, dtype=torch.bool)
    tumor[..., *(slice(edge // 4, -edge // 4) for edge in FIRST_PATCH)] = True
    noise = torch.randn(1, *model.latent_shape(volume.shape), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        steps = torch.tensor([step])
        clean = model.schedule.clean(noise, model.denoise(model.condition(volume, tumor))(noise, steps), steps=steps)
    return float(clean.square().mean().sqrt())


def middle_patch(liver: Liver, specs: Sequence[TumorSpec], models: Models) -> tuple[int, int, int]:
    """Voxels that the networks are shown of a tumor: the one in the middle of these, by size."""
    model, described = models[REFERENCE.model]
    view = NetworkView(
        described.volumes.axes,
        described.volumes.spacing_mm,
        described.diffusion.patch_size,
        model.patch_multiples(),
    )
    shapes = [view.grid(spec, liver.ct.spacing_mm, liver.ct.direction).shape for spec in specs]
    return sorted(shapes, key=np.prod)[len(shapes) // 2]


def published_size(*, schedule_steps: int) -> LatentDiffusion:
    """Networks of the published size with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        autoencoder, unet = Autoencoder(), UNet()
        autoencoder.codebook.embeddings.normal_()
    return LatentDiffusion(autoencoder, unet, steps=schedule_steps).eval()


def timed(variant: Variant, model: LatentDiffusion, patch: Sequence[int]) -> dict[str, float | None]:
    """CPU seconds of the trained networks, and of those of the published size; None where others tell them."""
    if variant.other_start:
        return NO_TIME
    published = published_size(schedule_steps=model.schedule.steps)
    return {
        "cpu_s": round(network_seconds(variant, model, patch), 3),
        "published_cpu_s": round(network_seconds(variant, published, PUBLISHED_PATCH), 2),
    }


def compared(liver: Liver, specs: Sequence[TumorSpec], models: Models) -> Iterator[tuple[Variant, list[Tumor]]]:
    """Each variant with all tumors."""
    for variant in VARIANTS:
        renderer = renderer_of(variant, models)
        kind = OtherStart if variant.other_start else TumorSpec
        yield variant, [liver.drawn(renderer, kind(**vars(spec))) for spec in specs]


def summary(tumors: Sequence[Tumor], references: Sequence[Tumor | None]) -> dict[str, Any]:
    """Medians of the figures, how many tumors each could be measured in, and the figures of each tumor."""
    each = [figures(tumor, reference) for tumor, reference in zip(tumors, references, strict=True)]
    medians, measured = {}, {}
    for name in each[0]:
        values = [found[name] for found in each if found[name] is not None]
        measured[name] = len(values)
        medians[name] = round(median(values), 3) if values else None
    return {"measured": measured, "median": medians, "each": each}


def draw(path: Path, tumors: dict[str, list[Tumor]]) -> None:
    """A row for each of the first tumors: the slice with most of it, as it was, and as every variant draws it."""
    shown = list(zip(*tumors.values(), strict=True))[:SHOWN]
    titles = ["before", *tumors]
    figure = Figure(figsize=(2.6 * len(titles), 2.7 * len(shown)), facecolor="black")
    axes = figure.subplots(len(shown), len(titles), squeeze=False)
    for row, of_one in zip(axes, shown, strict=True):
        first = of_one[0]
        z = int(first.mask.sum((1, 2)).argmax())
        pictures = [first.before[z], *(tumor.hu[z] for tumor in of_one)]
        for axis, picture, title in zip(row, pictures, titles, strict=True):
            axis.imshow(picture, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
            axis.set_title(title, color="w", fontsize=8)
            axis.axis("off")
        row[0].contour(first.mask[z], levels=[0.5], colors="red", linewidths=0.7)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=80, facecolor="black")


# Headings of the table, in HU but for ratios, the first estimate and seconds.
COLUMNS = {
    "rms_difference_hu": "RMS difference",
    "mean_difference_hu": "mean difference",
    "mean_hu": "mean",
    "sd_hu": "SD",
    "contrast_hu": "contrast",
    "structure_hu": "structure",
    "sd_ratio": "noise",
    "power_ratio": "upper frequencies",
    "first_estimate": "first estimate",
    "cpu_s": "networks, s",
    "published_cpu_s": "published size, s",
}


def table(variants: dict[str, Any]) -> str:
    """Of a result, in Markdown."""
    lines = [f"| steps | {' | '.join(COLUMNS.values())} |", "|---" * (1 + len(COLUMNS)) + "|"]
    for name, found in variants.items():
        values = found["median"] | found["networks"]
        cells = (_shown(values[key]) for key in COLUMNS)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def train(demo: Path, out: Path, *, steps: int, names: Sequence[str] = tuple(MODELS)) -> Path:
    """Trains the models that are not there yet; returns the autoencoder's file.

    Args:
        demo: the folder of the pair that generative_demo.py has made.
        out: gets a folder for each model.
        steps: of each training.
        names: which of MODELS.
    """
    (autoencoder,) = demo.glob(f"nnUNet_results/Dataset{DATASET:03d}_*/generative/{AUTOENCODER_FILE}")
    for name in names:
        commands = Commands(nnunet_variables(demo), out / "logs" / name)
        options = ("--autoencoder", autoencoder, "-o", out / name)
        train_diffusion(commands, DATASET, steps=steps, stage="late", options=options, changed=MODELS[name])
    return autoencoder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, required=True, help="the folder that generative_demo.py filled")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, result and picture")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each training (default: %(default)s)")
    parser.add_argument("--tumors", type=int, default=12, help="(default: %(default)s)")
    parser.add_argument("--train-only", choices=list(MODELS), help="trains this model and ends: two calls, two cores")
    parser.add_argument("--store", action="store_true", help="write the result to benchmarks/results too")
    args = parser.parse_args()
    out, demo = args.out.absolute(), args.demo.absolute() / "seen"
    names = [args.train_only] if args.train_only else list(MODELS)
    autoencoder = train(demo, out, steps=args.steps, names=names)
    if args.train_only:
        return 0
    models = load(out, autoencoder)
    data = Path(os.environ["DIFFTUMOR_TEST_DATA"])
    copy_scan(data, BASE, out / "scan")
    liver = Liver(out / "scan")
    specs = liver.specs(args.tumors, size="medium")
    torch.set_num_threads(1)
    patch = middle_patch(liver, specs, models)
    tumors = dict(compared(liver, specs, models))
    draw(out / "sampler_steps.png", {variant.name: found for variant, found in tumors.items()})
    real = real_tumors(data, diameters_mm=(EARLY_MM, math.inf))
    variants: dict[str, Any] = {
        "real": summary(real, [None] * len(real)) | {"networks": {"first_estimate": None} | NO_TIME}
    }
    for variant, found in tumors.items():
        model = models[variant.model][0]
        networks = {"first_estimate": first_estimate(variant, model)} | timed(variant, model, patch)
        variants[variant.name] = asdict(variant) | summary(found, tumors[REFERENCE]) | {"networks": networks}
        print(f"{variant.name}: {variants[variant.name]['median']} {networks}", flush=True)
    weights = {name: trained_as(demo, out / name)["weights"] for name in MODELS}
    result = {"made": provenance("cpu"), "weights": weights, "patch": patch, "variants": variants}
    for folder in (out, *([FOLDER] if args.store else [])):
        write_json(folder / RESULT, result)
    print(f"{table(variants)}\n{out / 'sampler_steps.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
