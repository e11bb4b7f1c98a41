"""Collectives read from a program: one by hand, and one that is compiled."""
# A program's lines are as long as they are.
# ruff: noqa: E501

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from isft_jax import sharding
from isft_jax.config import MeshConfig
from isft_jax.tpu import collectives as lib
from isft_jax.tpu.collectives import Collective, by_kind, collectives

P = PartitionSpec

# 4 chips. Layers: 3, each of which gathers once forward, in a loop within which
# another one of 5 rounds reduces.
PROGRAM = """
HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%inner_condition (p.1: (s32[], f32[8,128])) -> pred[] {
  %p.1 = (s32[], f32[8,128]{1,0:T(8,128)}) parameter(0)
  %count.1 = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  %end.1 = s32[]{:T(128)} constant(5)
  ROOT %lt.1 = pred[] compare(%count.1, %end.1), direction=LT
}

%inner_body (p.2: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %p.2 = (s32[], f32[8,128]{1,0:T(8,128)}) parameter(0)
  %x.2 = f32[8,128]{1,0:T(8,128)} get-tuple-element(%p.2), index=1
  %r.2 = f32[8,128]{1,0:T(8,128)} all-reduce(%x.2), channel_id=2, replica_groups={{0,1},{2,3}}, use_global_device_ids=true, to_apply=%add
  %i.2 = s32[]{:T(128)} get-tuple-element(%p.2), index=0
  %by.2 = s32[]{:T(128)} constant(1)
  %next.2 = s32[]{:T(128)} add(%i.2, %by.2)
  ROOT %t.2 = (s32[], f32[8,128]) tuple(%next.2, %r.2)
}

%last_body (p.5: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %p.5 = (s32[], f32[8,128]{1,0:T(8,128)}) parameter(0)
  %x.5 = f32[8,128]{1,0:T(8,128)} get-tuple-element(%p.5), index=1
  %r.5 = f32[8,128]{1,0:T(8,128)} all-reduce(%x.5), channel_id=3, replica_groups={{0,1},{2,3}}, use_global_device_ids=true, to_apply=%add
  %i.5 = s32[]{:T(128)} get-tuple-element(%p.5), index=0
  %by.5 = s32[]{:T(128)} constant(1)
  %half.5 = s32[]{:T(128)} add(%by.5, %i.5)
  %next.5 = s32[]{:T(128)} add(%half.5, %by.5)
  ROOT %t.5 = (s32[], f32[8,128]) tuple(%next.5, %r.5)
}

%gathering (g: bf16[4,128]) -> bf16[16,128] {
  %g = bf16[4,128]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %ag = bf16[16,128]{1,0:T(8,128)(2,1)} all-gather(%g), channel_id=7, replica_groups=mesh['axis_0'=4,'axis_1'=1] {'axis_0'}, dimensions={0}
}

%all-reduce-scatter.1 (i: f32[8,128]) -> f32[2,128] {
  %i = f32[8,128]{1,0} parameter(0)
  %all = f32[8,128]{1,0} all-reduce(%i), channel_id=9, replica_groups=[1,4]<=[4], to_apply=%add
  ROOT %mine = f32[2,128]{1,0} dynamic-slice(%all, %index), dynamic_slice_sizes={2,128}
}

%outer_condition (p.3: (s32[], f32[8,128])) -> pred[] {
  %p.3 = (s32[], f32[8,128]) parameter(0)
  ROOT %lt.3 = pred[] custom-call(%p.3), custom_call_target="opaque"
}

%outer_body (p.4: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %p.4 = (s32[], f32[8,128]) parameter(0)
  %begun = (bf16[4,128], bf16[16,128], u32[]{:S(2)}) fusion(%w), kind=kCustom, calls=%gathering
  %meanwhile = bf16[16,128] fusion(%begun), kind=kCustom, calls=%gathering
  %done = bf16[16,128] fusion(%meanwhile), kind=kCustom, calls=%gathering
  ROOT %inner = (s32[], f32[8,128]) while(%p.4), condition=%inner_condition, body=%inner_body
}

ENTRY %main (x: f32[8,128], y: f32[6]) -> f32[8,128] {
  %x = f32[8,128]{1,0} parameter(0)
  %y = f32[6]{0} parameter(1)
  %outer = (s32[], f32[8,128]) while(%x), condition=%outer_condition, body=%outer_body, backend_config={"known_trip_count":{"n":"3"}}
  %scattered = f32[2,128]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
  %start = (f32[6]{0}, f32[6]{0}, u32[]{:S(2)}) collective-permute-start(%y), channel_id=4, source_target_pairs={{0,1},{1,2},{2,3},{3,0}}
  %end = f32[6]{0} collective-permute-done(%start)
  %several = (f32[8,128]{1,0}, f32[6]{0}) all-to-all(%x, %y), channel_id=4, replica_groups={{0,2},{1,3}}
  %one = s32[]{:T(128)} constant(1)
  %from = s32[]{:T(128)} copy(%one)
  %peeled = (s32[], f32[8,128]) tuple(%from, %x)
  %last = (s32[], f32[8,128]) while(%peeled), condition=%inner_condition, body=%last_body
  %send = (f32[6]{0}, u32[], token[]) send(%y, %token), channel_id=4, is_host_transfer=true, frontend_attributes={_xla_megascale_reduce_operation="SUM",_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv = (f32[6]{0}, u32[], token[]) recv(%token), channel_id=3, is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  ROOT %z = f32[8,128]{1,0} copy(%x)
}
"""


