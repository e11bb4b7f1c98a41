"""A dialogue of six slots, its gates, and its weights under both losses.

The structure is that of the example of de Freitas and Ortega (2026); the words
are ours. The first notebook shows the same dialogue.
"""

import ast
import json
import pathlib
import re

import numpy as np
import pytest

from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.rendering import chatml
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.objectives import weight_table
from isft_jax.types import Provenance

PATH = pathlib.Path(__file__).parent / 'invoice.json'
NOTEBOOK = pathlib.Path(__file__).parents[2] / 'colabs/1_see_the_masks.ipynb'
# gamma: 1 if the agent wrote the slot. c is the context, which has no gate.
TABLE = """
  slot  gamma  author   L_obs  L_do  text
  c         -  CONTEXT      0     0  You answer questions about invoices.
  z_1       0  USER         1     1  How much of invoice 2041 is still open?
  z_2       1  AGENT        1     0  <tool_call>{"name": "find", "arguments": {"invoice": 2041}}</tool_call>
  z_3       0  TOOL         1     1  {"total": 380, "paid": 130}
  z_4       1  AGENT        1     0  380 euros are open.
  z_5       0  USER         1     1  No, 130 are paid: 250 euros are open.
  z_6       1  AGENT        1     0  Thank you, I overlooked the payment.
"""  # noqa: E501
OBJECTIVES = ('observational', 'interventional')


@pytest.fixture(scope='module')
def invoice():
  """The rendered dialogue, and what decodes its ids."""
  text = PATH.read_text(encoding='utf-8')
  run = registry.read(json.loads(text), 'invoice', 'openai', Rules.default())
  renderer = Renderer(chatml.train([text], 512))
  return renderer.example(run), renderer.tokenizer


def slot_of(example, tokenizer, turn):
  """Returns gamma, author, both weights and text of a turn, as text.

  The protocol around a turn is the template's, in every slot.
  """
  is_slots_T = (example.segment_T == turn) & (
    example.provenance_T != Provenance.TEMPLATE
  )
  (author,) = set(example.provenance_T[is_slots_T].tolist())
  gamma = '-' if author == Provenance.CONTEXT else author == Provenance.AGENT
  weights = []
  for objective in OBJECTIVES:
    weights_T = weight_table(objective)[
      example.provenance_T, example.verdict_T
    ][is_slots_T]
    (weight,) = set(weights_T.tolist())
    weights.append(f'{weight:g}')
  text = tokenizer.decode(example.tokens_T[is_slots_T].tolist())
  gamma = gamma if gamma == '-' else str(int(gamma))
  return [gamma, Provenance(author).name, *weights, re.sub(r'<\|.*', '', text)]


def test_six_slots_with_gates_and_weights(invoice):
  header, *expected = (
    line.split(maxsplit=5) for line in TABLE.strip().splitlines()
  )
  assert header == ['slot', 'gamma', 'author', 'L_obs', 'L_do', 'text']
  assert [row[1:] for row in expected] == [
    slot_of(*invoice, turn) for turn in range(7)
  ]


def test_the_losses_differ_by_the_tokens_of_the_agent(invoice):
  example, _ = invoice
  obs_T, do_T = (
    weight_table(name)[example.provenance_T, example.verdict_T]
    for name in OBJECTIVES
  )
  np.testing.assert_array_equal(
    obs_T - do_T, example.provenance_T == Provenance.AGENT
  )


def test_the_notebook_shows_this_dialogue():
  cells = json.loads(NOTEBOOK.read_text(encoding='utf-8'))['cells']
  sources = [''.join(cell['source']) for cell in cells]
  (code,) = (source for source in sources if re.search('(?m)^RUN = ', source))
  (run,) = (
    ast.literal_eval(line.value)
    for line in ast.parse(code).body
    if isinstance(line, ast.Assign) and line.targets[0].id == 'RUN'
  )
  assert run == json.loads(PATH.read_text(encoding='utf-8'))
  # Slot, gate and both weights.
  row = r'\| z([₁-₆]) .*\| (\d) \| (\d) \| (\d) \|'
  shown = re.findall(row, '\n'.join(sources))
  expected = [line.split()[:5] for line in TABLE.strip().splitlines()[2:]]
  assert shown == [
    ('₀₁₂₃₄₅₆'[int(slot[2:])], gamma, obs, do)
    for slot, gamma, _, obs, do in expected
  ]
