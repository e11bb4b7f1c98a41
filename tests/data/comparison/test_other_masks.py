"""Masks of other trainers: which template they use, and what they refuse."""

import dataclasses
import importlib.util
import pathlib

import pytest

from isft_jax.data.comparison import other_masks
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.types import Trajectory
from tests.data.chat_tokenizer import template, trained
from tests.data.oracle_dialogues import PROBES, TOOLS, agent, call, tool, user
from tests.fixtures import needs

MARKED = (
  '{% for message in messages %}'
  "{{ '<|im_start|>' + message.role + '\n' }}"
  "{% if message.role == 'assistant' %}"
  '{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}'
  '{% else %}{{ message.content }}<|im_end|>{% endif %}'
  "{{ '\n' }}"
  '{% endfor %}'
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TALK = Trajectory('talk', (user('Hi.'), agent('Yo.'), user('Ho!'), agent('Oh')))


def scored(against: str, renderer: Renderer, trajectory=TALK, **options):
  """Returns the text of each stretch that another trainer scores."""
  trainer = other_masks.load(against, renderer, **options)
  tokens_T, scored_T = trainer.mask(trajectory)
  stretches, before = [], False
  for token, is_scored in zip(tokens_T, scored_T, strict=True):
    if is_scored:
      text = renderer.tokenizer.decode([token])
      if before:
        stretches[-1] += text
      else:
        stretches.append(text)
    before = is_scored
  return stretches


def test_the_marks_of_a_template_are_read():
  renderer = Renderer(trained(), MARKED)
  assert scored('assistant_mask', renderer) == [
    *('Yo.<|im_end|>', 'Oh<|im_end|>')
  ]
  tokens_T, _ = other_masks.load('assistant_mask', renderer).mask(TALK)
  assert tokens_T.tolist() == renderer.example(TALK).tokens_T.tolist()


def test_a_template_without_marks_is_refused():
  renderer = Renderer(trained(), template('chatml'))
  with pytest.raises(ValueError, match=r'no \{% generation %\} marks.*--chat'):
    other_masks.load('assistant_mask', renderer)


def test_no_trainer_predicts_the_first_token():
  text = '{% for m in messages %}{% generation %}{{ m.content }}'
  text += '{% endgeneration %}{% endfor %}'
  renderer = Renderer(trained(), text)
  trajectory = Trajectory('x', (agent('a'), user('b')))
  tokens_T, scored_T = other_masks.load('assistant_mask', renderer).mask(
    trajectory
  )
  assert len(tokens_T) == 2
  assert scored_T.tolist() == [False, True]


def test_values_of_the_template_are_passed():
  text = MARKED.replace('<|im_end|>{% endgen', '{{ mark }}<|im_end|>{% endgen')
  renderer = Renderer(trained(), text, {'mark': '?!'})
  assert scored('assistant_mask', renderer)[0] == 'Yo.?!<|im_end|>'
  # Values of the row replace them.
  talk = dataclasses.replace(TALK, template_values={'mark': ':)'})
  assert scored('assistant_mask', renderer, talk)[0] == 'Yo.:)<|im_end|>'


CALLS = (
  '{% for m in messages %}{% generation %}{{ m.content }}'
  '{% for call in m.tool_calls %}{{ call.id }} BODY {% endfor %}'
  '{% endgeneration %}{% endfor %}'
)


@pytest.mark.parametrize(
  ('body', 'digits', 'words'),
  [
    ('{{ call.function.arguments.city }}', 0, ['abc Rome ']),
    # As text where the template wants it, and with new ids if ours has them.
    ("{{ 'x' + call.function.arguments }}", 0, ['abc x{"city": "Rome"} ']),
    ('{{ call.function.arguments.city }}', 9, ['000000000 Rome ']),
  ],
)
def test_calls_have_the_forms_that_our_renderer_tries(body, digits, words):
  text = CALLS.replace('BODY', body)
  renderer = Renderer(trained(), text, call_id_digits=digits)
  trajectory = Trajectory(
    'x', (user(''), agent('', call('abc', city='Rome'))), TOOLS
  )
  tokens_T, _ = other_masks.load('assistant_mask', renderer).mask(trajectory)
  assert [renderer.tokenizer.decode(tokens_T)] == words


@pytest.mark.parametrize(
  ('tools', 'words'), [(None, ['a']), (TOOLS, ['tools'])]
)
def test_the_template_is_chosen_as_transformers_does(tools, words):
  default = '{{ 0 }}{% generation %}a{% endgeneration %}{{ messages[0].role }}'
  named = {'default': default, 'tool_use': default.replace('}a{', '}tools{')}
  renderer = Renderer(trained(), named)
  trajectory = Trajectory('x', (user('b'),), tools)
  assert scored('assistant_mask', renderer, trajectory) == words


def test_what_a_trainer_cannot_render_has_a_reason():
  text = "{{ raise_exception('no\nroom') if messages[0].content == 'x' }}"
  renderer = Renderer(trained(), MARKED + text)
  mask = other_masks.load('assistant_mask', renderer).mask
  mask(TALK)
  with pytest.raises(
    other_masks.CannotRender, match=r'^TemplateError: no room$'
  ):
    mask(Trajectory('x', (user('x'), agent('y'))))


def test_messages_are_copied(monkeypatch):
  """Code of others may change what it is given."""
  renderer = Renderer(trained(), MARKED)
  trajectory = Trajectory(
    'x', (user('Hi.'), agent('', call('c', city='Rome'))), TOOLS
  )

  def change(messages, tools, **_):
    messages[1]['tool_calls'][0]['id'] = 'z'
    tools[0]['type'] = 'z'
    return {'input_ids': [], 'assistant_masks': []}

  monkeypatch.setattr(renderer.tokenizer, 'apply_chat_template', change)
  other_masks.load('assistant_mask', renderer).mask(trajectory)
  assert trajectory.segments[1].fields['tool_calls'][0]['id'] == 'c'
  assert trajectory.tools[0]['type'] == 'function'


def test_another_name_is_refused():
  renderer = Renderer(trained(), MARKED)
  with pytest.raises(ValueError, match=r"must be one of trl, .*\(got 'x'\)"):
    other_masks.load('x', renderer)


# -------------------------------------------------------------------------- trl


def of_trl(name: str) -> str:
  (folder,) = importlib.util.find_spec('trl').submodule_search_locations
  path = pathlib.Path(folder) / 'chat_templates' / f'{name}.jinja'
  return path.read_text(encoding='utf-8')


@needs('trl')
def test_trl_uses_the_marks_that_are_there():
  renderer = Renderer(trained(), MARKED)
  assert scored('trl', renderer) == scored('assistant_mask', renderer)


@needs('trl')
def test_trl_replaces_a_template_that_it_knows():
  renderer = Renderer(trained(), of_trl('qwen3'))
  # TRL shows empty thinking before each turn, and scores the line break after.
  think = '<think>\n\n</think>\n\n'
  assert scored('trl', renderer) == [
    *(f'{think}Yo.<|im_end|>\n', f'{think}Oh<|im_end|>\n')
  ]


@needs('trl')
def test_trl_knows_a_template_whose_date_is_fixed():
  text = of_trl('gptoss')
  renderer = Renderer(trained(), text)
  assert renderer.rendering['template'] != text
  assert scored('trl', renderer)


@needs('trl')
def test_trl_refuses_other_templates():
  renderer = Renderer(trained(), template('chatml'))
  with pytest.raises(ValueError, match='TRL has no training template for'):
    other_masks.load('trl', renderer)
  assert renderer.tokenizer.chat_template is None


# -------------------------------------------------------------------- renderers


@needs('renderers')
def test_the_default_renderer_scores_whole_messages():
  """It applies any template, and cannot see what the model samples."""
  renderer = Renderer(trained(), template('chatml'))
  trainer = other_masks.load('renderers', renderer)
  assert trainer.name.endswith('(DefaultRenderer)')
  assert scored('renderers', renderer) == [
    '<|im_start|>assistant\nYo.<|im_end|>\n',
    '<|im_start|>assistant\nOh<|im_end|>\n',
  ]


@needs('renderers')
def test_values_of_a_row_make_a_renderer_of_its_own():
  renderer = Renderer(trained(), template('chatml'))
  renderer.rendering['template'] = '{{ mark }}' + renderer.rendering['template']
  talk = dataclasses.replace(TALK, template_values={'mark': '<|pad|>'})
  mask = other_masks.load('renderers', renderer, 'default').mask
  first = [
    renderer.tokenizer.decode(mask(t).tokens_T[:1]) for t in (TALK, talk)
  ]
  assert first[0] != '<|pad|>' == first[1]


@needs('renderers')
def test_results_of_tools_are_not_scored():
  renderer = Renderer(trained(), template('chatml'))
  trajectory = next(probe for probe in PROBES if probe.id == 'call')
  assert any(
    segment == tool('21', 'abcdefgh1') for segment in trajectory.segments
  )
  text = ''.join(scored('renderers', renderer, trajectory))
  assert 'look' in text and '21 degrees' in text
  assert 'tool\n21' not in text


@needs('renderers')
@pytest.mark.parametrize(
  ('model', 'message'),
  [
    ('qwen4', r"--renderer=qwen4: .*registered for name='qwen4'.*'qwen3'"),
    ('glm-5', r'--renderer=glm-5: renderers does not support this tokenizer'),
  ],
)
def test_a_renderer_that_does_not_exist_or_fit_is_refused(model, message):
  renderer = Renderer(trained(), template('chatml'))
  with pytest.raises(ValueError, match=message):
    other_masks.load('renderers', renderer, model)
