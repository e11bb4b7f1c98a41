"""What the chips of a compiled program say to each other, read from its text.

The text is optimised HLO, in which a scanned layer is a while loop whose body
is written once and runs as often as there are layers.
"""

import math
import re
from typing import NamedTuple

import numpy as np

KINDS = (
  'all-gather',
  'all-reduce',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
)

_BITS = {'pred': 8, 'token': 0}  # others end in theirs: bf16, s32
_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?([\w.-]+) = (.*)$')
# The type may be a tuple, with layouts that have parentheses of their own; the
# opcode is the first word that a parenthesis follows and a space precedes.
_OPCODE = re.compile(r' ([a-z][\w-]*)\(')
_ARRAY = re.compile(r'\b([a-z]+\d*\w*)\[([\d,]*)\]')


# What the chips of several slices do together, the compiler for TPUs hands to
# the hosts' network, and calls it so.
_BETWEEN_SLICES = '_xla_megascale_transfer_type="'
# Groups along axes of a mesh: mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}
_MESH = re.compile(
  r"replica_groups=mesh\[(?P<axes>('\w+'=\d+,?)+)\]"
  r'(, device_ids=\(\[(?P<ids>[\d,]+)\](T\((?P<turn>[\d,]+)\))?\))?'
  r" ?\{(?P<over>('\w+',?)+)\}"
)


class Collective(NamedTuple):
  """One collective of a program.

  kind: one of KINDS.
  size: bytes that a chip sends each time, if it goes around a ring.
  times: how often it runs in a step.
  across: whether it leaves a slice.
  """

  kind: str
  size: int
  times: int
  across: bool


def collectives(text: str, chips: int, slices: int = 1) -> list[Collective]:
  """Returns the collectives of a program, in the order of its text.

  A ring of n chips sends, of the I bytes that a chip puts in:

    all-gather                  I (n - 1)
    reduce-scatter, all-to-all  I (n - 1) / n
    all-reduce                  2 I (n - 1) / n
    collective-permute          I

  text: of compiled.as_text(). A collective that is spread over several
    instructions, to run beside others, counts once: by its channel and name.
  chips: devices of the program. Their numbers follow the mesh, whose first
    axis runs across the slices.

  Raises ValueError for a loop whose length the text does not tell, or groups
  of chips in words that are not known.
  """
  program, entry = _parse(text)
  found: list[Collective] = []
  channels = set()

  def walk(name: str, times: int) -> None:
    types = {line.name: line.type for line in program[name]}
    for line in program[name]:
      kind = line.opcode.removesuffix('-start')
      if kind in KINDS:
        channel = re.search(r'channel_id=(\d+)', line.rest)
        made_by = re.search(r'op_name="([^"]*)"', line.rest)
        # Those written by hand, under shard_map, may share a channel.
        known = channel and (kind, channel[1], made_by and made_by[1])
        if known and known in channels:
          continue
        channels.add(known)
        put = sum(_bytes(types[operand]) for operand in line.operands)
        if kind == 'all-reduce' and name.startswith('all-reduce-scatter'):
          # So the compiler for TPUs calls a fusion of a sum and a slice of it.
          kind = 'reduce-scatter'
        groups = _groups(line.rest, chips) // (chips // slices)
        across = bool((groups != groups[:, :1]).any())
        size = round(put * _SENT[kind](groups.shape[1]))
        found.append(Collective(kind, size, times, across))
      elif line.opcode == 'send' and _BETWEEN_SLICES in line.rest:
        kind = line.rest.split(_BETWEEN_SLICES)[1].split('"')[0]
        kind = kind.lower().replace('_', '-')
        put = _bytes(types[line.operands[0]])
        size = round(put * _SENT[kind](slices))
        found.append(Collective(kind, size, times, across=True))
      elif line.opcode == 'while':
        body, condition = (_role(line, name) for name in ('body', 'condition'))
        trips = _trips(line, program[name], program[condition], program[body])
        walk(body, times * trips)
      elif line.opcode not in ('async-update', 'async-done'):
        for callee in _callees(line):
          walk(callee, times)

  walk(entry, 1)
  return found


def by_kind(found: list[Collective]) -> dict[str, int]:
  """Returns the bytes that a chip sends in a step, of each kind there is."""
  totals = {
    kind: sum(each.size * each.times for each in found if each.kind == kind)
    for kind in KINDS
  }
  return {kind: total for kind, total in totals.items() if total}


# Of the bytes that a chip puts in, how many it sends in a group of n.
_SENT = {
  'all-gather': lambda n: n - 1,
  'reduce-scatter': lambda n: (n - 1) / n,
  'all-to-all': lambda n: (n - 1) / n,
  'all-reduce': lambda n: 2 * (n - 1) / n,
  'collective-permute': lambda n: 1,
}


class _Line(NamedTuple):
  name: str
  type: str
  opcode: str
  operands: list[str]
  inputs: str  # what the operands were read from; of a constant, its value
  rest: str


def _role(loop: _Line, role: str) -> str:
  """Returns the name of the computation that has a role in a loop."""
  found = re.search(rf'\b{role}=%?([\w.-]+)', loop.rest)
  if not found:
    raise ValueError(f'the {role} of {loop.name} is not in the text')
  return found[1]


