"""Our authors against other judges of what an agent wrote.

TRL marks {% generation %} in the training templates that it ships, and a few
public templates have such marks. `renderers` knows for each token whether the
model sampled it. They are asked about fifteen short dialogues and about real
runs. Every disagreement has one of the reasons below; docs/evidence.md explains
who is right.
"""

import collections
import functools
import importlib.util
import pathlib

import pytest

from isft_jax.data.comparison import alignment, other_masks
from isft_jax.data.files import rows
from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.rendering.rejection import Rejected
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.objectives import weight_table
from isft_jax.report.diff import compared
from isft_jax.types import Provenance
from tests.data.marker_tokenizer import marker_tokenizer
from tests.data.oracle_dialogues import PROBES, TOOLS, user
from tests.fixtures import needs

P = Provenance
SHARED = pathlib.Path(__file__).parents[4] / 'shared'

# Who is right, and what differs.
SPACE = 'ours: white space after the stop token'
PROMPT = 'ours: the generation prompt, in the turn'
END = 'ours: the end of the text, which is in no turn'
CALL = 'ours: the token with which the agent waits for a tool'
LINE = 'ours: a line break that the model must generate'
DEMO = 'both: a demonstration'
TEXT = 'both: another text'

# Template: least number of the fifteen probes that both render, reasons.
TRL = {
  'cohere': (10, DEMO),
  'cohere2': (10, DEMO),
  'deepseek_r1_distill': (11, DEMO, PROMPT, TEXT),
  'deepseekv3': (11, DEMO, PROMPT),
  'diffusion_gemma': (15, CALL, DEMO, SPACE),
  'gemma': (9, DEMO, SPACE),
  'gemma3': (10, DEMO, SPACE),
  'glm4moe': (15, DEMO, TEXT),
  'gptoss': (13, DEMO, PROMPT),
  'lfm2': (11, DEMO, SPACE),
  'lfm2_2_5': (15, DEMO, SPACE),
  'lfm2_2_5_v2': (15, DEMO, SPACE),
  'lfm2_2_5_vl': (15, DEMO, SPACE),
  'lfm2_v2': (15, DEMO, SPACE),
  'llama3': (11, DEMO),
  'muse_glimmer': (14, DEMO, PROMPT),
  'nemotron_3_5_lightning': (15, DEMO, PROMPT, SPACE),
  'nemotron_3_nano': (15, DEMO, PROMPT, SPACE),
  'nemotron_3_super': (15, DEMO, PROMPT, SPACE),
  'nemotron_3_ultra': (15, DEMO, PROMPT, SPACE),
  'phi3': (11, DEMO, END, SPACE),
  'phi3_5': (11, DEMO, END, SPACE),
  'qwen2_5': (15, DEMO, SPACE),
  'qwen2_5_vl': (11, DEMO, SPACE),
  'qwen3': (15, DEMO, SPACE, TEXT),
  'qwen3_5_nothink': (15, DEMO, PROMPT, SPACE, TEXT),
  'qwen3_5_think': (15, DEMO, PROMPT, SPACE, TEXT),
  'qwen3_6': (15, DEMO, PROMPT, SPACE, TEXT),
  'qwen3_8': (15, DEMO, PROMPT, SPACE),
  'qwen3_instruct_2507': (15, DEMO, SPACE),
  'qwen3_vl': (15, DEMO, SPACE),
}
# Renderer: its template, least number of probes, reasons.
RENDERERS = {
  'qwen3': ('trl/qwen3', 15, DEMO),
  'qwen3.5': ('trl/qwen3_5_think', 15, DEMO, PROMPT),
  'qwen3.6': ('trl/qwen3_6', 15, DEMO, PROMPT),
  'qwen3.8': ('trl/qwen3_8', 15, DEMO, PROMPT),
  'qwen3-vl': ('trl/qwen3_vl', 15, DEMO, TEXT),
  'glm-4.5': ('trl/glm4moe', 15, DEMO, LINE),
  'nemotron-3': ('trl/nemotron_3_nano', 15, DEMO, PROMPT),
  'nemotron-3-ultra': ('trl/nemotron_3_ultra', 15, DEMO, PROMPT),
  'nemotron-3.5': ('trl/nemotron_3_5_lightning', 15, DEMO, PROMPT),
  'llama-3': ('trl/llama3_2', 13, DEMO),
  'deepseek-v3': ('trl/deepseekv3', 11, DEMO, TEXT),
  'gemma4': ('trl/gemma4_v5', 15, DEMO),
  'glm-5': ('shared/llamacpp--GLM-4.7-Flash', 15, DEMO),
  'kimi-k2': ('shared/llamacpp--Kimi-K2-Instruct', 11, DEMO),
  'laguna-s-2.1': ('shared/llamacpp--poolside-Laguna-S-2.1', 15, DEMO),
  'minimax-m2': ('shared/llamacpp--MiniMax-M2', 15, DEMO, LINE, PROMPT, TEXT),
}
# The same for public templates with marks of their own.
OWN_MARKS = {
  'llamacpp--LFM2.5-8B-A1B': (15, DEMO, SPACE),
  'llamacpp--poolside-Laguna-S-2.1': (15, DEMO, PROMPT, SPACE),
  'llamacpp--poolside-Laguna-XS-2.1': (15, DEMO, PROMPT, SPACE),
  'llamacpp--poolside-Laguna-XS.2': (15, DEMO, PROMPT, SPACE),
}
# Tokens besides those that a template shows.
_QWEN = (
  *('<|endoftext|>', '<|im_start|>', '<|im_end|>', '<think>', '</think>'),
  *('<tool_call>', '</tool_call>', '<tool_response>', '</tool_response>'),
  *('<|image_pad|>', '<|video_pad|>', '<|vision_start|>', '<|vision_end|>'),
)
_GLM = (
  *('<|system|>', '<|user|>', '<|assistant|>', '<|observation|>'),
  *('<arg_key>', '</arg_key>', '<arg_value>', '</arg_value>', *_QWEN),
  *('[gMASK]', '<sop>'),
)
_BAR = '\uff5c'
_DEEPSEEK = tuple(
  f'<{_BAR}{name}{_BAR}>'.replace('_', '\u2581')
  for name in (
    *('begin_of_sentence', 'end_of_sentence', 'User', 'Assistant', 'tool_sep'),
    *('tool_calls_begin', 'tool_calls_end', 'tool_call_begin'),
    *('tool_call_end', 'tool_outputs_begin', 'tool_outputs_end'),
    *('tool_output_begin', 'tool_output_end'),
  )
)
TOKENS = {
  **{name: _QWEN for name in RENDERERS if name.startswith('qwen')},
  **{n: (*_QWEN, '<image>') for n in RENDERERS if n.startswith('nemotron')},
  **{name: _GLM for name in RENDERERS if name.startswith('glm')},
  'deepseek-v3': _DEEPSEEK,
  'llama-3': (
    *('<|begin_of_text|>', '<|end_of_text|>', '<|start_header_id|>'),
    *('<|end_header_id|>', '<|eom_id|>', '<|eot_id|>'),
  ),
  'gemma4': (
    *('<eos>', '<|turn>', '<turn|>', '<|channel>', '<channel|>', '<|think|>'),
    *('<|tool>', '<tool|>', '<|tool_call>', '<tool_call|>', '<|image>'),
    *('<|tool_response>', '<tool_response|>', '<image|>', '<|image|>'),
  ),
  'laguna-s-2.1': (
    *('<think>', '</think>', '<tool_call>', '</tool_call>', '<assistant>'),
    *('</assistant>', '\u3008|EOS|\u3009'),
  ),
  'minimax-m2': (
    *(']~!b[', ']~b]', '[e~[', '<minimax:tool_call>', '</minimax:tool_call>'),
    *('<think>', '</think>'),
  ),
}
ENDS = {
  **dict.fromkeys(('phi3', 'phi3_5', 'glm-4.5', 'glm-5'), '<|endoftext|>'),
  'deepseek-v3': _DEEPSEEK[1],
  'gemma4': '<turn|>',
  'laguna-s-2.1': '\u3008|EOS|\u3009',
  'minimax-m2': '[e~[',
}
BEGINS = {'deepseek-v3': _DEEPSEEK[0], 'llama-3': '<|begin_of_text|>'}

