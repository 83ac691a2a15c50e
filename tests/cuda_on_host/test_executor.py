from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from tests.cuda_on_host.host import HERE, KERNELS, Executor, Mode, why_not

needs_executor = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
pytestmark = needs_executor

FAULTS = HERE / "broken" / "faults.cu"
SEMANTICS = HERE / "kernels" / "semantics.cu"
MODES: list[Mode] = ["plain", "checked"]


@functools.cache
def executor(source: Path, mode: Mode) -> Executor:
    return Executor(mode, [source])


def pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


# ---- faults ----

# what the report says, and whether a library without instrumented accesses notices as well
EXPECTED = {
    "leaves_before_barrier": (r"barrier divergence: .*faults.cu:\d+, but .* has left", True),
    "waits_at_two_barriers": (r"barrier divergence: .*faults.cu:\d+, but .*faults.cu:\d+", True),
    "waits_in_a_branch": (r"divergence in a warp: .*__syncwarp.*, but .*__syncthreads", True),
    "shuffles_without_some": (r"divergence in a warp: .* a shuffle .* has left", True),
    "shuffles_with_other_masks": (r"divergence|does not take part", True),
    "shuffles_from_nobody": (r"reads lane \d+, which does not take part at .*faults.cu", True),
    "reads_beside": (r"out-of-bounds read of 4 bytes: the nearest is input \[256\]", False),
    "writes_beside": (r"out-of-bounds write of 4 bytes.*whose end it passes", False),
    "writes_before": (r"out-of-bounds write of 4 bytes.*precedes", False),
    "writes_beside_shared": (r"out-of-bounds write.*dynamic shared memory", True),
    "indexes_beside_array": (r"array index 64 is out of bounds at .*faults.cu", False),
    "reads_uninitialised_static": (r"uninitialised shared memory: byte .* of static", False),
    "reads_uninitialised_dynamic": (
        r"thread \(5, 0, 0\): read of uninitialised shared memory: byte \d+ of dynamic",
        False,
    ),
    "forgets_barrier": (r"race on static .*: write at .*; no barrier since the read", False),
    "forgets_second_barrier": (r"race on dynamic shared memory, byte", False),
    "forgets_warp_barrier": (r"race on static shared memory", False),
    "takes_shuffle_for_barrier": (r"race on static shared memory", False),
    "takes_warp_barrier_for_block": (r"race on static shared memory", False),
    "writes_same_value": (r"race on static shared memory.*: write at .*since the write", False),
    "writes_after_two_readers": (r"race on static shared memory.*since the (read|write)", False),
    "misaligns_vector": (r"misaligned access: the type asks for 16 bytes.*faults.cu", False),
    "forgets_wait": (r"not yet copied .* at .*faults.cu", False),
    "forgets_commit": (r"not yet copied", False),
    "reads_others_copy": (r"race on static shared memory|not yet copied", False),
    "misaligns_copy": (r"asynchronous copy of 16 bytes is misaligned", True),
    "asks_for_too_much": (r"307200 bytes of dynamic shared memory", True),
    "blocks_write_same_place": (r"race on input.*: write at .*of another block", False),
    "blocks_read_what_others_write": (r"race on input.*of another block", False),
    "threads_race_on_tensor": (r"race on input.*: write at .*of the block", False),
    "follows_null": (r"out-of-bounds read|not mapped", True),
    "divides_by_zero": (r"integer division by zero", True),
    "misaligns_matrix": (r"wmma: the pointer is not aligned to 256 bits at .*faults.cu", True),
    "strides_matrix_badly": (r"wmma: a leading dimension of 17", True),
    "disagrees_on_matrix": (r"wmma: the 32 lanes disagree", True),
    "reads_matrix_too_early": (r"race on static shared|uninitialised shared", False),
    "forgets_tf32_rounding": (r"tf32 fragment not rounded", True),
}


def run_fault(name: str, mode: Mode, seed: int, broken: bool) -> tuple[int, str, torch.Tensor]:
    host = executor(FAULTS, mode)
    host.order(seed)
    with host.guard() as guard:
        x = guard.tensor(torch.ones(256))
        code = getattr(host.functions, f"run_{name}")(pointer(x), 256, int(broken))
        return code, host.fault, x


