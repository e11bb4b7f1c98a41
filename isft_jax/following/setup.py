"""Opens what all increments share: tokenizer, template, compiled functions."""

import dataclasses
import functools

from isft_jax import objectives, sharding
from isft_jax.config import RunConfig
from isft_jax.data.batching import pipeline
from isft_jax.data.records.dataset import Records
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.following import scores
from isft_jax.models import lora
from isft_jax.train import inputs, run_tokenizer, start
from isft_jax.train.step import TrainState
from isft_jax.train.trainer import Trainer, make_trainer
from isft_jax.types import PyTree


class Setup:
  """What all increments share.

  Attributes:
    config: config of an increment, but for its name and its records. The shape
      of batches is fixed, so that increments share what is compiled.
    tokenizer, renderer, fingerprint: of the transcripts.
    trainer: compiled functions.
  """

  def __init__(self, config: RunConfig, folder: str) -> None:
    """Checks the config, and opens tokenizer and template.

    Args:
      config: as it is asked for.
      folder: the followed folder, for messages.

    Raises:
      ValueError: the config cannot work.
    """
    self._asked = config
    config = dataclasses.replace(config, records=config.records or folder)
    config.check()
    if config.mixture or config.keep_best or not config.seq_len:
      raise ValueError(
        '--follow needs config.seq_len above 0, no config.mixture and no '
        'config.keep_best: all increments have rows of one length, and the '
        'gate keeps the best'
      )
    if config.optim.schedule != 'constant' and not config.steps:
      print(
        'warning: the step is compiled again for an increment of another '
        'number of steps; --config.optim.schedule=constant compiles it once',
        flush=True,
      )
    place, self.tokenizer, self.renderer = _open_renderer(self._asked)
    self.fingerprint = self.renderer.metadata()['fingerprint']
    config = inputs.with_shapes(config, self.tokenizer)
    self.config = dataclasses.replace(
      config,
      tokenizer=place,
      heldout='',
      targets_per_row=config.targets_per_row or config.seq_len,
    )
    start.check_base(config)
    self.trainer: Trainer = make_trainer(
      dataclasses.replace(config.model, init_from=''),
      config.optim,
      config.mesh,
      0,
      lora=config.lora,
      anchors=(objectives.anchor(config.objective),),
    )
    self._has_base = start.has_base(config)
    sharding.check_batch_size(
      config.batch_size, self.trainer.mesh, config.optim.accumulate
    )
    sharding.check_row(
      config.seq_len, self.config.targets_per_row, self.trainer.mesh
    )

  @functools.cached_property
  def base(self) -> start.Base | None:
    """Frozen base of adapters or of an anchored objective, or None."""
    if not self._has_base:
      return None
    return start.load_base(self.config, self.trainer, self.fingerprint)

  def start(self) -> TrainState:
    """Returns the state before the first increment, without the base."""
    model = self.config.model.init_from
    if model and not start.is_run(model):
      for warning in start.check_tokenizer(
        model,
        self.config.records,
        self.tokenizer,
        self.renderer.rendering['template'],
      ):
        print(f'warning: {warning}', flush=True)
    sha256 = self.base.identity['sha256'] if self.base else ''
    return start.begin(self.config, self.trainer, self.fingerprint, sha256)

  def join(self, params: PyTree) -> PyTree:
    """Returns all parameters of the model, with those of the base."""
    return lora.join(self.base.params if self.base else (), params)

  def learning(self, params: PyTree) -> PyTree:
    """Returns those of all parameters that learn."""
    return lora.split(params)[0] if self.config.lora.rank else params

  def heldout(self) -> pipeline.BatchSource | None:
    """Returns held-out batches with the objective's weights, or None."""
    records = self._heldout_records
    if records is None:
      return None
    # Without the anchor: the loss is that of the evidence.
    objective = objectives.evidence(self.config.objective)
    config = scores.measuring_config(self.config, objective)
    return pipeline.BatchSource(records, config)

  def heldout_digest(self) -> str:
    """Returns what identifies the held-out records; '' without any."""
    records = self._heldout_records
    return '' if records is None else records.digest()

  @functools.cached_property
  def _heldout_records(self) -> Records | None:
    """Held-out records of the config, or of the earlier records."""
    asked, records = self._asked, None
    if asked.heldout:
      records = Records(asked.heldout)
    elif asked.records and 'heldout' in Records(asked.records).splits:
      records = Records(asked.records, 'heldout')
    if records is not None:
      fingerprint = tokenizer_lib.check(
        self.tokenizer, records.metadata, records.folder
      )
      if fingerprint != self.fingerprint:
        raise ValueError(
          f'{records.folder} was rendered with another chat template than the '
          'transcripts are: prepare both with the same one'
        )
    return records


def _open_renderer(
  config: RunConfig,
) -> tuple[str, tokenizer_lib.FastTokenizer, Renderer]:
  """Returns place of the tokenizer, the tokenizer, and its renderer.

  Transcripts are rendered like `config.records`; else like the records of the
  run to start from; else like `config.heldout`; else with the template of the
  tokenizer.
  """
  # 1. Like the records of a run.
  model = config.model.init_from
  is_run = not config.records and start.is_run(model)
  if is_run and (stored := run_tokenizer.read_rendering(model)):
    place = config.tokenizer or f'{model.rstrip("/")}/tokenizer'
    tokenizer = tokenizer_lib.load(place)
    rendering = stored['rendering']
    return place, tokenizer, Renderer.from_rendering(tokenizer, rendering)
  # 2. Like other records.
  if earlier := config.records or config.heldout:
    records = Records(earlier)
    place = config.tokenizer or tokenizer_lib.beside(earlier)
    tokenizer = tokenizer_lib.load(place)
    tokenizer_lib.check(tokenizer, records.metadata, earlier)
    rendering = records.metadata['rendering']
    return place, tokenizer, Renderer.from_rendering(tokenizer, rendering)
  # 3. With the template of the tokenizer.
  place = config.tokenizer or model
  if not place:
    raise ValueError(
      '--follow needs a tokenizer: name earlier records with config.records, a '
      'model with config.model.init_from, or a place with config.tokenizer'
    )
  tokenizer = tokenizer_lib.load(place)
  return place, tokenizer, Renderer(tokenizer)
