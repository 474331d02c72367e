"""The synthesis server and its client: messages, batches, and who is answered what."""

import os
import pickle
import socket
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import stand_in_renderer
import tiny_networks
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from live_training import wait_until

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.pipeline.live import messages
from nnunet_difftumor.pipeline.live import synthesis as synthesis_module
from nnunet_difftumor.pipeline.live.address import ServerAddress
from nnunet_difftumor.pipeline.live.client import LiveClient, Refusal
from nnunet_difftumor.pipeline.live.messages import BrokenConnectionError, Message
from nnunet_difftumor.pipeline.live.server import ServerTask
from nnunet_difftumor.pipeline.live.server_keeper import ServerKeeper
from nnunet_difftumor.synthesis.networks import view as network_view
from nnunet_difftumor.synthesis.networks.diffusion import as_diffusion
from nnunet_difftumor.synthesis.networks.weights import DiffusionWeights
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.patch import Patch
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


def patch(spec: TumorSpec = SPEC) -> Patch:
    return patch_of(scan(), spec, LIVER)


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
    st.dictionaries(
        st.text(min_size=1, max_size=5),
        arrays_of.arrays(
            st.sampled_from([np.float32, np.int16, np.bool_, np.uint8, np.int64]),
            arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        ),
        max_size=3,
    ),
    st.dictionaries(st.sampled_from("abc"), st.integers() | st.text() | st.none(), max_size=3),
)
def test_messages_arrive_as_they_were_sent(arrays, header):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        messages.send(ours, messages.encode(Message(header, arrays)), timeout_s=5)
        found = messages.receive(theirs, timeout_s=5)
    assert found.header == header and found.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found.arrays[name].dtype == array.dtype and found.arrays[name].shape == array.shape
        assert found.arrays[name].tobytes() == array.tobytes()


def test_a_request_is_understood_as_it_was_meant():
    given_patch = patch()
    sent = messages.request(3, "case_a", given_patch, SPEC)
    found, spec = messages.requested(Message(sent.header, sent.arrays))
    assert spec == SPEC and found.box == given_patch.box and found.organ == LIVER
    assert np.array_equal(found.hu, given_patch.hu) and np.array_equal(found.direction, given_patch.direction)


@pytest.mark.parametrize(
    "frame",
    [
        b"GET / HTTP/1.1\r\n" * 4,
        messages.encode(Message({"kind": "x"}, {"a": np.ones(4)}))[:-3],
        messages.encode(Message({"kind": "x"})).replace(b'"kind"', b"'kind'"),
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
            messages.send(ours, b"x" * 10_000_000, timeout_s=0.2)
    assert time.monotonic() - start < 5


def test_answers_are_those_of_the_renderer_in_the_order_that_they_are_asked_for(server):
    client = LiveClient(server.address, timeout_s=20)
    specs = [replace(SPEC, seed=seed) for seed in range(5)]
    numbers = [client.ask("case_a", patch(spec), spec) for spec in specs]
    found = client.answers(numbers[::-1])[::-1]
    expected = stand_in_renderer.StandInRenderer().render([patch(spec) for spec in specs], specs)
    for one, other in zip(found, expected, strict=True):
        assert one.spec == other.spec and one.box == other.box
        assert np.array_equal(one.hu, other.hu) and np.array_equal(one.mask, other.mask)
        assert np.array_equal(one.labels, other.labels)


def test_a_tumor_without_room_is_refused_with_its_reason(server):
    client = LiveClient(server.address, timeout_s=20)
    nowhere = replace(patch(), labels=np.zeros_like(patch().labels))
    (found,) = client.answers([client.ask("case_a", nowhere, SPEC)])
    assert found == Refusal("nothing of the tumor has room")


def test_requests_that_wait_together_are_drawn_together(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFTUMOR_TEST_SLEEP_S", "0.3")
    running = keeper(tmp_path, batch_size=4, batch_wait_ms=200.0)
    running.start()
    try:
        client = LiveClient(running.address, timeout_s=20)
        found = client.answers([client.ask("case_a", patch(), SPEC) for _ in range(8)])
        assert not any(isinstance(tumor, Refusal) for tumor in found)
        status = LiveClient(running.address, timeout_s=5).status(timeout_s=5)
        assert (status["tumors"], status["batches"]) == (8, 2)
        assert status["latency_ms"]["max"] >= 500 and status["render_ms_per_tumor"]["p50"] >= 70
    finally:
        running.stop()


def test_a_client_that_does_not_read_disturbs_no_other(server):
    lazy, other = (LiveClient(server.address, timeout_s=20) for _ in range(2))
    for _ in range(60):  # answers of more than a socket holds
        lazy.ask("case_a", patch(), SPEC)
    (found,) = other.answers([other.ask("case_b", patch(), SPEC)])
    assert not isinstance(found, Refusal)


def test_garbage_on_the_socket_is_cut_off_and_the_server_goes_on(server):
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(server.address.socket))
        stranger.sendall(b"\0" * 64)
        stranger.settimeout(5)
        with suppress(ConnectionResetError):  # where some of it was not even read
            assert stranger.recv(1) == b""
    client = LiveClient(server.address, timeout_s=20)
    assert not isinstance(client.answers([client.ask("case_a", patch(), SPEC)])[0], Refusal)


def test_only_its_user_may_enter_the_folder_of_the_socket(server):
    assert os.stat(server.address.folder).st_mode & 0o777 == 0o700


def test_a_pickled_client_is_a_new_one_for_the_same_server(server):
    client = LiveClient(server.address, timeout_s=20)
    client.ask("case_a", patch(), SPEC)
    other = pickle.loads(pickle.dumps(client))
    assert not isinstance(other.answers([other.ask("case_a", patch(), SPEC)])[0], Refusal)


def test_after_the_end_everything_is_gone_and_askers_are_told(tmp_path):
    running = keeper(tmp_path)
    running.start()
    client = LiveClient(running.address, timeout_s=20)
    running.stop()
    assert running.process.poll() is not None and not running.address.folder.exists()
    (found,) = client.answers([client.ask("case_a", patch(), SPEC)])
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
    renderer = synthesis_module.make_renderer(
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
    renderer = synthesis_module.make_renderer(
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
