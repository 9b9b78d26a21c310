"""The checksum of weights: what it must see, that it is defined and not merely computed, and copies that nothing touches."""

import hashlib
import struct
from collections.abc import Callable

import pytest
import torch

from jobs.checksum import Checksum, digest
from jobs.hostcopy import HostCopy

MASK = (1 << 64) - 1
LARGE = 200_003
"""fp32 values of more than half a chunk, and of an odd number of bytes for it; three of them are more than one."""


def factor(stream: int, place: int) -> int:
    x = ((stream << 32) + place + 1) * 0x9E3779B97F4A7C15 & MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return (x ^ x >> 31) | 1


def defined(tensors: list[torch.Tensor]) -> str:
    """The same, in Python's integers, from the definition."""
    chunk, found = 1 << 20, hashlib.sha256(b"".join(struct.pack("<q", tensor.nbytes) for tensor in tensors))
    pieces, packed = [], b""
    for tensor in tensors:
        data = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        whole = len(data) // chunk * chunk
        if whole:
            pieces.append(data[:whole])
        packed += data[whole:] + bytes(-len(data) % 8)
    pieces += [packed + bytes(-len(packed) % 2048)] if packed else []
    columns, rows = [factor(1, i) for i in range(256)], [factor(2, i) for i in range(512)]
    for piece in pieces:
        words = struct.unpack(f"<{len(piece) // 8}q", piece)
        starts = range(0, len(words), 1 << 17)
        for shift in (0, 32):
            for start in starts:
                part = words[start : start + (1 << 17)]
                total = sum((w >> shift) * columns[i % 256] * rows[i // 256] for i, w in enumerate(part)) & MASK
                found.update(struct.pack("<Q", total))
    return f"2:{found.hexdigest()[:16]}"


@pytest.mark.parametrize(
    "tensors",
    [
        [torch.randn(5)],
        [torch.randn(8, 32), torch.randn(33).bfloat16(), torch.arange(7), torch.tensor(2.5)],
        [torch.randn(LARGE * 3), torch.randn(3, 5), torch.randn(1 << 18)],
        [torch.randn(64, 32).T, torch.tensor([True, False, True])],
        [torch.empty(0), torch.full((3,), float("nan"))],
    ],
    ids=["small", "types", "large", "strides", "empty"],
)
def test_run_checksum_is_what_it_is_defined_to_be(tensors: list[torch.Tensor]) -> None:
    assert Checksum(tensors)() == defined(tensors)
    torch.set_num_threads(2)
    assert Checksum(tensors)() == defined(tensors)
    torch.set_num_threads(1)


def test_run_checksum_sees_every_single_bit() -> None:
    values = torch.randn(40)
    bits, seen = values.view(torch.int32), {(checksum := Checksum([values]))()}
    for place in range(40):
        for bit in range(32):
            flip = torch.tensor(1 << bit if bit < 31 else -(1 << 31), dtype=torch.int32)
            bits[place] ^= flip
            seen.add(checksum())
            bits[place] ^= flip
    assert len(seen) == 1 + 40 * 32


@pytest.mark.parametrize("size", [700, LARGE * 3])
def test_run_checksum_sees_signs_exchanged_anywhere(size: int) -> None:
    """The hardest for sums of products: values that differ in their highest bit alone, at the top of a 64-bit word."""
    values = torch.ones(size)
    values[::3] = -1.0
    checksum = Checksum([values])
    plain = checksum()
    places = torch.randint(size, (60, 2), generator=torch.Generator().manual_seed(1)).tolist()
    for a, b in [*places, (1, 3), (0, 1), (1, 513), (3, size - 1)]:
        kept = values[[a, b]].clone()
        values[[b, a]] = kept
        assert (checksum() == plain) == bool(kept[0] == kept[1])
        values[[a, b]] = -kept
        assert checksum() != plain
        values[[a, b]] = kept
        assert checksum() == plain


@pytest.mark.parametrize("size", [16, LARGE * 3])
def test_run_checksum_sees_tensors_exchanged_and_cut_otherwise(size: int) -> None:
    a, b = torch.randn(size), torch.randn(size)
    whole = torch.cat([a, b])
    found = [Checksum(tensors)() for tensors in ([a, b], [b, a], [whole], [a], [a, b, torch.empty(0)])]
    assert len(set(found)) == len(found)
    assert Checksum([torch.zeros(3)])() != Checksum([torch.zeros(4)])()
    assert Checksum([-torch.zeros(1)])() != Checksum([torch.zeros(1)])()


@pytest.mark.parametrize(
    "change", [lambda p: p.data.add_(1), lambda p: setattr(p, "data", p.data + 1)], ids=["in place", "other memory"]
)
@pytest.mark.parametrize("size", [10, LARGE * 3])
def test_run_checksum_is_that_of_the_moment(change: Callable[[torch.nn.Parameter], None], size: int) -> None:
    """Changed in place, or given other memory."""
    parameter = torch.nn.Parameter(torch.randn(size))
    checksum = Checksum([parameter, torch.ones(3)])
    before = checksum()
    change(parameter)
    assert before != checksum() == Checksum([parameter.detach().clone(), torch.ones(3)])()


def test_run_checksum_digest_names_weights() -> None:
    weights = {"b": torch.ones(2, 2), "a": torch.zeros(3, dtype=torch.bfloat16)}
    assert digest(weights) == digest(dict(reversed(weights.items())))
    assert digest(weights) != digest({**weights, "b": torch.ones(4)})


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: that its checksum is the CPU's was not shown here"
)
def test_run_checksum_is_the_same_on_a_gpu() -> None:
    tensors = [torch.randn(LARGE * 3), torch.randn(8, 32).bfloat16(), torch.tensor(1.0)]
    assert Checksum([tensor.cuda() for tensor in tensors])() == Checksum(tensors)()


def test_run_hostcopy_is_not_touched_by_what_comes_later() -> None:
    weight = torch.nn.Parameter(torch.randn(3, 2))
    state = {"a": weight, "b": [1, (2, torch.ones(2))], "c": {"step": 1.5, "none": None, 0: torch.tensor(3)}}
    copied = HostCopy()(state)
    expected = weight.detach().clone()
    with torch.no_grad():
        weight.zero_()
    state["b"][1][1].zero_()  # type: ignore[index]
    assert torch.equal(copied["a"], expected)
    assert type(copied["a"]) is torch.Tensor
    assert copied["b"][0:1] == [1]
    assert copied["b"][1][1].tolist() == [1.0, 1.0]
    assert copied["c"] == {"step": 1.5, "none": None, 0: torch.tensor(3)}


def test_run_hostcopy_takes_the_same_memory_again() -> None:
    """And only what is in use stays: the gradients of a step under way are in few of the copies."""
    copy, state = HostCopy(), {"a": torch.randn(4), "b": torch.randn(2, 3)}
    first = copy(state)
    again = copy({**state, "a": state["a"] + 1})
    assert [first[name].data_ptr() for name in "ab"] == [again[name].data_ptr() for name in "ab"]
    other = copy({"a": torch.randn(5), "b": torch.randn(2, 3).bfloat16()})
    assert (other["a"].shape, other["b"].dtype) == (torch.Size([5]), torch.bfloat16)
    assert set(copy._kept) == {("a",), ("b",)}
    assert copy({}) == {}
    assert not copy._kept


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: copies out of its memory were not shown here")
def test_run_hostcopy_out_of_a_gpu() -> None:
    values = torch.randn(1000, device="cuda")
    copied = HostCopy()({"a": values})["a"]
    expected = values.cpu()
    values.zero_()
    assert copied.is_pinned()
    assert torch.equal(copied, expected)
