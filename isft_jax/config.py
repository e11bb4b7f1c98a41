"""Settings of the model, the mesh and a training run.

Defaults work, and `check` refuses impossible values before anything starts.
Every field can be set from the command line: `--config.seed=1`,
`--config.optim.learning_rate=1e-5`. `--help` shows the comments below. Each
field has one type, so an empty string or a zero means 'none'. `RENAMED` has the
old names of fields, which still work.

Experiments have settings of their own: see isft_jax/experiments/config.py.
"""

import dataclasses
import functools
import json
import math
import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field
from typing import Any, ClassVar, TypeVar

T = TypeVar('T')

# ---------------------------------------------------------- old names of fields

# Old name -> name. Version 0.2 will no longer accept old names in flags, in
# config files and in config.json.
RENAMED = {
  'hidden': 'mlp_width',
  'row_documents': 'documents_per_row',
  'row_length': 'seq_len',
  'row_targets': 'targets_per_row',
  'rows': 'batch_size',
  'sources': 'mixture',
}


def with_new_names(stored: Any) -> Any:
  """Returns the content of a config.json under the names of today's fields."""
  if not isinstance(stored, dict):
    return stored
  return {
    RENAMED.get(name, name): with_new_names(value)
    for name, value in stored.items()
  }


def rename_settings(
  owner: str, settings: Mapping[str, Any], stacklevel: int = 1
) -> dict[str, Any]:
  """Returns settings under the names of today's fields; warns of old names.

  Args:
    owner: what has the fields, for messages.
    settings: values by name of the field.
    stacklevel: caller that the warning names; 1 is the caller of this function.

  Raises:
    TypeError: a field has a value under both names.
  """
  renamed: dict[str, Any] = {}
  for old, value in settings.items():
    name = RENAMED.get(old, old)
    # Neither of two names for one field may override the other.
    if name in renamed or (name != old and name in settings):
      raise TypeError(
        f'{owner}: {old} is the old name of {name}; give only {name}'
      )
    if name != old:
      _warn(owner, old, stacklevel + 1)
    renamed[name] = value
  return renamed


def accept_old_names(cls: type[T]) -> type[T]:
  """Decorates a dataclass so that old names of its fields work, with a warning.

    StageConfig(rows=8).rows   # FutureWarning: ... write batch_size

  Old names work as arguments of the constructor and as attributes.
  """
  init = cls.__init__

  @functools.wraps(init)
  def renaming_init(self: Any, *args: Any, **settings: Any) -> None:
    init(self, *args, **rename_settings(cls.__name__, settings, stacklevel=2))

  cls.__init__ = renaming_init  # type: ignore[method-assign]
  names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
  for old, name in RENAMED.items():
    if name in names:
      setattr(cls, old, _old_attribute(cls.__name__, old))
  return cls


def _old_attribute(owner: str, old: str) -> property:
  def get(self: Any) -> Any:
    _warn(owner, old, stacklevel=2)
    return getattr(self, RENAMED[old])

  def set_(self: Any, value: Any) -> None:
    _warn(owner, old, stacklevel=2)
    setattr(self, RENAMED[old], value)

  return property(get, set_)


def _warn(owner: str, old: str, stacklevel: int) -> None:
  warnings.warn(
    f'{owner}: {old} is the old name of {RENAMED[old]}; write {RENAMED[old]}',
    FutureWarning,
    stacklevel + 1,
  )


# ----------------------------------------------------------------- the settings

# Weights of mixture components. They are shares of rows, exact to a thousandth.
_LEAST_WEIGHT, _MOST_WEIGHT = 0.001, 1_000_000


# Data types of parameters, and of the computation.
DTYPES = ('float32', 'bfloat16', 'float16')
# The linear maps of a layer, under the names that peft has for them.
LORA_MLP = ('gate_proj', 'up_proj', 'down_proj')
LORA_TARGETS = ('q_proj', 'k_proj', 'v_proj', 'o_proj', *LORA_MLP)
ALL_LINEAR = 'all-linear'  # stands for all of them
LORA_MOST = 1_000_000  # largest rank and alpha


