"""Public chat templates, against what a model reads and writes at inference.

For each turn of the agent, transformers renders the turns before it with the
generation prompt. That text is what the model has read: none of it may be the
agent's, and what follows it is.
"""

import functools
import pathlib
import re

import pytest

from isft_jax.data.rendering.chat_template import messages_of
from isft_jax.data.rendering.rejection import Rejected
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.data.rendering.template_profile import common_prefix
from isft_jax.data.rendering.tokenizer import special_pattern
from isft_jax.types import Provenance, Trajectory
from tests.data.marker_tokenizer import marker_tokenizer
from tests.data.oracle_dialogues import (
  PROBES,
  ROME,
  TOOLS,
  agent,
  call,
  tool,
  user,
)

FOLDER = pathlib.Path(__file__).parents[4] / 'shared' / 'templates'
TEMPLATES = sorted(FOLDER.glob('*.jinja'))
# Special tokens of other forms than those that `marker_tokenizer` finds.
OTHER = re.compile(r'<seed:\w+>|<reserved_\d+>')
AGENT = Provenance.AGENT
# Reasons of the templates themselves. Each loses nothing that it accepts.
OF_TEMPLATES = ('template_raises', 'content_dropped')

ASK, SAY = user('Is it warm?'), agent('Yes, 21 degrees.')
LOOK = agent('', call(ROME, city='Rome'))
# What the fifteen dialogues lack.
MORE = (
  Trajectory('two turns of the agent', (ASK, SAY, agent('And dry.'), ASK, SAY)),
  Trajectory('ends with a call', (ASK, LOOK), TOOLS),
  Trajectory('ends with a tool', (ASK, LOOK, tool('21', ROME)), TOOLS),
)


@functools.cache
def renderer_of(path):
  """Returns a renderer with the template's markers as special tokens."""
  source = path.read_text()
  return Renderer(
    marker_tokenizer(source, (*OTHER.findall(source), '</s>')), source
  )


def authors_of(rendered):
  """Returns the author and the turn of each character."""
  return [
    (span.provenance, span.segment)
    for span in rendered.spans
    for _ in span.text
  ]


@pytest.mark.skipif(not TEMPLATES, reason='no public templates here')
@pytest.mark.parametrize('path', TEMPLATES, ids=lambda path: path.stem)
def test_the_agent_wrote_what_follows_the_generation_prompt(path):
  renderer = renderer_of(path)
  accepted = 0
  for trajectory in (*PROBES, *MORE):
    name = trajectory.id
    try:
      rendered = renderer.render(trajectory)
    except Rejected as error:
      assert error.reason in OF_TEMPLATES, (name, error)
      continue
    accepted += 1
    text, authors = rendered.text, authors_of(rendered)
    assert len(text) == len(authors)
    messages = messages_of(trajectory)
    for turn, segment in enumerate(trajectory.segments):
      if not segment.in_agents_slot or not (segment.text or segment.fields):
        continue
      own = [
        i
        for i, author in enumerate(authors)
        if author == (segment.provenance, turn)
      ]
      # The words, whole.
      assert segment.text.strip().rpartition('</think>')[2].strip() in ''.join(
        text[i] for i in own
      )
      if trajectory.segments[turn - 1].in_agents_slot:
        continue  # the prompt after a finished turn opens a second one
      prompt = prompt_of(renderer, messages[:turn], trajectory.tools)
      if prompt is not None and text.startswith(prompt):
        # White space after the prompt may belong to the header.
        assert own[0] >= len(prompt), (name, turn)
        assert not text[len(prompt) : own[0]].strip(), (name, turn)
      elif prompt is not None:
        # A finished turn lacks the end of the prompt. They may share a tag or
        # two letters that the agent wrote here.
        shared = text[: common_prefix(prompt, text)]
        assert own[0] >= len(TAG.sub('', shared)), (name, turn)
  assert accepted or path.stem in REFUSE_ALL


TAG = re.compile(r'\s*(?:<[^<>]*>?|\w{1,2})\s*\Z')
# It wants a variable `functions`.
REFUSE_ALL = ('llamacpp--fireworks-ai-llama-3-firefunction-v2',)


def prompt_of(renderer, messages, tools):
  try:
    source = renderer.rendering['template']
    return renderer._apply(source, messages, tools, add_generation_prompt=True)
  except Exception:
    return None


# ------------------------------------------------------------------ stop tokens

# Each turn of 'several turns' is followed by a user, and of 'call' the first by
# a tool and the second by nothing.
STOPS = {
  'llamacpp--GLM-4.6': (['<|user|>'] * 3, ['<|observation|>', '']),
  'llamacpp--Apertus-8B-Instruct': (['<|assistant_end|>'] * 3, None),
  'llamacpp--Qwen-Qwen3-0.6B': (['<|im_end|>'] * 3, ['<|im_end|>'] * 2),
  'llamacpp--google-gemma-4-31B-it': (
    *(['<turn|>'] * 3, ['<|tool_response>', '<turn|>']),
  ),
  'llamacpp--openai-gpt-oss-120b': (
    *(['<|end|>'] * 3, ['<|call|>', '<|return|>']),
  ),
  'llamacpp--moonshotai-Kimi-K2': (['<|im_end|>'] * 3, ['<|im_end|>'] * 2),
  'llamacpp--CohereForAI-c4ai-command-r7b-12-2024-tool_use': (
    *(['<|END_OF_TURN_TOKEN|>'] * 3, ['<|END_OF_TURN_TOKEN|>'] * 2),
  ),
}


@pytest.mark.skipif(not TEMPLATES, reason='no public templates here')
@pytest.mark.parametrize('stem', STOPS)
def test_each_turn_of_the_agent_ends_with_its_stop_token(stem):
  renderer = renderer_of(FOLDER / f'{stem}.jinja')
  special = special_pattern(renderer.tokenizer)
  for name, expected in zip(
    ('several turns', 'call'), STOPS[stem], strict=True
  ):
    if expected is None:  # the call has markers of its own form
      continue
    trajectory = next(t for t in PROBES if t.id == name)
    spans = renderer.render(trajectory).spans
    ends = []
    for turn, segment in enumerate(trajectory.segments):
      if segment.in_agents_slot:
        own = [
          s.text for s in spans if (s.provenance, s.segment) == (AGENT, turn)
        ]
        ends.append(([''] + special.findall(own[-1]))[-1])
    assert ends == expected, name
