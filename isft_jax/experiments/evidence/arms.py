"""Arms on the lying agent's dialogues, one for each way of weighting tokens.

    told facts -> dialogues --+--> arm (objective) -> probes of both halves
                              '--> the agent's true turns as demonstrations

An arm is the name of an objective, or one of

  observational_matched  L_obs divided by the number of the world's tokens
  demonstration          L_do, with the agent's true turns as demonstrations
  replay, hindsight      L_do, and turns that the base writes itself; see
                         experiments/replay.py
"""

import dataclasses
import itertools
import pathlib
from typing import Any

import numpy as np

from isft_jax import objectives
from isft_jax.data.batching.packing import count_targets
from isft_jax.data.records.dataset import Index
from isft_jax.experiments import replay
from isft_jax.experiments.config import EvidenceConfig
from isft_jax.experiments.evidence import bases
from isft_jax.experiments.evidence.bases import Base
from isft_jax.types import Provenance, PyTree, Trajectory, Verdict
from isft_jax.worlds.lying_agent import forgetting, generator, probes, roles
from isft_jax.worlds.lying_agent.judge import judge
from isft_jax.worlds.lying_agent.one_line import one_line_replies

# Arms whose names are no objectives; see `objective_from_arm`.
MATCHED, DEMONSTRATION = 'observational_matched', 'demonstration'
# Facts that dialogues are about, and facts that they never mention.
HALVES = ('told', 'heldout')


def objective_from_arm(arm: str) -> str:
  """Returns the objective of an arm. Raises ValueError for an unknown one."""
  objective = {MATCHED: 'observational', DEMONSTRATION: 'interventional'}.get(
    arm, replay.objective_from_arm(arm)
  )
  objectives.weight_table(objective)
  return objective


def mark_demonstrations(trajectory: Trajectory) -> Trajectory:
  """Returns a trajectory with the agent's right turns as demonstrations."""
  segments = (
    dataclasses.replace(segment, provenance=Provenance.DEMONSTRATION)
    if (segment.provenance, segment.verdict)
    == (Provenance.AGENT, Verdict.RIGHT)
    else segment
    for segment in trajectory.segments
  )
  return dataclasses.replace(trajectory, segments=tuple(segments))


def dialogues(
  config: EvidenceConfig, base: Base
) -> tuple[list[Trajectory], list[Trajectory]]:
  """Returns the dialogues to train on, and held-out ones of the same kind."""
  settings = config.dialogues
  generated = generator.dialogues(
    settings.number + settings.heldout,
    settings.p_lie,
    settings.p_chitchat,
    base.seed,
    base.told,
    acknowledge=settings.acknowledge,
  )
  # The rest of the generated dialogues is held out.
  return list(itertools.islice(generated, settings.number)), list(generated)


def run(
  config: EvidenceConfig, base: Base, folder: pathlib.Path, arm: str
) -> dict[str, Any]:
  """Trains an arm from the base of a seed, and probes it.

  Args:
    config: settings of the evidence.
    base: the base model of the seed, which stays unchanged.
    folder: folder for the records of the dialogues.
    arm: name of the arm; 'base' probes the base without training.

  Returns:
    Probes of both halves of the facts, 'costs' and 'train'.
  """
  training, heldout = dialogues(config, base)
  # The arm 'base' is probed without fine-tuning.
  params, trained = base.params, None
  if arm != 'base':
    if arm == DEMONSTRATION:
      training = [mark_demonstrations(dialogue) for dialogue in training]
    examples = [base.renderer.example(dialogue) for dialogue in training]
    stage = config.finetune
    if arm in replay.ARMS:
      written = replay.examples(
        arm,
        replay.Writer(
          base.graphdef,
          base.params,
          base.renderer,
          config.reply_tokens,
          base.seed,
        ),
        training,
        base.bank.heldout,
        config.replay,
        config.dialogues.p_chitchat,
      )
      # As many steps for the dialogues as in the other arms.
      growth = 1 + len(written) / len(examples)
      stage = dataclasses.replace(stage, steps=round(stage.steps * growth))
      examples += written
    records = base.write(folder, examples)
    settings = bases.make_run(
      config, stage, arm, objective_from_arm(arm), folder, base.seed
    )
    # The same gradients with a larger factor, which AdamW almost cancels.
    if arm == MATCHED:
      settings.optim = bases.matched_optimizer(
        settings.optim, target_ratio(records.index)
      )
    params, trained = bases.fit(settings, records, params)
  # Probes of the facts, and costs on dialogues that no arm has seen.
  probed = probe_facts(config, base, params)
  return {
    **probed,
    'costs': roles.measure(
      base.graphdef,
      params,
      [base.renderer.example(dialogue) for dialogue in heldout],
      base.renderer,
      config.reply_tokens,
      base.seed,
      base.params,
    )
    | {
      'contradicts': probed['told']['contradicts'],
      'elsewhere': loss_elsewhere(config, base, params),
    },
    'train': trained,
  }


