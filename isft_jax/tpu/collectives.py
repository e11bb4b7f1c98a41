"""Collectives of a compiled program, parsed from its HLO text.

  parsed = collectives(compiled.as_text(), chips=16)
  by_kind(parsed)  # {'all-gather': 123456, ...} bytes per chip and step

In optimised HLO, a scanned layer is a while loop: its body is written once, and
runs once per layer.
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

# Bits of data types whose names do not end in a number (as bf16 and s32 do).
_BITS = {'pred': 8, 'token': 0}
# First line of a computation, and a line of it: name = type opcode(...).
_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?([\w.-]+) = (.*)$')
# The opcode is the first word after a space and before a parenthesis. The type
# before it may be a tuple, whose layouts have parentheses too.
_OPCODE = re.compile(r' ([a-z][\w-]*)\(')
# Data type and shape, as in bf16[8,128].
_ARRAY = re.compile(r'\b([a-z]+\d*\w*)\[([\d,]*)\]')


# Attribute with which the TPU compiler marks collectives between slices, which
# use the network of the hosts.
_BETWEEN_SLICES = '_xla_megascale_transfer_type="'
# Groups along mesh axes: mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}
# {'a':(1)2} is a factor of an axis: 2 devices, with a factor of 1 before it.
_FACTOR = r"'(\w+)'(?::\((\d+)\)(\d+))?"
_MESH = re.compile(
  r"replica_groups=mesh\[(?P<axes>('\w+'=\d+,?)+)\]"
  r'(, device_ids=\(\[(?P<ids>[\d,]+)\](T\((?P<turn>[\d,]+)\))?\))?'
  r" ?\{(?P<over>('\w+'(:\(\d+\)\d+)?,?)+)\}"
)


class Collective(NamedTuple):
  """One collective of a program.

  Attributes:
    kind: one of KINDS.
    size: bytes that a chip sends each time, for a ring algorithm.
    times: number of runs per step.
    across: whether it crosses slices.
  """

  kind: str
  size: int
  times: int
  across: bool


def collectives(text: str, chips: int, slices: int = 1) -> list[Collective]:
  """Returns the collectives of a program, in the order of its text.

  In a ring of n chips, a chip with I bytes of input sends:

    all-gather                  I (n - 1)
    reduce-scatter, all-to-all  I (n - 1) / n
    all-reduce                  2 I (n - 1) / n
    collective-permute          I

  Args:
    text: result of compiled.as_text(). The compiler may split a collective into
      several instructions, to overlap it with others. They have the same
      channel and name, and count once.
    chips: devices of the program. Their numbers follow the mesh, whose first
      axis crosses the slices.
    slices: number of slices.

  Returns:
    The collectives.

  Raises:
    ValueError: the text does not show how often a loop runs, or it describes
      groups of chips in an unknown format.
  """
  # The computations by name, and the channels counted so far.
  program, entry = _parse(text)
  parsed: list[Collective] = []
  channels = set()

  # Walk the computations from the entry, multiplying by the trips of loops.
  def walk(name: str, times: int) -> None:
    # Operands are names, whose types give the bytes.
    types = {line.name: line.type for line in program[name]}
    # An asynchronous collective is a pair of -start and -done; the first one
    # counts.
    for line in program[name]:
      kind = line.opcode.removesuffix('-start')
      # A collective within the program.
      if kind in KINDS:
        channel = re.search(r'channel_id=(\d+)', line.rest)
        op_name = re.search(r'op_name="([^"]*)"', line.rest)
        # The channel does not suffice: collectives written by hand, under
        # shard_map, may share one.
        key = channel and (kind, channel[1], op_name and op_name[1])
        if key and key in channels:
          continue
        channels.add(key)
        put = sum(_bytes(types[operand]) for operand in line.operands)
        # The TPU compiler's name for a fusion of a sum and a slice of it.
        if kind == 'all-reduce' and name.startswith('all-reduce-scatter'):
          kind = 'reduce-scatter'
        # Groups as numbers of slices: one that differs crosses slices.
        groups = _groups(line.rest, chips) // (chips // slices)
        across = bool((groups != groups[:, :1]).any())
        # Bytes that one chip sends, for groups of groups.shape[1] chips.
        size = round(put * _SENT[kind](groups.shape[1]))
        parsed.append(Collective(kind, size, times, across))
      # A collective between slices, which the hosts run.
      elif line.opcode == 'send' and _BETWEEN_SLICES in line.rest:
        kind = line.rest.split(_BETWEEN_SLICES)[1].split('"')[0]
        kind = kind.lower().replace('_', '-')
        put = _bytes(types[line.operands[0]])
        # One chip per slice takes part, so a group is as large as the number of
        # slices.
        size = round(put * _SENT[kind](slices))
        parsed.append(Collective(kind, size, times, across=True))
      # Other computations. Later halves of asynchronous calls are not counted.
      elif line.opcode == 'while':
        body, condition = (_role(line, name) for name in ('body', 'condition'))
        trips = _trips(line, program[name], program[condition], program[body])
        walk(body, times * trips)
      elif line.opcode not in ('async-update', 'async-done'):
        for callee in _callees(line):
          walk(callee, times)

  walk(entry, 1)
  return parsed


def by_kind(parsed: list[Collective]) -> dict[str, int]:
  """Sums the bytes that a chip sends per step, by kind of collective.

  Args:
    parsed: collectives of a program.

  Returns:
    Bytes by kind, without kinds that do not occur.
  """
  # A collective in a loop sends its bytes in every round.
  totals = {
    kind: sum(each.size * each.times for each in parsed if each.kind == kind)
    for kind in KINDS
  }
  return {kind: total for kind, total in totals.items() if total}


# Bytes that a chip sends in a group of n, per byte of its input.
_SENT = {
  'all-gather': lambda n: n - 1,
  'reduce-scatter': lambda n: (n - 1) / n,
  'all-to-all': lambda n: (n - 1) / n,
  'all-reduce': lambda n: 2 * (n - 1) / n,
  'collective-permute': lambda n: 1,
}


class _Line(NamedTuple):
  """An instruction: name = type opcode(inputs) rest."""

  name: str
  type: str
  opcode: str
  operands: list[str]  # names in `inputs`
  inputs: str  # for a constant: its value
  rest: str


def _role(loop: _Line, role: str) -> str:
  """Returns the name of a loop's body or condition."""
  match = re.search(rf'\b{role}=%?([\w.-]+)', loop.rest)
  if not match:
    raise ValueError(f'the {role} of {loop.name} is not in the program text')
  return match[1]


