"""A process that has imported everything and forks trainings: starting one then takes a fraction of a second.

Run: python training_host.py; reads one JSON object per line, and answers each with one. Of a training: `calls`, one per
process, each with keyword arguments and environment variables; `kill`: SIGKILL to all of them, `after_steps` entries of
the curve and `seconds` more. The answer holds exit statuses; -9 is a kill.
"""

import importlib
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import torch


def main() -> None:
    torch.set_num_threads(1)
    for module in ("torch.utils.tensorboard", "torchmetrics.functional.image", "matplotlib.image", "matplotlib.figure"):
        importlib.import_module(module)
    for module in ("autoencoder_task", "diffusion_task", "fit", "train"):
        importlib.import_module(f"nnunet_difftumor.generative.training.{module}")

    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


def answer(request: dict) -> list[int]:
    """Exit status of each process."""
    log = Path(request["log"])
    children = [start(call, log) for call in request["calls"]]
    kill = request.get("kill")
    if kill:
        wait_for_steps(Path(kill["curve"]), kill["after_steps"], children[0])
        time.sleep(kill["seconds"])
        for child in children:
            os.kill(child, signal.SIGKILL)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def start(call: dict, log: Path) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(call.get("environment", {}))
        status = train_once(call["function"], call["arguments"], call.get("state"))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def train_once(function: str, arguments: dict, state: str | None) -> int:
    """Calls train_autoencoder or train_diffusion; writes the module's final state to the file `state`."""
    from nnunet_difftumor.generative.training import fit, train

    tasks = []
    if state is not None:
        original = fit.fit

        def observed(task, **more):
            tasks.append(task)
            return original(task, **more)

        fit.fit = observed
    paths = {key: Path(value) for key, value in arguments.items() if key in ("output", "autoencoder")}
    done = getattr(train, function)(700, **(arguments | paths), device="cpu")
    if state is not None:
        torch.save(tasks[0].state_dict(), state)
    return 0 if done else 3


def wait_for_steps(curve: Path, entries: int, child: int) -> None:
    """Until the curve has grown by so many lines, or the process has ended (the kill then comes too late)."""
    from nnunet_difftumor.generative.training.run_folder import read_curve

    def highest() -> int:
        return max((line["step"] for line in read_curve(curve)), default=0)

    goal = highest() + entries
    while entries and highest() < goal:
        time.sleep(0.002)
        if Path(f"/proc/{child}/stat").read_text().split(")")[1].split()[0] == "Z":
            return


if __name__ == "__main__":
    main()
