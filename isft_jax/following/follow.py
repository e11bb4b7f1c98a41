"""Continual learning from a folder in which transcripts appear.

    look --> copy --> prepare --> score --> train --> measure --> accept
                                                              or roll back

An increment is an ordinary run in `increments/NNNN` that starts from the last
accepted parameters. follow.jsonl has an event for every stage. A kill at any
moment loses nothing: what the log has not is done again, with the same result.

    workdir/incoming/NNNN      copies of the files of the current increment
    workdir/records/NNNN       their records
    workdir/increments/NNNN    the run; 0000 has the parameters of the start
    workdir/accepted.json      points to the last accepted run
"""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from isft_jax import config as config_lib
from isft_jax import files, follow_file, objectives
from isft_jax.config import RunConfig
from isft_jax.data.batching import packing
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.preparation import outcomes
from isft_jax.data.preparation import settings as preparation_settings
from isft_jax.data.records.dataset import Records
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.follow_file import Event, Log
from isft_jax.following import (
  gate,
  preparation,
  replay,
  scores,
  transcripts,
)
from isft_jax.following.settings import Settings
from isft_jax.following.setup import Setup
from isft_jax.following.stored_records import StoredRecords
from isft_jax.following.transcripts import Folder
from isft_jax.train import (
  checkpoint,
  lock,
  loop,
  preemption,
  run_tokenizer,
)
from isft_jax.train import workdir as workdir_lib
from isft_jax.train.checkpoint import Checkpoints
from isft_jax.train.step import TrainState
from isft_jax.types import PyTree


def follow(
  config: RunConfig,
  workdir: epath.PathLike,
  settings: Settings,
  make_probe: Callable[[Renderer, str], gate.Probe] | None = None,
  probe_digest: str = '',
  show: Callable[[], object] = lambda: None,
) -> list[Event]:
  """Learns from a folder until it is stopped, or until `settings` end it.

  Args:
    config: config of the increments. `records` are earlier ones, whose
      rendering the transcripts get; it may be empty.
    workdir: folder of all increments, on a disk or in a bucket.
    settings: settings of the followed folder.
    make_probe: (renderer, folder of earlier records or '') -> probe; None
      measures no probes.
    probe_digest: what identifies the probes.
    show: called when the log has new events.

  Returns:
    All events.

  Raises:
    ValueError: the config cannot work, the workdir belongs to another folder or
      config, or another process writes it.
    SystemExit, KeyboardInterrupt: as `loop.train` raises them. The same call
      resumes.
  """
  place = os.fspath(workdir)
  # The runs of increments name their records by absolute paths.
  place = place if '://' in place else os.path.abspath(place)
  follower = _Follower(
    config, epath.Path(place), settings, make_probe, probe_digest, show
  )
  with lock.locked(place):
    return follower.run()


