"""Put synthetic tumors into a CT scan, or into every scan of a folder.

The output folder gets ct.nii.gz, tumor_mask.nii.gz, labels.nii.gz, preview.png and manifest.json. With a folder of
scans, each gets a folder of its own; scans that are finished are skipped, so an interrupted command goes on.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from nnunet_difftumor.generative.stages import ORGANS
    from nnunet_difftumor.synthesis.preset import SIZES
    from nnunet_difftumor.synthesis.presets import PRESETS
    from nnunet_difftumor.synthesis.renderers import DEVICES, RENDERERS

    parser.add_argument("ct", type=Path, help="CT scan (NIfTI, HU); or a folder of scans, or of folders with ct.nii.gz")
    parser.add_argument(
        "--organ-mask",
        type=Path,
        required=True,
        help="label map on the same grid; for a folder of scans the folder of masks with the same names, "
        "for a folder of folders the file name of the masks, for example labels.nii.gz",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--organ",
        default="organ",
        metavar="NAME",
        help="name of the organ; in the preset realistic it decides shapes, contrast and growth: a name with kidney or "
        "pancreas in it has those of that organ, every other one those of the liver (default: %(default)s)",
    )
    parser.add_argument(
        "--organ-label", type=int, nargs="+", default=[], help="label value(s) of the organ in the mask"
    )
    parser.add_argument("--tumor-label", type=int, help="value of the tumors in labels.nii.gz (default: greatest + 1)")
    parser.add_argument(
        "--avoid-label", type=int, nargs="+", default=[], help="label value(s) that tumors must not touch"
    )
    parser.add_argument(
        "--preset", choices=list(PRESETS), default="realistic", help="of the tumors (default: %(default)s)"
    )
    parser.add_argument("--size", choices=SIZES, default="mix", help="of the tumors (default: %(default)s)")
    parser.add_argument("--count", type=int, help="number of tumors (default: as the preset draws it)")
    parser.add_argument(
        "--contrast-hu",
        type=float,
        nargs="+",
        metavar="HU",
        help="contrast to the tissue around, or its least and greatest value, for example -40 -20",
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: %(default)s)")
    parser.add_argument(
        "--renderer",
        choices=RENDERERS,
        default="handcrafted",
        help="diffusion: shape and place by the preset, intensities by a diffusion model (default: %(default)s)",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FOLDER",
        help="of the diffusion models, from import-weights (default: difftumor_weights in nnUNet_results)",
    )
    parser.add_argument(
        "--weights-organ",
        choices=ORGANS,
        help="whose diffusion model draws in an organ that has none of its own (default: the one that --organ names)",
    )
    parser.add_argument(
        "--device", choices=DEVICES, help="of the diffusion models (default: cpu; with --from-spec the manifest's)"
    )
    parser.add_argument(
        "--from-spec",
        type=Path,
        metavar="MANIFEST",
        help="the tumors of a manifest again, nothing is drawn",
    )


def run(args: argparse.Namespace) -> int:
    from dataclasses import replace
    from zlib import crc32

    from nnunet_difftumor.errors import InputError
    from nnunet_difftumor.synthesis.manifest import read_manifest
    from nnunet_difftumor.synthesis.synthesize import (
        SynthesisSettings,
        find_cases,
        is_finished,
        renderer_of,
        replay,
        synthesize,
    )

    if args.from_spec:
        before = read_manifest(args.from_spec).get("outputs")
        manifest = replay(
            args.ct, args.organ_mask, args.output, manifest=args.from_spec, weights=args.weights, device=args.device
        )
        _report(args.output, manifest)
        same = manifest["outputs"] == before
        print("the same voxels" if same else "other voxels: edited, or made on another device or by other versions")
        return 0
    if args.renderer != "diffusion" and (args.weights or args.weights_organ or args.device):
        raise InputError("--weights, --weights-organ and --device are for --renderer diffusion; add it, or leave them")
    if args.count is not None and args.count < 1:
        raise InputError(f"--count is {args.count}, expected at least 1")
    if args.seed < 0:
        raise InputError(f"--seed is {args.seed}, expected at least 0")
    for option, labels in (("--organ-label", args.organ_label), ("--avoid-label", args.avoid_label)):
        if not all(0 < label <= 32767 for label in labels):
            raise InputError(f"{option} is {labels}, expected values from 1 to 32767 (0 is the background)")
    if args.contrast_hu and (len(args.contrast_hu) > 2 or args.contrast_hu[0] > args.contrast_hu[-1]):
        raise InputError(f"--contrast-hu is {args.contrast_hu}, expected one value, or the least and the greatest")
    settings = SynthesisSettings(
        organ=args.organ,
        organ_labels=tuple(args.organ_label),
        tumor_label=args.tumor_label,
        avoid_labels=tuple(args.avoid_label),
        preset=args.preset,
        size=args.size,
        count=args.count,
        contrast_hu=(args.contrast_hu[0], args.contrast_hu[-1]) if args.contrast_hu else None,
        seed=args.seed,
        renderer=args.renderer,
        weights_organ=args.weights_organ,
    )
    networks = {"weights": args.weights, "device": args.device or "cpu"}
    if not args.ct.is_dir():
        if is_finished(args.ct, args.organ_mask, args.output, settings=settings, weights=args.weights):
            print(f"{args.output}: finished before")
        else:
            _report(args.output, synthesize(args.ct, args.organ_mask, args.output, settings=settings, **networks))
        return 0
    renderer_of(settings, **networks)  # before the first scan, not once for each
    cases = list(find_cases(args.ct, args.organ_mask))
    failed = 0
    for number, (name, ct, mask) in enumerate(cases):
        # Every scan draws its own tumors, whatever other scans are in the folder.
        own = replace(settings, seed=settings.seed + crc32(name.encode()))
        print(f"[{number + 1}/{len(cases)}] ", end="", flush=True)
        try:
            if is_finished(ct, mask, args.output / name, settings=own, weights=args.weights):
                print(f"{args.output / name}: finished before")
                continue
            _report(args.output / name, synthesize(ct, mask, args.output / name, settings=own, **networks))
        except InputError as error:
            failed += 1
            print(f"{name}: {error}")
    if failed:
        print(f"{failed} of {len(cases)} scans failed, see above")
    return 1 if failed else 0


def _report(output: Path, manifest: dict) -> None:
    refused = f"; not placed: {len(manifest['not_placed'])}" if manifest["not_placed"] else ""
    print(f"{output}: {', '.join(map(_line, manifest['tumors']))}{refused}")


def _line(tumor: dict) -> str:
    contrast = tumor["measured_contrast_hu"]
    size = f"{tumor['spec']['size_class']} {tumor['equivalent_diameter_mm']:.1f} mm"
    return f"{size} {'without room' if contrast is None else f'{contrast:+.0f} HU'}"