def _parse(text: str) -> tuple[dict[str, list[_Line]], str]:
  """Returns the instructions of every computation, and the entry's name."""
  program: dict[str, list[_Line]] = {}
  entry, lines = '', []
  for row in text.splitlines():
    # A line opens a computation, or is an instruction of the last one opened.
    header = _COMPUTATION.match(row)
    if header:
      lines = program[header[2]] = []
      entry = header[2] if header[1] else entry
      continue
    # Braces, comments and the module's own line are no instructions.
    instruction = _INSTRUCTION.match(row)
    if not instruction:
      continue
    name, value = instruction.groups()
    opcode = _OPCODE.search(value)
    # The name in front of the opcode is the type, for example
    # bf16[16,128]{1,0}.
    if opcode:
      inputs, _, rest = value[opcode.end() :].partition(')')
      operands = re.findall(r'%([\w.-]+)', inputs)
      type_ = value[: opcode.start()]
      lines.append(_Line(name, type_, opcode[1], operands, inputs, rest))
  if not entry:
    raise ValueError('the text of the program has no ENTRY computation')
  return program, entry


def _bytes(type_: str) -> int:
  """Returns the bytes of an array, or of a tuple of arrays."""
  # Names of types end in their bits, as in bf16[2,3] or s32[].
  bits = 0
  for dtype, sizes in _ARRAY.findall(type_):
    digits = re.search(r'\d+', dtype)
    width = int(digits[0]) if digits else _BITS[dtype]
    # A tuple's type has several arrays. s32[] has no sizes, and a product of 1.
    bits += width * math.prod(int(n) for n in sizes.split(',') if n)
  return bits // 8


def _callees(line: _Line) -> list[str]:
  """Returns the computations that an instruction calls once."""
  # The to_apply of other opcodes is a reducer, which has no collectives.
  role = 'calls|true_computation|false_computation'
  role += '|to_apply' if line.opcode == 'call' else ''
  # Attributes look like calls=%fused_computation.3.
  names = re.findall(rf'\b(?:{role})=%?([\w.-]+)', line.rest)
  branches = re.search(r'branch_computations=\{([^}]*)\}', line.rest)
  return names + re.findall(r'[\w.-]+', branches[1] if branches else '')


