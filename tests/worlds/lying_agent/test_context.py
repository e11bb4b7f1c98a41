"""The context of a run's records, if they share one that can be rendered."""

import pytest

from isft_jax.data.rendering import chat_template
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.types import Provenance, Segment, Trajectory
from isft_jax.worlds.lying_agent import generator
from isft_jax.worlds.lying_agent.context import shared_context
from tests.dialogues import CHATML, chatml_tokenizer


@pytest.fixture(scope='module')
def encoder():
  return chatml_tokenizer()


def dialogue(context, words='Hi.'):
  system = [Segment('system', context, Provenance.CONTEXT)] if context else []
  turns = (
    *system,
    Segment('user', words, Provenance.USER),
    Segment('assistant', 'Good.', Provenance.AGENT),
  )
  return Trajectory('x', turns)


@pytest.mark.parametrize('template', [chat_template.PLAIN, CHATML])
@pytest.mark.parametrize(
  ('contexts', 'expected'),
  [
    (['Be kind.', 'Be kind.'], 'Be kind.'),
    ([generator.CONTEXT] * 2, generator.CONTEXT),
    (['', ''], ''),
    (['Be kind.', ''], None),
    (['Be kind.', 'Be brief.'], None),
  ],
)
def test_what_records_open_with(encoder, template, contexts, expected):
  renderer = Renderer(encoder, template)
  examples = [
    renderer.example(dialogue(context, f'Hi {number}.'))
    for number, context in enumerate(contexts)
  ]
  assert shared_context(examples, renderer) == expected


def test_a_full_stop_that_takes_the_line_break_is_part_of_it(merging):
  renderer = Renderer(merging, chat_template.PLAIN)
  examples = [renderer.example(dialogue('Mars is small.'))]
  assert shared_context(examples, renderer) == 'Mars is small.'


def test_what_a_template_writes_beside_the_context_makes_it_unknown(encoder):
  odd = CHATML.replace("m.role + '\\n'", "m.role ~ messages | length ~ '\\n'")
  renderer = Renderer(encoder, odd)
  assert shared_context([renderer.example(dialogue('Hi.'))], renderer) is None
