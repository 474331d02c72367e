"""Every repair and every check of the strict interpreter works with the version of Triton that is installed."""

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError


@triton.jit
def copy(x, y, N: tl.constexpr):
    n = tl.arange(0, N)
    tl.store(y + n, tl.load(x + n))


@triton.jit
def copy_of_neighbour(y, N: tl.constexpr):
    n = tl.arange(0, N)
    other = (tl.program_id(0) + 1) % 2
    tl.store(y + tl.program_id(0) * N + n, tl.load(y + other * N + n))


@triton.jit
def count(y, N: tl.constexpr):
    tl.atomic_add(y + tl.arange(0, N), 1.0)


@triton.jit
def count_and_read(y, out, N: tl.constexpr):
    n = tl.arange(0, N)
    tl.store(out + tl.program_id(0) * N + n, tl.load(y + n))
    tl.atomic_add(y + n, 1.0)


@triton.jit
def sum_of_some(x, y, N: tl.constexpr):
    n = tl.arange(0, N)
    tl.store(y, tl.sum(tl.load(x + n, mask=n < 8), 0))


@triton.jit
def product(x, y, N: tl.constexpr, PRECISION: tl.constexpr):
    n = tl.arange(0, N)
    at = n[:, None] * N + n[None, :]
    a = tl.load(x + at)
    tl.store(y + at, tl.dot(a, a * a + a, input_precision=PRECISION).to(y.dtype.element_ty))


@triton.jit
def running_sum(x, y, length):
    total = 0.0
    for i in range(tl.program_id(0), length):
        total += tl.load(x + i)
    tl.store(y, total)


def fault(kernel, *arguments, grid=(1,)):
    with pytest.raises(InterpreterError) as raised:
        kernel[grid](*arguments)
    return str(raised.value)


def test_reading_and_writing_out_of_bounds():
    assert "out of bounds: load" in fault(copy, torch.zeros(48), torch.zeros(64), 64)
    assert "out of bounds: store" in fault(copy, torch.zeros(64), torch.zeros(48), 64)


def test_races_between_programs():
    assert "race" in fault(copy, torch.zeros(64), torch.zeros(64), 64, grid=(2,))
    assert "race" in fault(copy_of_neighbour, torch.zeros(64), 32, grid=(2,))
    assert "race" in fault(count_and_read, torch.zeros(16), torch.zeros(32), 16, grid=(2,))


def test_atomics_do_not_race_among_themselves():
    counted = torch.zeros(16)
    count[(3,)](counted, 16)
    assert (counted == 3).all()


def test_lanes_that_are_masked_away_are_poison():
    total = torch.zeros(1)
    sum_of_some[(1,)](torch.ones(16), total, 16)
    assert total.isnan()


def test_dots_over_less_than_16_elements():
    with pytest.raises(InterpreterError):
        product[(1,)](torch.zeros(8, 8), torch.zeros(8, 8), 8, "ieee")


def test_loops_whose_length_is_known_at_run_time_only():
    total = torch.zeros(1)
    running_sum[(1,)](torch.ones(20), total, 17)
    assert total == 17


@pytest.mark.parametrize(
    ("dtype", "precision", "low", "high"),
    [
        (torch.bfloat16, "ieee", 1e-3, 1e-2),
        (torch.float16, "ieee", 1e-5, 2e-3),
        (torch.float32, "tf32", 1e-5, 2e-3),
        (torch.float32, "tf32x3", 0, 1e-6),
        (torch.float32, "ieee", 0, 1e-6),
    ],
)
def test_every_precision_has_its_own_error(dtype, precision, low, high):
    x = torch.randn(32, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    y = torch.full_like(x, torch.nan)
    product[(1,)](x, y, 32, precision)
    expected = x.double() @ (x.double() * x.double() + x.double())
    distance = ((y.double() - expected).norm() / expected.norm()).item()
    assert low <= distance <= high


def test_the_language_is_as_before_after_a_launch():
    before = tl.load
    copy[(1,)](torch.zeros(16), torch.zeros(16), 16)
    assert tl.load is before
