"""The synthesis server and its client: messages, batches, and who is answered what."""

import json
import os
import pickle
import queue
import socket
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import stand_in_renderer
import tiny_networks
from hypothesis import given, settings
from hypothesis import strategies as st
from live_training import wait_until

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.pipeline.live import messages
from nnunet_difftumor.pipeline.live import synthesis as synthesis_module
from nnunet_difftumor.pipeline.live.address import ServerAddress
from nnunet_difftumor.pipeline.live.client import LiveClient, Refusal
from nnunet_difftumor.pipeline.live.messages import BrokenConnectionError, Message
from nnunet_difftumor.pipeline.live.pages import Pages
from nnunet_difftumor.pipeline.live.server import ServerTask
from nnunet_difftumor.pipeline.live.server_keeper import ServerKeeper
from nnunet_difftumor.pipeline.live.waiting import FairQueue
from nnunet_difftumor.synthesis.networks import view as network_view
from nnunet_difftumor.synthesis.networks.diffusion import as_diffusion
from nnunet_difftumor.synthesis.networks.sketch import Sketch
from nnunet_difftumor.synthesis.networks.view import NetworkView
from nnunet_difftumor.synthesis.networks.weights import DiffusionWeights
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.patch import site_of
from nnunet_difftumor.synthesis.scene import patch_of
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import ArrayVolume

LIVER = Organ("liver", (1,), 2, (2,))
SPEC = TumorSpec(
    organ="liver",
    size_class="tiny",
    centre_mm=(20.0, 20.0, 20.0),
    semi_axes_mm=(4.0, 4.0, 4.0),
    rotation=(1.0, 0.0, 0.0, 0.0),
    deformation_mm=0.0,
    background_hu=100.0,
    contrast_hu=0.0,
    texture_sd_hu=0.0,
    texture_grain_mm=1.0,
    texture_blur_mm=0.0,
    edge_blur_mm=0.8,
    seed=7,
    renderer="diffusion",
)


def scan() -> ArrayVolume:
    hu = 100 + np.random.default_rng(0).normal(0, 10, (40, 40, 40)).astype(np.float32)
    return ArrayVolume(hu, np.ones(hu.shape, np.int16), (1.0, 1.0, 1.0), np.eye(3)[:, ::-1])


VIEW = NetworkView("SRA", (1.0, 1.0, 1.0), (24, 24, 24), (2, 4, 4))


def sketch(spec: TumorSpec = SPEC, **changes) -> Sketch:
    patch = patch_of(scan(), spec, LIVER, box=VIEW.region(scan(), spec))
    return replace(VIEW.sketch(site_of(patch, spec), patch), **changes)


def keeper(tmp_path, **task) -> ServerKeeper:
    task = {"folder": "", "parent": 0, "factory": stand_in_renderer.FACTORY} | task
    return ServerKeeper(ServerTask(**task), log=tmp_path / "server.log", status_file=tmp_path / "server.json")


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv(stand_in_renderer.CONTROL, str(tmp_path))
    running = keeper(tmp_path)
    running.start()
    yield running
    running.stop()


@settings(deadline=None, max_examples=40)
@given(
    st.dictionaries(st.text(max_size=5), st.integers() | st.text() | st.none() | st.lists(st.integers()), max_size=9)
)
def test_messages_arrive_as_they_were_sent(header):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for _ in range(2):
            messages.send(ours, Message(header), timeout_s=5)
            assert messages.receive(theirs, timeout_s=5) == Message(header)


@pytest.mark.parametrize("rounded", [False, True])
def test_a_request_is_understood_as_it_was_meant_and_its_voxels_are_not_copied(rounded):
    given_sketch = sketch().rounded() if rounded else sketch()
    pages = Pages.new(messages.places(given_sketch)[2])
    messages.write_sketch(given_sketch, pages)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        header = messages.request(3, "case_a", given_sketch, pages=7)
        messages.send(ours, Message(header, pages.file), timeout_s=5)
        received = messages.receive(theirs, timeout_s=5)
    seen = Pages.received(received.file, most_bytes=1 << 30)
    found, answer = messages.requested(received.header, seen)
    assert (found.spec, found.grid) == (SPEC, given_sketch.grid)
    for name in ("box", "around", "near"):
        assert getattr(found, name) == getattr(given_sketch, name)
    for name in ("hu", "before", "healthy", "organ", "alpha"):
        np.testing.assert_array_equal(getattr(found, name), getattr(given_sketch, name))
    answer[...] = 5
    assert (pages.array(received.header["answer"], "float32", answer.shape) == 5).all()


