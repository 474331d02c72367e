"""Pickles of others: small ones that would take all memory, or all time, are refused at once."""

import pickle
import time
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_difftumor.inert_pickle import InertUnpickler, MalformedPickleError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(content=PLAIN, protocol=st.integers(0, 5))
def test_plain_content_is_read_as_pickle_reads_it(content, protocol):
    data = pickle.dumps(content, protocol)
    try:
        assert InertUnpickler(data).load() == content
    except MalformedPickleError as error:  # old protocols write bytes as a call
        assert protocol < 3 and "names " in str(error)


def nested_key(depth: int) -> bytes:
    """{((((), ()), ((), ())), ...): None}, every tuple twice its part: hashing takes 2^depth steps."""
    return b"}" + b")" + b"2\x86" * depth + b"Ns."


BOMBS = {
    "index of the memo": b"Nr\xff\xff\xff\x7f.",
    "bytes that are not there": b"\x80\x05\x96\0\0\0\0\x10\0\0\0.",
    "key": nested_key(60),
    "element of a set": b"\x8f(" + b")" + b"2\x86" * 60 + b"\x90.",
    "set in a set": b"(" + b")" + b"2\x86" * 60 + b"\x91.",
    "dictionary at once": b"(" + b")" + b"2\x86" * 60 + b"Nd.",
    "integer": b"\x8b\0\0\0\x10.",
    "extension": b"\x82\x01.",
    "function": b"cos\nsystem\n(S'true'\ntR.",
    "no end": b"N" * 1000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_no_time_and_without_memory(name):
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(MalformedPickleError) if name != "index of the memo" else np.errstate():
            InertUnpickler(BOMBS[name]).load()
        assert time.perf_counter() - start < 1 and tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_keys_that_regions_have_are_none_of_these():
    content = {(1, 2, 3): [1], "a": {(1.5, None): 2}, 3: frozenset([(1, 2)])}
    assert InertUnpickler(pickle.dumps(content, 4)).load() == content


@given(data=st.binary(max_size=200))
def test_noise_is_read_or_refused(data):
    with suppress(MalformedPickleError):
        InertUnpickler(data).load()
