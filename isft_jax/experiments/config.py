"""Settings of the experiments: lying agent, evidence and deployment.

This module imports no JAX, so that files in configs/ load quickly.
"""

import dataclasses
from dataclasses import field
from typing import ClassVar

from isft_jax.config import (
  LoraConfig,
  MeshConfig,
  ModelConfig,
  StageConfig,
  WorkdirConfig,
  check_base,
  check_choice,
  check_distinct,
  check_range,
)

# Parts of the evidence.
PARTS = ('flywheel', 'arms', 'heldout', 'worlds')
# Parts of the deployment.
DEPLOYMENT_PARTS = ('arms', 'continual')
# Worlds of problems.
WORLDS = ('arithmetic', 'facts', 'physics')


@dataclasses.dataclass
class DialoguesConfig:
  """Dialogues of the lying agent."""

  number: int = 480  # number of dialogues to train on
  heldout: int = 48  # additional dialogues, for evaluation only
  p_lie: float = 0.6  # probability that the agent's claim is false
  p_chitchat: float = 0.5  # probability of small talk at the end
  # How the agent acknowledges a correction. 'thanks': without content, as in
  # the paper. 'restate': it thanks and repeats the claim.
  acknowledge: str = 'thanks'
  # A file of dialogues to train on, in any format that isft-prepare detects. It
  # replaces generated dialogues: a run trains on all of them, sets `number` and
  # `heldout` accordingly, and ignores the other fields above.
  file: str = ''
  # Checksum of the file of dialogues. The run fills it in, and refuses another.
  sha256: str = ''

  def check(self, prefix: str) -> None:
    """Raises ValueError, naming prefix + field, for an impossible value."""
    check_range(prefix + 'p_lie', self.p_lie, 0, 1)
    check_range(prefix + 'p_chitchat', self.p_chitchat, 0, 1)
    acknowledge = ('thanks', 'restate')
    check_choice(prefix + 'acknowledge', self.acknowledge, acknowledge)
    check_range(prefix + 'number', self.number, 1)
    check_range(prefix + 'heldout', self.heldout, 0)


@dataclasses.dataclass
class DocumentsConfig:
  """Synthetic documents about the facts, on which the base is pre-trained."""

  number: int = 20_000  # number of documents
  p_true: float = 0.85  # probability that a statement is true
  # Number of additional dialogues, with the same probability of the truth for
  # the agent and for the user. They show who says what: a base without them
  # talks like anybody in every slot.
  dialogues: int = 0

  def check(self, prefix: str) -> None:
    """Raises ValueError, naming prefix + field, for an impossible value."""
    check_range(prefix + 'p_true', self.p_true, 0, 1)
    check_range(prefix + 'number', self.number, 1)
    check_range(prefix + 'dialogues', self.dialogues, 0)