# Activations of a layer that ModelConfig.remat may keep, in their order.
REMAT_NAMES = ('q', 'k', 'v', 'attention', 'o', 'gate', 'up', 'down')
# Kinds of layers; see ModelConfig.layer_kinds.
LAYER_KINDS = ('full', 'window', 'nope')
# Kinds of scaling of rotary positions, and how many numbers each has.
ROPE_TYPES = {'llama3': 4, 'linear': 1, 'yarn': 6}
NORMS = ('before', 'after', 'both')
ACTIVATIONS = ('silu', 'gelu_tanh')


@accept_old_names
@dataclasses.dataclass(unsafe_hash=True)
class ModelConfig:
  """A decoder.

  isft_jax/models/presets.py has the shapes of known models, and
  isft_jax/hf/families.py the families of Hugging Face's models.
  """

  # Initial weights: the workdir of a run, a folder with config.json and
  # safetensors, the id of a model on the Hugging Face hub, a .gguf file, or a
  # preset such as 'smollm2-135m-instruct'. All but a workdir also set the shape
  # (vocab_size to logits_divisor). Empty: random weights.
  init_from: str = ''
  # Number of token embeddings. 0: the tokenizer's vocabulary, rounded up to a
  # multiple of 128.
  vocab_size: int = 1024
  width: int = 128  # width of the residual stream
  layers: int = 3  # number of decoder layers
  heads: int = 4  # number of query heads
  kv_heads: int = 2  # number of key and value heads; must divide heads
  head_size: int = 32  # width of a head
  mlp_width: int = 512  # width of the MLP, or of each expert
  experts: int = 0  # number of expert MLPs, as in Qwen3-MoE; 0: one dense MLP
  experts_per_token: int = 0  # experts that each token uses; 0 without experts
  # Divide the probabilities of a token's experts by their sum.
  normalize_experts: bool = True
  rope_theta: float = 10_000.0  # base of the rotary frequencies
  rope_type: str = 'llama3'  # kind of rope_scaling: 'llama3', 'linear', 'yarn'
  # Numbers of the rotary scaling. llama3: factor, low-frequency factor,
  # high-frequency factor, original context length in tokens. linear: factor.
  # yarn: factor, beta_fast, beta_slow, original context length in tokens,
  # attention factor, 1 to truncate. Empty: no scaling.
  rope_scaling: tuple[float, ...] = ()
  # Kind of each layer, repeated over the layers. 'full': a token sees all
  # earlier ones. 'window': it sees `window` tokens, its own included. 'nope':
  # as 'full', without positions.
  layer_kinds: tuple[str, ...] = ('full',)
  window: int = 0  # tokens that a layer of kind 'window' sees
  # Base of the rotary frequencies of layers of kind 'window', which then have
  # no scaling. 0: the positions of the other layers.
  window_theta: float = 0.0
  norm_eps: float = 1e-6  # added to the mean square in RMSNorm
  tie_embeddings: bool = True  # use the embedding as the output head
  # Biases of queries, keys and values, as in Qwen2. Llama and Qwen3 have none.
  qkv_bias: bool = True
  qk_norm: bool = False  # RMSNorm of queries and keys, as in Qwen3
  qk_norm_all_heads: bool = False  # one qk_norm of all heads, as in OLMo 2
  # Where RMSNorms stand. 'before': before attention and MLP. 'after': after
  # each, before the sum, as in OLMo 2. 'both': as in Gemma 3.
  norms: str = 'before'
  norm_plus_one: bool = False  # multiply by 1 + w in RMSNorm, as in Gemma
  # Activation of the MLP's gate: 'silu', or 'gelu_tanh' as in Gemma.
  activation: str = 'silu'
  embedding_scale: float = 1.0  # factor of token embeddings; not 1 in Gemma
  query_scale: float = 0.0  # factor of attention scores; 0: 1 / sqrt(head_size)
  # Factor of what attention and MLP add to the residual stream, as in Granite.
  residual_scale: float = 1.0
  logits_divisor: float = 1.0  # number that divides all logits, as in Granite
  dtype: str = 'float32'  # data type of the computation
  # Data type of parameters, gradients and Adam's moments. In bfloat16, an
  # update smaller than half the distance to the next number is lost: 2e-5 moves
  # no weight of 2^-7 or more. With LoRA it is the type of the frozen base only,
  # and may be 'int8': the weights of the layers' linear maps as integers, with
  # a scale for each output channel, and the other weights in `dtype`.
  param_dtype: str = 'float32'
  # Activations of a layer that are kept for the backward pass, which recomputes
  # the rest. 'none': recompute nothing. 'full': keep only the layer's input.
  # 'dots': keep products with parameters. Or names, separated by commas:
  # 'attention' (what attention gives), and the products 'q', 'k', 'v', 'o',
  # 'gate', 'up' and 'down'. isft-compile --search finds what fits.
  remat: str = 'none'
  # Attention in training. 'xla' stores L x L scores; 'splash', JAX's kernel for
  # TPUs, and 'triton', kernels for GPUs, do not. 'auto': splash on TPUs from v4
  # on, triton on NVIDIA GPUs from A100 on, xla elsewhere.
  attention: str = 'auto'
  # Size of the vocabulary chunks for which the loss computes logits, which take
  # 4 x targets x head_chunk bytes per device. 0: the whole vocabulary at once.
  head_chunk: int = 16_384

  def check(self, prefix: str) -> None:
    """Raises ValueError, naming prefix + field, for an impossible value."""
    for name in ('layers', 'width', 'heads', 'kv_heads', 'head_size'):
      check_range(prefix + name, getattr(self, name), 1)
    check_range(prefix + 'mlp_width', self.mlp_width, 1)
    check_range(prefix + 'experts', self.experts, 0)
    # At least one expert per token, if there are experts.
    check_range(
      prefix + 'experts_per_token',
      self.experts_per_token,
      min(1, self.experts),
      self.experts,
    )
    check_range(prefix + 'head_chunk', self.head_chunk, 0)
    attentions = ('auto', 'splash', 'triton', 'xla')
    check_choice(prefix + 'attention', self.attention, attentions)
    if self.remat not in ('none', 'dots', 'full'):
      names = split_remat(self.remat)
      choices = () if len(names) > 1 else ('none', 'dots', 'full')
      for name in names:
        check_choice(prefix + 'remat', name, (*choices, *REMAT_NAMES))
      check_distinct(prefix + 'remat', names)
    check_choice(prefix + 'dtype', self.dtype, DTYPES)
    check_choice(prefix + 'param_dtype', self.param_dtype, (*DTYPES, 'int8'))
    check_choice(prefix + 'norms', self.norms, NORMS)
    check_choice(prefix + 'activation', self.activation, ACTIVATIONS)
    check_choice(prefix + 'rope_type', self.rope_type, tuple(ROPE_TYPES))
    numbers = ROPE_TYPES[self.rope_type]
    if len(self.rope_scaling) not in (0, numbers):
      raise ValueError(
        f'{prefix}rope_scaling must have {numbers} numbers for {prefix}'
        f'rope_type={self.rope_type!r} (got {len(self.rope_scaling)})'
      )
    if not self.layer_kinds:
      raise ValueError(f"{prefix}layer_kinds is empty; set it to ('full',)")
    for kind in self.layer_kinds:
      check_choice(prefix + 'layer_kinds', kind, LAYER_KINDS)
    check_range(prefix + 'window', self.window, 0)
    if ('window' in self.layer_kinds) != (self.window > 0):
      raise ValueError(
        f'{prefix}window={self.window} and {prefix}layer_kinds='
        f'{tuple(self.layer_kinds)} do not fit: a window is the number of '
        "tokens that layers of kind 'window' see"
      )
    # Each key head serves the same number of query heads.
    if self.heads % self.kv_heads:
      raise ValueError(
        f'{prefix}heads must be a multiple of {prefix}kv_heads='
        f'{self.kv_heads} (got {self.heads})'
      )
    if self.head_size % 2:
      raise ValueError(
        f'{prefix}head_size must be even, because rotary positions rotate '
        f'pairs (got {self.head_size})'
      )


