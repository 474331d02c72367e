"""Puts our loader where nnU-Net's `get_dataloaders` makes its own, without a copy of that function."""

from collections.abc import Iterator
from contextlib import contextmanager

from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module  # noqa: N813 (a module named like its class)

from nnunet_difftumor.pipeline.dataset import SyntheticTumorDataset
from nnunet_difftumor.pipeline.loader import SamplingPlan, SyntheticTumorDataLoader, WatchedDataLoader
from nnunet_difftumor.pipeline.ordered_augmenter import OrderedAugmenter


@contextmanager
def synthetic_training_loader(plan: SamplingPlan) -> Iterator[list[SyntheticTumorDataLoader]]:
    """Within the block, loaders that nnU-Net makes for a `SyntheticTumorDataset` follow `plan` and deliver in order.

    Every other loader, validation's above all, makes its batches as nnU-Net's own.

    Yields:
        The loaders that were made to follow the plan.
    """
    made: list[SyntheticTumorDataLoader] = []
    stock_loader, stock_augmenter = module.nnUNetDataLoader, module.NonDetMultiThreadedAugmenter

    def make_loader(data, *args, **kwargs):
        if not isinstance(data, SyntheticTumorDataset):
            return WatchedDataLoader(data, *args, **kwargs)
        loader = SyntheticTumorDataLoader(data, *args, **kwargs)
        loader.plan = plan
        made.append(loader)
        return loader

    def make_augmenter(data_loader, transform, num_processes, num_cached, **kwargs):
        if not isinstance(data_loader, SyntheticTumorDataLoader):
            return stock_augmenter(data_loader, transform, num_processes, num_cached=num_cached, **kwargs)
        per_queue = max(1, num_cached // num_processes)
        return OrderedAugmenter(data_loader, transform, num_processes, num_cached_per_queue=per_queue, **kwargs)

    module.nnUNetDataLoader, module.NonDetMultiThreadedAugmenter = make_loader, make_augmenter
    try:
        yield made
    finally:
        module.nnUNetDataLoader, module.NonDetMultiThreadedAugmenter = stock_loader, stock_augmenter