@dataclasses.dataclass
class LyingAgentConfig(WorkdirConfig):
  """The lying agent: a base model, and arms that differ in their objective."""

  BY_CHECKSUM: ClassVar[tuple[str, ...]] = ('dialogues.file', 'facts_file')

  name: str = 'lying_agent'  # name of the run and of its default workdir
  seed: int = 0  # seed of data, weights and sampling
  # Objectives to compare: one fine-tuned model for each.
  arms: tuple[str, ...] = ('observational', 'interventional', 'agent_only')
  # Vocabulary size of the tokenizer that the run trains.
  vocab_size: int = 1024
  # A file of the facts to ask about, and of the context of dialogues and
  # probes: see worlds/lying_agent/fact_files.py. Empty: the paper's 33 facts,
  # and our context.
  facts_file: str = ''
  # Checksum of the file of facts. The run fills it in, and refuses another.
  facts_sha256: str = ''
  # Encode the header of a turn apart from its words, as the paper's notebook
  # does: see data/rendering/encode.py.
  piecewise: bool = False
  # Also measure what fine-tuning changes beyond its own data: margins of
  # capitals that no dialogue mentions, and the loss per token on definitions of
  # words. For a base that has learned about the world.
  forgetting: bool = False
  # Dialogues that the base completes itself for the arms `replay` and
  # `hindsight`, as a share of those to train on; see experiments/replay.py.
  replay: float = 0.25
  dialogues: DialoguesConfig = field(default_factory=DialoguesConfig)
  documents: DocumentsConfig = field(default_factory=DocumentsConfig)
  model: ModelConfig = field(default_factory=ModelConfig)
  # Adapters that each arm trains instead of all weights. The arms share the
  # base in memory.
  lora: LoraConfig = field(default_factory=LoraConfig)
  mesh: MeshConfig = field(default_factory=MeshConfig)
  # Pre-training of the base; not used if model.init_from names one.
  pretrain: StageConfig = field(default_factory=StageConfig)
  # Fine-tuning of each arm.
  finetune: StageConfig = field(default_factory=StageConfig)
  reply_tokens: int = 48  # maximum tokens per reply to a probe

  def check(self, prefix: str = 'config.') -> None:
    """Raises ValueError, naming prefix + field, for an impossible value."""
    self.dialogues.check(prefix + 'dialogues.')
    self.documents.check(prefix + 'documents.')
    check_distinct(prefix + 'arms', self.arms)
    check_range(prefix + 'replay', self.replay, 0, 1)
    if not self.model.init_from:
      # At least 256 bytes and the end of a text, and an embedding for every id.
      check_range(prefix + 'vocab_size', self.vocab_size, 257)
      check_range(
        prefix + 'model.vocab_size', self.model.vocab_size, self.vocab_size
      )
    self.pretrain.check(prefix + 'pretrain.')
    self.finetune.check(prefix + 'finetune.')
    self.model.check(prefix + 'model.')
    self._check_adapters(prefix)
    self.mesh.check(prefix + 'mesh.')
    check_range(prefix + 'reply_tokens', self.reply_tokens, 1)

  def _check_adapters(self, prefix: str) -> None:
    self.lora.check(prefix + 'lora.')
    if self.lora.init_from:
      raise ValueError(
        f'{prefix}lora.init_from must be empty, because all arms begin with '
        f'new adapters (got {self.lora.init_from!r})'
      )
    # The run's own base is trained before it is frozen.
    if self.model.init_from or self.model.param_dtype == 'int8':
      check_base(prefix, self.model, self.lora)


@dataclasses.dataclass
class FlywheelConfig:
  """Rounds of fine-tuning on conversations about the model's own answers."""

  rounds: int = 4  # number of rounds of answers and fine-tuning
  # Objectives to compare: one chain of models for each.
  arms: tuple[str, ...] = (
    'observational',
    'interventional',
    'agent_only',
    'truth_only',
  )
  temperature: float = 1.0  # sampling temperature of the answers
  # Fine-tuning in each round.
  stage: StageConfig = field(default_factory=StageConfig)

  def check(self, prefix: str) -> None:
    """Raises ValueError, naming prefix + field, for an impossible value."""
    check_range(prefix + 'rounds', self.rounds, 1)
    check_range(prefix + 'temperature', self.temperature, 0)
    check_distinct(prefix + 'arms', self.arms)
    self.stage.check(prefix + 'stage.')


@dataclasses.dataclass
class WorldsConfig:
  """Every combination of correction style, users' error rate and lie rate."""

  seeds: int = 3  # maximum number of seeds, from the run's first seed on
  # Objectives to compare: one fine-tuned model for each, per combination.
  arms: tuple[str, ...] = ('observational', 'interventional')
  dialogues: int = 480  # number of dialogues per combination
  # Correction styles: the user states another claim, states none, or denies the
  # agent's claim.
  styles: tuple[str, ...] = ('restate', 'content_free', 'deny')
  # Probabilities that the user takes the false claim for the true one.
  p_user_wrong: tuple[float, ...] = (0.0, 0.1, 0.3)
  p_lie: tuple[float, ...] = (0.3, 0.6, 0.9)  # probabilities of a lie
  # Fine-tuning of each arm.
  stage: StageConfig = field(default_factory=StageConfig)

  def check(self, prefix: str) -> None:
    """Raises ValueError, naming prefix + field, for an impossible value."""
    check_distinct(prefix + 'arms', self.arms)
    check_range(prefix + 'seeds', self.seeds, 1)
    check_range(prefix + 'dialogues', self.dialogues, 1)
    for name in ('p_user_wrong', 'p_lie'):
      for value in getattr(self, name):
        check_range(prefix + name, value, 0, 1)
    self.stage.check(prefix + 'stage.')