@dataclasses.dataclass(unsafe_hash=True)
class LoraConfig:
  """Low-rank adapters of linear maps: y = x W + scale x A B.

  Only A and B learn. scale is alpha / rank, or alpha / sqrt(rank) with rslora.
  A and B are in float32, whatever the base is in. Settings are those of peft.
  Source: Hu et al. 2021, section 4.1; Kalajdzievski 2023 for rslora.
  """

  rank: int = 0  # inner width of an adapter; 0: train all weights, no adapters
  alpha: float = 0.0  # numerator of the scale; 0: twice the rank
  # Maps with an adapter, separated by commas: q_proj, k_proj, v_proj, o_proj,
  # gate_proj, up_proj, down_proj; or all-linear for all of them.
  targets: tuple[str, ...] = (ALL_LINEAR,)
  rslora: bool = False  # divide alpha by the root of the rank
  dropout: float = 0.0  # must be 0: adapters are trained without dropout
  # A folder with adapter_config.json and adapter_model.safetensors, as peft
  # writes it, whose training continues. It sets the fields above.
  init_from: str = ''

  @property
  def maps(self) -> tuple[str, ...]:
    """Names of the maps that have an adapter, in their order in a layer."""
    if not self.rank:
      return ()
    names = self.named
    wanted = LORA_TARGETS if ALL_LINEAR in names else names
    return tuple(name for name in LORA_TARGETS if name in wanted)

  @property
  def named(self) -> list[str]:
    """Names in `targets`, as they are given."""
    # A flag may give them as one text: --config.lora.targets=q_proj,v_proj.
    return [name for text in self.targets for name in text.split(',')]

  @property
  def scale(self) -> float:
    """Factor of the product A B."""
    alpha = self.alpha or 2 * self.rank
    return alpha / (self.rank**0.5 if self.rslora else self.rank)

  def check(self, prefix: str) -> None:
    """Raises ValueError, naming prefix + field, for an impossible value."""
    for name in ('rank', 'alpha'):
      check_range(prefix + name, getattr(self, name), 0, LORA_MOST)
    if self.dropout:
      raise ValueError(
        f'{prefix}dropout must be 0, because adapters are trained without '
        f'dropout (got {self.dropout!r})'
      )
    # Other settings of adapters show that somebody wants some.
    others = dataclasses.replace(self, rank=0, init_from='')
    if not self.rank and not self.init_from and others != LoraConfig():
      raise ValueError(
        f'{prefix}rank is 0, so that all weights would be trained; set it, as '
        f'in {prefix}rank=16, or remove the other fields of {prefix[:-1]}'
      )
    if not self.targets:
      raise ValueError(
        f'{prefix}targets is empty: name the maps, or {ALL_LINEAR}'
      )
    names = self.named
    for name in names:
      check_choice(prefix + 'targets', name, (*LORA_TARGETS, ALL_LINEAR))
    check_distinct(prefix + 'targets', names)


