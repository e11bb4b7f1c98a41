"""The compiler's words on memory: sizes of a program, reasons of a refusal."""

from types import SimpleNamespace

import pytest

from isft_jax.tpu import memory
from isft_jax.tpu.memory import Buffer

# As libtpu 0.0.42 words it, shortened.
LISTED = """\
RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in \
memory space hbm. Used 22.38G of 15.75G hbm. Exceeded hbm capacity by 6.63G.

Total hbm usage >= 22.89G:
    reserved        530.00M
    program          16.85G
    arguments         5.52G

Output size 5.52G; shares 5.52G with arguments.

Program hbm requirement 16.85G:
    HLO temp         16.85G (71.7% utilization: Unpadded (12.08G) Padded \
(16.85G), 0.0% fragmentation (0B))

  Largest program allocations in hbm:

  1. Size: 7.00G
     Operator: op_name="jit(step)/jvp()/while/body/dot_general" stack_frame_id=4
     Shape: f32[8,14,4096,4096]{3,2,1,0:T(8,128)}
     Unpadded size: 7.00G
     XLA label: fusion.1 = fusion(p0)
     Allocation type: HLO temp
     ==========================

  2. Size: 519.31M
     Shape: bf16[151936,896]{1,0:T(8,128)(2,1)}
     Unpadded size: 259.66M
     Allocation type: HLO temp
     ==========================
"""
AT_ONCE = (
  'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for '
  'HLO temporaries (768.00G) exceeds available HBM (15.75G).'
)


@pytest.mark.parametrize(
  ('refusal', 'gib'),
  [(LISTED, 22.38), (AT_ONCE, 768), ('RESOURCE_EXHAUSTED: no more', 0)],
)
def test_what_a_refused_program_needs(refusal, gib):
  assert memory.needed(refusal) == gib * 2**30


def test_its_largest_buffers_with_what_makes_them():
  first = 'jit(step)/jvp()/while/body/dot_general'
  listed = [
    Buffer(7.0, 'f32[8,14,4096,4096]', first),
    Buffer(round(519.31 / 1024, 3), 'bf16[151936,896]', ''),
  ]
  assert memory.largest(LISTED) == listed
  assert memory.largest(LISTED, count=1) == listed[:1]
  assert memory.largest(AT_ONCE) == []


def test_the_kinds_add_up_to_the_peak():
  """What a result replaces is one piece of memory, not two."""
  usage = SimpleNamespace(
    alias_size_in_bytes=100,
    argument_size_in_bytes=110,
    output_size_in_bytes=103,
    generated_code_size_in_bytes=7,
    peak_memory_in_bytes=200,
  )
  found = memory.by_kind(usage)
  assert found == {
    'state': 100,
    'batch': 10,
    'outputs': 3,
    'temporary': 80,
    'code': 7,
  }
  assert sum(found.values()) == 200
  # Parameters that do not learn are arguments too, and no batch.
  found = memory.by_kind(usage, frozen=8)
  assert (found['frozen'], found['batch'], found['temporary']) == (8, 2, 80)
  assert sum(found.values()) == 200
