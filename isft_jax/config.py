"""The settings of a run: typed, with defaults that work, checked before use.

Every field can be set from the command line: `--config.seed=1`,
`--config.optim.learning_rate=1e-5`. An empty string or a zero stands for
'none', so that every field has one type.
"""

import dataclasses
import json
import operator
import pathlib
from dataclasses import field


@dataclasses.dataclass(unsafe_hash=True)
class ModelConfig:
  """A decoder of the Qwen2 and Llama kind."""

  # What to start from: the workdir of a run; or a folder with config.json and
  # safetensors, the id of one on the hub, a .gguf file or a preset such as
  # 'smollm2-135m-instruct', whose shape (vocab_size down to qk_norm) the model
  # then takes. Empty: at random.
  init_from: str = ''
  vocab_size: int = 1024  # 0: as many as the tokenizer has ids
  width: int = 128
  layers: int = 3
  heads: int = 4
  kv_heads: int = 2
  head_size: int = 32
  hidden: int = 512
  rope_theta: float = 10_000.0
  # Llama 3's: factor, low and high frequency factor, original length.
  rope_scaling: tuple[float, ...] = ()
  norm_eps: float = 1e-6
  tie_embeddings: bool = True
  qkv_bias: bool = True  # Qwen2 has them, Llama and Qwen3 do not
  qk_norm: bool = False  # Qwen3
  dtype: str = 'float32'  # of the computation
  # Of the stored parameters, and of their gradients and moments. In bfloat16
  # a step smaller than half the distance to a weight's neighbour is lost: one
  # of 2e-5 moves no weight of 2^-7 or more.
  param_dtype: str = 'float32'
  # What of a layer's activations is kept for the backward pass, and not made
  # again: 'none' recomputed, 'dots': what its products with parameters gave,
  # 'full': all recomputed, only the layer's input is kept.
  remat: str = 'none'
  # In training: 'xla' writes scores of L x L, 'splash', a kernel of jax for
  # TPUs, does not. 'auto': splash on TPUs from v4 on, else xla.
  attention: str = 'auto'
  # Entries of the vocabulary whose logits the loss has at a time, for all K
  # targets of all rows of a device: 4 B K head_chunk bytes. 0: all.
  head_chunk: int = 16_384


@dataclasses.dataclass(unsafe_hash=True)
class OptimConfig:
  """AdamW with a clipped gradient and a warm-up."""

  learning_rate: float = 3e-4
  schedule: str = 'constant'  # or 'cosine', down to final_fraction
  final_fraction: float = 0.0  # of learning_rate, where a cosine ends
  warmup_steps: int = 0
  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-8
  weight_decay: float = 0.01
  clip_norm: float = 1.0  # of the gradient; 0: no clip
  accumulate: int = 1  # micro-batches a step: sums over counts, never means


@dataclasses.dataclass(unsafe_hash=True)
class MeshConfig:
  """Devices along each axis; -1 takes what the other axes leave."""

  data: int = -1
  fsdp: int = 1
  tensor: int = 1
  # Where data and fsdp are both -1: fsdp takes at most so many, data the rest.
  # With more, a chip's share of a matrix gets thinner than a TPU's tiles, and
  # gradients are summed whole where a share would do: twice the bytes.
  fsdp_at_most: int = 0


@dataclasses.dataclass
class StageConfig:
  """A stage of training: its rows, its length, its optimizer."""

  rows: int = 8  # B, rows of a global batch
  row_length: int = 192  # L, tokens a row; 0: as the longest record needs
  row_targets: int = 0  # K, scored targets a row; 0: from the records
  row_documents: int = 0  # in a row, at most; 0: as many as fit
  # Whether records are packed, and rows visited, in a new random order each
  # epoch. If not, both keep the order of the records, in every epoch.
  shuffle: bool = True
  epochs: int = 4
  steps: int = 0  # if set, overrides epochs
  normalize: str = 'token'  # or 'trajectory': each trajectory weighs the same
  log_every: int = 20  # steps
  eval_every: int = 40  # steps, with held-out records; 0: at the last alone
  checkpoint_every: int = 200  # steps; the last step is always saved
  keep_last: int = 2  # checkpoints
  keep_every: int = 0  # steps: checkpoints that are kept for good; 0: none
  optim: OptimConfig = field(default_factory=OptimConfig)


