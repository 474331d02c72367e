"""Put synthetic tumors into a CT scan, or into every scan of a folder; or fill a bank of lesions to train on.

The output folder gets ct.nii.gz, tumor_mask.nii.gz, labels.nii.gz, preview.png, report.html and manifest.json.
preview.png shows each tumor in three planes, before and after, with the number, size and contrast that are printed; of
more than four tumors there are preview_2.png and so on. report.html has slices to scroll through. With a folder of
scans, each gets a folder of its own; scans that are finished are skipped, so an interrupted command resumes.

With --bank -d ID --per-case N it renders N lesions for every base of a prepared dataset, as files that "source": "bank"
in difftumor.json reads. Organs, preset, sizes and contrast are those of difftumor.json. Lesions that are there are
kept; any number of processes may fill one bank.
"""

import argparse
from pathlib import Path

from nnunet_difftumor.cli import options

# Of one of the two ways to use the verb alone, as argparse names them.
_OF_SCANS = (
    "ct",
    "organ_mask",
    "organ",
    "organ_label",
    "tumor_label",
    "avoid_label",
    "wall_mm",
    "preset",
    "size",
    "count",
    "contrast_hu",
    "spacing_mm",
    "anonymous",
    "sweep",
    "from_spec",
)
# What is drawn, by the names of the library.
_DRAWN = (
    "organ",
    "organ_label",
    "tumor_label",
    "avoid_label",
    "wall_mm",
    "preset",
    "size",
    "count",
    "contrast_hu",
    "minimum_contrast_to_noise",
    "clear_of_vessels",
    "seed",
    "renderer",
    "weights_organ",
    "fast",
    "sampler_steps",
)
_OF_BANKS = ("dataset_id", "per_case", "configuration", "dry_run")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # No option has a default: that one was given where it means nothing could not be told otherwise.
    parser.add_argument(
        "ct",
        type=Path,
        nargs="?",
        metavar="CT",
        help="scan in HU: .nii.gz, .nii, .mha, .nrrd, or a folder with a DICOM series; or a folder of scans, or of "
        "folders with ct.nii.gz or a DICOM series",
    )
    options.add_organ_mask(
        parser,
        ", needed with a scan; for a folder of scans the folder of masks with the same names (or without nnU-Net's "
        "ending _0000), for a folder of folders the file name of the masks, for example labels.nii.gz",
    )
    options.add_out(
        parser, "for the results, needed with a scan (default with --bank: difftumor_bank in the preprocessed dataset)"
    )
    parser.add_argument(
        "--organ",
        metavar="NAME",
        help="name of the organ; in the preset realistic it decides shapes, contrast and growth: a name with kidney or "
        "pancreas in it has those of that organ, every other one those of the liver (default: organ)",
    )
    options.add_organ_label(parser, "the organ in the mask", default=None)
    parser.add_argument(
        "--tumor-label", type=int, metavar="N", help="value of the tumors in labels.nii.gz (default: greatest + 1)"
    )
    parser.add_argument(
        "--avoid-label", type=int, nargs="+", metavar="N", help="value(s) of what tumors must not touch, in the mask"
    )
    parser.add_argument(
        "--wall-mm",
        type=float,
        metavar="MM",
        help="thickness of the wall of a hollow organ, in which tumors grow; 0: a solid organ (default: solid; for "
        "names such as colon, stomach or bladder the wall is measured)",
    )
    _add_arguments_of_tumors(parser)
    options.add_spacing(parser, " of scans whose header was never set; without it they are refused")
    options.add_anonymous(
        parser,
        "leave names of files, and text in the scan's header, out of results and messages; in a folder of scans name "
        "them after their content",
        has_default=False,
    )
    options.add_sweep(parser, "through the slices of the tumors, before and after side by side", has_default=False)
    options.add_seed(parser, "of everything random (default: 0; with --bank the one in difftumor.json)")
    _add_arguments_of_models(parser)
    parser.add_argument(
        "--from-spec",
        type=Path,
        metavar="MANIFEST",
        help="the tumors of a manifest again, nothing is drawn",
    )
    _add_arguments_of_banks(parser)


