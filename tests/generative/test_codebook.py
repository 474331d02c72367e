"""The moving average of the codes, and their start and restart."""

import torch

from nnunet_difftumor.generative.networks.codebook import Codebook


def latent(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 2, n, 1, 1, generator=torch.Generator().manual_seed(seed))


def test_codes_converge_to_the_means_of_two_clusters():
    codebook, generator = Codebook(2, 2), torch.Generator().manual_seed(0)
    centres = torch.tensor([[5.0, 0.0], [-5.0, 1.0]])
    vectors = centres.repeat(50, 1) + 0.1 * torch.randn(100, 2, generator=generator)
    batch = vectors.T.reshape(1, 2, 100, 1, 1)
    codebook.start(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    for _ in range(600):
        found = codebook(batch, statistics=True)
        codebook.update(found.counts, found.sums, candidates=None)
    means = torch.stack([vectors[::2].mean(0), vectors[1::2].mean(0)])
    torch.testing.assert_close(codebook.embeddings, means, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(codebook.counts, torch.tensor([50.0, 50.0]), rtol=1e-2, atol=0)


def test_only_dead_codes_are_restarted():
    codebook = Codebook(3, 2)
    codebook.start(torch.tensor([[0.0, 0.0], [9.0, 9.0], [50.0, 50.0]]))
    codebook.counts.copy_(torch.tensor([10.0, 10.0, 0.5]))
    codebook.sums.copy_(codebook.counts[:, None] * codebook.embeddings)
    before = codebook.embeddings.clone()
    candidates = torch.full((3, 2), 7.0)
    assert codebook.update(codebook.counts.clone(), codebook.sums.clone(), candidates=candidates) == 1
    torch.testing.assert_close(codebook.embeddings[:2], before[:2])
    assert torch.equal(codebook.embeddings[2], candidates[2])


def test_candidates_are_different_vectors_of_the_batch():
    codebook, batch = Codebook(10, 2), latent(30)
    drawn = codebook.draw_candidates(batch, torch.Generator().manual_seed(1))
    own = {tuple(vector.tolist()) for vector in batch[0, :, :, 0, 0].T}
    assert len({tuple(vector.tolist()) for vector in drawn} & own) == 10


def test_few_vectors_are_tiled_and_told_apart():
    codebook, batch = Codebook(50, 2), latent(3)
    drawn = codebook.draw_candidates(batch, torch.Generator().manual_seed(1))
    assert len({tuple(vector.tolist()) for vector in drawn}) == 50
    nearest = torch.cdist(drawn, batch[0, :, :, 0, 0].T).amin(1)
    assert 0 < nearest.max() < 0.05


def test_a_resumed_codebook_does_not_start_again():
    codebook = Codebook(4, 2)
    assert not codebook.initialized
    codebook.start(torch.ones(4, 2))
    resumed = Codebook(4, 2)
    resumed.load_state_dict(codebook.state_dict())
    assert resumed.initialized
    assert torch.equal(resumed.embeddings, torch.ones(4, 2))
