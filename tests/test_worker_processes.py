"""Workers end with the process that started them; Ctrl-C and what they say do not reach the user through them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from nnunet_difftumor.pools_of_others import pools_of_others

# Its worker says its number, and works on.
POOL = """
import os, sys, time
from nnunet_difftumor.worker_processes import worker_processes

def work(seconds):
    print(os.getpid(), flush=True)
    time.sleep(seconds)
    return "done"

if __name__ == "__main__":
    with worker_processes(1) as executor:
        futures = [executor.submit(work, float(sys.argv[1])) for _ in range(2)]
        print(futures[0].result(), flush=True)
        futures[1].result()
"""


def start(folder: Path, seconds: float) -> subprocess.Popen:
    script = folder / "pool.py"
    script.write_text(POOL)
    return subprocess.Popen(
        [sys.executable, script, str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Shells let what they start in the background ignore Ctrl-C, tests too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def is_running(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_ends_with_a_parent_that_is_killed(tmp_path):
    with start(tmp_path, 60) as process:
        worker = int(process.stdout.readline())
        assert is_running(worker)
        process.kill()
    end = time.monotonic() + 5
    while is_running(worker) and time.monotonic() < end:
        time.sleep(0.01)
    assert not is_running(worker)


def test_ctrl_c_ends_all_at_once(tmp_path):
    with start(tmp_path, 600) as process:
        worker = process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        said, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT and not is_running(int(worker))
    # The only traceback is the parent's own.
    assert said == "" and errors.count("Traceback (most recent call last)") == 1, (said, errors)


def test_what_others_workers_say_goes_into_a_file(tmp_path, capfd):
    with pools_of_others(tmp_path / "log"):
        subprocess.run([sys.executable, "-c", "import sys; sys.exit('of a worker')"])
        print("of the command", file=sys.stderr)
    subprocess.run([sys.executable, "-c", "import sys; sys.exit('afterwards')"])
    assert (tmp_path / "log").read_text() == "of a worker\n"
    assert capfd.readouterr().err == "of the command\nafterwards\n"