def _add_arguments_of_tumors(parser: argparse.ArgumentParser) -> None:
    """What is drawn."""
    from nnunet_difftumor.synthesis.look.preset import SIZES

    options.add_tumor_preset(parser)
    parser.add_argument(
        "--size", choices=SIZES, help="of the tumors; every: all four in one scan (default: mix, one that is drawn)"
    )
    parser.add_argument("--count", type=int, metavar="N", help="number of tumors (default: as the preset draws it)")
    parser.add_argument(
        "--contrast-hu",
        type=float,
        nargs="+",
        metavar="HU",
        help="contrast to the tissue around, or its least and greatest value, for example -40 -20",
    )
    parser.add_argument(
        "--minimum-contrast-to-noise",
        type=float,
        metavar="RATIO",
        help="tumors with less contrast, in units of the noise around, are refused and drawn again (default: none is "
        "refused; those below 0.5, which nobody could see, are counted)",
    )
    parser.add_argument(
        "--clear-of-vessels",
        action="store_const",
        const=True,
        help="tumors of every size keep clear of vessels, as tiny and small ones always do; few scans have room for "
        "medium and large ones then",
    )


def _add_arguments_of_banks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bank", action="store_true", help="render lesions of a prepared dataset for training, instead of a scan's"
    )
    options.add_dataset_id(parser, "of a dataset that was prepared; needed with --bank", required=False)
    parser.add_argument("--per-case", type=int, metavar="N", help="lesions of each base; needed with --bank")
    options.add_configuration(parser, "with --bank: whose cases are the bases (default: 3d_fullres)")
    options.add_dry_run(parser, "with --bank: ", has_default=False)


def _add_arguments_of_models(parser: argparse.ArgumentParser) -> None:
    """Who draws, and how."""
    from nnunet_difftumor.synthesis.renderers import RENDERERS

    parser.add_argument(
        "--renderer",
        choices=RENDERERS,
        help="diffusion: shape and place by the preset, intensities by a diffusion model (default: handcrafted)",
    )
    options.add_weights(parser, "of the diffusion models, from download-weights")
    parser.add_argument(
        "--weights-organ",
        nargs="+",
        metavar="NAME",
        help="whose diffusion models draw, whatever the organ; with --bank also ORGAN=NAME for one of several "
        "(default: the organ's own; with --bank as weights_organs in difftumor.json says)",
    )
    options.add_device(parser, "of the diffusion models; ", said="cpu; with --from-spec the manifest's")
    speed = parser.add_mutually_exclusive_group()
    speed.add_argument(
        "--fast",
        action="store_const",
        const=True,
        help="diffusion models draw in bfloat16, with noise made on the device (default with --bank on cuda)",
    )
    speed.add_argument(
        "--exact",
        dest="fast",
        action="store_const",
        const=False,
        help="they draw in float32, with the same noise on every device (default otherwise)",
    )
    parser.add_argument(
        "--sampler-steps",
        type=int,
        metavar="N",
        help="steps of the diffusion models of late tumors (medium and large), fewer being quicker (default: as the "
        "weights say)",
    )


def run(args: argparse.Namespace) -> int:
    from nnunet_difftumor.errors import InputError

    _check_use(args)
    args.device = options.chosen_device(args.device)
    if args.weights_organ is not None:
        args.weights_organ = _weights_organ(args)
    of_models = [
        name
        for name in ("weights", "weights_organ", "device", "fast", "sampler_steps")
        if getattr(args, name) is not None
    ]
    if not args.from_spec and args.renderer != "diffusion" and of_models:
        raise InputError(f"{_named(of_models)}: for --renderer diffusion only; add it, or leave out what is named")
    if args.from_spec and {"fast", "sampler_steps"} & set(of_models):
        raise InputError("--fast, --exact and --sampler-steps: the manifest says how its tumors are drawn; leave them")
    if args.bank:
        return _fill_bank(args)
    if args.from_spec:
        return _synthesize_again(args)
    from nnunet_difftumor.synthesis.scans.folder import is_one_scan

    return _synthesize(args) if is_one_scan(args.ct, args.organ_mask) else _synthesize_folder(args)


def _weights_organ(args: argparse.Namespace) -> str | dict[str, str]:
    from nnunet_difftumor.errors import InputError
    from nnunet_difftumor.synthesis.renderers import parse_weights_organ

    found = parse_weights_organ(args.weights_organ)
    if not args.bank and not isinstance(found, str):
        raise InputError("--weights-organ ORGAN=NAME: for banks; a scan has one organ, give the NAME alone")
    return found