class _Follower:
  """The state of following between two increments."""

  def __init__(
    self,
    config: RunConfig,
    workdir: epath.Path,
    settings: Settings,
    make_probe: Callable[[Renderer, str], gate.Probe] | None,
    probe_digest: str,
    show: Callable[[], object],
  ) -> None:
    self._settings, self._workdir, self._show = settings, workdir, show
    self._folder = Folder(settings.folder)
    self._asked = config
    earlier = [*filter(None, (config.records, config.heldout))]
    workdir_lib.check(workdir, [settings.folder, *earlier])
    self._setup = Setup(config, self._folder.place)
    self._probe = None
    if make_probe:
      self._probe = make_probe(self._setup.renderer, next(iter(earlier), ''))
    self._probe_digest = probe_digest
    rules = Rules.load(settings.authors) if settings.authors else None
    self._preparer = outcomes.Preparer(
      preparation_settings.Settings(
        input='', max_length=self._setup.config.seq_len + 1
      ),
      self._setup.renderer,
      rules or Rules.default(),
    )
    self._stored = StoredRecords(workdir)
    self._seen: dict[str, transcripts.State] = {}  # of files that changed
    self._params: PyTree = None  # accepted ones, if they are on the devices

  def run(self) -> list[Event]:
    """Handles increments until the end."""
    self._begin()
    if not self._heldout and not self._probe:
      print(
        'warning: every increment is accepted, because there are neither '
        'held-out records (config.heldout) nor --probe to measure',
        flush=True,
      )
    settings = self._settings
    while not settings.increments or self._number < settings.increments:
      if pending := self._log.of(self._number + 1, 'found'):
        self._increment(self._number + 1, pending[0]['files'])
        continue
      look = self._folder.look(transcripts.taken(self._log.events))
      self._report_changed(look.changed)
      if len(look.ready) >= settings.least:
        self._take(look.ready[: settings.most])
      elif settings.until_idle and not look.growing:
        if look.ready:
          print(
            f'{len(look.ready)} new transcripts are fewer than '
            f'--follow_least={settings.least}, and wait',
            flush=True,
          )
        break
      else:
        time.sleep(settings.seconds)
    return self._log.events

  # -------------------------------------------------------------------- begin

  def _begin(self) -> None:
    """Opens the log, and saves the parameters to start from."""
    setup = self._setup
    config_lib.claim(self._workdir, self._asked, write=False)
    if (self._workdir / 'checkpoints').exists():
      raise ValueError(
        f'{self._workdir} holds an ordinary run; give another --workdir, and '
        'start from this one with config.model.init_from'
      )
    self._workdir.mkdir(parents=True, exist_ok=True)
    self._log = Log(self._workdir)
    self._heldout = setup.heldout()
    begun = {
      'event': 'begun',
      'increment': 0,
      'folder': self._folder.place,
      'heldout': setup.heldout_digest(),
      'probe': self._probe_digest,
    }
    self._check_same(begun)
    is_new = not self._log.of(0, 'measured')
    # A start that fails, or is too large for the devices, claims no workdir.
    state = setup.start() if is_new else None
    config_lib.claim(self._workdir, self._asked)
    run_tokenizer.write(
      self._workdir,
      setup.tokenizer,
      setup.renderer.rendering,
      setup.fingerprint,
    )
    if state:
      self._save_start(state)
      self._add(begun, {'event': 'measured', 'increment': 0} | self._measure())
    self._point()
    self._show()

  def _save_start(self, state: TrainState) -> None:
    """Saves the parameters to start from as those of increment 0."""
    setup = self._setup
    with Checkpoints(self._run(0), setup.config) as checkpoints:
      if checkpoints.latest() is None:
        identity = setup.base.identity if setup.base else None
        position = {'next_index': 0}
        checkpoints.save(0, state, position, setup.fingerprint, base=identity)
    self._params = state.params

  def _check_same(self, begun: Event) -> None:
    for before in self._log.of(0, 'begun'):
      names = [
        n for n in ('folder', 'heldout', 'probe') if before[n] != begun[n]
      ]
      if names:
        raise ValueError(
          f'{self._workdir} was begun with another {names[0]} '
          f'({before[names[0]] or "none"}, now {begun[names[0]] or "none"}); '
          'give another --workdir'
        )

  # ---------------------------------------------------------------- the stages

  def _take(self, names: Sequence[str]) -> None:
    """Copies files, and begins an increment of them."""
    number = self._number + 1
    incoming = self._workdir / 'incoming'
    transcripts.clear(incoming)
    entries = [
      entry
      for name in names
      if (entry := self._folder.copy(name, self._incoming(number) / name))
    ]
    if not entries:
      time.sleep(self._settings.seconds)
      return
    self._add({'event': 'found', 'increment': number, 'files': entries})

  def _increment(self, number: int, entries: Sequence[Event]) -> None:
    """Handles an increment whose files are copied."""
    earlier = [e for e in self._log.events if e['increment'] < number]
    # Prepare. Whatever cannot be is set aside.
    self._stored.fetch(number)
    report = preparation.prepare_increment(
      self._preparer,
      self._setup.renderer,
      self._incoming(number),
      entries,
      transcripts.duplicates(entries, transcripts.learned(earlier)),
      self._stored.folder(number),
    )
    self._stored.push(number)
    transcripts.clear(self._workdir / 'incoming')
    self._add(
      *(
        {'event': 'set_aside', 'increment': number} | each
        for each in report['set_aside']
      )
    )
    if not report['files']:
      self._end(number, 'skipped', 'no transcript could be prepared')
      return

    # Score each transcript before it is learned.
    records = Records(str(self._stored.folder(number)))
    self._score(number, records, report['files'])
    table_PV = objectives.weight_table(self._setup.config.objective)
    if not packing.count_targets(records.index, table_PV).any():
      reason = (
        f'objective {self._setup.config.objective!r} scores no token of the '
        'transcripts'
      )
      self._end(number, 'skipped', reason)
      return

    # Train, measure and decide.
    try:
      self._train(number, records)
    except FloatingPointError as error:
      self._end(number, 'rolled_back', files.one_line(error))
      return
    measured = self._log.of(number, 'measured')
    if not measured:
      measured = self._add(
        {'event': 'measured', 'increment': number} | self._measure()
      )
    reason = gate.objection(
      measured[0],
      self._accepted_measures(),
      self._settings.rise,
      self._settings.fall,
    )
    if reason:
      self._end(number, 'rolled_back', reason)
    else:
      self._end(number, 'accepted')

  def _score(
    self, number: int, records: Records, counted: Sequence[Mapping[str, Any]]
  ) -> None:
    if len(self._log.of(number, 'scored')) == len(counted):
      return
    setup = self._setup
    measured = scores.measure_transcripts(
      setup.trainer,
      self._model_params(),
      records,
      setup.config,
      [each['records'] for each in counted],
    )
    self._add(
      *(
        {
          'event': 'scored',
          'increment': number,
          'file': each['file'],
          'nll_by_author': sums.named(),
        }
        for each, sums in zip(counted, measured, strict=True)
      )
    )

  def _train(self, number: int, records: Records) -> None:
    """Trains on an increment; its parameters become the current ones."""
    trained = loop.train(
      self._run_config(number, records),
      self._run(number),
      base=self._setup.base,
      initial=self._give_params,
    )
    self._params = self._setup.learning(trained.params)
    # A signal in the last step would otherwise wait for the next increment.
    with preemption.Notice():
      pass
    summary = dict(trained.summary)
    self._add({'event': 'trained', 'increment': number} | summary)

  def _run_config(self, number: int, records: Records) -> RunConfig:
    """Returns the config of the run of an increment."""
    setup, share = self._setup, self._settings.replay
    place = str(self._stored.folder(number))
    config = dataclasses.replace(
      setup.config, name=f'increment_{number:04d}', records=place
    )
    if not share:
      return config
    # As many tokens as make up the share, from all that was learned before.
    pool = [*filter(None, [self._asked.records])]
    for event in self._log.events:
      if event['event'] == 'accepted':
        self._stored.fetch(event['increment'])
        pool.append(str(self._stored.folder(event['increment'])))
    tokens = sum(len(records[n].tokens_T) for n in range(len(records)))
    wanted = round(tokens * share / (1 - share))
    sample = f'{place}_replay'
    if not replay.write(sample, pool, wanted, [config.seed, number]):
      return config
    table_PV = objectives.weight_table(config.objective)
    if not packing.count_targets(Records(sample).index, table_PV).any():
      return config
    mixture = ((place, 1 - share, ''), (sample, share, ''))
    return dataclasses.replace(config, records='', mixture=mixture)

  def _end(self, number: int, event: str, reason: str = '') -> None:
    """Logs the decision, which is then carried out."""
    if event != 'accepted':
      self._params = None
    self._add(
      {'event': event, 'increment': number}
      | ({'because': reason} if reason else {})
    )
    self._point()

  def _point(self) -> None:
    """Carries out the decisions of the log: pointer and old checkpoints."""
    accepted = self._accepted()
    checkpoint.point_to(self._workdir, f'increments/{accepted[-1]:04d}')
    # A reader may have opened the one before the last.
    kept = {*accepted[-2:], self._number + 1}
    for run in self._workdir.joinpath('increments').iterdir():
      folder = run / 'checkpoints'
      if run.name.isdecimal() and int(run.name) not in kept and folder.exists():
        folder.rmtree()

  # ---------------------------------------------------------------- parameters

  def _give_params(self) -> PyTree:
    """Returns the accepted parameters, which the caller donates."""
    params, self._params = self._current(), None
    return params

  def _current(self) -> PyTree:
    if self._params is None:
      with Checkpoints(self._run(self._accepted()[-1])) as checkpoints:
        abstract = self._setup.trainer.abstract.params
        self._params, _ = checkpoints.restore_params(abstract)
    return self._params

  def _model_params(self) -> PyTree:
    return self._setup.join(self._current())

  def _measure(self) -> dict[str, Any]:
    if not self._heldout and not self._probe:
      return {}
    return gate.measure(
      self._setup.trainer, self._model_params(), self._heldout, self._probe
    )

  # ----------------------------------------------------------------- the log

  def _add(self, *events: Event) -> list[Event]:
    new = self._log.add(*events)
    for event in new:
      if line := follow_file.describe(event):
        print(line, flush=True)
    if any(event['event'] in follow_file.ENDS for event in new):
      self._show()
    return new

  @property
  def _number(self) -> int:
    """Number of the last increment that has ended."""
    return max(
      (
        event['increment']
        for event in self._log.events
        if event['event'] in follow_file.ENDS
      ),
      default=0,
    )

  def _accepted(self) -> list[int]:
    """Returns the numbers of the accepted increments, 0 among them."""
    return [
      0,
      *(e['increment'] for e in self._log.events if e['event'] == 'accepted'),
    ]

  def _accepted_measures(self) -> list[Event]:
    numbers = {*self._accepted()}
    return [
      event
      for event in self._log.events
      if event['event'] == 'measured' and event['increment'] in numbers
    ]

  def _report_changed(self, names: Sequence[str]) -> None:
    """Logs files that have changed since they were taken."""
    for name in names:
      state = self._folder.state(name)
      if self._seen.get(name) == state:
        continue
      self._seen[name] = state
      digest = self._folder.digest(name)
      known = {
        each['sha256']
        for event in self._log.events
        if event['event'] == 'found'
        for each in event['files']
        if each['file'] == name
      }
      if digest and digest not in known:
        self._add(
          {
            'event': 'changed',
            'increment': 0,
            'file': name,
            'sha256': digest,
          }
        )

  def _run(self, number: int) -> epath.Path:
    return self._workdir / 'increments' / f'{number:04d}'

  def _incoming(self, number: int) -> epath.Path:
    return self._workdir / 'incoming' / f'{number:04d}'
