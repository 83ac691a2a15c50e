"""Images in memory: order, damaged files, statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from seamo_fast.errors import DataError
from seamo_fast.tasks.datasets.eurosat import EuroSAT
from seamo_fast.tasks.samples import load_samples, measure
from tests.eurosat import make_eurosat


@pytest.fixture
def dataset(tmp_path: Path) -> EuroSAT:
    return EuroSAT(make_eurosat(tmp_path, "eurosat_ms", images=4))


def test_images_come_in_the_order_asked_for(dataset: EuroSAT) -> None:
    samples = load_samples(dataset, [7, 0, 11])
    assert samples.labels.tolist() == [1, 0, 2]
    for image, number in zip(samples.images, (7, 0, 11), strict=True):
        assert torch.equal(image, dataset.read(number).image)
    assert samples.skipped == []


def test_damaged_images_are_skipped_by_name_or_stop(dataset: EuroSAT) -> None:
    dataset.files[0].write_bytes(b"")
    dataset.files[5].write_bytes(b"II*\0")
    samples = load_samples(dataset, range(8))
    assert samples.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(samples.images[3], dataset.read(4).image)
    assert torch.equal(samples.images[-1], dataset.read(7).image)
    for number, reason in zip((0, 5), samples.skipped, strict=True):
        assert dataset.files[number].name in reason
    with pytest.raises(DataError, match=dataset.files[0].name):
        load_samples(dataset, range(8), "stop")
    with pytest.raises(DataError, match="none of 1 images can be read"):
        load_samples(dataset, [5])


def test_statistics_equal_numpy(dataset: EuroSAT) -> None:
    images = load_samples(dataset, range(12)).images
    measured = measure(dataset.modality, images.repeat(30, 1, 1, 1), "test split")
    values = images.numpy().astype(np.float64)
    assert measured.mean is not None
    assert measured.std is not None
    np.testing.assert_allclose(measured.mean, values.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(measured.std, values.std((0, 2, 3)), rtol=1e-12)
    assert measured.release == "test split"
    with pytest.raises(DataError, match=r"band B1 .* the same value"):
        measure(dataset.modality, torch.ones(2, 13, 4, 4), "test")
