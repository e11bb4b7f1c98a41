"""Several hosts as one run: how they find each other, and who speaks for all.

Every host runs the same program on its own devices. Arrays span all of them;
what is printed and written beside checkpoints is the first host's.
"""

import jax


def join(
  coordinator: str = '', hosts: int = 0, host: int = -1, heartbeat: int = 100
) -> None:
  """Joins the other hosts; before anything else is asked of jax.

  coordinator: ADDRESS:PORT of the first host. Empty, as are a number of hosts
    of 0 and a negative host: whatever TPU metadata or SLURM say.
  heartbeat: seconds of silence after which a host counts as dead: the others
    then end with an error. So long, too, a host that ends waits for them.

  Raises ValueError if nobody says who the hosts are.
  """
  try:
    jax.distributed.initialize(
      coordinator_address=coordinator or None,
      num_processes=hosts or None,
      process_id=None if host < 0 else host,
      heartbeat_timeout_seconds=heartbeat,
      shutdown_timeout_seconds=heartbeat,
    )
  except ValueError as error:
    if coordinator:
      raise
    raise ValueError(
      f'{error} Neither TPU metadata nor SLURM say who the hosts are: give '
      '--coordinator=ADDRESS:PORT, --hosts and --host'
    ) from None


def is_first() -> bool:
  """Returns whether this is the host that prints, and writes metrics."""
  return jax.process_index() == 0


def tell(line: str) -> None:
  """Prints a line, on the first host alone."""
  if is_first():
    print(line, flush=True)