@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize("name", EXPECTED)
def test_fault_is_caught(name: str, seed: int) -> None:
    code, fault, _ = run_fault(name, "checked", seed, broken=True)
    assert code == 719
    assert re.search(EXPECTED[name][0], fault), fault
    assert name in fault


@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", EXPECTED)
def test_correct_twin_passes(name: str, mode: Mode, seed: int) -> None:
    code, fault, _ = run_fault(name, mode, seed, broken=False)
    assert (code, fault) == (0, "")


@pytest.mark.parametrize("name", [name for name, (_, plain) in EXPECTED.items() if plain])
def test_fault_that_plain_mode_catches(name: str) -> None:
    assert run_fault(name, "plain", 0, broken=True)[0] == 719


@pytest.mark.parametrize(
    ("name", "side"), [("writes_beside", "after"), ("writes_before", "before")]
)
def test_guard_zones_catch_writes_in_plain_mode(name: str, side: str) -> None:
    with pytest.raises(AssertionError, match=f"wrote {side} the input"):
        run_fault(name, "plain", 0, broken=True)


@pytest.mark.parametrize("name", ["forgets_wait", "reads_uninitialised_dynamic"])
def test_garbage_shows_in_plain_mode(name: str) -> None:
    assert run_fault(name, "plain", 0, broken=True)[2].isnan().any()


def test_executor_goes_on_after_a_fault() -> None:
    assert run_fault("follows_null", "plain", 0, broken=True)[0] == 719
    code, fault, x = run_fault("reads_beside", "plain", 0, broken=False)
    assert (code, fault) == (0, "")
    assert torch.equal(x[:64], torch.full((64,), 2.0))


# ---- guarded tensors ----


def test_guard_keeps_strides_and_offset() -> None:
    host = executor(FAULTS, "plain")
    whole = torch.arange(60.0).reshape(3, 4, 5)
    with host.guard() as guard:
        for tensor in (whole, whole[1:, ::2, 1:], whole.transpose(0, 2), whole[:0], whole[0, 0]):
            copy = guard.tensor(tensor)
            assert torch.equal(copy, tensor)
            assert copy.stride() == tensor.stride()
            assert copy.data_ptr() % 512 == tensor.storage_offset() * 4 % 512
        expanded = whole[:1].expand(7, 4, 5)
        assert torch.equal(guard.tensor(expanded), expanded)


def test_new_tensors_are_guarded_and_hold_garbage() -> None:
    with executor(FAULTS, "plain").guard() as guard:
        assert torch.equal(torch.zeros(3) + 1, torch.ones(3))
        assert torch.empty_like(guard.tensor(torch.ones(2, 2))).shape == (2, 2)
        assert len(guard.buffers) >= 4


# ---- semantics ----