@dataclasses.dataclass
class EvidenceConfig(LyingAgentConfig):
  """The evidence: four parts, on several seeds that each have their own base.

  Some fields of the lying agent must keep their defaults: facts_file, piecewise
  and dialogues.file, because facts and dialogues are generated per seed, and
  lora, because all weights are trained.
  """

  name: str = 'evidence'
  # Single part to run: 'flywheel', 'arms', 'heldout' or 'worlds'. Empty: all.
  only: str = ''
  seeds: int = 5  # number of seeds, from config.seed on
  # Facts that dialogues are about. 'invented': new ones for each seed. 'world':
  # the real facts of worlds/lying_agent/world_facts.py, in the chat template of
  # a given base (only for the part `flywheel`).
  bank: str = 'invented'
  # Number of facts. Half of the invented facts are held out. With real facts,
  # which are 212, the remaining ones are held out. A CSV file sets its own
  # number.
  facts: int = 400
  facts_csv: str = ''  # facts from a file, instead of invented ones
  max_turns: int = 2  # maximum number of turns of a document; 0: all
  p_denial: float = 0.05  # probability that a statement denies the other claim
  # Objectives of the part `heldout`: one fine-tuned model for each.
  heldout_arms: tuple[str, ...] = (
    'observational',
    'interventional',
    'agent_only',
    'truth_only',
  )
  flywheel: FlywheelConfig = field(default_factory=FlywheelConfig)
  worlds: WorldsConfig = field(default_factory=WorldsConfig)

  def check(self, prefix: str = 'config.') -> None:
    """Raises ValueError, naming prefix + field, for an impossible value."""
    super().check(prefix)
    check_choice(prefix + 'only', self.only, ('', *PARTS))
    # Settings of the lying agent that the evidence does not use.
    for name, value in (
      ('dialogues.file', self.dialogues.file),
      ('facts_file', self.facts_file),
      ('piecewise', self.piecewise),
    ):
      if value:
        raise ValueError(
          f'{prefix}{name} must be left at its default, because the evidence '
          f'generates facts and dialogues for each seed (got {value!r}); '
          f'{prefix}facts_csv takes a file of facts'
        )
    if self.lora.rank:
      raise ValueError(
        f'{prefix}lora.rank must be 0, because the evidence trains all weights '
        f'(got {self.lora.rank})'
      )
    check_range(prefix + 'seeds', self.seeds, 1)
    check_choice(prefix + 'bank', self.bank, ('invented', 'world'))
    if self.bank == 'world':
      self._check_world(prefix)
    check_range(prefix + 'facts', self.facts, 2)
    check_range(prefix + 'max_turns', self.max_turns, 0)
    check_range(prefix + 'p_denial', self.p_denial, 0, 1)
    check_range(prefix + 'dialogues.heldout', self.dialogues.heldout, 1)
    check_distinct(prefix + 'heldout_arms', self.heldout_arms)
    self.flywheel.check(prefix + 'flywheel.')
    self.worlds.check(prefix + 'worlds.')

  def _check_world(self, prefix: str) -> None:
    """Raises ValueError unless a base is given that may know real facts."""
    for name, is_right, needed in (
      ('only', self.only == 'flywheel', "'flywheel'"),
      ('model.init_from', self.model.init_from, 'a model that knows the world'),
      ('facts_csv', not self.facts_csv, 'left empty'),
    ):
      if not is_right:
        raise ValueError(
          f"with {prefix}bank='world', {prefix}{name} must be {needed}"
        )
    # There are 212 facts, and at least one is held out.
    check_range(prefix + 'facts', self.facts, 2, 211)


@dataclasses.dataclass
class ContinualConfig:
  """Increments of deployment, one skill each."""

  seeds: int = 3  # maximum number of seeds, from the run's first seed on
  turns: int = 160  # problems that the agent meets per increment
  tests: int = 200  # test problems of all skills after each increment
  steps: int = 12  # steps of fine-tuning per increment
  # Arms to compare; see experiments/deployment/continual.py.
  arms: tuple[str, ...] = (
    'observational',
    'interventional',
    'oracle',
    'solutions',
    'joint',
  )

  def check(self, prefix: str) -> None:
    """Raises ValueError, naming prefix + field, for an impossible value."""
    for name in ('seeds', 'turns', 'tests', 'steps'):
      check_range(prefix + name, getattr(self, name), 1)
    check_distinct(prefix + 'arms', self.arms)