@dataclasses.dataclass(unsafe_hash=True)
class OptimConfig:
  """AdamW with gradient clipping and a linear warm-up."""

  learning_rate: float = 3e-4  # highest rate, at the end of the warm-up
  schedule: str = 'constant'  # rate after the warm-up: 'constant' or 'cosine'
  # Last rate of a cosine schedule, as a fraction of learning_rate.
  final_fraction: float = 0.0
  warmup_steps: int = 0  # steps of a linear warm-up; 0: none
  b1: float = 0.9  # decay rate of the first moment, per step
  b2: float = 0.999  # decay rate of the second moment, per step
  eps: float = 1e-8  # added to the root of the second moment
  # Decoupled decay of all parameters, per step and unit of the learning rate.
  weight_decay: float = 0.01
  clip_norm: float = 1.0  # maximum norm of the gradient; 0: no clipping
  # Microbatches per step. Their losses are summed and divided once, by the
  # count of the whole batch.
  accumulate: int = 1

  def check(self, prefix: str) -> None:
    """Raises ValueError, naming prefix + field, for an impossible value."""
    for name in ('learning_rate', 'warmup_steps', 'clip_norm'):
      check_range(prefix + name, getattr(self, name), 0)
    check_choice(prefix + 'schedule', self.schedule, ('constant', 'cosine'))
    check_range(prefix + 'accumulate', self.accumulate, 1)