@pytest.mark.parametrize(
    "change",
    [
        {"arrays": {"hu": ["float64", [24, 24, 24], 0]}},
        {"arrays": {"hu": ["float32", [24, 24, 23], 0]}},
        {"arrays": {"labels": ["float32", [24, 24, 24], 0]}},
        {"answer": 1 << 40},
        {"answer": -64},
        {"box": [[0, 5], [0, 5], [0, 5]]},
        {"spec": {}},
        {"grid": {}},
        {"spec": {"semi_axes_mm": [1e9, 1, 1]}},
        {"grid": {"size": [4096, 4096, 4096]}},
        {"grid": {"step_mm": [1e6, 1.0, 1.0]}},
        {"grid": {"spacing_mm": [1e-9, 1.0, 1.0]}},
        {"grid": {"first_mm": [float("nan"), 0.0, 0.0]}},
        {"grid": {"axes": [0.0, 1, 2]}},
        {"grid": {"size": "wide"}},
        {"near": [[5, 5], [0, 5], [0, 5]]},
        {"near": [[-3, 5], [0, 5], [0, 5]]},
        {"box": [["0", "5"]] * 3},
        {"case": ["case_a"]},
        {"case": "a" * 256},
        {"number": 1.5},
        {"number": None},
    ],
)
def test_a_request_that_does_not_fit_is_refused(change):
    pages = Pages.new(messages.places(sketch())[2])
    header = messages.request(3, "case_a", sketch(), pages=7)
    changed = {name: header[name] | new if isinstance(new, dict) and new else new for name, new in change.items()}
    with pytest.raises((ValueError, KeyError, TypeError, InputError)):
        messages.requested(header | changed, pages)