def loss_elsewhere(config: EvidenceConfig, base: Base, params: PyTree) -> float:
  """Returns -log p of a token in documents that no arm learns, in nats."""
  documents = generator.documents(
    config.dialogues.heldout,
    config.documents.p_true,
    # Neither those of the base.
    base.seed + bases.OTHER_TEXTS,
    base.bank.heldout,
    config.max_turns,
  )
  texts = [base.renderer.render(document).text for document in documents]
  loss, _ = forgetting.nll_per_token(
    base.graphdef, params, base.renderer.tokenizer, texts
  )
  return loss


def target_ratio(index: Index) -> float:
  """Returns the number of targets of L_obs per target of L_do."""
  observational, interventional = (
    count_targets(index, objectives.weight_table(name)).sum()
    for name in ('observational', 'interventional')
  )
  return float(observational / interventional)


def probe_facts(
  config: EvidenceConfig, base: Base, params: PyTree
) -> dict[str, dict[str, Any]]:
  """Returns half of the facts -> figures of the probes, as shares of facts.

  Returns:
    mean_margin: mean of the margins, nats per token.
    prefers_lie: share of margins below 0.
    says_truth: share of greedy answers to the question that are true.
    truth_after_truth, truth_after_lie: share of greedy replies with the truth,
      after the user states the truth or the lie.
    contradicts: share of greedy replies that contradict a user who states the
      truth.
    margins: the margin of each fact.
  """
  renderer, model = base.renderer, (base.graphdef, params)
  # Margins, and replies after the user has stated the truth or the lie.
  probed = probes.probe_prepared(
    *model, base.probes, renderer, config.reply_tokens
  )
  # Two claims per fact share a prompt, which is the question.
  questions = [claim.prompt_T for claim in base.probes.claims[::2]]
  answers = one_line_replies(
    *model, questions, config.reply_tokens, renderer.tokenizer
  )
  rows = [
    row | {'answer_verdict': judge(answer.text, fact)}
    for row, answer, fact in zip(
      probed['facts'], answers, base.facts, strict=True
    )
  ]
  # Rows are in the order of `base.facts`, with the told facts first.
  split = len(base.told)
  return {
    half: _shares(part)
    for half, part in zip(HALVES, (rows[:split], rows[split:]), strict=True)
  }


def _shares(rows: list[dict[str, Any]]) -> dict[str, Any]:
  margins = [row['margin'] for row in rows]

  def truth_share(kind: str) -> float:
    return float(np.mean([row[f'{kind}_verdict'] == 'truth' for row in rows]))

  return {
    'mean_margin': float(np.mean(margins)),
    'prefers_lie': float(np.mean(np.array(margins) < 0)),
    'says_truth': truth_share('answer'),
    'truth_after_truth': truth_share('truth'),
    'truth_after_lie': truth_share('lie'),
    'contradicts': float(np.mean([row['contradicts'] for row in rows])),
    'margins': [round(margin, 5) for margin in margins],
  }
