"""The device program as graphs: every stage, mode, bucket and batch draws what it draws without them, and waits for
nothing."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_networks
import torch
from recorded_graphs import NoWaiting, recorded_graphs  # noqa: F401, a fixture
from tumors import LIVER, liver_scan, spec

from nnunet_difftumor.generative.diffusion import fast
from nnunet_difftumor.synthesis.networks import diffusion, products
from nnunet_difftumor.synthesis.networks import view as network_view
from nnunet_difftumor.synthesis.networks.diffusion import DiffusionRenderer, as_diffusion
from nnunet_difftumor.synthesis.networks.packing import EXTENTS_MM, Shapes
from nnunet_difftumor.synthesis.patch import site_of
from nnunet_difftumor.synthesis.scene import patch_of

MODELS = tiny_networks.models("early", "late")
RADII_MM = {"tiny": 4.0, "small": 8.0, "medium": 14.0, "large": 21.0}
SPACING_MM = (3.0, 2.0, 2.0)


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """Whole products, in graphs and without them: another order of sums moves vectors to other codes."""
    monkeypatch.setattr(network_view, "CONTEXT_MM", 4.0)
    monkeypatch.setattr(products, "_blocked", lambda field: False)


def sketches_of(renderer, size, count, *, first=0):
    volume = replace(liver_scan(90.0, SPACING_MM), direction=np.eye(3)[:, ::-1])
    found = []
    for seed in range(first, first + count):
        radius, centre = RADII_MM[size], 45.0 + 2 * seed
        tumor = as_diffusion(
            spec(size_class=size, semi_axes_mm=(radius,) * 3, centre_mm=(45.0, centre, 45.0), seed=seed)
        )
        patch = patch_of(volume, tumor, LIVER, box=renderer.region(volume, tumor))
        found.append(renderer.sketch(site_of(patch, tumor), patch))
    return found


def renderer(mode) -> DiffusionRenderer:
    return DiffusionRenderer(MODELS, organ="liver", threads=1, mode=mode)


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize(("size", "batch"), [("tiny", 1), ("tiny", 2), ("small", 2), ("medium", 2), ("large", 1)])
def test_graphs_draw_what_is_drawn_without_them(request, monkeypatch, mode, size, batch):
    given = [sketches_of(renderer(mode), size, batch, first=first) for first in (0, batch)]
    monkeypatch.setattr(DiffusionRenderer, "_fills_up", True)
    eager = [renderer(mode).draw(sketches) for sketches in given]
    request.getfixturevalue("recorded_graphs")
    monkeypatch.setattr(DiffusionRenderer, "_graphs", True)
    graphs = renderer(mode)
    for sketches, expected in zip(given * 2, eager * 2, strict=True):
        for one, other in zip(graphs.draw(sketches), expected, strict=True):
            assert np.mean(np.abs(one - other) > 0.05) < 0.01
    samplers = [sampler for sampler in graphs._samplers.values() if sampler._graphs]
    (chain,) = (chain for sampler in samplers for chain in sampler._graphs.values())
    # An early tumor is one graph, a late one is cut every five steps.
    assert len(chain.graphs) == 1


def test_late_tumors_are_cut_every_five_steps(request, monkeypatch):
    model, described = MODELS["late"]
    steps = replace(described, diffusion=replace(described.diffusion, sampler_steps=10))
    one = DiffusionRenderer({"late": (model, steps)}, organ="liver", threads=1)
    sketches = sketches_of(one, "medium", 1)
    (expected,) = one.draw(sketches)
    request.getfixturevalue("recorded_graphs")
    monkeypatch.setattr(DiffusionRenderer, "_graphs", True)
    graphs = DiffusionRenderer({"late": (model, steps)}, organ="liver", threads=1)
    for _ in range(2):
        (found,) = graphs.draw(sketches)
        assert np.mean(np.abs(found - expected) > 0.05) < 0.01
    (chain,) = graphs._samplers["late"]._graphs.values()
    assert len(chain.graphs) == 4, "what comes before, two times five steps, and what comes after"


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_nothing_beside_the_networks_waits_for_the_device(mode):
    one = renderer(mode)
    (batch,) = one.load(sketches_of(one, "tiny", 2))
    with torch.inference_mode(), NoWaiting():
        volume, _ = batch.program.network_input(batch.block)
        batch.program.noises(batch.block)
        batch.program.blended(batch.block, batch.program.picture_hu(volume))


def test_sketches_are_filled_up_to_few_shapes():
    one, buckets = renderer("exact"), set()
    for size in RADII_MM:
        for sketch in sketches_of(one, size, 6):
            own, bucket = Shapes.of(sketch), Shapes.bucket(sketch)
            assert own.holding(bucket) == bucket and bucket[:2] == own[:2]
            assert all(a <= b for a, b in zip(bucket.near, bucket.around, strict=True))
            assert all(a <= b for a, b in zip(bucket.around, bucket.box, strict=True))
            buckets.add(bucket)
    assert len(buckets) <= len(EXTENTS_MM)


def test_batches_are_split_into_powers_of_two():
    assert [len(part) for part in diffusion._powers_of_two(range(13))] == [8, 4, 1]
    assert list(diffusion._powers_of_two([])) == []
    assert len(EXTENTS_MM) * 4 <= fast._GRAPHS, "one for each bucket and batch up to 8"
