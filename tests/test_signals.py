"""Signals end a command in one line, wherever they come, and whatever libraries make of them."""

import os
import signal
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path

import pytest

from nnunet_difftumor.cli import env
from nnunet_difftumor.cli.main import main


def wait_for_the_end() -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def not_ignored():
    """Shells let what they start in the background ignore Ctrl-C, tests too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Thing:
    pass


def lost_in_a_callback(number: int) -> None:
    """As in the callbacks of Python's own locks of modules."""
    thing = Thing()
    reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), number))
    del thing
    wait_for_the_end()
    del reference


def lost_in_a_destructor(number: int) -> None:
    class Last:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)

    Last()
    wait_for_the_end()


def made_another_error(number: int) -> None:
    """As numpy does while it is imported."""
    try:
        os.kill(os.getpid(), number)
        wait_for_the_end()
    except KeyboardInterrupt as error:
        raise ImportError("numpy._core.multiarray failed to import") from error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("how", [lost_in_a_callback, lost_in_a_destructor, made_another_error])
def test_a_signal_that_libraries_lose_or_change_ends_the_command(monkeypatch, capsys, how, number):
    monkeypatch.setattr(env, "run", lambda _: how(number))
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    assert main(["env"]) == 128 + number
    assert capsys.readouterr().err == "\ndifftumor env: interrupted\n"
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_an_import_waits_for_its_end(monkeypatch, capsys, tmp_path, number):
    """torch aborts the process when it is interrupted in its imports."""
    (tmp_path / "slowly_imported.py").write_text(
        f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(0.3)\ndone = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("slowly_imported", None)

    def run(_):
        import slowly_imported

        assert slowly_imported.done
        wait_for_the_end()

    monkeypatch.setattr(env, "run", run)
    assert main(["env"]) == 128 + number
    assert "slowly_imported" in sys.modules
    assert capsys.readouterr().err == "\ndifftumor env: interrupted\n"


def test_ctrl_c_in_the_first_moments_is_no_traceback(tmp_path):
    """While the command's own modules are imported."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'nnunet_difftumor.cli.signals':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
    )
    command = [Path(sys.executable).with_name("difftumor"), "env"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == -signal.SIGINT and done.stderr == ""


def test_an_import_error_without_a_signal_stays_one(monkeypatch):
    def fail(_):
        raise ImportError("no such module")

    monkeypatch.setattr(env, "run", fail)
    with pytest.raises(ImportError, match="no such module"):
        main(["env"])


FORK = """
import os, signal, sys
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))  # runs before the command's own
from nnunet_difftumor.cli.signals import ending_on_signals
with ending_on_signals():
    child = os.fork()
    if child == 0:
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""


def test_a_pool_s_worker_that_is_ended_while_it_begins_does_end():
    """Else the pool would wait for it for ever."""
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("-15 set()\n", "")


POOLS = """
import multiprocessing, sys
from contextlib import nullcontext
from nnunet_difftumor.cli import main  # as the console script: spawned workers import it again
from nnunet_difftumor.cli.signals import ending_on_signals
from nnunet_difftumor.pools_of_others import pools_of_others

if __name__ == "__main__":
    known = pools_of_others(sys.argv[2]) if sys.argv[2:] else nullcontext()
    with ending_on_signals(exits=True, last_words="interrupted"), known:
        try:
            print("ready", flush=True)
            while True:
                with multiprocessing.get_context(sys.argv[1]).Pool(4) as pool:
                    pool.map(abs, range(8))
        except KeyboardInterrupt:
            sys.exit(130)
"""


@pytest.mark.parametrize(("start", "times", "known"), [("fork", 10, False), ("fork", 4, True), ("spawn", 3, True)])
def test_ctrl_c_reaches_pools_of_others_without_a_word_and_leaves_no_worker(tmp_path, start, times, known):
    """Also while a pool starts its workers, which then knows nothing of those that it has."""
    script = tmp_path / "pools.py"
    script.write_text(POOLS)
    for number in range(times):
        words = [sys.executable, script, start, *([tmp_path / "log"] if known else [])]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
            assert process.stdout.readline() == b"ready\n"
            time.sleep(0.05 + 0.013 * number)
            os.killpg(process.pid, signal.SIGINT)
            # Ends when nobody holds the pipes any more, workers included.
            try:
                said = process.communicate(timeout=20)[1]
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 130
        assert b"Worker" not in said and said == (b"interrupted\n" if known else said)


EXIT = """
import atexit, sys, time
atexit.register(lambda: (print("at exit", flush=True), time.sleep(60)))
from nnunet_difftumor.cli.main import main
sys.argv = ["difftumor", "env"]
sys.exit(main())
"""


def test_ctrl_c_while_a_command_exits_is_silent():
    words = [sys.executable, "-c", EXIT]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.stdout.readline() != "at exit\n":
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=10)[1]
    assert (process.returncode, said) == (-signal.SIGINT, "")