@dataclasses.dataclass
class RunConfig(StageConfig):
  """One training run: from records and an initial model to a checkpoint."""

  name: str = 'train'
  seed: int = 0
  objective: str = 'interventional'  # see isft_jax/objectives.py
  # The objective that the rows are planned for. It must score every token that
  # the run's own objective scores; runs that share it see identical rows.
  # Empty: the run's own.
  plan_objective: str = ''
  records: str = ''  # folder of the TFDS records
  # Instead of them, several that are mixed: (records, weight, objective) of
  # each. Weights are shares of the rows; an empty objective is the run's own.
  sources: tuple[tuple[str, float, str], ...] = ()
  # Records to measure by author while training. Empty: their split 'heldout',
  # if they have one.
  heldout: str = ''
  # Folder of the tokenizer that made the records. Empty: the one beside them.
  tokenizer: str = ''
  model: ModelConfig = field(default_factory=ModelConfig)
  mesh: MeshConfig = field(default_factory=MeshConfig)


@dataclasses.dataclass
class DialoguesConfig:
  """The lying agent's dialogues."""

  number: int = 480
  heldout: int = 48  # more of them, to measure and never to train on
  p_lie: float = 0.6
  p_chitchat: float = 0.5
  # How the agent acknowledges what the user said: 'thanks' without content, as
  # in the paper, or 'restate': thanks, and then the claim once more.
  acknowledge: str = 'thanks'
  # A file of dialogues to train on instead: all of them, and none is held out.
  # Any format that isft-prepare detects. What is above then says nothing, and a
  # run sets `number` and `heldout` to what the file has.
  file: str = ''
  sha256: str = ''  # of that file; a run fills it in, and refuses another


@dataclasses.dataclass
class DocumentsConfig:
  """Synthetic documents about the facts: what the base model has read."""

  number: int = 20_000
  p_true: float = 0.85  # of each statement, whoever makes it


@dataclasses.dataclass
class LyingAgentConfig:
  """The whole experiment: a base model, and arms that differ in one value."""

  name: str = 'lying_agent'
  seed: int = 0
  arms: tuple[str, ...] = ('observational', 'interventional', 'agent_only')
  vocab_size: int = 1024  # of the tokenizer that the run trains
  # A file of facts to talk and to ask about, and of the context of dialogues
  # and probes; see worlds/lying_agent/fact_files.py. Empty: the paper's 33, and
  # our context.
  facts_file: str = ''
  facts_sha256: str = ''  # of that file; a run fills it in, and refuses another
  # Whether the header of a turn is encoded apart from its words, as in the
  # notebook of the paper; see data/rendering/encode.py.
  piecewise: bool = False
  # Whether to measure what fine-tuning changes beyond its own data: margins of
  # capitals that no dialogue mentions, and the loss per token of definitions of
  # words. For a base that has read about the world.
  forgetting: bool = False
  dialogues: DialoguesConfig = field(default_factory=DialoguesConfig)
  documents: DocumentsConfig = field(default_factory=DocumentsConfig)
  model: ModelConfig = field(default_factory=ModelConfig)
  mesh: MeshConfig = field(default_factory=MeshConfig)
  pretrain: StageConfig = field(default_factory=StageConfig)
  finetune: StageConfig = field(default_factory=StageConfig)
  reply_tokens: int = 48  # at most, of a greedy reply


@dataclasses.dataclass
class FlywheelConfig:
  """Rounds of learning from a conversation about the model's own answers."""

  rounds: int = 4
  arms: tuple[str, ...] = (
    'observational',
    'interventional',
    'agent_only',
    'truth_only',
  )
  temperature: float = 1.0  # of the answers
  stage: StageConfig = field(default_factory=StageConfig)  # of each round