# Those that are also asked about real runs.
ON_RUNS = (
  *('qwen3', 'qwen2_5', 'gptoss', 'glm4moe'),
  *('qwen3.5', 'glm-4.5', 'nemotron-3', 'gemma4'),
)


def trl_folder() -> pathlib.Path:
  spec = importlib.util.find_spec('trl')
  (folder,) = spec.submodule_search_locations if spec else ['none']
  return pathlib.Path(folder) / 'chat_templates'


def template(place: str) -> str:
  where, _, name = place.partition('/')
  folder = trl_folder() if where == 'trl' else SHARED / 'templates'
  path = folder / f'{name}.jinja'
  if not path.is_file():
    pytest.skip(f'no {path.name} in {folder}')
  return path.read_text(encoding='utf-8')


def load(against: str, name: str, place: str):
  """Returns our renderer and the other trainer."""
  tokens = TOKENS.get(name, ()) if against == 'renderers' else ()
  ends = ENDS.get(name, ''), BEGINS.get(name, '<bos>')
  tokenizer = marker_tokenizer(template(place), tokens, *ends)
  renderer = Renderer(tokenizer)
  return renderer, other_masks.load(against, renderer, name)


@functools.cache
def runs():
  """The first three runs of each file."""
  folder = SHARED / 'trajectories'
  found = []
  for path in sorted(folder.glob('*.[jt]*')):
    for row, _ in zip(rows.read(path), range(3), strict=False):
      id = f'{path.stem}:{row.number}'
      found.append(registry.read(row.value, id, 'auto', Rules.default()))
  return tuple(found)