def _trips(
  loop: _Line, lines: list[_Line], condition: list[_Line], body: list[_Line]
) -> int:
  """Returns the trip count of a loop.

  Args:
    loop: the loop.
    lines: instructions of the computation that contains it.
    condition: instructions of its condition.
    body: instructions of its body.
  """
  # XLA annotates loops whose trip count its analysis knows, as
  # {"known_trip_count":{"n":"24"}}.
  annotation = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
  if annotation:
    return int(annotation[1])
  unknown = ValueError(f'how often {loop.name} runs is not in the program text')

  # The end: the condition compares the counter with a constant.
  within = {line.name: line for line in condition}
  compares = [
    line
    for line in condition
    if line.opcode == 'compare' and 'direction=LT' in line.rest
  ]
  if len(compares) != 1:
    raise unknown
  # Only `counter < constant` is understood, in this order.
  counter, end = (within[operand] for operand in compares[0].operands)
  # The condition takes the counter out of the tuple that the loop carries, at
  # an index.
  index = re.search(r'index=(\d+)', counter.rest)
  if end.opcode != 'constant' or not index:
    raise unknown

  # The start: a constant, 0 unless the compiler has peeled off a first round.
  before = {line.name: line for line in lines}
  start = before.get(loop.operands[0])
  if start and start.opcode == 'tuple':
    start = before[start.operands[int(index[1])]]
    while start.opcode == 'copy':
      start = before[start.operands[0]]
  is_known = start is not None and start.opcode == 'constant'
  # Without a constant in the text, the start is 0, as in a scan.
  distance = int(end.inputs) - (int(start.inputs) if start and is_known else 0)

  # The stride: 2 if the compiler has unrolled two rounds into one.
  stride = _stride(body, int(index[1]))
  if not stride:
    raise unknown
  # Rounds of a loop that runs while the counter is below the end.
  return -(-distance // stride)


def _stride(body: list[_Line], index: int) -> int:
  """Returns the increment of a loop's counter per round; 0 if it is unknown.

  Args:
    body: instructions of the loop's body.
    index: position of the counter in the tuple that the loop carries.
  """
  within = {line.name: line for line in body}
  carried = body[-1].operands  # the last line returns the tuple
  # Follow the counter back to the input tuple, and add up the constants.
  line = within.get(carried[index]) if index < len(carried) else None
  stride = 0
  while line and line.opcode in ('add', 'copy'):
    # An add of the counter and a constant: one term is followed, the other is
    # the increment.
    terms = [within.get(operand) for operand in line.operands]
    steps = [term for term in terms if term and term.opcode == 'constant']
    rest = [term for term in terms if term not in steps]
    if len(rest) != 1:
      return 0
    stride += sum(int(step.inputs) for step in steps)
    line = rest[0]
  # The chain must end at the same place of the input tuple, or the value is not
  # a counter.
  if not line or line.opcode != 'get-tuple-element':
    return 0
  return stride if f'index={index}' in line.rest else 0


def _groups(rest: str, chips: int) -> np.ndarray:
  """Returns the groups of communicating chips, one group per row.

  The text has one of four formats.
  """
  everyone = np.arange(chips)
  # source_target_pairs={{0,1},{1,0}}
  pairs = re.search(r'source_target_pairs=\{(.*?)\}\}', rest)
  if pairs:
    # Each row is a pair of a sender and a receiver.
    return np.array(re.findall(r'\d+', pairs[1]), int).reshape(-1, 2)
  # replica_groups={{0,1},{2,3}}; {} is one group of all chips.
  listed = re.search(r'replica_groups=\{((?:\{[\d,]*\},?)*)\}', rest)
  if listed:
    rows = re.findall(r'\{([\d,]+)\}', listed[1])
    return np.array([_numbers(row) for row in rows] or everyone[None])
  # replica_groups=[2,2]<=[2,2]T(1,0): reshape, transpose, reshape.
  iota = re.search(r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\]', rest)
  if iota:
    # The T(...) is absent if the axes keep their order.
    turn = re.match(r'T\(([\d,]+)\)', rest[iota.end() :])
    grid = everyone.reshape(_numbers(iota[2]))
    return (grid.transpose(_numbers(turn[1])) if turn else grid).reshape(
      _numbers(iota[1])
    )
  # Axes of a mesh: move them to the end, and merge them.
  mesh = _MESH.search(rest)
  if not mesh:
    raise ValueError(
      f'the groups of a collective have an unknown format: {rest[:200]}'
    )
  # Sizes of the mesh axes by name, in the order of the mesh.
  axes = dict(re.findall(r"'(\w+)'=(\d+)", mesh['axes']))
  sizes: list[int] = []
  over = []
  named = {name: ends for name, *ends in re.findall(_FACTOR, mesh['over'])}
  for name, size in axes.items():
    # An axis is what comes before its factor, the factor, and what follows.
    before, factor = (int(end or 0) for end in named.get(name, ('', '')))
    before, factor = before or 1, factor or int(size)
    if name in named:
      over.append(len(sizes) + 1)
    sizes += [before, factor, int(size) // (before * factor)]
  kept = [axis for axis in range(len(sizes)) if axis not in over]
  # device_ids give the order of the devices in the mesh, by default that of
  # their numbers.
  if mesh['ids']:
    everyone = everyone.reshape(_numbers(mesh['ids']))
    if mesh['turn']:
      everyone = everyone.transpose(_numbers(mesh['turn']))
  # A group is one combination of the axes that are kept.
  members = math.prod(sizes[axis] for axis in over)
  return everyone.reshape(sizes).transpose(kept + over).reshape(-1, members)


def _numbers(text: str) -> list[int]:
  return [int(n) for n in text.split(',')]