@dataclasses.dataclass(unsafe_hash=True)
class MeshConfig:
  """Number of devices on each mesh axis; -1 takes those that remain."""

  data: int = -1  # devices that split batches and copy parameters
  fsdp: int = 1  # devices that split batches and parameters
  tensor: int = 1  # devices that split heads and the MLP
  # Devices that split batches and experts, and copy the other parameters.
  expert: int = 1
  # Devices that split the tokens of each row, and the parameters. For rows so
  # long that one device cannot hold them.
  context: int = 1
  # Upper limit of fsdp if data and fsdp are both -1; data takes the rest. On
  # more chips, a shard of a matrix is thinner than a TPU's tiles, and gradients
  # are then all-reduced instead of reduce-scattered: twice the bytes.
  fsdp_at_most: int = 0

  def check(self, prefix: str) -> None:
    """Raises ValueError, naming prefix + field, for an impossible size.

    `sharding.make_mesh` checks that the axes cover the devices.
    """
    for name in ('data', 'fsdp', 'tensor', 'expert', 'context'):
      size = getattr(self, name)
      if size != -1 and size < 1:
        raise ValueError(
          f'{prefix}{name} must be at least 1, or -1 for the devices that '
          f'remain (got {size})'
        )


@accept_old_names
@dataclasses.dataclass
class StageConfig:
  """A stage of training: batches, length, checkpoints and optimizer."""

  batch_size: int = 8  # rows per global batch
  seq_len: int = 192  # tokens per row; 0: as many as the longest record
  targets_per_row: int = 0  # scored targets per row; 0: from the records
  documents_per_row: int = 0  # maximum number of records per row; 0: no limit
  # True: each epoch packs the records and visits the rows in a new random
  # order. False: every epoch keeps the order of the records.
  shuffle: bool = True
  epochs: int = 4  # passes over the records
  steps: int = 0  # overrides epochs if it is not 0
  # 'token': every scored token has the same weight. 'trajectory': every
  # trajectory has.
  normalize: str = 'token'
  log_every: int = 20  # steps between lines of metrics
  # Steps between evaluations on held-out records. 0: only after the last step.
  eval_every: int = 40
  # Steps between checkpoints. The last step is always saved.
  checkpoint_every: int = 200
  keep_last: int = 2  # newest checkpoints to keep
  # Steps between checkpoints that are kept forever. 0: none.
  keep_every: int = 0
  optim: OptimConfig = field(default_factory=OptimConfig)

  def check(self, prefix: str) -> None:
    """Raises ValueError, naming prefix + field, for an impossible value."""
    for name in ('batch_size', 'log_every', 'checkpoint_every', 'keep_last'):
      check_range(prefix + name, getattr(self, name), 1)
    for name in ('targets_per_row', 'documents_per_row', 'steps', 'keep_every'):
      check_range(prefix + name, getattr(self, name), 0)
    # 0 takes the length of the longest record.
    if self.seq_len:
      check_range(prefix + 'seq_len', self.seq_len, 2)
    # `steps` overrides `epochs`.
    if not self.steps:
      check_range(prefix + 'epochs', self.epochs, 1)
    check_choice(prefix + 'normalize', self.normalize, ('token', 'trajectory'))
    if self.keep_every % self.checkpoint_every:
      raise ValueError(
        f'{prefix}keep_every must be a multiple of {prefix}checkpoint_every='
        f'{self.checkpoint_every} (got {self.keep_every}): other steps have no '
        'checkpoint to keep'
      )
    self.optim.check(prefix + 'optim.')
    if self.batch_size % self.optim.accumulate:
      raise ValueError(
        f'{prefix}batch_size must be a multiple of {prefix}optim.accumulate='
        f'{self.optim.accumulate} (got {self.batch_size}): a batch is split '
        'into that many microbatches'
      )