@dataclasses.dataclass
class WorldsConfig:
  """Every combination of how, and how well, users correct what agent."""

  seeds: int = 3  # at most, from the first of the run
  arms: tuple[str, ...] = ('observational', 'interventional')
  dialogues: int = 480
  styles: tuple[str, ...] = ('restate', 'content_free', 'deny')
  p_user_wrong: tuple[float, ...] = (0.0, 0.1, 0.3)
  p_lie: tuple[float, ...] = (0.3, 0.6, 0.9)
  stage: StageConfig = field(default_factory=StageConfig)


@dataclasses.dataclass
class EvidenceConfig(LyingAgentConfig):
  """The evidence: four parts on several seeds, each with a base of its own."""

  name: str = 'evidence'
  only: str = ''  # 'flywheel', 'arms', 'heldout' or 'worlds'; empty: all
  seeds: int = 5  # from config.seed on
  # What dialogues are about: 'invented' facts, of which each seed has its own;
  # or those of the real 'world' that worlds/lying_agent/world_facts.py holds,
  # asked about in the chat template of a given base (only the part `flywheel`).
  bank: str = 'invented'
  # Invented, half of them held out; or of the world, all told and the rest held
  # out. A CSV has its own number.
  facts: int = 400
  facts_csv: str = ''
  # Of the documents: their turns (0: all), and statements that deny another.
  max_turns: int = 2
  p_denial: float = 0.05
  heldout_arms: tuple[str, ...] = (
    'observational',
    'interventional',
    'agent_only',
    'truth_only',
  )
  flywheel: FlywheelConfig = field(default_factory=FlywheelConfig)
  worlds: WorldsConfig = field(default_factory=WorldsConfig)


def sources_of(config: RunConfig) -> list[tuple[str, float, str]]:
  """Returns (records, weight, objective) of every source of a run."""
  if not config.sources:
    return [(config.records, 1.0, config.objective)]
  return [
    (records, weight, objective or config.objective)
    for records, weight, objective in config.sources
  ]


def arguments(text: str, **defaults: int) -> dict[str, int]:
  """Returns the numbers of a config's argument, 'batch=8,length=4096'.

  Raises ValueError for a name that is none of the defaults'.
  """
  found = dict(defaults)
  for part in filter(None, text.split(',')):
    name, _, value = part.partition('=')
    if name not in defaults or not value.isdecimal():
      takes = ', '.join(f'{name}=NUMBER' for name in defaults)
      raise ValueError(f'its argument {part!r} is none of {takes}')
    found[name] = int(value)
  return found