def disagreements(renderer, trainer, trajectories):
  """Returns {difference: how often}, and the number that both render."""
  found, number = collections.Counter(), 0
  for trajectory in trajectories:
    try:
      example = renderer.example(trajectory)
      tokens_T, scored_T = trainer.mask(trajectory)
    except (Rejected, other_masks.CannotRender):
      continue
    number += 1
    decode = functools.cache(lambda id: renderer.tokenizer.decode([id]))
    pairs_A2 = alignment.align(
      example.tokens_T.tolist(), tokens_T.tolist(), decode
    )
    table_PV = weight_table('agent_only')
    row = compared.row(example, table_PV, tokens_T, scored_T, pairs_A2, decode)
    # A token that only our text has may be scored by us.
    is_ours_A = row.in_ours_A & ~row.in_theirs_A & row.differs_A
    if is_ours_A.any():
      found[TEXT] += 1
    row.weights_A[is_ours_A] = 0
    found += compared.differences([row])
  return found, number


def prompt_of(renderer) -> str:
  """Returns the generation prompts: with and without thinking."""
  render = functools.partial(
    renderer.tokenizer.apply_chat_template,
    [user('Hi.').message()],
    tools=[*TOOLS],
    chat_template=renderer.rendering['template'],
    tokenize=False,
  )
  prompts = (
    render(add_generation_prompt=True, **values).removeprefix(render())
    for values in ({}, {'enable_thinking': False})
  )
  return ' '.join(prompts)


def reason(difference, prompt: str, name: str, eos: str) -> str:
  """Returns the reason for a difference, or '' if it has none."""
  if difference == TEXT:
    return TEXT
  side, author, text = difference
  bare = text.strip()
  if side == 'ours':
    # Only the agent's tokens are compared.
    assert author == P.AGENT
    return {
      '\n': LINE,
      '<|tool_response>': CALL,
    }.get(text, '')
  if author == P.TEMPLATE:
    if not bare:
      return SPACE
    # The prompt after a tool's result ends the list of results.
    if bare in prompt or bare == _DEEPSEEK[-3]:
      return PROMPT
    return END if bare == eos else ''
  return {P.DEMONSTRATION: DEMO, P.PAD: TEXT}.get(author, '')


def check(against, name, place, least, reasons):
  renderer, trainer = load(against, name, place)
  prompt, eos = prompt_of(renderer), renderer.tokenizer.eos_token
  found, number = disagreements(renderer, trainer, PROBES)
  assert number >= least
  if name in ON_RUNS:
    found += disagreements(renderer, trainer, runs())[0]
  found = {each: reason(each, prompt, name, eos) for each in found}
  assert {each: why for each, why in found.items() if not why} == {}
  assert set(found.values()) == set(reasons)


@needs('trl')
@pytest.mark.parametrize('name', TRL)
def test_trl_marks_what_we_attribute_to_the_agent(name):
  least, *reasons = TRL[name]
  check('trl', name, f'trl/{name}', least, reasons)


@needs('trl')
def test_every_template_that_trl_can_mark_is_asked():
  named = {path.stem for path in trl_folder().glob('*.jinja')}
  marked = {n for n in named if f'{n}_training' in named}
  # Their messages are lists of images and text, which ours are not.
  assert marked - TRL.keys() == {'idefics3', 'llava_next', 'smolvlm'}


@pytest.mark.parametrize('name', OWN_MARKS)
def test_a_template_marks_what_we_attribute_to_the_agent(name):
  least, *reasons = OWN_MARKS[name]
  check('assistant_mask', name, f'shared/{name}', least, reasons)


@needs('renderers')
@pytest.mark.parametrize('name', RENDERERS)
def test_renderers_sample_what_we_attribute_to_the_agent(name):
  place, least, *reasons = RENDERERS[name]
  check('renderers', name, place, least, reasons)