@dataclasses.dataclass
class WorkdirConfig:
  """Settings that a command runs in a workdir: a training run, an experiment.

  Attributes:
    BY_CHECKSUM: dotted names of fields that hold the path of a file whose
      checksum is another field. A run resumes if the file has moved.
  """

  BY_CHECKSUM: ClassVar[tuple[str, ...]] = ()

  def check(self, prefix: str = 'config.') -> None:
    """Raises ValueError, naming prefix + field, for an impossible value."""
    raise NotImplementedError


@accept_old_names
@dataclasses.dataclass
class RunConfig(StageConfig, WorkdirConfig):
  """A training run: from records and an initial model to a checkpoint."""

  name: str = 'train'  # name of the run and of its default workdir
  seed: int = 0  # seed of random weights and of the order of the records
  # Objective, which sets the weight of each author: interventional,
  # observational, agent_only, error_masked, truth_only, weighted(w),
  # weighted_first(w), anchored(w), reverse_anchored(w) or averaged(w). See
  # isft_jax/objectives.py.
  objective: str = 'interventional'
  # Objective by which rows are packed. It must score every token that
  # `objective` scores. Runs with the same plan_objective see identical rows.
  # Empty: the same as `objective`.
  plan_objective: str = ''
  records: str = ''  # folder that isft-prepare wrote
  # Components of a training mixture, instead of `records`: for each, a folder
  # of records, a weight and an objective. Weights are shares of the rows. An
  # empty objective stands for the run's.
  mixture: tuple[tuple[str, float, str], ...] = ()
  # Folder of records on which the loss per author is measured during training.
  # Empty: the split 'heldout' of the training records, if they have one.
  heldout: str = ''
  # True: also keep the checkpoint with the lowest loss on all held-out records,
  # weighted by the objective. An evaluation below the lowest so far saves one.
  keep_best: bool = False
  # Folder of the tokenizer that encoded the records. Empty: the one that is
  # stored with the records.
  tokenizer: str = ''
  model: ModelConfig = field(default_factory=ModelConfig)
  # Adapters to train instead of all weights. The base is model.init_from.
  lora: LoraConfig = field(default_factory=LoraConfig)
  mesh: MeshConfig = field(default_factory=MeshConfig)

  @classmethod
  def from_stage(cls, stage: StageConfig, **settings: Any) -> 'RunConfig':
    """Returns the run of one stage.

    Args:
      stage: fields that the run and the stage have in common.
      **settings: the other fields of the run.
    """
    names = [field.name for field in dataclasses.fields(StageConfig)]
    return cls(**{name: getattr(stage, name) for name in names}, **settings)

  def check(self, prefix: str = 'config.') -> None:
    """Raises ValueError, naming prefix + field, for an impossible value."""
    self._check_mixture(prefix)
    super().check(prefix)
    if self.keep_best and self.eval_every < 1:
      raise ValueError(
        f'{prefix}keep_best needs {prefix}eval_every of at least 1 (got '
        f'{self.eval_every}): it compares the evaluations during the training'
      )
    self.model.check(prefix + 'model.')
    self.lora.check(prefix + 'lora.')
    check_base(prefix, self.model, self.lora)
    self.mesh.check(prefix + 'mesh.')

  def _check_mixture(self, prefix: str) -> None:
    if not self.records and not self.mixture:
      raise ValueError(
        f'{prefix}records is empty: name a folder, as in --config.records=DIR'
      )
    if self.records and self.mixture:
      raise ValueError(
        f'{prefix}records and {prefix}mixture are both set: leave one empty'
      )
    # The pattern matches tuples, and lists as JSON has them.
    for component in self.mixture:
      match component:
        case [str(), int() | float() as weight, str()] if (
          _LEAST_WEIGHT <= weight <= _MOST_WEIGHT
        ):
          continue
      raise ValueError(
        f'{prefix}mixture must have a folder of records, a weight above 0 '
        f'({_LEAST_WEIGHT} to {_MOST_WEIGHT:,}) and an objective for each, as '
        f"in ('DIR', 3, 'interventional') (got {component!r})"
      )
    check_distinct(
      prefix + 'mixture', [records for records, *_ in self.mixture]
    )


