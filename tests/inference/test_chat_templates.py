"""Prompts of public chat templates: the ids of transformers, within limits."""

import pathlib

import pytest

from isft_jax.data.rendering.chat_template import freeze, messages_of
from isft_jax.hf import pretrained
from isft_jax.inference.chat_model import ChatModel
from tests.data.marker_tokenizer import marker_tokenizer
from tests.data.oracle_dialogues import PROBES

FOLDER = pathlib.Path(__file__).parents[3] / 'shared' / 'templates'
TEMPLATES = sorted(FOLDER.glob('*.jinja'))
CHAT = '{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}'
# They want tools or other variables that a chat does not have.
REFUSES_ALL = (
  'llamacpp--fireworks-ai-llama-3-firefunction-v2',
  'llamacpp--CohereForAI-c4ai-command-r-plus-tool_use',
  'llamacpp--NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use',
  'vllm--tool_chat_template_functiongemma',
)


def chat_model(source):
  # One for all: the text of a prompt decides its ids.
  tokenizer = marker_tokenizer(CHAT, ('<|im_end|>', '</s>', '<think>'))
  model = pretrained.Model(None, {})
  return ChatModel(model, tokenizer, freeze(source), {}, {})


def conversations():
  """Yields messages up to the last turn of the agent, and whole ones."""
  for number, trajectory in enumerate(PROBES):
    messages = messages_of(trajectory)
    agents = [s.in_agents_slot for s in trajectory.segments]
    last = len(agents) - 1 - agents[::-1].index(True) if any(agents) else 0
    yield messages[:last] if last and number % 3 else messages


@pytest.mark.skipif(not TEMPLATES, reason='no public templates here')
@pytest.mark.parametrize('path', TEMPLATES, ids=lambda path: path.stem)
def test_prompts_have_the_ids_of_transformers(path):
  model = chat_model(path.read_text())
  number = 0
  for messages in conversations():
    try:
      text = model.tokenizer.apply_chat_template(
        messages,
        chat_template=model.template,
        tokenize=False,
        add_generation_prompt=True,
      )
    except Exception:  # a template is a program
      with pytest.raises(ValueError, match='the chat template refuses'):
        model.prompt(messages)
      continue
    assert model._render(messages, add_generation_prompt=True) == text
    prompt = model.prompt(messages)
    assert text.endswith(prompt.space)
    # A space at the end belongs to the first word of the reply.
    kept = text[: len(text) - len(prompt.space)]
    ids = model.tokenizer(kept, add_special_tokens=False)['input_ids']
    assert prompt.ids_T.tolist() == ids
    number += 1
  assert number or path.stem in REFUSES_ALL


NEVER = '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}'
NEVER += '{% endfor %}'
LONG = '{{ "x" * 999999999 }}'
GENERATES = '{% if add_generation_prompt %}THIS{% endif %}'


@pytest.mark.parametrize(
  ('more', 'words'),
  [
    (NEVER, 'takes more than .* steps'),
    ('{{ messages[0].content * 999999999 }}', 'makes a text of more than'),
    (LONG, 'makes a text of more than'),
  ],
)
def test_a_template_without_bound_is_refused(more, words):
  with pytest.raises(ValueError, match=f'^the chat template {words}') as error:
    chat_model(CHAT + more)
  assert '\n' not in str(error.value)


def test_a_prompt_without_bound_is_one_line():
  model = chat_model(CHAT + GENERATES.replace('THIS', NEVER))
  with pytest.raises(
    ValueError, match=r'the chat template takes more than .* steps$'
  ):
    model.prompt([{'role': 'user', 'content': 'Hi'}])


def test_special_tokens_and_values_are_variables():
  source = '{{ bos_token }}{{ mood }}' + CHAT
  tokenizer = marker_tokenizer(source, (), bos='<bos>')
  model = ChatModel(
    pretrained.Model(None, {}), tokenizer, source, {'mood': 'glad'}, {}
  )
  text = model._render([{'role': 'user', 'content': 'Hi'}])
  assert text == '<bos>glad<user>Hi</>'
