"""Memory of a TPU program, from the compiler's report or its refusal."""

import re
from typing import NamedTuple, Protocol

# Binary units: the compiler's G is a GiB.
_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
# A size in the compiler's words: 2.50G, 512B.
_SIZE = r'([\d.]+)([KMGT]?)B?'


class Buffer(NamedTuple):
  """A large array of a refused program.

  Attributes:
    gib: size in GiB.
    shape: data type and shape, as in 'f32[37984,896]'.
    made_by: path of the operation that computes it.
  """

  gib: float
  shape: str
  made_by: str


class Usage(Protocol):
  """Result of compiled.memory_analysis(). jax has no type for it."""

  alias_size_in_bytes: int
  argument_size_in_bytes: int
  generated_code_size_in_bytes: int
  output_size_in_bytes: int
  peak_memory_in_bytes: int


def by_kind(usage: Usage, frozen: int = 0) -> dict[str, int]:
  """Splits the peak memory of a compiled program on a device by purpose.

  Args:
    usage: result of compiled.memory_analysis().
    frozen: bytes of the parameters that do not learn, on a device.

  Returns:
    Bytes by purpose: `state`, arguments that results replace in place;
    `frozen`, if there are any; `batch`, the other arguments; `outputs`, the
    other results; `code`, the program; `temporary`, the rest of the peak.
  """
  # A donated argument and its result share memory, and count once.
  # Aliased bytes are the donated state, which results replace.
  state, code = usage.alias_size_in_bytes, usage.generated_code_size_in_bytes
  # The arguments are the state, frozen parameters and the batch.
  batch = usage.argument_size_in_bytes - state - frozen
  # Results are the new state, in the memory of the old one, and the metrics.
  outputs = usage.output_size_in_bytes - state
  known = state + frozen + batch + outputs + code
  return {
    'state': state,
    **({'frozen': frozen} if frozen else {}),
    'batch': batch,
    'outputs': outputs,
    # The peak can be below the sum, because not all of it exists at the same
    # time.
    'temporary': max(0, usage.peak_memory_in_bytes - known),
    'code': code,
  }


def needed(refusal: str) -> float:
  """Returns the memory that a refused program would need on a device.

  Args:
    refusal: message of the compiler.

  Returns:
    Bytes; 0 if the message has none. If the compiler stopped before it had
    counted all buffers, the bytes are a lower bound.
  """
  # The compiler has two wordings.
  match = re.search(rf'Used {_SIZE} of', refusal) or re.search(
    rf'\(({_SIZE})\) exceeds', refusal
  )
  # The last two groups are the number and its unit in either wording.
  return _bytes(*match.groups()[-2:]) if match else 0


def largest(refusal: str, count: int = 5) -> list[Buffer]:
  """Returns the largest arrays of a refused program.

  Args:
    refusal: message of the compiler, which lists the largest buffers.
    count: maximum number of arrays.

  Returns:
    The arrays, in the compiler's order.
  """
  buffers = []
  # The compiler lists buffers as '1. Size: 2.50G', with lines of details below.
  for section in re.split(r'\n\s*\d+\. Size: ', refusal)[1 : count + 1]:
    size = re.match(_SIZE, section)
    assert size is not None, section
    # Either detail may be missing.
    shape = re.search(r'Shape: (\S+?)(?:\{|\s|$)', section)
    operator = re.search(r'op_name="([^"]*)"', section)
    buffers.append(
      Buffer(
        round(_bytes(*size.groups()) / 2**30, 3),
        shape[1] if shape else '',
        operator[1] if operator else '',
      )
    )
  return buffers


def _bytes(number: str, unit: str) -> float:
  return float(number) * _UNITS[unit]