def _check_use(args: argparse.Namespace) -> None:
    """Refuses options of the other way to use the verb, by name, and says what is missing for this one."""
    from nnunet_difftumor.errors import InputError

    given = [name for name in (_OF_SCANS if args.bank else _OF_BANKS) if getattr(args, name) is not None]
    if given and args.bank:
        raise InputError(
            f"{_named(given)}: not with --bank: organs, preset, sizes and contrast are those of the dataset's "
            "difftumor.json, and -d and --per-case say the rest; leave out what is named"
        )
    if given:
        raise InputError(f"{_named(given)}: for a lesion bank only; add --bank, or leave out what is named")
    needed = ("dataset_id", "per_case") if args.bank else ("ct", "organ_mask", "output")
    missing = [name for name in needed if getattr(args, name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise InputError(
            f"{_named(missing)} {verb} missing; tumors in a scan need CT --organ-mask MASK -o FOLDER, a lesion bank "
            "--bank -d DATASET_ID --per-case N"
        )


def _named(names: list[str]) -> str:
    short = {
        "ct": "the CT scan",
        "spacing_mm": "--spacing",
        "output": "-o",
        "dataset_id": "-d",
        "fast": "--fast or --exact",
    }
    return ", ".join(short.get(name, f"--{name.replace('_', '-')}") for name in names)


def _fill_bank(args: argparse.Namespace) -> int:
    import json

    from nnunet_difftumor.preparation.lesion_bank import make_bank

    names = (
        *("per_case", "output", "configuration", "renderer", "weights", "weights_organ", "device", "fast"),
        *("sampler_steps", "minimum_contrast_to_noise", "seed", "dry_run"),
    )
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    bank = make_bank(args.dataset_id, report=args.say, **given)
    if not args.dry_run:
        print(
            f'To train on it, in difftumor.json:\n  "source": "bank",\n  "bank_folder": {json.dumps(str(bank.folder))},'
        )
    return 0


def _synthesize_again(args: argparse.Namespace) -> int:
    from nnunet_difftumor.synthesis.scans.folder import summary
    from nnunet_difftumor.synthesis.scans.manifest import read_manifest
    from nnunet_difftumor.synthesis.scans.synthesize import synthesize

    before = read_manifest(args.from_spec).get("outputs")
    manifest = synthesize(
        args.ct,
        args.organ_mask,
        args.output,
        from_spec=args.from_spec,
        weights=args.weights,
        device=args.device,
        anonymous=bool(args.anonymous),
        sweep=bool(args.sweep),
    )
    print(summary(args.output, manifest))
    same = manifest["outputs"] == before
    print("the same voxels" if same else "other voxels: edited, or made on another device or by other versions")
    return 0


def _synthesize(args: argparse.Namespace) -> int:
    from nnunet_difftumor.files import only_writer
    from nnunet_difftumor.synthesis.scans.folder import is_finished, summary
    from nnunet_difftumor.synthesis.scans.settings import SynthesisSettings
    from nnunet_difftumor.synthesis.scans.synthesize import synthesize

    drawn = _drawn(args)
    settings = SynthesisSettings.of(drawn)
    common = {
        "weights": args.weights,
        "spacing_mm": args.spacing_mm,
        "anonymous": bool(args.anonymous),
        "sweep": bool(args.sweep),
    }
    with only_writer(args.output):
        finished = is_finished(args.ct, args.organ_mask, args.output, settings=settings, **common)
    if finished:
        print(f"{args.output}: finished before")
        return 0
    manifest = synthesize(args.ct, args.organ_mask, args.output, device=args.device, **common, **drawn)
    for note in manifest["notes"]:
        args.say(f"NOTE: {note}")
    print(summary(args.output, manifest))
    return 0


def _synthesize_folder(args: argparse.Namespace) -> int:
    from nnunet_difftumor.synthesis.scans.folder import synthesize_folder

    done = synthesize_folder(
        args.ct,
        args.organ_mask,
        args.output,
        weights=args.weights,
        device=args.device or "cpu",
        spacing_mm=args.spacing_mm,
        anonymous=bool(args.anonymous),
        sweep=bool(args.sweep),
        report=args.say,
        **_drawn(args),
    )
    if done.failed:
        scans = len(done.failed) + len(done.manifests) + len(done.finished_before)
        print(f"{len(done.failed)} of {scans} scans failed, see above")
    return 1 if done.failed else 0


def _drawn(args: argparse.Namespace) -> dict:
    """Those of `SynthesisOptions` that were given."""
    return {name: value for name in _DRAWN if (value := getattr(args, name)) is not None}