def test_pages_that_could_be_taken_away_are_refused(tmp_path):
    """A process that reads where a file has been cut off is ended by the system."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 4096)
    with pytest.raises(ValueError, match="not sealed"):
        Pages.received(os.open(path, os.O_RDWR), most_bytes=1 << 30)
    pages = Pages.new(1 << 20)
    with pytest.raises(OSError):
        os.ftruncate(pages.file, 4096)
    with pytest.raises(ValueError, match="shared memory of 1048576 bytes"):
        Pages.received(os.dup(pages.file), most_bytes=1 << 19)


@pytest.mark.parametrize(
    "frame",
    [
        b"GET / HTTP/1.1\r\n" * 4,
        b'dtm2\x10\0\0\0{"kind": 3',
        b"dtm2\x0b\0\0\0{'kind': 3}",
        b"dtm2\x02\0\0\0[]",
        b"dtm2\xff\xff\xff\xff",
        b"",
    ],
)
def test_what_is_no_message_breaks_the_connection_and_nothing_else(frame):
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(frame)
        ours.close()
        with pytest.raises(BrokenConnectionError):
            messages.receive(theirs, timeout_s=1)


def test_a_silent_peer_is_not_waited_for_longer_than_asked():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        start = time.monotonic()
        with pytest.raises(BrokenConnectionError, match="did not answer"):
            messages.receive(theirs, timeout_s=0.2)
        with pytest.raises(BrokenConnectionError):
            messages.send(ours, Message({"kind": "x" * 900_000}), timeout_s=0.2)
    assert time.monotonic() - start < 5


def test_answers_are_those_of_the_renderer_in_the_order_that_they_are_asked_for(server):
    client = LiveClient(server.address, timeout_s=20)
    specs = [replace(SPEC, seed=seed) for seed in range(5)]
    sketches = [sketch(spec) for spec in specs]
    numbers = [client.ask("case_a", sketch(spec)) for spec in specs]
    found = client.answers(numbers[::-1])[::-1]
    expected = stand_in_renderer.StandInRenderer().draw(sketches)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.hu, other)
    assert len({one.hu.tobytes() for one in found}) == 5


def test_pages_serve_again_once_they_are_answered(server):
    client = LiveClient(server.address, timeout_s=20)
    seen = set()
    for seed in range(6):
        client.answers([client.ask("case_a", sketch(replace(SPEC, seed=seed))) for _ in range(2)])
        seen |= set(client._shared)
    assert len(seen) == 2


def test_requests_that_wait_together_are_drawn_together(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFTUMOR_TEST_SLEEP_S", "0.3")
    running = keeper(tmp_path, batch_size=4, batch_wait_ms=200.0)
    running.start()
    try:
        client = LiveClient(running.address, timeout_s=20)
        found = client.answers([client.ask("case_a", sketch()) for _ in range(8)])
        assert not any(isinstance(tumor, Refusal) for tumor in found)
        status = LiveClient(running.address, timeout_s=5).status(timeout_s=5)
        assert (status["tumors"], status["batches"]) == (8, 2)
        assert status["latency_ms"]["max"] >= 500 and status["render_ms_per_tumor"]["p50"] >= 70
    finally:
        running.stop()


def test_a_client_that_does_not_read_disturbs_no_other(server):
    lazy, other = (LiveClient(server.address, timeout_s=20) for _ in range(2))
    for _ in range(60):  # answers of more than a socket holds
        lazy.ask("case_a", sketch())
    (found,) = other.answers([other.ask("case_b", sketch())])
    assert not isinstance(found, Refusal)


def test_garbage_on_the_socket_is_cut_off_and_the_server_goes_on(server):
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(server.address.socket))
        stranger.sendall(b"\0" * 64)
        stranger.settimeout(5)
        with suppress(ConnectionResetError):  # where some of it was not even read
            assert stranger.recv(1) == b""
    client = LiveClient(server.address, timeout_s=20)
    assert not isinstance(client.answers([client.ask("case_a", sketch())])[0], Refusal)


def test_a_client_that_goes_away_is_not_drawn_for_and_others_need_not_wait(tmp_path, monkeypatch):
    """Each tumor takes 0.1 s: 60 that nobody wants would take 6."""
    monkeypatch.setenv("DIFFTUMOR_TEST_SLEEP_S", "0.1")
    running = keeper(tmp_path, batch_size=1, batch_wait_ms=0.0)
    running.start()
    try:
        client, leaving = (LiveClient(running.address, timeout_s=20) for _ in range(2))
        for _ in range(60):
            leaving.ask("case_a", sketch())
        start = time.monotonic()
        (found,) = client.answers([client.ask("case_b", sketch())])
        assert not isinstance(found, Refusal) and time.monotonic() - start < 1
        leaving.close()
        assert wait_until(lambda: LiveClient(running.address, timeout_s=5).status(timeout_s=5)["queue"] == 0, seconds=5)
        drawn = LiveClient(running.address, timeout_s=5).status(timeout_s=5)["tumors"]
        assert drawn < 40
    finally:
        running.stop()


def test_clients_take_turns():
    """One has asked for three before the others come."""
    waiting = FairQueue()
    for number, client in enumerate("aaabbc"):
        waiting.put(SimpleNamespace(connection=client, number=number))
    assert len(waiting) == 6
    assert [waiting.get(0).number for _ in range(4)] == [0, 3, 5, 1]
    waiting.forget("a")
    assert (waiting.get(0).number, len(waiting)) == (4, 0)
    with pytest.raises(queue.Empty):
        waiting.get(0.01)


def changed(header: dict, random: np.random.Generator) -> dict:
    """A request in which something is not as it should be, somewhere."""
    made = json.loads(json.dumps(header))
    place = made
    while True:
        key = random.choice(list(place)) if isinstance(place, dict) else int(random.integers(len(place)))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and random.random() < 0.8:
            place = inner
            continue
        values = (None, -1, 0, 1e300, 10**40, "", "../..", [], {}, [[[]]], True, 0.5, "x" * 9000, 1 << 31)
        place[key] = values[random.integers(len(values))]
        return made


def strangers_send(server: ServerKeeper, random: np.random.Generator, *, number: int) -> None:
    """Messages of all kinds, each by a connection of its own, some with pages, some cut off."""
    given_sketch = sketch()
    for _ in range(number):
        pages = Pages.new(messages.places(given_sketch)[2])
        header = changed(messages.request(3, "case_a", given_sketch, pages=7), random)
        frame = messages._PREFIX.pack(b"dtm2", len(text := json.dumps(header).encode())) + text
        if random.random() < 0.3:
            frame = frame[: random.integers(len(frame))]
        if random.random() < 0.3:
            at = int(random.integers(len(frame) + 1))
            frame = frame[:at] + random.bytes(8) + frame[at + 8 :]
        with socket.socket(socket.AF_UNIX) as stranger, suppress(OSError):
            stranger.connect(str(server.address.socket))
            stranger.settimeout(0.02)
            socket.send_fds(stranger, [frame], [pages.file] * int(random.integers(3)))
            stranger.recv(1)


def memory_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


@pytest.mark.parametrize("number", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_whatever_strangers_send_a_good_client_is_served_within_a_second(server, number):
    client, random = LiveClient(server.address, timeout_s=20), np.random.default_rng(number)
    process = server.process.pid
    # Each thread that ever ran keeps some memory of the allocator.
    strangers_send(server, random, number=100)
    before, files = memory_mb(process), len(os.listdir(f"/proc/{process}/fd"))
    for _ in range(10):
        strangers_send(server, random, number=number // 10)
        start = time.monotonic()
        (found,) = client.answers([client.ask("case_b", sketch())])
        assert not isinstance(found, Refusal) and time.monotonic() - start < 1
    assert server.process.pid == process and server.process.poll() is None
    assert wait_until(lambda: len(os.listdir(f"/proc/{process}/fd")) <= files + 4, seconds=5)
    assert memory_mb(process) < before + 30


def test_only_its_user_may_enter_the_folder_of_the_socket(server):
    assert os.stat(server.address.folder).st_mode & 0o777 == 0o700


def test_a_pickled_client_is_a_new_one_for_the_same_server(server):
    client = LiveClient(server.address, timeout_s=20)
    client.ask("case_a", sketch())
    other = pickle.loads(pickle.dumps(client))
    assert not isinstance(other.answers([other.ask("case_a", sketch())])[0], Refusal)


def test_after_the_end_everything_is_gone_and_askers_are_told(tmp_path):
    running = keeper(tmp_path)
    running.start()
    client = LiveClient(running.address, timeout_s=20)
    running.stop()
    assert running.process.poll() is not None and not running.address.folder.exists()
    (found,) = client.answers([client.ask("case_a", sketch())])
    assert found == Refusal("no answer: the training has ended")
    assert '"state": "ended"' in (tmp_path / "server.json").read_text()


def test_a_folder_that_is_nowhere_to_be_made_is_an_error_with_advice(monkeypatch):
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: (_ for _ in ()).throw(PermissionError(13, "not allowed")))
    with pytest.raises(InputError, match=r"not allowed.*TMPDIR"):
        ServerAddress.new()


def test_the_status_file_follows_the_server(server, tmp_path):
    assert wait_until((tmp_path / "server.json").exists, seconds=10)
    assert '"state": "running"' in (tmp_path / "server.json").read_text()


@pytest.mark.slow
def test_networks_in_batches_draw_what_they_draw_alone(tmp_path, monkeypatch):
    """Within rounding, which may move a vector to another code: rarely, and then a block of voxels."""
    monkeypatch.setattr(network_view, "CONTEXT_MM", 4.0)
    weights = tiny_networks.write_weights(tmp_path / "weights", "liver_early")
    renderer = synthesis_module.make_painter(
        synthesis_module.FACTORY,
        {"weights_folder": str(weights), "organs": {"liver": "liver"}, "stages": ["early"], "device": "cpu"},
    )
    specs = [as_diffusion(replace(SPEC, seed=seed)) for seed in range(4)]
    patches = [patch_of(scan(), spec, LIVER, box=renderer.region(scan(), spec)) for spec in specs]
    together = renderer.render(patches, specs)
    for one, given_patch, spec in zip(together, patches, specs, strict=True):
        (alone,) = renderer.render([given_patch], [spec])
        assert np.mean(np.abs(one.hu - alone.hu) > 0.1) < 0.01 and np.array_equal(one.mask, alone.mask)
    assert len({one.hu.tobytes() for one in together}) == 4


@pytest.mark.slow
def test_a_view_is_what_the_renderer_sees(tmp_path):
    """Workers know the region without the networks."""
    weights = DiffusionWeights(tiny_networks.write_weights(tmp_path / "weights", "liver_early", "liver_late"), "liver")
    renderer = synthesis_module.make_painter(
        synthesis_module.FACTORY,
        {
            "weights_folder": str(weights.folder),
            "organs": {"left_lobe": "liver"},
            "stages": ["early", "late"],
            "device": "cpu",
        },
    )
    for stage, size in (("early", "tiny"), ("late", "large")):
        spec = replace(SPEC, organ="left_lobe", size_class=size, semi_axes_mm=(9.0, 6.0, 4.0))
        assert weights.view(stage).region(scan(), spec) == renderer.region(scan(), spec)
