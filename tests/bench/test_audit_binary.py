"""What the audit reads from binaries, and from what a CUDA library launches."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from bench.audit import binary as audit_binary
from bench.audit import cuda as audit_cuda

USAGE = """
Resource usage:
 Common:
  GLOBAL:0
 Function first:
  REG:40 STACK:8 SHARED:1280 LOCAL:0 CONSTANT[0]:544 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function second:
  REG:255 STACK:0 SHARED:1024 LOCAL:0 CONSTANT[0]:544 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
SASS = """
	code for sm_90
		Function : first
        /*0000*/  LDG.E.128.CONSTANT R4, [R2.64] ;
        /*0010*/  LDGSTS.E.BYPASS.128 [R5], [R2.64] ;
        /*0020*/  LDG.E.64 R4, [R2.64] ;
        /*0030*/  STG.E.128 [R2.64], R4 ;
		Function : second
        /*0000*/  HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
"""


def test_reading_an_nvidia_binary(monkeypatch: pytest.MonkeyPatch) -> None:
    listings = {"-res-usage": USAGE, "-sass": SASS}
    monkeypatch.setattr(audit_binary, "_cuobjdump", lambda cubin, option: listings[option])
    first, second = (
        audit_binary.read_function(function, "sm_90", warps=4, shared=function.shared)
        for function in audit_binary.functions(b"", "sm_90").values()
    )
    # the system's 1024 bytes are none of the kernel's
    assert first == (40, 8, 256, 0.75, "", 2, 1)
    assert second == (255, 0, 0, 0.125, "HMMA", 0, 0)


def test_reading_amd_assembly() -> None:
    code = """
        global_load_dwordx4 v[0:3], v[4:5], off
        v_mfma_f32_32x32x8_bf16 a[0:15], v[0:1], v[2:3], a[0:15]
        .vgpr_count:     130
        .vgpr_spill_count: 2
    """
    binary = audit_binary.read_amdgcn(code, warps=4, shared=20_000)
    assert binary == (130, 8, 20_000, 0.375, "v_mfma_f32_32x32x8_bf16", 1, 0)


@pytest.mark.parametrize(
    ("registers", "warps", "shared", "columns", "occupancy"),
    [
        (32, 4, 0, 0, 1.0),
        (128, 4, 0, 0, 0.25),
        (129, 4, 0, 0, 0.1875),  # registers come in units of 8 a thread
        (32, 4, 100_000, 0, 0.125),
        (32, 1, 0, 0, 0.5),  # 32 blocks
        (32, 4, 0, 256, 0.125),
    ],
)
def test_occupancy(registers: int, warps: int, shared: int, columns: int, occupancy: float) -> None:
    """Against the occupancy calculator of the CUDA toolkit, compute capability 9.0."""
    assert audit_binary.nvidia_occupancy("sm_90", registers, warps, shared, columns) == occupancy


SOURCE = """
#include "launch.cuh"
#include "params.h"

namespace seamo {
namespace {

template <typename Scalar, int kCount>
__global__ void twice_kernel(Scalar* x, int at) {
  SEAMO_SHARED(float4, wide);
  __shared__ float declared[64];
  float many[kCount];
  for (int i = 0; i < kCount; ++i) many[(at + i) % kCount] = static_cast<float>(x[i]);
  wide[threadIdx.x] = reinterpret_cast<float4*>(x)[threadIdx.x];
  declared[threadIdx.x % 64] = many[at];
  __syncthreads();
  reinterpret_cast<float4*>(x)[threadIdx.x] = wide[at];
  x[at] = static_cast<Scalar>(declared[at]);
}

}  // namespace

SEAMO_EXPORT int twice() {
  auto kernel = twice_kernel<float, 40>;
  return SEAMO_LAUNCH(kernel, dim3(5), dim3(32, 3), 60000, nullptr, nullptr, 1);
}

}  // namespace seamo
"""


def test_what_a_cuda_library_launches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = audit_cuda.obstacle()
    if reason is not None:
        pytest.skip(f"compiling CUDA: {reason}")
    source = tmp_path / "twice.cu"
    source.write_text(SOURCE)
    include = f"-I{audit_cuda._nvcc.SOURCES}"
    monkeypatch.setattr(audit_cuda._nvcc, "_FLAGS", (*audit_cuda._nvcc._FLAGS, include))
    objects = audit_cuda._compiled(tmp_path, ["sm_80", "sm_90"], [source], 1)
    library = ctypes.CDLL(str(audit_cuda._linked(tmp_path, objects)))
    library.seamo_launched.restype = ctypes.c_char_p
    for _ in range(2):
        assert library.twice() == 0
        mangled, threads, shared = library.seamo_launched().decode().split()
        assert (threads, shared) == ("96", "60000")
    for target in ("sm_80", "sm_90"):
        found = audit_cuda._functions(objects, target)
        assert audit_cuda._readable(found) == {mangled: "twice<float32, 40>"}
        launch = audit_cuda.Launch(mangled, 96, 60000)
        kernel = audit_cuda._launched("twice", found[mangled], target, launch)
        assert kernel.configuration == "threads 96"
        assert kernel.binary.spill_bytes == 160
        assert kernel.binary.shared == 60000 + 256
        assert (kernel.binary.wide_loads, kernel.binary.wide_stores) == (1, 1)
