"""Samplers: distribution, determinism, device-free."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hml_core import sampling

COUNTS = np.array([600, 300, 90, 10])
TARGETS = torch.from_numpy(np.random.default_rng(0).permutation(np.repeat(np.arange(4), COUNTS)))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_instance_is_a_permutation():
    indices = sampling.epoch_indices(TARGETS, "instance", generator=generator())
    assert sorted(indices.tolist()) == list(range(len(TARGETS)))
    assert indices.tolist() != list(range(len(TARGETS)))


@pytest.mark.parametrize("scheme", ["class_balanced", "square_root", "progressive"])
def test_classes_are_drawn_with_their_probabilities_and_members_evenly(scheme):
    draws = 60_000
    indices = sampling.epoch_indices(
        TARGETS, scheme, generator=generator(), num_samples=draws, progress=0.3
    )
    share = np.bincount(TARGETS[indices].numpy(), minlength=4) / draws
    expected = sampling.sampling_probabilities(COUNTS, scheme, 0.3)
    np.testing.assert_allclose(share, expected, atol=4 * np.sqrt(0.25 / draws))
    rare = indices[TARGETS[indices] == 3]
    times = torch.bincount(rare, minlength=len(TARGETS))[TARGETS == 3].float()
    assert (times / len(rare) - 0.1).abs().max() < 5 * np.sqrt(0.09 / len(rare))


def test_probabilities_are_those_of_kang_et_al():
    root = np.sqrt(COUNTS)
    find = sampling.sampling_probabilities
    np.testing.assert_allclose(find(COUNTS, "instance"), COUNTS / 1000)
    np.testing.assert_allclose(find(COUNTS, "class_balanced"), 0.25)
    np.testing.assert_allclose(find(COUNTS, "square_root"), root / root.sum())
    np.testing.assert_allclose(find(COUNTS, "progressive", 0.0), COUNTS / 1000)
    np.testing.assert_allclose(find(COUNTS, "progressive", 1.0), 0.25)
    np.testing.assert_allclose(find(COUNTS, "progressive", 0.5), (COUNTS / 1000 + 0.25) / 2)


def test_a_class_without_images_is_never_drawn():
    for scheme in sampling.SAMPLERS:
        assert sampling.sampling_probabilities([3, 0, 1], scheme, 0.5)[1] == 0
    targets = torch.tensor([0, 0, 2])
    drawn = sampling.epoch_indices(targets, "class_balanced", generator=generator(), num_samples=99)
    assert set(drawn.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("scheme", sampling.SAMPLERS)
def test_the_generator_decides(scheme):
    def one(seed):
        return sampling.epoch_indices(TARGETS, scheme, generator=generator(seed), progress=0.5)

    assert torch.equal(one(0), one(0))
    assert not torch.equal(one(0), one(1))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`scheme` to be one of instance"):
        sampling.sampling_probabilities(COUNTS, "random")
    with pytest.raises(ValueError, match="0 ≤ `progress` ≤ 1"):
        sampling.sampling_probabilities(COUNTS, "progressive", 1.5)
    with pytest.raises(ValueError, match="1 ≤ `num_samples` ≤ 1000"):
        sampling.epoch_indices(TARGETS, "instance", generator=generator(), num_samples=1001)
    for counts in ([0, 0], [3, -1], []):
        with pytest.raises(ValueError, match="counts ≥ 0 with at least one image"):
            sampling.sampling_probabilities(counts, "square_root")