def check_base(prefix: str, model: ModelConfig, lora: LoraConfig) -> None:
  """Raises ValueError if adapters have no base, or an int8 base no adapters.

  Args:
    prefix: path of the config that has both, as in 'config.'.
    model: its model.
    lora: its adapters.
  """
  has_adapters = lora.rank or lora.init_from
  if has_adapters and not model.init_from:
    raise ValueError(
      f'{prefix}lora needs a base to adapt: name one with '
      f'{prefix}model.init_from, or leave {prefix}lora.rank at 0'
    )
  if model.param_dtype == 'int8' and not has_adapters:
    raise ValueError(
      f'{prefix}model.param_dtype=int8 is for a base that is not trained: set '
      f'{prefix}lora.rank, or take float32 or bfloat16'
    )


def mixture_components(config: RunConfig) -> list[tuple[str, float, str]]:
  """Returns (records, weight, objective) of every mixture component."""
  # One folder of records is a mixture of one component.
  if not config.mixture:
    return [(config.records, 1.0, config.objective)]
  return [
    (records, weight, objective or config.objective)
    for records, weight, objective in config.mixture
  ]


def split_remat(remat: str) -> list[str]:
  """Returns the names in a ModelConfig.remat, as in 'attention,gate,up'."""
  return remat.split(',')


# ------------------------------------------------------------------- the checks


def check_range(
  name: str, value: float, low: float, high: float = math.inf
) -> None:
  """Raises ValueError unless low <= value <= high.

  Args:
    name: path of the field, as in 'config.optim.clip_norm'.
    value: of the field. A NaN is refused.
    low: smallest value allowed.
    high: largest value allowed.
  """
  if not low <= value <= high:
    limit = f'at least {low}' if high == math.inf else f'from {low} to {high}'
    raise ValueError(f'{name} must be {limit} (got {value!r})')


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
  """Raises ValueError unless value is one of the choices.

  Args:
    name: path of the field, as in 'config.model.remat'.
    value: of the field.
    choices: values allowed.
  """
  if value not in choices:
    shown = ', '.join(map(repr, choices))
    raise ValueError(f'{name} must be one of {shown} (got {value!r})')


def check_distinct(name: str, values: Sequence[str]) -> None:
  """Raises ValueError if a value stands more than once in a tuple.

  Args:
    name: path of the field, as in 'config.arms'.
    values: of the field.
  """
  for value in values:
    if values.count(value) > 1:
      raise ValueError(
        f'{name} names {value!r} more than once; a flag that is given again '
        'adds to it'
      )


# ----------------------------------------------------------------- config.json