def _parse(text: str) -> tuple[dict[str, list[_Line]], str]:
  """Returns the instructions of every computation, and the entry's name."""
  program: dict[str, list[_Line]] = {}
  entry, lines = '', []
  for row in text.splitlines():
    header = _COMPUTATION.match(row)
    if header:
      lines = program[header[2]] = []
      entry = header[2] if header[1] else entry
      continue
    found = _INSTRUCTION.match(row)
    if not found:
      continue
    opcode = _OPCODE.search(found[2])
    if opcode:
      inputs, _, rest = found[2][opcode.end() :].partition(')')
      operands = re.findall(r'%([\w.-]+)', inputs)
      kind = found[2][: opcode.start()]
      lines.append(_Line(found[1], kind, opcode[1], operands, inputs, rest))
  if not entry:
    raise ValueError('the text of the program has no ENTRY computation')
  return program, entry


def _bytes(type_: str) -> int:
  """Returns the bytes of an array, or of a tuple of arrays."""
  bits = 0
  for dtype, sizes in _ARRAY.findall(type_):
    digits = re.search(r'\d+', dtype)
    width = int(digits[0]) if digits else _BITS[dtype]
    bits += width * math.prod(int(n) for n in sizes.split(',') if n)
  return bits // 8


def _callees(line: _Line) -> list[str]:
  """Returns the computations that an instruction runs once; not reducers."""
  role = 'calls|true_computation|false_computation'
  role += '|to_apply' if line.opcode == 'call' else ''
  found = re.findall(rf'\b(?:{role})=%?([\w.-]+)', line.rest)
  branches = re.search(r'branch_computations=\{([^}]*)\}', line.rest)
  return found + re.findall(r'[\w.-]+', branches[1] if branches else '')


def _trips(
  loop: _Line, lines: list[_Line], condition: list[_Line], body: list[_Line]
) -> int:
  """Returns how often a loop runs: as noted, or from its counter.

  The counter is compared with a constant. It begins at another one, 0 unless a
  first round has been taken out of the loop, and a round adds constants to it:
  2 where two rounds have been written as one.

  lines: of the computation that the loop is in.
  """
  noted = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
  if noted:
    return int(noted[1])
  untold = ValueError(f'how often {loop.name} runs is not in the text')
  within = {line.name: line for line in condition}
  compares = [
    line
    for line in condition
    if line.opcode == 'compare' and 'direction=LT' in line.rest
  ]
  if len(compares) != 1:
    raise untold
  counter, end = (within[operand] for operand in compares[0].operands)
  index = re.search(r'index=(\d+)', counter.rest)
  if end.opcode != 'constant' or not index:
    raise untold
  before = {line.name: line for line in lines}
  start = before.get(loop.operands[0])
  if start and start.opcode == 'tuple':
    start = before[start.operands[int(index[1])]]
    while start.opcode == 'copy':
      start = before[start.operands[0]]
  begins = start is not None and start.opcode == 'constant'
  way = int(end.inputs) - (int(start.inputs) if start and begins else 0)
  stride = _stride(body, int(index[1]))
  if not stride:
    raise untold
  return -(-way // stride)


def _stride(body: list[_Line], index: int) -> int:
  """Returns what a round of a loop adds to its counter; 0 if it is not told.

  index: of the counter among what the loop carries.
  """
  within = {line.name: line for line in body}
  carried = body[-1].operands  # of the last line, which is the tuple of them
  line = within.get(carried[index]) if index < len(carried) else None
  stride = 0
  while line and line.opcode in ('add', 'copy'):
    parts = [within.get(operand) for operand in line.operands]
    steps = [part for part in parts if part and part.opcode == 'constant']
    rest = [part for part in parts if part not in steps]
    if len(rest) != 1:
      return 0
    stride += sum(int(step.inputs) for step in steps)
    line = rest[0]
  if not line or line.opcode != 'get-tuple-element':
    return 0
  return stride if f'index={index}' in line.rest else 0


def _groups(rest: str, chips: int) -> np.ndarray:
  """Returns the chips that talk to each other, a group a row."""
  everyone = np.arange(chips)
  pairs = re.search(r'source_target_pairs=\{(.*?)\}\}', rest)
  if pairs:
    return np.array(re.findall(r'\d+', pairs[1]), int).reshape(-1, 2)
  listed = re.search(r'replica_groups=\{((?:\{[\d,]*\},?)*)\}', rest)
  if listed:
    rows = re.findall(r'\{([\d,]+)\}', listed[1])
    return np.array([_numbers(row) for row in rows] or everyone[None])
  iota = re.search(r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\]', rest)
  if iota:
    turn = re.match(r'T\(([\d,]+)\)', rest[iota.end() :])
    found = everyone.reshape(_numbers(iota[2]))
    return (found.transpose(_numbers(turn[1])) if turn else found).reshape(
      _numbers(iota[1])
    )
  mesh = _MESH.search(rest)
  if not mesh:
    raise ValueError(f'the groups of a collective are not known: {rest[:200]}')
  axes = dict(re.findall(r"'(\w+)'=(\d+)", mesh['axes']))
  sizes = [int(size) for size in axes.values()]
  over = [list(axes).index(name) for name in re.findall(r'\w+', mesh['over'])]
  kept = [axis for axis in range(len(axes)) if axis not in over]
  if mesh['ids']:
    everyone = everyone.reshape(_numbers(mesh['ids']))
    if mesh['turn']:
      everyone = everyone.transpose(_numbers(mesh['turn']))
  members = math.prod(sizes[axis] for axis in over)
  return everyone.reshape(sizes).transpose(kept + over).reshape(-1, members)


def _numbers(text: str) -> list[int]:
  return [int(n) for n in text.split(',')]