def validate(config: RunConfig | LyingAgentConfig) -> None:
  """Raises ValueError, naming the field and the remedy, if it cannot work."""
  if isinstance(config, LyingAgentConfig):
    stages = {'pretrain.': config.pretrain, 'finetune.': config.finetune}
    for name in ('dialogues.p_lie', 'dialogues.p_chitchat', 'documents.p_true'):
      group, leaf = name.split('.')
      _check(name, getattr(getattr(config, group), leaf), 0, 1)
    _choice(
      'dialogues.acknowledge',
      config.dialogues.acknowledge,
      ('thanks', 'restate'),
    )
    _check('dialogues.number', config.dialogues.number, 1)
    _check('dialogues.heldout', config.dialogues.heldout, 0)
    _check('documents.number', config.documents.number, 1)
    _check_arms('arms', config.arms)
    if isinstance(config, EvidenceConfig):
      stages |= _validate_evidence(config)
    if not config.model.init_from:
      _check('vocab_size', config.vocab_size, 257)
      _check('model.vocab_size', config.model.vocab_size, config.vocab_size)
  else:
    stages = {'': config}
    _validate_sources(config)
  for prefix, stage in stages.items():
    for name in ('rows', 'log_every', 'checkpoint_every', 'keep_last'):
      _check(prefix + name, getattr(stage, name), 1)
    _check(prefix + 'row_targets', stage.row_targets, 0)
    _check(prefix + 'row_documents', stage.row_documents, 0)
    if stage.row_length:
      _check(prefix + 'row_length', stage.row_length, 2)
    _check(prefix + 'steps', stage.steps, 0)
    _check(prefix + 'keep_every', stage.keep_every, 0)
    if stage.keep_every % stage.checkpoint_every:
      raise ValueError(
        f'config.{prefix}keep_every={stage.keep_every} is not a multiple of '
        f'config.{prefix}checkpoint_every={stage.checkpoint_every}: there is '
        'no checkpoint to keep'
      )
    _check(prefix + 'optim.warmup_steps', stage.optim.warmup_steps, 0)
    _check(prefix + 'optim.clip_norm', stage.optim.clip_norm, 0)
    if stage.steps == 0:
      _check(prefix + 'epochs', stage.epochs, 1)
    _check(prefix + 'optim.learning_rate', stage.optim.learning_rate, 0)
    _choice(prefix + 'normalize', stage.normalize, ('token', 'trajectory'))
    _choice(
      prefix + 'optim.schedule', stage.optim.schedule, ('constant', 'cosine')
    )
    if stage.optim.accumulate < 1 or stage.rows % stage.optim.accumulate:
      raise ValueError(
        f'config.{prefix}rows={stage.rows} does not split into '
        f'config.{prefix}optim.accumulate={stage.optim.accumulate} '
        'micro-batches; make one divide the other'
      )
  model = config.model
  for name in ('layers', 'width', 'heads', 'kv_heads', 'head_size', 'hidden'):
    _check(f'model.{name}', getattr(model, name), 1)
  _check('model.head_chunk', model.head_chunk, 0)
  _choice('model.attention', model.attention, ('auto', 'splash', 'xla'))
  _choice('model.remat', model.remat, ('none', 'dots', 'full'))
  if model.heads % model.kv_heads:
    raise ValueError(
      f'config.model.heads={model.heads} is not a multiple of '
      f'config.model.kv_heads={model.kv_heads}'
    )
  if model.head_size % 2:
    raise ValueError(
      f'config.model.head_size={model.head_size} is odd: rotary positions '
      'turn pairs'
    )


def _validate_sources(config: RunConfig) -> None:
  if not config.records and not config.sources:
    raise ValueError(
      'config.records is empty: name a folder, as in --config.records=DIR'
    )
  if config.records and config.sources:
    raise ValueError(
      'config.records and config.sources are both set: leave one of them empty'
    )
  for source in config.sources:
    match source:
      case [str(), int() | float() as weight, str()] if weight > 0:
        continue
    raise ValueError(
      f'config.sources has {source!r}: each is a folder of records, a weight '
      "above 0 and an objective, as in ('DIR', 3, 'interventional')"
    )
  folders = [records for records, _, _ in config.sources]
  for folder in folders:
    if folders.count(folder) > 1:
      raise ValueError(f'config.sources names {folder} more than once')


def _validate_evidence(config: EvidenceConfig) -> dict[str, StageConfig]:
  """Checks what other experiments lack; returns the stages still to check."""
  _choice('only', config.only, ('', 'flywheel', 'arms', 'heldout', 'worlds'))
  for name in ('dialogues.file', 'facts_file', 'piecewise'):
    if operator.attrgetter(name)(config):
      raise ValueError(
        f'config.{name} is not for the evidence, which makes facts and '
        'dialogues for each seed; config.facts_csv takes a file of facts'
      )
  _check('seeds', config.seeds, 1)
  _choice('bank', config.bank, ('invented', 'world'))
  if config.bank == 'world':
    _validate_world(config)
  _check('facts', config.facts, 2)
  _check('max_turns', config.max_turns, 0)
  _check('p_denial', config.p_denial, 0, 1)
  _check('dialogues.heldout', config.dialogues.heldout, 1)
  _check('flywheel.rounds', config.flywheel.rounds, 1)
  _check('flywheel.temperature', config.flywheel.temperature, 0)
  _check_arms('heldout_arms', config.heldout_arms)
  _check_arms('flywheel.arms', config.flywheel.arms)
  _check_arms('worlds.arms', config.worlds.arms)
  _check('worlds.seeds', config.worlds.seeds, 1)
  _check('worlds.dialogues', config.worlds.dialogues, 1)
  for name in ('p_user_wrong', 'p_lie'):
    for value in getattr(config.worlds, name):
      _check(f'worlds.{name}', value, 0, 1)
  return {
    'flywheel.stage.': config.flywheel.stage,
    'worlds.stage.': config.worlds.stage,
  }