def numbers(dtype: torch.dtype) -> torch.Tensor:
    """Every finite value of the type, the middle of each two neighbours, and its neighbours."""
    bits = torch.arange(65536, dtype=torch.int32).to(torch.int16)
    exact = bits.view(dtype).double()
    exact = exact[exact.isfinite()].sort().values
    middle = ((exact[1:] + exact[:-1]) / 2).float()
    above, below = (torch.nextafter(middle, torch.tensor(sign)) for sign in (1e38, -1e38))
    special = torch.tensor([float("inf"), float("-inf"), 1e30, -1e30, 65519.0, 65520.0])
    values = torch.cat([exact.float(), middle, above, below, special])
    return values[: values.numel() // 2 * 2]


@pytest.mark.parametrize(("name", "dtype"), [("half", torch.half), ("bfloat16", torch.bfloat16)])
def test_sixteen_bit_types_round_as_torch_does(name: str, dtype: torch.dtype) -> None:
    for part in numbers(dtype).split(2 * 65536):
        decoded = torch.empty(65536)
        one, two = torch.empty_like(part, dtype=dtype), torch.empty_like(part, dtype=dtype)
        host = executor(SEMANTICS, "plain")
        run = getattr(host.functions, f"run_{name}")
        run(pointer(decoded), pointer(part), pointer(one), pointer(two), part.numel() // 2)
        assert host.fault == ""
        expected = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(dtype).float()
        assert torch.equal(decoded.nan_to_num(3.0), expected.nan_to_num(3.0))
        assert torch.equal(one.view(torch.int16), part.to(dtype).view(torch.int16))
        assert torch.equal(two.view(torch.int16), one.view(torch.int16))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", [0, 1, 5])
def test_shuffles_and_votes(mode: Mode, seed: int) -> None:
    host = executor(SEMANTICS, mode)
    host.order(seed)
    with host.guard():
        out = torch.zeros(14, 64, dtype=torch.int32)
        host.functions.run_warp(pointer(out))
    assert host.fault == ""

    def within(t: int, source: int, width: int) -> int:
        return source if source // width == t // width else t

    ballots = [sum(1 << lane for lane in range(32) if (w * 32 + lane) % 3 == 0) for w in (0, 1)]
    expected = [
        [t // 32 * 32 + 5 for t in range(64)],
        [t // 8 * 8 + (t + 3) % 8 for t in range(64)],
        [t ^ 9 for t in range(64)],
        # a lane may read an earlier segment, and keeps its own value if it asks for a later one
        [t ^ 8 if t & 8 else t for t in range(64)],
        [within(t, t - 3, 32) for t in range(64)],
        [within(t, t - 3, 16) for t in range(64)],
        [within(t, t + 3, 32) for t in range(64)],
        [within(t, t + 3, 16) for t in range(64)],
        [ctypes.c_int32(ballots[t // 32]).value for t in range(64)],
        [t // 32 for t in range(64)],
        [1 - t // 32 for t in range(64)],
        [22] * 64,
        [1] * 64,
        [0] * 64,
    ]
    assert out.tolist() == expected


def test_order_of_threads_follows_the_seed() -> None:
    host = executor(SEMANTICS, "checked")
    orders = []
    for seed in (0, 0, 1, 2, 3):
        host.order(seed)
        with host.guard():
            out = torch.full((720,), -1, dtype=torch.int32)
            host.functions.run_index(pointer(out), pointer(torch.zeros(1, dtype=torch.int32)))
        assert host.fault == ""
        assert out.sort().values.tolist() == list(range(720))
        orders.append(out.tolist())
    host.order(0)
    assert orders[0] == list(range(720))
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 4


def test_shared_memory_starts_as_garbage_in_each_block() -> None:
    host = executor(SEMANTICS, "plain")
    out = torch.zeros(64)
    assert host.functions.run_garbage(pointer(out)) == 0
    assert out.isnan().all()


@pytest.mark.parametrize("mode", MODES)
def test_pipelined_copies(mode: Mode) -> None:
    host = executor(SEMANTICS, mode)
    x = torch.randn(7, 128)
    with host.guard() as guard:
        out = torch.empty_like(x)
        host.functions.run_pipeline(pointer(guard.tensor(x)), pointer(out), 7)
    assert host.fault == ""
    x[1::2, -2:] = 0
    assert torch.equal(out, x.flip(1))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("b_columns", [0, 1])
@pytest.mark.parametrize("a_columns", [0, 1])
@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.float])
def test_matrix_products(dtype: torch.dtype, a_columns: int, b_columns: int, mode: Mode) -> None:
    host = executor(SEMANTICS, mode)
    torch.manual_seed(a_columns + 2 * b_columns)
    kind = [torch.half, torch.bfloat16, torch.float].index(dtype)
    a, b = torch.randn(2, 16, 24).to(dtype)
    c = torch.randn(16, 20)
    with host.guard() as guard:
        d = torch.full((16, 20), 7.0)
        tensors = [guard.tensor(x) for x in (a, b, c)]
        host.functions.run_product(kind, a_columns, b_columns, *(pointer(x) for x in (*tensors, d)))
    assert host.fault == ""
    a, b, c, out = (x[:, :16].double() for x in (a, b, c, d))
    if a_columns == b_columns:
        c, out = c.T, out.T
    expected = 2 * ((a.T if a_columns else a) @ (b.T if b_columns else b) + c)
    torch.testing.assert_close(out, expected, rtol=0, atol=2e-2 if dtype is torch.float else 2e-5)
    assert (d[:, 16:] == 7).all()


# ---- the same sources for GPUs ----


@pytest.mark.slow
@pytest.mark.parametrize("source", [FAULTS, SEMANTICS], ids=lambda path: path.name)
def test_nvcc_compiles_the_same_sources(source: Path, tmp_path: Path) -> None:
    compiler = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if not Path(compiler).exists():
        pytest.skip("needs nvcc")
    command = [compiler, "-std=c++17", "-arch=sm_80", f"-I{KERNELS}", "-c", str(source)]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "object.o")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
