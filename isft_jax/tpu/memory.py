"""The memory of a program for TPUs, as its compiler reports or refuses it."""

import re
from typing import NamedTuple, Protocol

_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
_SIZE = r'([\d.]+)([KMGT]?)B?'


class Buffer(NamedTuple):
  """A large array of a refused program: GiB, its type, and what makes it."""

  gib: float
  shape: str
  made_by: str


class Usage(Protocol):
  """The result of compiled.memory_analysis(), for which jax has no type."""

  alias_size_in_bytes: int
  argument_size_in_bytes: int
  generated_code_size_in_bytes: int
  output_size_in_bytes: int
  peak_memory_in_bytes: int


def by_kind(usage: Usage) -> dict[str, int]:
  """Returns the bytes of a compiled program on a device, by what they are.

  state: arguments that the results replace, in place.
  batch: the other arguments. outputs: the other results.
  temporary: the rest of the peak; code: the program.

  usage: the result of compiled.memory_analysis().
  """
  state, code = usage.alias_size_in_bytes, usage.generated_code_size_in_bytes
  batch = usage.argument_size_in_bytes - state
  outputs = usage.output_size_in_bytes - state
  known = state + batch + outputs + code
  return {
    'state': state,
    'batch': batch,
    'outputs': outputs,
    'temporary': max(0, usage.peak_memory_in_bytes - known),
    'code': code,
  }


def needed(refusal: str) -> float:
  """Returns the bytes that a refused program would take on a device.

  The least of them, where the compiler gave up before it had counted all.
  0 if it does not say.
  """
  found = re.search(rf'Used {_SIZE} of', refusal) or re.search(
    rf'\(({_SIZE})\) exceeds', refusal
  )
  return _bytes(*found.groups()[-2:]) if found else 0


def largest(refusal: str, count: int = 5) -> list[Buffer]:
  """Returns the largest arrays of a refused program, as the compiler lists."""
  found = []
  for part in re.split(r'\n\s*\d+\. Size: ', refusal)[1 : count + 1]:
    size = re.match(_SIZE, part)
    assert size is not None, part
    shape = re.search(r'Shape: (\S+?)(?:\{|\s|$)', part)
    operator = re.search(r'op_name="([^"]*)"', part)
    found.append(
      Buffer(
        round(_bytes(*size.groups()) / 2**30, 3),
        shape[1] if shape else '',
        operator[1] if operator else '',
      )
    )
  return found


def _bytes(number: str, unit: str) -> float:
  return float(number) * _UNITS[unit]
