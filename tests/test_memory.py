"""Tensors in huge pages."""
import gc

import pytest
import torch

from ding_cawr.networks.memory import HUGE_PAGE, LINE, empty


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('shapes', [[(3, 5), (7, )], [(1024, 1024), (3, 5), (2, 400, 1000), (1, )]])
def test_tensors_are_apart_from_each_other_and_stay(shapes, dtype):
    tensors = empty(shapes, torch.zeros((), dtype=dtype))
    assert [tuple(tensor.shape) for tensor in tensors] == shapes
    assert all(tensor.dtype == dtype and tensor.is_contiguous() for tensor in tensors)
    assert all(tensor.data_ptr() % LINE == 0 for tensor in tensors)
    for i, tensor in enumerate(tensors):
        tensor.fill_(i + 1)
    last = tensors[-1]
    for i, tensor in enumerate(tensors):
        assert (tensor == i + 1).all()
    del tensors, tensor
    gc.collect()
    torch.ones(4, 1 << 20)
    assert (last == len(shapes)).all()  # the pages live as long as one of their tensors


def test_large_tensors_lie_side_by_side():
    first, second = empty([(HUGE_PAGE // 4, ), (5, )], torch.zeros(()))
    assert second.data_ptr() == first.data_ptr() + HUGE_PAGE
