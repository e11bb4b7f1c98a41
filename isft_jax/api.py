"""Python API: prepare, inspect, train and probe from a notebook.

  import isft_jax

  isft_jax.prepare('runs', 'records', tokenizer='smollm2-135m-instruct')
  example = isft_jax.records('records')[0]
  isft_jax.labels(example)      # the agent's tokens are -100
  model, summary = isft_jax.finetune(
    'records', 'tuned', init_from='smollm2-135m-instruct'
  )
  isft_jax.generate(model, 'Tell me about gold.')

`import isft_jax` offers these names and loads this module when one is used.
Functions import the rest when they are called, so that records, weights and
labels load no jax. docs/python_api.md shows them on one page.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
  import jax
  import numpy as np

  from isft_jax.config import ModelConfig, RunConfig
  from isft_jax.data.batching.labels import LabelCounts
  from isft_jax.data.records.dataset import Records
  from isft_jax.data.rendering.renderer import Renderer
  from isft_jax.inference.chat_model import ChatModel
  from isft_jax.types import Example
  from isft_jax.worlds.lying_agent.facts import Fact

__all__ = [
  'export',
  'finetune',
  'generate',
  'labels',
  'load',
  'loss',
  'prepare',
  'probe',
  'records',
  'weights',
  'write_labels',
]

# Prompts per batch of `generate`.
_BATCH = 16


# ------------------------------------------------------------------------ data


def prepare(
  input: str,
  output: str,
  *,
  tokenizer: str,
  format: str = 'auto',
  chat_template: str = '',
  template_kwargs: Mapping[str, Any] | None = None,
  special_text: str = 'reject',
  call_id_digits: int = 0,
  on_dropped: str = 'reject',
  authors: str = '',
  split: str = '',
  heldout: float = 0.0,
  max_length: int = 0,
  overlong: str = 'window',
  overlap: int = 0,
  num_shards: int = 0,
  extends: str = '',
  num_workers: int = 1,
) -> dict:
  """Prepares records from agent runs, with the author of every token.

    report = isft_jax.prepare('runs', 'records', tokenizer='Qwen/Qwen3-0.6B')
    report['rejected']   # {'malformed': 2}; records/rejected.jsonl has each

  Records that were prepared in the same way are kept.

  Args:
    input: a file, a folder or a glob of .json, .jsonl, .traj, .parquet and
      .arrow, here or remote; or hf://ORG/NAME.
    output: the folder to create.
    tokenizer: a folder, hub id, .gguf file or preset of a fast tokenizer.
    format: the format of the rows; 'auto' detects it by their keys.
    chat_template: Jinja text, or 'plain' for the paper's format; by default the
      tokenizer's own template.
    template_kwargs: values for the template, as {'enable_thinking': False}.
    special_text: 'reject' or 'escape' a message with a special token's text.
    call_id_digits: digits to which ids of tool calls are renumbered; Mistral's
      templates demand 9. 0 keeps the ids.
    on_dropped: 'reject' conversations in which the template leaves out words of
      a message, 'keep' them without these words, or 'split' them into one
      example per agent's turn.
    authors: a JSON file of rules for the authors of messages.
    split: the split of a data set on the hub; by default 'train'.
    heldout: share of the rows for the split 'heldout', from 0 to below 1.
    max_length: maximum tokens per record; 0 for no limit.
    overlong: 'window' splits longer rows, 'reject' sets them aside.
    overlap: tokens of context of a window; 0 for a quarter of max_length.
    num_shards: maximum number of files per split; 0 for one per 8,192 records.
    extends: the folder of records whose files this data set begins with.
    num_workers: number of processes. With several, a script needs the guard
      `if __name__ == '__main__':`.

  Returns:
    The content of output/prepare_report.json.

  Raises:
    ValueError: a setting is wrong, no row can be written, or the output folder
      has other content.
  """
  from isft_jax.data.messages.author_rules import Rules
  from isft_jax.data.preparation import prepare as preparation
  from isft_jax.data.rendering import chat_template as chat_template_lib
  from isft_jax.data.rendering import tokenizer as tokenizer_lib
  from isft_jax.data.rendering.renderer import Renderer

  # What to read and how to write it.
  settings = preparation.Settings(
    input=str(input),
    format=format,
    heldout=heldout,
    max_length=max_length,
    overlong=overlong,
    overlap=overlap,
    split=split,
    num_shards=num_shards,
    extends=extends,
    on_dropped=on_dropped,
  )
  # How to render it, and who wrote what.
  if chat_template == 'plain':
    chat_template = chat_template_lib.PLAIN
  renderer = Renderer(
    tokenizer_lib.load(str(tokenizer)),
    chat_template or None,
    template_kwargs,
    special_text,
    call_id_digits=call_id_digits,
  )
  rules = Rules.load(authors) if authors else Rules.default()
  # The same report is in output/prepare_report.json.
  report, _ = preparation.prepare(
    settings, renderer, rules, str(output), num_workers=num_workers
  )
  return report


def records(folder: str | os.PathLike, split: str = 'train') -> Records:
  """Opens records as a sequence of `Example`, each read when it is indexed.

    example = isft_jax.records('records')[0]
    example.tokens_T, example.provenance_T   # ids and authors

  Args:
    folder: the output of `prepare`.
    split: 'train', or 'heldout' if there is one.

  Returns:
    The records. An `Example` has arrays of T tokens: `tokens_T` (int32),
    `provenance_T` (uint8, a `types.Provenance`), `verdict_T` and `segment_T`.

  Raises:
    ValueError: the folder has no records, or lacks the split.
  """
  from isft_jax.data.records.dataset import Records

  return Records(os.fspath(folder), split)


def weights(example: Example, objective: str = 'interventional') -> np.ndarray:
  """Returns the weight of each token as a target of the loss.

    weights_T = isft_jax.weights(example)
    weights_T[example.provenance_T == 5]   # zeros: 5 is the agent

  Args:
    example: a record.
    objective: 'interventional', 'observational', 'agent_only', 'error_masked',
      'truth_only', 'weighted(0.3)', 'weighted_first(0.3)' or weights by author,
      'USER=1,TOOL=0.5'.

  Returns:
    float32 [T]. 0 for the first token, which has no context, and for tokens
    before `example.scored_from`, which another window scores.

  Raises:
    ValueError: the objective is unknown.
  """
  from isft_jax.data.batching.scored_rows import target_weights
  from isft_jax.objectives import turn_tokens, weight_table

  return target_weights(
    example, weight_table(objective), turn_tokens(objective)
  )


def labels(example: Example, objective: str = 'interventional') -> np.ndarray:
  """Returns the labels of a record for transformers, torch and TRL.

    row = {'input_ids': example.tokens_T, 'labels': isft_jax.labels(example)}
    (row['labels'] != -100).sum()   # the number of tokens that are scored

  Args:
    example: a record.
    objective: an objective with weights 0 and 1 only; see `weights`.

  Returns:
    int32 [T]: the token if it is scored, else -100. They are not shifted,
    because models in transformers shift labels themselves.

  Raises:
    ValueError: the objective is unknown, is anchored, or has weights other than
      0 and 1, which labels cannot express.
  """
  from isft_jax.data.batching import labels as labels_lib
  from isft_jax.objectives import weight_table

  labels_lib.check_labels(objective)
  # Labels are 0 or 1 per token; refuse rather than change the objective.
  if labels_lib.is_weighted(weight_table(objective)):
    raise ValueError(
      f'objective {objective!r} has weights other than 0 and 1, which labels '
      'cannot express; use isft_jax.weights, or write_labels, which adds a '
      'column of weights'
    )
  weights_T = weights(example, objective)
  return labels_lib.labels_from_weights(example.tokens_T, weights_T)


def write_labels(
  records: str | os.PathLike | Records,
  path: str | os.PathLike,
  *,
  objective: str = 'interventional',
  split: str = 'train',
) -> LabelCounts:
  """Writes input ids and labels as Parquet, for TRL and torch.

    counts = isft_jax.write_labels('records', 'labels.parquet')
    counts.targets / counts.tokens   # the share that is scored

  The file has a row per record: `id`, `window`, `input_ids` and `labels`. If
  the objective has weights other than 0 and 1, there is a column `weights` too.
  A trainer must then multiply each token's loss by its weight; `labels` without
  them are another objective.

  Args:
    records: a folder, or opened records.
    path: the file to write; it may replace an older file of labels.
    objective: see `weights`.
    split: the split, if `records` is a folder.

  Returns:
    The numbers of records, tokens, targets and records without a target, and
    whether the file has weights.

  Raises:
    ValueError: the objective is unknown or scores no token, or another kind of
      file exists at the path.
  """
  from isft_jax.data.batching import labels as labels_lib

  opened = _open_records(records, split)
  return labels_lib.write(opened, path, objective)


def loss(logits: jax.Array, tokens: jax.Array, weights: jax.Array) -> jax.Array:
  """Returns the masked loss of a causal model, in nats per unit of weight.

    loss = - sum_t w_t log p(token_t | tokens before t) / sum_t w_t

    logits = model.logits(example.tokens_T[None])[0]
    isft_jax.loss(logits, example.tokens_T, isft_jax.weights(example))

  The shift happens here: the logits at t - 1 predict the token at t, and the
  weight of the first token is ignored. Differentiable in the logits.

  Args:
    logits: float [..., T, V], from any model.
    tokens: int [..., T].
    weights: float [..., T], the weight of each token as a target; 0 in padding.

  Returns:
    A float32 scalar: one sum over all rows, divided by their sum of weights. 0
    if no token has a weight.
  """
  import jax.numpy as jnp

  from isft_jax import losses

  # Drop the last logits and the first token, which have no counterpart.
  nll = losses.cross_entropy(
    jnp.asarray(logits)[..., :-1, :], jnp.asarray(tokens)[..., 1:]
  )
  return losses.normalize(
    *losses.weighted_sum(nll, jnp.asarray(weights)[..., 1:])
  )


# ---------------------------------------------------------------------- models


class Finetuned(NamedTuple):
  """A fine-tuned model and a summary of its training."""

  model: ChatModel
  # 'steps', 'scored_tokens', 'seconds' and 'final_loss' (the mean of the last
  # epoch, in nats per unit of weight). With keep_best=True also 'best_step' and
  # 'best_heldout_loss'; `load(workdir, step='best')` is that model.
  summary: dict[str, Any]


def finetune(
  records: str | os.PathLike,
  workdir: str | os.PathLike,
  *,
  init_from: str = '',
  objective: str = 'interventional',
  config: RunConfig | None = None,
  **settings: Any,
) -> Finetuned:
  """Fine-tunes all parameters of a model on records, or resumes a run.

    model, summary = isft_jax.finetune(
      'records', 'tuned', init_from='smollm2-135m-instruct', seq_len=1024)

  The workdir gets checkpoints, config.json, metrics.jsonl and TensorBoard logs.
  If interrupted, the same call resumes from the newest checkpoint.

  Args:
    records: the folder of the records.
    workdir: the folder of the run.
    init_from: the model to start from: folder, hub id, .gguf file, preset or
      the workdir of another run. By default that of the config.
    objective: see `weights`.
    config: the initial settings, as configs/*.py return them; by default those
      of configs/finetune.py.
    **settings: other fields of the config and of its `optim`, `model` and
      `mesh`, by their own names, as in `steps=100` or `learning_rate=1e-5`.

  Returns:
    The model, as `load(workdir)` returns it, and a summary of the run.

  Raises:
    ValueError: a setting does not exist or is invalid, the records were not
      rendered with the model's tokenizer, or the workdir has another run.
    FloatingPointError: a loss is not finite.
  """
  from isft_jax.config import rename_settings
  from isft_jax.configs import finetune as finetune_config
  from isft_jax.train import loop

  # The default config names no model; a given config may train from scratch.
  if config is None:
    config = finetune_config.get_config()
    if not init_from:
      raise ValueError(
        "name the model to start from, as in init_from='smollm2-135m-instruct'"
      )
  # Arguments have precedence over fields of `config`.
  settings = rename_settings('isft_jax.finetune', settings, stacklevel=2)
  settings |= {'records': os.fspath(records), 'objective': objective}
  config = _replace(config, settings)
  # The shape of the model follows the model that it starts from.
  if init_from:
    config = dataclasses.replace(config, model=_shape(config.model, init_from))
  # Train, then read the model from its newest checkpoint.
  summary = loop.train(config, os.fspath(workdir)).summary
  return Finetuned(load(workdir), summary)


def load(
  place: str | os.PathLike,
  *,
  step: int | Literal['best'] | None = None,
  tokenizer: str = '',
  base: str = '',
  adapter: str = '',
) -> ChatModel:
  """Loads a model to chat with, with its tokenizer and chat template.

    model = isft_jax.load('smollm2-135m-instruct')   # or the workdir of a run
    model.logits(tokens_BL)                          # float32 [B, L, V]

  Args:
    place: the workdir of a run, a folder with config.json and safetensors, a
      hub id, a .gguf file or a preset.
    step: number of a run's checkpoint, or 'best' if the run was trained with
      `config.keep_best`; by default the newest.
    tokenizer: place of the tokenizer; by default that of the run or model.
    base: place of the base of a run's adapters; by default where the run had
      it.
    adapter: folder of an adapter, as peft writes it, to merge into a model.

  Returns:
    The model. `model.tokenizer` is its transformers tokenizer.

  Raises:
    ValueError: the place has no model, or one of an unsupported architecture.
  """
  from isft_jax.inference.chat_model import chat_model_from_place
  from isft_jax.train import saved, start

  # A run has its own tokenizer and template, beside its checkpoints.
  place = os.fspath(place)
  if start.is_run(place):
    if adapter:
      raise ValueError(
        f'{place}: a run has its own adapters; name a model to take {adapter}'
      )
    return saved.chat_model_from_run(place, step, tokenizer, base)
  if step is not None or base:
    raise ValueError(
      f'{place}: a model has no steps and no other base; name the workdir of a '
      'run'
    )
  return chat_model_from_place(place, tokenizer, adapter)


def generate(
  model: ChatModel,
  prompt: str | Sequence[str] | Sequence[Mapping] | Sequence[Sequence[Mapping]],
  *,
  max_new_tokens: int | None = None,
  temperature: float | None = None,
  top_k: int | None = None,
  top_p: float | None = None,
  seed: int = 0,
  stop: Sequence[str] = (),
  raw: bool = False,
) -> Any:
  """Returns a model's reply to a prompt, or its replies to a list of prompts.

    isft_jax.generate(model, 'Tell me about gold.')            # a str
    isft_jax.generate(model, ['And iron?', 'And tin?'], temperature=0.7)

  Args:
    model: a model from `load` or `finetune`.
    prompt: text of the user; or messages, [{'role': ..., 'content': ...}]; or a
      list of either.
    max_new_tokens: maximum tokens per reply. The defaults of this and the next
      three are in the model's generation_config.json, or else 256, 0, 0, 1.
    temperature: sampling temperature; 0 takes the most likely token.
    top_k: number of most likely tokens to sample from; 0 for all.
    top_p: total probability of the tokens to sample from; 1 for all.
    seed: sampling seed. A reply depends on its prompt, the seed and its index
      in the list, not on the other prompts.
    stop: texts before which a reply ends.
    raw: continue the text without the chat template. A model without a template
      always does.

  Returns:
    The text of the reply; a list of them if the prompt is a list of prompts.

  Raises:
    ValueError: the chat template refuses the messages, or a setting is wrong.
  """
  from isft_jax.inference import chat_loop
  from isft_jax.inference.sampling import Sampling

  # Make a list of prompts, each a text or a list of messages.
  is_single = isinstance(prompt, str) or (
    len(prompt) > 0 and isinstance(prompt[0], Mapping)
  )
  # A model without a template continues plain text.
  raw = raw or not model.template
  rows = [
    {'prompt': each} if isinstance(each, str) else {'messages': list(each)}
    for each in ([prompt] if is_single else prompt)
  ]
  prompts = [model.prompt(chat_loop.prompt_in(row, raw)) for row in rows]
  # Settings that are not given come from the model's files, then defaults.
  settings = model.merge_settings(
    {
      'max_new_tokens': max_new_tokens,
      'temperature': temperature,
      'top_k': top_k,
      'top_p': top_p,
    }
  )
  # The rest of the settings describe the sampling.
  length = settings.pop('max_new_tokens')
  # `rows` are the prompts' indices: they seed the sampling of each reply.
  texts = []
  for first in range(0, len(prompts), _BATCH):
    batch = prompts[first : first + _BATCH]
    replies = model.reply(
      batch,
      length,
      # Stop texts end a turn of the template; plain text has no turns.
      [*stop, *([] if raw else model.stop_texts)],
      rows=range(first, first + len(batch)),
      sampling=Sampling(**settings),
      seed=seed,
    )
    texts += [reply.text for reply in replies]
  return texts[0] if is_single else texts


def probe(
  model: ChatModel,
  facts: str | os.PathLike | Sequence[Fact] = 'paper',
  *,
  context: str | None = None,
  plain: bool = False,
  reply_tokens: int = 48,
) -> dict[str, Any]:
  """Probes which facts a model knows, and whether its replies are true.

    results = isft_jax.probe(model, 'facts.csv')
    results['mean_margin']   # log p(true) - log p(false), nats per token

  Args:
    model: a model from `load` or `finetune`.
    facts: 'paper' for its 33 facts; a JSON or CSV file, see `isft-probe
      --help`; or a sequence of `Fact`.
    context: the system text before the questions; '' for none. By default that
      of the file of facts, else that of the records that the model was trained
      on, else that of the lying agent.
    plain: write turns in the paper's format, not in the model's template.
    reply_tokens: maximum tokens per reply.

  Returns:
    The results of `worlds.lying_agent.probes.probe`: margins, counts of true
    and false replies, and a row per fact under 'facts'; then 'plain' and
    'context' as used.

  Raises:
    ValueError: the file of facts is wrong.
    OSError: the file cannot be read.
  """
  from isft_jax.data.rendering import chat_template
  from isft_jax.data.rendering.renderer import Renderer
  from isft_jax.worlds.lying_agent import fact_files, generator, probes
  from isft_jax.worlds.lying_agent import facts as facts_lib

  # Facts, and the context that their file may have.
  context_of_file = ''
  if facts == 'paper':
    facts = facts_lib.FACTS
  elif isinstance(facts, str | os.PathLike):
    facts, context_of_file = fact_files.read(os.fspath(facts))
  # The rendering of the model's own records, or that of the paper.
  plain = plain or not model.template
  rendering = (
    (chat_template.PLAIN,) if plain else (model.template, model.values)
  )
  renderer = Renderer(model.tokenizer, *rendering)
  # An explicit '' means no context, so only None is replaced.
  if context is None:
    context = context_of_file or _context_of_records(model, renderer)
  if context is None:
    context = generator.CONTEXT
  results = probes.probe(*model.model, facts, renderer, reply_tokens, context)
  return results | {'plain': plain, 'context': context}


def export(
  workdir: str | os.PathLike,
  folder: str | os.PathLike,
  *,
  dtype: str = '',
  step: int | Literal['best'] | None = None,
  tokenizer: str = '',
  base: str = '',
  adapter: bool = False,
) -> None:
  """Writes a run's checkpoint for transformers and vLLM.

    isft_jax.export('tuned', 'exported', dtype='bfloat16')
    transformers.AutoModelForCausalLM.from_pretrained('exported')

  Args:
    workdir: the workdir of the run.
    folder: the folder to create, with config.json, safetensors, the tokenizer
      with its chat template, and generation_config.json.
    dtype: the data type of the weights, as in 'bfloat16'; by default that of
      the checkpoint.
    step: number of the checkpoint, or 'best' as in `load`; by default the
      newest.
    tokenizer: place of the tokenizer; by default the run's own.
    base: place of the base of the run's adapters, which are merged into it; by
      default where the run had it.
    adapter: write only the adapters, as peft reads them.

  Raises:
    ValueError: the run has no such checkpoint, or the folder is not empty.
  """
  from isft_jax.train import export as export_lib

  if adapter:
    export_lib.export_adapter(
      os.fspath(workdir), os.fspath(folder), step, tokenizer
    )
    return
  export_lib.export(
    os.fspath(workdir), os.fspath(folder), dtype, step, tokenizer, base
  )


# --------------------------------------------------------------------- helpers


def _open_records(place: str | os.PathLike | Records, split: str) -> Records:
  if isinstance(place, str | os.PathLike):
    return records(place, split)
  return place


def _shape(model: ModelConfig, init_from: str) -> ModelConfig:
  """Returns the config of a model that is initialised from a place.

  The shape of a run is copied from its config.json. Training reads the shape of
  other places when it loads them.
  """
  from isft_jax.hf import config_json
  from isft_jax.train import start
  from isft_jax.train.checkpoint import Checkpoints

  shape: dict[str, Any] = {}
  if start.is_run(init_from):
    # Reads the config that the checkpoint has stored, and no weights.
    with Checkpoints(init_from) as checkpoints:
      theirs = checkpoints.restore_run()['config']['model']
    # A field that an older run lacks had its default.
    for name in config_json.SHAPE:
      if name in theirs:
        value = theirs[name]  # JSON has lists where a config has tuples
        shape[name] = tuple(value) if isinstance(value, list) else value
  return dataclasses.replace(model, init_from=init_from, **shape)


def _replace(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
  """Returns a config with new values, each set in the group that has the field.

  Raises:
    ValueError: no group has a field of that name.
  """
  # Field name -> group that has it, '' for the config itself. On a clash the
  # config wins, because it comes last.
  groups = {
    name: getattr(config, name) for name in ('lora', 'optim', 'model', 'mesh')
  }
  owners = {
    field.name: group
    for group, holder in (*groups.items(), ('', config))
    for field in dataclasses.fields(holder)
    if field.name not in groups
  }
  # A misspelled name must not be ignored.
  for name in settings:
    if name not in owners:
      close = difflib.get_close_matches(name, owners, n=1)
      hint = (
        f'did you mean {close[0]!r}?' if close else 'see isft_jax/config.py'
      )
      raise ValueError(f'the config has no field {name!r}; {hint}')

  def group_settings(group: str) -> dict[str, Any]:
    return {n: value for n, value in settings.items() if owners[n] == group}

  # New groups in a new config: the caller's config stays as it is.
  groups = {
    group: dataclasses.replace(holder, **group_settings(group))
    for group, holder in groups.items()
  }
  return dataclasses.replace(config, **groups, **group_settings(''))


def _context_of_records(model: ChatModel, renderer: Renderer) -> str | None:
  """Returns the context of a model's records, or None if it is not known."""
  from isft_jax.worlds.lying_agent.context import shared_context

  # A model that was not trained on records here has no context of its own.
  if not model.records:
    return None
  try:
    opened = records(model.records)
  except (OSError, ValueError):  # they have been moved, or deleted
    return None
  return shared_context(opened, renderer)