def claim(
  workdir: os.PathLike | str, config: WorkdirConfig, write: bool = True
) -> None:
  """Writes config.json into a workdir, or checks the one that is there.

  A run resumes on another mesh, with other checkpoints to keep, with more steps
  or epochs than before, or with a base of adapters at another place. Any other
  change needs another workdir. Fields that the old config.json lacks had their
  defaults.

  Args:
    workdir: of the run; created if it does not exist.
    config: of the run that starts or resumes.
    write: False on hosts that leave writing to the first.

  Raises:
    ValueError: the workdir holds a run with other settings. The message names
      the fields.
  """
  # Late: etils takes longer to import than the rest of a command's --help.
  from etils import epath

  from isft_jax import files

  workdir = epath.Path(workdir)
  path = workdir / 'config.json'
  text = _to_json(config)
  # The workdir belongs to a run, whose config must be this one.
  if path.exists():
    stored = path.read_bytes().decode(errors='replace')
    if stored == text:
      return
    changes = [
      f'{name} (there {there!r}, now {now!r})'
      for name, there, now in differences(_parsed(stored, path), config)
      if not _may_change(config, name, there, now)
    ]
    if changes:
      raise ValueError(
        f'{workdir} holds a run of another config: {", ".join(changes)}; give '
        'another --workdir, or remove that one'
      )
  # The file keeps the config of the latest call.
  if write:
    workdir.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, text)


def _parsed(text: str, path: os.PathLike) -> dict[str, Any]:
  """Returns the config of a run in the text of a config.json."""
  try:
    content = json.loads(text)
  except (ValueError, RecursionError):
    content = None
  if not isinstance(content, dict):
    raise ValueError(
      f'{os.fspath(path)}: damaged, not the config of a run; give another '
      '--workdir, or remove that one'
    )
  # The config.json of a model names its family.
  if 'model_type' in content:
    raise ValueError(
      f'{os.path.dirname(os.fspath(path))}: a model, not the workdir of a run; '
      'give another --workdir, and the model as --config.model.init_from'
    )
  return content


def _may_change(
  config: WorkdirConfig, name: str, there: object, now: object
) -> bool:
  """Returns whether a run may resume with another value of a field."""
  # A base may move: checkpoints of adapters have the checksum of its weights.
  if name == 'model.init_from' and getattr(config, 'lora', LoraConfig()).rank:
    return True
  # The mesh decides only where the arrays are, and these how sums are computed.
  how = 'model.remat', 'model.head_chunk', 'optim.accumulate'
  if name.startswith(('mesh.', 'keep_')) or name in how:
    return True
  # A run that continues has all steps that it would have had. 0 is no number of
  # steps, but means that the epochs count.
  return (
    name in ('steps', 'epochs')
    and isinstance(there, int)
    and isinstance(now, int)
    and 0 < there < now
  )


def differences(
  stored: dict, config: WorkdirConfig
) -> list[tuple[str, object, object]]:
  """Lists the fields in which a config.json and a config differ.

  A field that the file lacks had its default. Fields with old names (`RENAMED`)
  are compared under their new names. Files of data are compared by their
  checksums, not by their paths (`BY_CHECKSUM`).

  Args:
    stored: content of a config.json.
    config: of the same class as the one that was stored.

  Returns:
    (dotted name, stored value, value now) of each, sorted by name. A field that
    only one side has is None on the other.
  """
  defaults, before, now = (
    _leaves(tree)
    for tree in (
      json.loads(_to_json(type(config)())),  # tuples become lists
      with_new_names(stored),
      json.loads(_to_json(config)),
    )
  )
  # Fields that are newer than the file had their default values.
  before = {name: defaults[name] for name in now.keys() - before} | before
  return [
    (name, before.get(name), now.get(name))
    for name in sorted(before | now)
    if before.get(name) != now.get(name) and name not in config.BY_CHECKSUM
  ]


def _to_json(config: WorkdirConfig) -> str:
  return json.dumps(dataclasses.asdict(config), indent=2) + '\n'


def _leaves(tree: dict[str, Any], prefix: str = '') -> dict[str, object]:
  """Returns the values of nested dicts by their dotted names."""
  leaves: dict[str, object] = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      leaves |= _leaves(value, f'{prefix}{name}.')
    else:
      leaves[prefix + name] = value
  return leaves
