"""The pace of a run is known without waiting for the devices."""

import time

import jax
import jax.numpy as jnp
import pytest

from isft_jax.train import pace


class Loss:
  """A value on a device that is finished when it is told so."""

  def __init__(self, now):
    self.is_done, self._now = False, now

  def is_ready(self):
    return self.is_done

  def block_until_ready(self):
    if not self.is_done:
      self._now[0] += 2.0
    self.is_done = True
    return self

  def __float__(self):
    return 1.25


@pytest.fixture
def now(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(pace.time, 'monotonic', lambda: now[0])
  return now


def test_the_pace_is_said_once_after_three_steps(now, capsys):
  losses = {step: Loss(now) for step in range(1, 8)}
  pending = [(step, {'loss': loss}) for step, loss in losses.items()]
  printed = []
  with pace.Pace('run', 0, 100) as watched:
    for step, loss in losses.items():
      # The device is one step behind the host.
      watched.look(pending[:step])
      loss.is_done = True
      now[0] += 30.0 if step == 1 else 0.5
      printed.append(capsys.readouterr().out)
  # Step 3 is seen in the fourth call, and the compilation does not count.
  assert printed == [
    *('', '', ''),
    '  run              0.5 s per step after the first, '
    'about 48 seconds left\n',
    *('', '', ''),
  ]


def test_looking_never_waits(now):
  losses = [Loss(now) for _ in range(4)]
  with pace.Pace('run', 0, 100) as watched:
    watched.look([(step, {'loss': loss}) for step, loss in enumerate(losses)])
  assert now == [100.0]
  assert not any(loss.is_done for loss in losses)


def test_steps_are_seen_while_the_run_waits_for_them(now, capsys):
  losses = [Loss(now) for _ in range(6)]
  with pace.Pace('run', 10, 40) as watched:
    watched.wait(
      [(step, {'loss': loss}) for step, loss in enumerate(losses, 11)], {}
    )
  assert capsys.readouterr().out == (
    '  run              2 s per step after the first, about 54 seconds left\n'
  )


def test_evaluations_are_waited_for_batch_by_batch(now, capsys):
  counts = [Loss(now) for _ in range(100)]
  with pace.Pace('run', 0, 40) as watched:
    watched.wait([(1, {'loss': Loss(now)})], {1: counts})
  assert all(count.is_done for count in counts)
  assert capsys.readouterr().err.splitlines() == [
    f'run  2%  1/40 steps  loss 1.2500  {run} so far; '
    f'held-out loss  {done}%  {done}/100 batches  {left} left'
    for run, done, left in [
      ('1:00', 29, '2:22'),
      ('2:00', 59, '1:22'),
      ('3:00', 89, '0:22'),
    ]
  ]


def test_a_finished_run_says_nothing(now, capsys):
  with pace.Pace('run', 0, 3) as watched:
    watched.wait([(step, {'loss': Loss(now)}) for step in (1, 2, 3)], {})
  assert capsys.readouterr() == ('', '')


def test_a_run_of_less_than_a_second_says_nothing(now, capsys):
  losses = [Loss(now) for _ in range(4)]
  with pace.Pace('run', 0, 6) as watched:
    for step, loss in enumerate(losses, 1):
      loss.is_done = True
      now[0] += 0.3
      watched.look([(step, {'loss': loss})])
  assert capsys.readouterr() == ('', '')


def test_real_arrays():
  """`is_ready` is all that is asked of an array that may be computed."""

  @jax.jit
  def slow(x):
    return jax.lax.fori_loop(0, 200, lambda _, x: jnp.tanh(x @ x), x).sum()

  x = jnp.eye(400)
  slow(x).block_until_ready()
  with pace.Pace('run', 0, 10) as watched:
    start = time.perf_counter()
    loss = slow(x)
    watched.look([(1, {'loss': loss})])
    assert not loss.is_ready()
    looked = time.perf_counter() - start
    loss.block_until_ready()
    assert looked < time.perf_counter() - start


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [
    (0.2, '1 second'),
    (12.4, '12 seconds'),
    (250, '4 minutes'),
    (5999, '1 hour 40 minutes'),
    (7500, '2 hours 5 minutes'),
    (3 * 86_400, '3 days'),
  ],
)
def test_durations(seconds, text):
  assert pace.duration(seconds) == text
