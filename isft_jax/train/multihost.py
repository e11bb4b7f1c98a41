"""Joins several hosts to one run, and lets the first of them print.

Every host runs the same program on its own devices. Arrays span the devices of
all hosts. Only the first host prints, and writes files other than checkpoints.
"""

import jax


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