@dataclasses.dataclass
class DeploymentConfig(WorkdirConfig):
  """An agent that learns from its own deployment, on several seeds."""

  name: str = 'deployment'  # name of the run and of its default workdir
  # Single part to run: 'arms' or 'continual'. Empty: both.
  only: str = ''
  seed: int = 0  # first seed
  seeds: int = 5  # number of seeds, from config.seed on
  world: str = 'arithmetic'  # 'arithmetic', 'facts' or 'physics'
  # Problems of the split 'train' that the base and the first policy learn from;
  # 0: all.
  solved: int = 0
  wordings: int = 3  # wordings of each of these problems for pre-training
  # Share of the problems of supervised fine-tuning that begin with a scripted
  # wrong answer and a verdict, so that the first policy knows second tries.
  p_scripted: float = 0.5
  # Problems of the split 'agent' that the agent meets in its deployment.
  turns: int = 800
  tests: int = 500  # number of problems to evaluate on
  # Split of the problems to evaluate on: 'test', or 'agent' to ask about the
  # problems of the deployment again, in other words.
  evaluate_on: str = 'test'
  samples: int = 8  # samples per problem for ReST and REINFORCE
  # Arms to compare; see experiments/deployment/arms.py.
  arms: tuple[str, ...] = (
    'sft',
    'sft_more',
    'rest',
    'reinforce',
    'oracle',
    'observational',
    'interventional_paper',
    'interventional',
    'error_masked',
    'truth_only',
    'anchored(0.1)',
    'both',
    'verdict_only',
    'oracle_wrong10',
    'oracle_wrong30',
    'interventional_paper_wrong10',
    'interventional_paper_wrong30',
    'rest_tokens',
    'observational_tokens',
    'interventional_tokens',
  )
  vocab_size: int = 512  # vocabulary size of the tokenizer that the run trains
  model: ModelConfig = field(default_factory=ModelConfig)
  # Adapters that learn instead of all weights. They need model.init_from.
  lora: LoraConfig = field(default_factory=LoraConfig)
  mesh: MeshConfig = field(default_factory=MeshConfig)
  # Pre-training of the base; not used if model.init_from names one.
  pretrain: StageConfig = field(default_factory=StageConfig)
  # Supervised fine-tuning of the base, which gives the first policy.
  sft: StageConfig = field(default_factory=StageConfig)
  # Fine-tuning of each arm. Its learning rate is constant.
  finetune: StageConfig = field(default_factory=lambda: StageConfig(steps=40))
  # REINFORCE: steps, problems per step (batch_size), optimizer.
  reinforce: StageConfig = field(default_factory=lambda: StageConfig(steps=40))
  continual: ContinualConfig = field(default_factory=ContinualConfig)
  reply_tokens: int = 12  # maximum tokens per reply

  def check(self, prefix: str = 'config.') -> None:
    """Raises ValueError, naming prefix + field, for an impossible value."""
    check_choice(prefix + 'only', self.only, ('', *DEPLOYMENT_PARTS))
    check_choice(prefix + 'world', self.world, WORLDS)
    check_choice(prefix + 'evaluate_on', self.evaluate_on, ('test', 'agent'))
    for name in ('seeds', 'wordings', 'turns', 'tests', 'reply_tokens'):
      check_range(prefix + name, getattr(self, name), 1)
    check_range(prefix + 'solved', self.solved, 0)
    check_range(prefix + 'p_scripted', self.p_scripted, 0, 1)
    # The baseline of a sample is the mean of the others.
    check_range(prefix + 'samples', self.samples, 2)
    check_distinct(prefix + 'arms', self.arms)
    for name in ('pretrain', 'sft', 'finetune', 'reinforce'):
      getattr(self, name).check(f'{prefix}{name}.')
    for name in ('finetune', 'reinforce'):
      stage = getattr(self, name)
      # All arms have the same number of steps, or stop before it.
      check_range(f'{prefix}{name}.steps', stage.steps, 1)
      check_choice(
        f'{prefix}{name}.optim.schedule', stage.optim.schedule, ('constant',)
      )
    self.continual.check(prefix + 'continual.')
    self.model.check(prefix + 'model.')
    self.lora.check(prefix + 'lora.')
    check_base(prefix, self.model, self.lora)
    if not self.model.init_from:
      check_range(prefix + 'vocab_size', self.vocab_size, 257)
      check_range(
        prefix + 'model.vocab_size', self.model.vocab_size, self.vocab_size
      )
