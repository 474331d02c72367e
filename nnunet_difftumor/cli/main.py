"""Entry point of `difftumor`: finds the verb, runs it, and turns an InputError into one clear line."""

import argparse
import errno
import importlib
import os
import re
import signal
import sys
from collections.abc import Sequence

from nnunet_difftumor import __version__
from nnunet_difftumor.cli.colour import ERROR, NOTE, painted, with_painted_beginning
from nnunet_difftumor.cli.output import OPTIONS, going_to
from nnunet_difftumor.cli.parser import Parser
from nnunet_difftumor.cli.signals import ending_on_signals, received
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
    "download-weights": "get the published DiffTumor weights, checked and ready for use",
    "import-weights": "turn published DiffTumor weights into safetensors, without executing anything from them",
    "reconstruct": "whether an autoencoder fits a CT scan: PSNR, SSIM, MAE in HU, a picture, what is likely wrong",
    "evaluate": "compare predicted with true tumors: DSC, NSD, detection by size, FROC, specificity",
    "compare": "compare methods on the same cases: paired tests, and what may be concluded",
    "crossval": "evaluate every fold of a model, mean and standard deviation over folds",
    "experiment": "answer whether it helps on your data: arms, seeds, trainings, figures with intervals",
    "report": "one page of the results of evaluations: figures, conclusions, slices of hits and errors",
    "postprocess": "take predicted tumors that lie outside their organ out of label maps",
    "export": "make a trained model that predicts under plain nnU-Net",
    "demo": "the whole way on a phantom or on your CT scans, in minutes, on a CPU",
    "doctor": "check installation and machine, and repair what can be repaired",
    "completion": "print a script with which the shell completes verbs and options",
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
    "download-weights",
    "postprocess",
    "experiment",
    "demo",
)

# What is wrong with the machine and not with the program, and what to do.
_OF_THE_MACHINE = {
    errno.ENOSPC: "; free disk space, or name another folder",
    errno.EDQUOT: "; free disk space, or name another folder",
    errno.EFBIG: "; name a folder on another file system",
    errno.EROFS: "; name a folder that can be written",
    errno.EACCES: "; name a file or folder that you may read and write, or change its rights",
    errno.EPERM: "; name a file or folder that you may read and write, or change its rights",
    errno.ENAMETOOLONG: "; give a shorter name",
    errno.EEXIST: "; it lies where a folder is needed",
    errno.ENOTDIR: "; a file lies where a folder is needed",
    errno.EISDIR: "; a folder lies where a file is needed",
    errno.ELOOP: "; a link leads back to itself",
    errno.EMFILE: "; raise the limit of open files (`ulimit -n`)",
    errno.ENFILE: "; close other programs",
    errno.EIO: "; the disk or network drive is failing",
    errno.ESTALE: "; the network drive is gone",
}
_SIGPIPE = 13
_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{8}-(?=[^/]*$)")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `difftumor VERB ...`; returns the exit status.

    0: good; 1: the work failed; 2: the input was wrong, or the machine was full or forbade it; 128 and the number of a
    signal: that signal ended it.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(
        prog="difftumor",
        description="Synthetic tumors for nnU-Net. Every verb has its own --help.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="verbs:\n" + "\n".join(f"  {verb:<23}{line}" for verb, line in VERBS.items()),
    )
    parser.add_argument("--version", action="version", version=f"difftumor {__version__}")
    parser.add_argument("verb", choices=VERBS, metavar="VERB", nargs="?", help="one of the verbs below")
    verb = parser.parse_args(arguments[:1]).verb
    if verb is None:
        parser.print_help(sys.stderr)
        return 2

    more = "; the same command resumes where it stopped" if verb in RESUMABLE else ""
    interrupted = f"\ndifftumor {verb}: interrupted{more}"
    with ending_on_signals(exits=argv is None, last_words=interrupted):
        try:
            OPTIONS.prog = f"difftumor {verb}"
            options, others = OPTIONS.parse_known_args(arguments[1:])
            with going_to(options, ["difftumor", *arguments]):
                return _run(verb, others)
        except InputError as error:
            _print_error(verb, str(error))
            return 2
        except KeyboardInterrupt:
            print(interrupted, file=sys.stderr)
            return 128 + (received() or signal.SIGINT)
        except BrokenPipeError:
            # Who read the output has had enough, such as `head`. Nothing more can be said there, at the exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + _SIGPIPE


def _run(verb: str, arguments: Sequence[str]) -> int:
    try:
        # Only the chosen verb is imported: `difftumor --help` stays quick, and a broken verb does not break others.
        module = importlib.import_module(f"nnunet_difftumor.cli.{module_name(verb)}")
        parser = Parser(
            prog=f"difftumor {verb}",
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog="--quiet prints nothing but errors, --log-file FILE appends all output to a file",
        )
        module.add_arguments(parser)
        parser.more_options = OPTIONS._option_string_actions.keys()
        parsed = parser.parse_args(arguments)
        for note in parser.notes():
            print(f"{painted(f'difftumor {verb}:', NOTE, sys.stderr)} {note}", file=sys.stderr)
        # Prints lines of the library as errors are printed.
        parsed.say = lambda line: print(with_painted_beginning(with_options(line, parser), sys.stdout), flush=True)
        return module.run(parsed) or 0
    except Exception as error:
        if received():
            # Libraries in C make other errors of an interruption, while they are imported for instance.
            raise KeyboardInterrupt from error
        said = _in_a_line(error)
        if said is None:
            raise
        _print_error(verb, with_options(said, parser))
        return 2


def _print_error(verb: str, said: str) -> None:
    print(f"{painted(f'difftumor {verb}:', ERROR, sys.stderr)} {said}", file=sys.stderr)


def _in_a_line(error: Exception) -> str | None:
    """What is wrong with the input or the machine; None for a fault of the program."""
    if isinstance(error, InputError):
        if isinstance(error.__cause__, BrokenPipeError):
            raise error.__cause__ from None
        return str(error)
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        return _machine_error(error)
    if isinstance(error, MemoryError):
        return f"not enough memory{f' ({error})' if str(error) else ''}; close other programs, or give less at a time"
    return None


def _machine_error(error: OSError) -> str:
    """A full disk, missing rights and the like, in a line: whose fault it is can be seen from the file."""
    name = error.filename2 or error.filename
    # Of a temporary file, the one that it was to become.
    where = f"{_TEMPORARY.sub('', os.fsdecode(name))}: " if isinstance(name, str | bytes | os.PathLike) else ""
    return f"{where}{(error.strerror or str(error)).lower()}{_OF_THE_MACHINE[error.errno]}"


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