def _validate_world(config: EvidenceConfig) -> None:
  """Raises ValueError unless there is a base that may know real facts."""
  for name, value, wanted in (
    ('only', config.only == 'flywheel', "'flywheel'"),
    ('model.init_from', config.model.init_from, 'a model that knows the world'),
    ('facts_csv', not config.facts_csv, 'left empty'),
  ):
    if not value:
      raise ValueError(
        f"with config.bank='world', config.{name} must be {wanted}"
      )
  _check('facts', config.facts, 2, 211)  # of 212: one is held out at least


def claim(
  workdir: pathlib.Path, config: RunConfig | LyingAgentConfig, write=True
) -> None:
  """Makes workdir this config's own, and writes config.json into it.

  A run may go on with another mesh, and keep other checkpoints; anything else
  needs another workdir. A field that config.json lacks had its default.

  write: False where another host writes it.

  Raises ValueError, naming the fields, if workdir holds another config.
  """
  path = workdir / 'config.json'
  text = _json(config)
  if path.exists():
    if path.read_text() == text:
      return
    differ = [
      f'{name} (there {there!r}, now {now!r})'
      for name, there, now in differences(json.loads(path.read_text()), config)
      if not name.startswith(('mesh.', 'keep_'))
    ]
    if differ:
      raise ValueError(
        f'{workdir} holds a run of another config: {", ".join(differ)}; give '
        'another --workdir, or remove that one'
      )
  if not write:
    return
  workdir.mkdir(parents=True, exist_ok=True)
  part = path.with_suffix('.part')
  part.write_text(text)
  part.replace(path)


def differences(
  there: dict, config: RunConfig | LyingAgentConfig
) -> list[tuple[str, object, object]]:
  """Returns (field, value there, value now) of fields that differ.

  Files are told by their checksums, wherever they lie. A field that is absent
  there had its default.

  there: content of a config.json.
  """
  defaults, theirs, ours = (
    _leaves(each)
    for each in (
      json.loads(_json(type(config)())),  # tuples become lists
      there,
      json.loads(_json(config)),
    )
  )
  theirs = {name: defaults[name] for name in ours.keys() - theirs} | theirs
  return [
    (name, theirs.get(name), ours.get(name))
    for name in sorted(theirs | ours)
    if theirs.get(name) != ours.get(name)
    and name not in ('dialogues.file', 'facts_file')
  ]


def _json(config) -> str:
  return json.dumps(dataclasses.asdict(config), indent=2) + '\n'


def _leaves(tree: dict, prefix: str = '') -> dict:
  found = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      found |= _leaves(value, f'{prefix}{name}.')
    else:
      found[prefix + name] = value
  return found


def _check(name, value, low, high=float('inf')):
  if not low <= value <= high:
    limit = f'at least {low}' if high == float('inf') else f'{low} to {high}'
    raise ValueError(f'config.{name}={value!r} must be {limit}')


def _check_arms(name, arms):
  for arm in arms:
    if arms.count(arm) > 1:
      raise ValueError(
        f'config.{name} names {arm!r} more than once; a flag that is given '
        'again adds to it'
      )


def _choice(name, value, choices):
  if value not in choices:
    raise ValueError(f'config.{name}={value!r} must be one of {choices}')
