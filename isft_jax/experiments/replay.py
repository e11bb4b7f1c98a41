"""Turns that the base writes itself, which hold the agent's manner.

    dialogues --the base writes the agent's turns--> demonstrations, and all
    other turns are context

L_do gives the agent's turns no gradient, so that its manner may follow the
user's. A few turns of the model before fine-tuning, as demonstrations, hold it.
Nobody judges them: what they say about the world is what the base says.

Two arms mix such dialogues into those of L_do:

  replay     dialogues about other facts; the base writes each turn in its place
  hindsight  a part of the dialogues themselves; the base writes a turn after it
             has read the user's answer to it, when it is asked once more
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from isft_jax.data.rendering.rejection import Rejected
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.inference.sampling import Sampling
from isft_jax.models.decoder import GraphDef
from isft_jax.types import Example, Provenance, PyTree, Segment, Trajectory
from isft_jax.worlds.lying_agent import generator, probes
from isft_jax.worlds.lying_agent.facts import Fact
from isft_jax.worlds.lying_agent.one_line import one_line_replies

REPLAY, HINDSIGHT = 'replay', 'hindsight'
ARMS = (REPLAY, HINDSIGHT)

# Stands in for a turn, to find where it begins.
_WORDS = 'Yes.'


class Writer(NamedTuple):
  """The model that writes turns, and how it is asked."""

  graphdef: GraphDef
  params: PyTree
  renderer: Renderer
  tokens: int  # maximum tokens per turn
  seed: int  # sampling seed


def objective_from_arm(arm: str) -> str:
  """Returns the objective of an arm, which is its name but for two arms."""
  return 'interventional' if arm in ARMS else arm


def examples(
  arm: str,
  writer: Writer,
  dialogues: Sequence[Trajectory],
  others: Sequence[Fact],
  share: float,
  p_chitchat: float,
) -> list[Example]:
  """Returns the dialogues that an arm mixes into its own, rendered.

  Args:
    arm: 'replay' or 'hindsight'.
    writer: the model before fine-tuning.
    dialogues: the dialogues that the arm is trained on.
    others: facts that no dialogue is about.
    share: number of returned dialogues, as a share of `dialogues`.
    p_chitchat: probability of small talk in dialogues about other facts.
  """
  number = round(share * len(dialogues))
  if arm == HINDSIGHT:
    return write(writer, dialogues[:number], with_hindsight=True)
  invented = generator.dialogues(number, 0.5, p_chitchat, writer.seed, others)
  return write(writer, list(invented), with_hindsight=False)


def write(
  writer: Writer, dialogues: Sequence[Trajectory], with_hindsight: bool
) -> list[Example]:
  """Returns dialogues in which a model wrote the agent's turns.

  Args:
    writer: the model.
    dialogues: dialogues whose other turns are kept.
    with_hindsight: whether the model reads the agent's turn, the user's answer
      to it and what the user said before, once more, before it writes.

  Returns:
    Rendered dialogues. The model's turns are demonstrations, all others are
    context. A dialogue with an empty turn, or with the text of a special token
    in a turn, is left out.
  """
  written = {
    number: [
      dataclasses.replace(segment, provenance=Provenance.CONTEXT)
      for segment in dialogue.segments
    ]
    for number, dialogue in enumerate(dialogues)
  }
  # The first turn of all dialogues, then the second, which follows it.
  for turn in itertools.count():
    places = [
      (number, slots[turn])
      for number in written
      if len(slots := _agent_turns(dialogues[number])) > turn
    ]
    if not places:
      break
    prompts = []
    for number, at in places:
      before = written[number][:at]
      told = dialogues[number].segments[at : at + 2]
      # The last turn of a dialogue has no answer.
      if with_hindsight and len(told) == 2:
        before = [*before, *told, before[-1]]
      prompts.append(probes.slot(before, _WORDS, writer.renderer).prompt_T)
    replies = one_line_replies(
      writer.graphdef,
      writer.params,
      prompts,
      writer.tokens,
      writer.renderer.tokenizer,
      sampling=Sampling(temperature=1.0),
      seed=writer.seed + 1000 * turn,
    )
    for (number, at), reply in zip(places, replies, strict=True):
      written[number][at] = Segment(
        'assistant', reply.text, Provenance.DEMONSTRATION
      )
      # Later turns are asked for after this one, so that it must render.
      so_far = written[number][: at + 1]
      if not reply.text or not _render(writer, dialogues[number], so_far):
        del written[number]
  rendered = (
    _render(writer, dialogues[number], segments)
    for number, segments in written.items()
  )
  return [example for example in rendered if example]


def _render(
  writer: Writer, dialogue: Trajectory, segments: Sequence[Segment]
) -> Example | None:
  """Returns a rendered dialogue, or None if it is rejected."""
  trajectory = Trajectory(f'{dialogue.id}-by-the-base', tuple(segments))
  try:
    return writer.renderer.example(trajectory)
  except Rejected:
    return None


def _agent_turns(dialogue: Trajectory) -> list[int]:
  """Returns the indices of the agent's turns."""
  return [
    index
    for index, segment in enumerate(dialogue.segments)
    if segment.provenance == Provenance.AGENT
  ]
