"""Joins several hosts to one run, and lets the first of them print.

Every host runs the same program on its own devices. Arrays span the devices of
all hosts. Only the first host prints, and writes files other than checkpoints.
"""

import contextlib
import itertools
import json
import time
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
from orbax.checkpoint import multihost as orbax_multihost

T = TypeVar('T')
_OPENING = 600.0  # seconds by which hosts may differ in opening their inputs
_BARRIER = 3600.0  # seconds that one host may need, as for checksums
_LEAVING = 10.0  # seconds by which hosts may differ in reading why they end
# Calls are numbered, because a key of the coordinator is written once.
_numbers = itertools.count()


def join(
  coordinator: str = '', hosts: int = 0, host: int = -1, heartbeat: int = 100
) -> None:
  """Joins the other hosts. Call it before any other function of jax.

  By default, all arguments come from TPU metadata or SLURM.

  Args:
    coordinator: ADDRESS:PORT of the first host, or ''.
    hosts: number of hosts, or 0.
    host: index of this host, or -1.
    heartbeat: seconds of silence after which a host counts as dead, and the
      others end with an error. A host that has finished waits as long for the
      others.

  Raises:
    ValueError: neither the arguments nor the environment name the hosts.
  """
  # Zero, negative and empty values become None, which lets jax detect the
  # value.
  try:
    jax.distributed.initialize(
      coordinator_address=coordinator or None,
      num_processes=hosts or None,
      process_id=None if host < 0 else host,
      heartbeat_timeout_seconds=heartbeat,
      shutdown_timeout_seconds=heartbeat,
    )
  except ValueError as error:
    # An error about the given arguments needs no further explanation.
    if coordinator:
      raise
    raise ValueError(
      f'{error} Neither TPU metadata nor SLURM name the hosts; give '
      '--coordinator=ADDRESS:PORT, --hosts and --host'
    ) from None


def is_first() -> bool:
  """Returns whether this host prints and writes metrics."""
  # Process 0 is the coordinator, and so exists in every run.
  return jax.process_index() == 0


def tell(line: str) -> None:
  """Prints a line on the first host only."""
  if is_first():
    print(line, flush=True)


def wait_for_all(name: str) -> None:
  """Waits until every host is here, without using the devices."""
  if jax.process_count() > 1:
    orbax_multihost.get_jax_distributed_client().wait_at_barrier(
      f'isft/{next(_numbers)}/{name}', int(_BARRIER * 1000)
    )


def raise_on_all(refusal: str) -> None:
  """Raises the first host's error on every host.

  Hosts that continued without the first would wait for it in vain.

  Args:
    refusal: message of the error; '' for none. Only that of the first host
      matters.

  Raises:
    ValueError: the first host has a message, or does not answer in time.
  """
  if jax.process_count() > 1:
    client = orbax_multihost.get_jax_distributed_client()
    key = f'isft/{next(_numbers)}/refusal'
    if is_first():
      # The store has no empty values.
      client.key_value_set(key, f' {refusal}')
    else:
      answer = _get(client, key, _OPENING)
      refusal = f'host 0 did not answer within {_OPENING:.0f} s'
      if answer is not None:
        refusal = answer[1:]
    if refusal:
      _leave_together(client, key)
  if refusal:
    raise ValueError(refusal)


def share(value: T) -> T:
  """Returns the first host's value on every host.

  Args:
    value: a JSON value. Only that of the first host matters. Tuples become
      lists on the others.

  Raises:
    ValueError: the first host does not answer in time.
  """
  if jax.process_count() == 1:
    return value
  client = orbax_multihost.get_jax_distributed_client()
  key = f'isft/{next(_numbers)}/shared'
  if is_first():
    client.key_value_set(key, json.dumps(value))
    return value
  answer = _get(client, key, _OPENING)
  if answer is None:
    raise ValueError(f'host 0 did not answer within {_OPENING:.0f} s')
  return json.loads(answer)


def check_equal(facts: Mapping[str, object]) -> None:
  """Checks that all hosts have the same facts about a run.

  Hosts with different configs, records or plans would compile different
  programs, and then wait for each other forever, or train on other batches.

  Args:
    facts: JSON values by name.

  Raises:
    ValueError: the facts differ, or a host does not answer in time. It is the
      same on all hosts.
  """
  if jax.process_count() > 1:
    client = orbax_multihost.get_jax_distributed_client()
    place = f'isft/{next(_numbers)}'
    hosts = jax.process_index(), jax.process_count()
    compare(client, place, *hosts, facts, _OPENING)


def compare(
  client: Any,
  place: str,
  host: int,
  hosts: int,
  facts: Mapping[str, object],
  seconds: float,
) -> None:
  """Compares facts through the key-value store of the coordinator.

  The first host reads those of all, and writes the result.

  Args:
    client: client of jax's coordinator.
    place: prefix of the keys; used once.
    host: index of this host.
    hosts: number of hosts.
    facts: JSON values by name.
    seconds: time that the first host waits for the others.

  Raises:
    ValueError: see `check_equal`.
  """
  client.key_value_set(f'{place}/{host}', json.dumps(facts))
  if host:
    # The first host may begin to wait later than this one.
    result = _get(client, f'{place}/result', 2 * seconds + 10)
    if result is None:
      result = f'host 0 did not answer within {2 * seconds + 10:.0f} s'
  else:
    result = _compared(client, place, hosts, facts, seconds)
    # The store has no empty values.
    client.key_value_set(f'{place}/result', result or 'equal')
  if result and result != 'equal':
    _leave_together(client, place)
    raise ValueError(result)


def _compared(
  client: Any,
  place: str,
  hosts: int,
  facts: Mapping[str, object],
  seconds: float,
) -> str:
  """Returns the first difference between hosts in words, or ''."""
  end = time.monotonic() + seconds
  mine = json.loads(json.dumps(facts))  # tuples become lists, as theirs
  for other in range(1, hosts):
    text = _get(client, f'{place}/{other}', end - time.monotonic())
    if text is None:
      return (
        f'host {other} has not opened its inputs within {seconds:.0f} s of the '
        'first host; look at its output'
      )
    theirs = json.loads(text)
    names = [
      name for name in mine | theirs if mine.get(name) != theirs.get(name)
    ]
    if names:
      # The first few, so that the line stays readable.
      words = ', '.join(
        f'{name} ({mine.get(name)!r} and {theirs.get(name)!r})'
        for name in names[:3]
      )
      more = f' and {len(names) - 3} more' if len(names) > 3 else ''
      return (
        f'hosts 0 and {other} differ in {words}{more}; start every host with '
        'the same command, config and records'
      )
  return ''


def _leave_together(client: Any, place: str) -> None:
  """Waits until all hosts know why they end.

  The first host has what they read, and takes it along when it ends.
  """
  # A host that does not come is why they end, or has ended before.
  with contextlib.suppress(Exception):
    client.wait_at_barrier(f'{place}/known', int(_LEAVING * 1000))


def _get(client: Any, key: str, seconds: float) -> str | None:
  """Returns the value of a key, or None if nobody writes it in time."""
  try:
    return client.blocking_key_value_get(key, max(1, int(seconds * 1000)))
  except Exception as error:  # jaxlib has one type for all
    if 'DEADLINE_EXCEEDED' in str(error):
      return None
    raise ValueError(
      f'the hosts cannot be compared ({str(error).splitlines()[0]})'
    ) from error
