"""Entry point of `difftumor`: finds the verb, runs it, and turns an InputError into one clear line."""

import argparse
import importlib
import re
import sys
from collections.abc import Sequence

from nnunet_difftumor import __version__
from nnunet_difftumor.errors import InputError

VERBS = {
    "convert": "turn CT scans and label maps into an nnU-Net raw dataset",
    "prepare": "plan, preprocess and set up an nnU-Net dataset for training with synthetic tumors",
    "check": "find what is wrong with a dataset although nothing fails, and name the case and what to do",
    "preview": "pictures of what the trainer will see of a prepared dataset, before any training",
    "synthesize": "put synthetic tumors into a CT scan, or a folder of them",
    "replay": "make a training sample again from a run's log",
    "monitor": "show what a training's synthesis is doing, epoch by epoch, and its synthesis server",
    "preprocess-generative": "write a raw dataset as training volumes of the generative models",
    "train-autoencoder": "train the autoencoder of the generative models",
    "train-diffusion": "train a diffusion model of the tumors of one organ",
    "import-weights": "turn published DiffTumor weights into safetensors, without executing anything from them",
    "reconstruct": "whether an autoencoder fits a CT scan: PSNR, SSIM, MAE in HU, a picture, what is likely wrong",
    "evaluate": "compare predicted with true tumors: DSC, NSD, detection by size, specificity",
    "export": "make a trained model that predicts under plain nnU-Net",
    "demo": "the whole way on a phantom or on your CT scans, in minutes, on a CPU",
    "doctor": "check installation and machine, and repair what can be repaired",
    "env": "print the shell line that lets nnU-Net find the trainers where .pth files are not read",
}

# Run again, these keep what is done.
RESUMABLE = (
    "convert",
    "prepare",
    "synthesize",
    "preprocess-generative",
    "train-autoencoder",
    "train-diffusion",
    "demo",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `difftumor VERB ...`; returns the exit status: 0 good, 1 the work failed, 2 the input was wrong."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="difftumor",
        description="Synthetic tumors for nnU-Net. Every verb has its own --help.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="verbs:\n" + "\n".join(f"  {verb:<23}{line}" for verb, line in VERBS.items()),
    )
    parser.add_argument("--version", action="version", version=f"difftumor {__version__}")
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help="one of the verbs below")
    verb = parser.parse_args(arguments[:1]).verb

    # Only the chosen verb is imported: `difftumor --help` stays quick, and one broken verb does not break the others.
    module = importlib.import_module(f"nnunet_difftumor.cli.{module_name(verb)}")
    verb_parser = argparse.ArgumentParser(
        prog=f"difftumor {verb}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    module.add_arguments(verb_parser)
    parsed = verb_parser.parse_args(arguments[1:])
    # Prints lines of the library as errors are printed.
    parsed.say = lambda line: print(with_options(line, verb_parser), flush=True)
    try:
        return module.run(parsed) or 0
    except InputError as error:
        print(f"difftumor {verb}: {with_options(str(error), verb_parser)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        more = "; the same command resumes where it stopped" if verb in RESUMABLE else ""
        print(f"\ndifftumor {verb}: interrupted{more}", file=sys.stderr)
        return 130


def with_options(message: str, parser: argparse.ArgumentParser) -> str:
    """An error of the library in the words of the command line: `organ_label` becomes --organ-label."""
    options: dict[str, str] = {}
    parsers = [parser]
    while parsers:
        for action in parsers.pop()._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
            elif action.option_strings:
                options.setdefault(action.dest, action.option_strings[0])
    return re.sub(r"`(\w+)`", lambda name: options.get(name[1], name[0]), message)


def module_name(verb: str) -> str:
    """Name of the verb's module: import-weights is import_weights.py."""
    return verb.replace("-", "_")


if __name__ == "__main__":
    sys.exit(main())