def test_a_program_by_hand():
  assert collectives(PROGRAM, chips=4) == [
    # In three instructions that run beside others, and so counted once.
    Collective('all-gather', 4 * 128 * 2 * 3, 3, False),
    Collective('all-reduce', 2 * 8 * 128 * 4 // 2, 3 * 5, False),
    # A sum of which a chip keeps its slice.
    Collective('reduce-scatter', 8 * 128 * 4 * 3 // 4, 1, False),
    Collective('collective-permute', 6 * 4, 1, False),
    Collective('all-to-all', (8 * 128 + 6) * 4 // 2, 1, False),
    # Its first round was taken out of the loop, which counts from 1 to 5, two
    # rounds written as one.
    Collective('all-reduce', 2 * 8 * 128 * 4 // 2, 2, False),
    # Through the hosts, of which the program has one slice.
    Collective('all-reduce', 0, 1, True),
  ]


def test_bytes_by_kind_are_summed_over_the_rounds():
  assert by_kind(collectives(PROGRAM, chips=4)) == {
    'all-gather': 3 * 3_072,
    'all-reduce': (15 + 2) * 4_096,
    'reduce-scatter': 3_072,
    'all-to-all': 2_060,
    'collective-permute': 24,
  }


def test_what_leaves_a_slice_is_told():
  """Chips 0 and 1 are of the first slice, 2 and 3 of the second."""
  found = collectives(PROGRAM, chips=4, slices=2)
  assert [(c.kind, c.across) for c in found] == [
    ('all-gather', True),  # of all four
    ('all-reduce', False),  # {0,1} and {2,3}
    ('reduce-scatter', True),
    ('collective-permute', True),  # 1 to 2
    ('all-to-all', True),  # {0,2} and {1,3}
    ('all-reduce', False),
    ('all-reduce', True),
  ]
  assert found[-1].size == 6 * 4  # 2 I (n - 1) / n, of two slices


@pytest.mark.parametrize(
  ('words', 'groups'),
  [
    ('replica_groups={{0,1,2},{3,4,5}}', [[0, 1, 2], [3, 4, 5]]),
    ('replica_groups={}', [[0, 1, 2, 3, 4, 5]]),
    ('replica_groups=[2,3]<=[6]', [[0, 1, 2], [3, 4, 5]]),
    ('replica_groups=[3,2]<=[2,3]T(1,0)', [[0, 3], [1, 4], [2, 5]]),
    ("replica_groups=mesh['a'=2,'b'=3] {'a'}", [[0, 3], [1, 4], [2, 5]]),
    ("replica_groups=mesh['a'=2,'b'=3] {'b'}", [[0, 1, 2], [3, 4, 5]]),
    ("replica_groups=mesh['a'=2,'b'=3] {'a','b'}", [[0, 1, 2, 3, 4, 5]]),
    # Factors of the axis of 6: 3 x 2, or 2 x 3.
    ("replica_groups=mesh['a'=6] {'a':(1)3}", [[0, 2, 4], [1, 3, 5]]),
    ("replica_groups=mesh['a'=6] {'a':(2)3}", [[0, 1, 2], [3, 4, 5]]),
    (
      "replica_groups=mesh['a'=1,'b'=6] {'a','b':(3)2}",
      [[0, 1], [2, 3], [4, 5]],
    ),
    (
      "replica_groups=mesh['a'=3,'b'=2], device_ids=([2,3]T(1,0)) {'b'}",
      [[0, 3], [1, 4], [2, 5]],
    ),
    (
      "replica_groups=mesh['a'=3,'b'=2], device_ids=([2,3]T(1,0)) {'a'}",
      [[0, 1, 2], [3, 4, 5]],
    ),
  ],
)
def test_groups_in_every_wording(words, groups):
  rest = f', channel_id=1, {words}, dimensions={{0}}, to_apply=%add'
  np.testing.assert_array_equal(lib._groups(rest, 6), groups)


@pytest.mark.parametrize(
  ('old', 'new', 'message'),
  [
    ('{"known_trip_count":{"n":"3"}}', '{}', 'how often outer runs'),
    ('add(%i.2, %by.2)', 'multiply(%i.2, %by.2)', 'how often inner runs'),
    ('add(%i.2, %by.2)', 'add(%i.2, %i.2)', 'how often inner runs'),
    ("mesh['axis_0'=4,'axis_1'=1]", 'torus(4)', 'groups .* an unknown format'),
    ("{'axis_0'}", "{'axis_0':half}", 'the groups of a collective'),
    ('ENTRY ', '', 'has no ENTRY'),
  ],
)
def test_what_cannot_be_read_is_said(old, new, message):
  assert old in PROGRAM
  with pytest.raises(ValueError, match=message):
    collectives(PROGRAM.replace(old, new), chips=4)


def test_a_compiled_program_on_these_devices():
  """Weights [5, 64, 64] over 8 devices: each gathers a layer five times."""
  mesh = sharding.make_mesh(MeshConfig(1, 8, 1))
  weights = jax.ShapeDtypeStruct(
    (5, 64, 64),
    jnp.float32,
    sharding=NamedSharding(mesh, P(None, None, 'fsdp')),
  )
  rows = jax.ShapeDtypeStruct(
    (16, 64), jnp.float32, sharding=sharding.batch_sharding(mesh)
  )

  @functools.partial(jax.jit, out_shardings=sharding.batch_sharding(mesh))
  def run(x, weights):
    def layer(x, w):
      # Opaque, so that no other order of the products can be found.
      whole = jax.lax.with_sharding_constraint(w, sharding.replicated(mesh))
      return jnp.sin(x @ whole), None

    return jax.lax.scan(layer, x, weights)[0]

  text = run.lower(rows, weights).compile().as_text()
  found = collectives(text, chips=8)
  assert by_kind(found) == {'all-gather': 5 * 64 * 8 * 4 * 7}
