"""Public chat templates, against what a model reads and writes at inference.

For each turn of the agent, transformers renders the turns before it with the
generation prompt. That text is what the model has read: none of it may be the
agent's, and what follows it is.
"""

import functools
import pathlib
import re

import pytest
import tokenizers
import transformers

from isft_jax.data.rendering.chat_template import messages_of
from isft_jax.data.rendering.rejection import Rejected
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.data.rendering.template_profile import common_prefix
from isft_jax.types import Provenance
from tests.data.rendering.probe_dialogues import PROBES

FOLDER = pathlib.Path(__file__).parents[4] / 'shared' / 'templates'
TEMPLATES = sorted(FOLDER.glob('*.jinja'))
# Special tokens as public templates write them.
SPECIAL = re.compile(
  r'<[|\uff5c][^<>\s\'"{}]{1,40}[|\uff5c]>|</?s>|<(?:start|end)_of_\w+>'
  r'|\[/?(?:INST|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS|SYSTEM_PROMPT)\]'
  r'|<\|?turn\|?>|<\|?tool_(?:call|response)\|?>|<seed:\w+>|<reserved_\d+>'
)
# Reasons of the templates themselves. Each loses nothing that it accepts.
OF_TEMPLATES = ('template_raises', 'content_dropped')


def tokenizer_for(template):
  """Returns a tokenizer of bytes with the special tokens of a template."""
  alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  bpe = tokenizers.Tokenizer(
    tokenizers.models.BPE({c: i for i, c in enumerate(alphabet)}, [])
  )
  bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  bpe.decoder = tokenizers.decoders.ByteLevel()
  bpe.add_special_tokens(sorted({'<s>', '</s>', *SPECIAL.findall(template)}))
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=bpe, bos_token='<s>', eos_token='</s>'
  )


@functools.cache
def renderer_of(path):
  text = path.read_text()
  return Renderer(tokenizer_for(text), text)


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
  for name, trajectory in PROBES.items():
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
      if not segment.in_agents_slot or not segment.message().get('content'):
        continue
      own = [i for i, author in enumerate(authors) if author == AGENT(turn)]
      # The words, whole.
      assert segment.text.strip().rpartition('</think>')[2].strip() in ''.join(
        text[i] for i in own
      )
      if trajectory.segments[turn - 1].in_agents_slot:
        continue  # the prompt after a finished turn opens a second one
      prompt = prompt_of(renderer, messages[:turn], trajectory.tools)
      if prompt is not None and text.startswith(prompt):
        # White space after the prompt may belong to the header.
        assert not text[len(prompt) : own[0]].strip(), (name, turn)
      elif prompt is not None:
        # A finished turn lacks the end of the prompt. They may share a tag or
        # a letter that the agent wrote here.
        shared = text[: common_prefix(prompt, text)]
        assert own[0] >= len(TAG.sub('', shared)), (name, turn)
  assert accepted or path.stem in REFUSE_ALL


def AGENT(turn):
  return Provenance.AGENT, turn


TAG = re.compile(r'\s*(?:<[^<>]*>?|\w)\s*\Z')
# It wants a variable `functions`.
REFUSE_ALL = ('llamacpp--fireworks-ai-llama-3-firefunction-v2',)


def prompt_of(renderer, messages, tools):
  try:
    source = renderer.rendering['template']
    return renderer._apply(source, messages, tools, add_generation_prompt=True)
  except Exception:
    return None


# ------------------------------------------------------------------ stop tokens

STOPS = {
  'llamacpp--GLM-4.6': {
    'chat': ['<|user|>', ''],
    'call': ['<|observation|>', ''],
  },
  'llamacpp--Apertus-8B-Instruct': {'chat': ['<|assistant_end|>', '']},
  'llamacpp--Qwen-Qwen3-0.6B': {'chat': ['<|im_end|>', '<|im_end|>']},
  'llamacpp--google-gemma-4-31B-it': {
    'chat': ['<turn|>', '<turn|>'],
    'call': ['<|tool_response>', '<turn|>'],
  },
  'llamacpp--openai-gpt-oss-120b': {
    'chat': ['<|end|>', '<|return|>'],
    'call': ['<|call|>', '<|return|>'],
  },
  'llamacpp--moonshotai-Kimi-K2': {
    'chat': ['<|im_end|>', '<|im_end|>'],
    'call': ['<|im_end|>', '<|im_end|>'],
  },
  'llamacpp--CohereForAI-c4ai-command-r7b-12-2024-tool_use': {
    'chat': ['<|END_OF_TURN_TOKEN|>', '<|END_OF_TURN_TOKEN|>'],
    'call': ['<|END_OF_TURN_TOKEN|>', '<|END_OF_TURN_TOKEN|>'],
  },
}


@pytest.mark.skipif(not TEMPLATES, reason='no public templates here')
@pytest.mark.parametrize('stem', STOPS)
def test_each_turn_of_the_agent_ends_with_its_stop_token(stem):
  for name, expected in STOPS[stem].items():
    trajectory = PROBES[name]
    rendered = renderer_of(FOLDER / f'{stem}.jinja').render(trajectory)
    ends = []
    for turn, segment in enumerate(trajectory.segments):
      if segment.in_agents_slot:
        own = [s.text for s in rendered.spans if s[1:3] == AGENT(turn)]
        markers = SPECIAL.findall(own[-1])
        ends.append(markers[-1] if markers else '')
    assert ends == expected, name
