"""isft-generate: what is asked, where replies end, and errors as one line."""

import json
import shutil
import signal
import types

import jax
import numpy as np
import pytest

from isft_jax import progress_bar, terminal
from isft_jax.config import ModelConfig, RunConfig
from isft_jax.data.rendering import chat_template
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.hf import pretrained
from isft_jax.inference import chat_loop
from isft_jax.inference import chat_model as chat_model_lib
from isft_jax.models import decoder
from isft_jax.train import saved
from isft_jax.train.checkpoint import Checkpoints
from isft_jax.worlds.lying_agent import probes
from tests.commands import command, error_line
from tests.damaged_files import damaged_json, damaged_text
from tests.dialogues import (
  CHATML,
  chatml_tokenizer,
  dialogues,
  write_records,
)

MODEL = ModelConfig(
  vocab_size=512,
  width=16,
  layers=1,
  heads=2,
  kv_heads=1,
  head_size=8,
  mlp_width=24,
  qkv_bias=True,
)
NEW = {'max_new_tokens': 8, 'stop_texts': []}


def user(text):
  return [{'role': 'user', 'content': text}]


@pytest.fixture(scope='module')
def encoder():
  return chatml_tokenizer()


def random_params():
  rng, (_, shapes) = np.random.default_rng(0), decoder.abstract(MODEL)
  return jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes
  )


@pytest.fixture(scope='module')
def folder(encoder, tmp_path_factory):
  """A random model with a ChatML tokenizer, as a Hugging Face folder."""
  path = tmp_path_factory.mktemp('model')
  graphdef, _ = decoder.abstract(MODEL)
  model = pretrained.Model(graphdef, random_params())
  pretrained.save(model, MODEL, path, own_tokenizer=True)
  encoder.save_pretrained(path)
  found = {'eos_token_id': [7, 0], 'do_sample': True, 'top_k': 5, 'other': 1}
  (path / 'generation_config.json').write_text(json.dumps(found))
  return path


@pytest.fixture(scope='module')
def chat_model(folder):
  return chat_model_lib.chat_model_from_place(str(folder))


# -------------------------------------------------------------- what is asked


def test_messages_are_the_templates_with_its_generation_prompt(chat_model):
  prompt = chat_model.prompt(user('Tell me about gold.'))
  assert chat_model.tokenizer.decode(prompt.ids_T) == (
    '<|im_start|>user\nTell me about gold.<|im_end|>\n<|im_start|>assistant\n'
  )
  assert prompt.space == ''


def test_a_text_is_continued_as_it_is(chat_model):
  prompt = chat_model.prompt('User: Tell me ')
  assert chat_model.tokenizer.decode(prompt.ids_T) == 'User: Tell me '


def test_the_plain_prompt_is_the_one_that_probes_ask_with(encoder):
  renderer = Renderer(encoder, chat_template.PLAIN)
  plain = chat_model_lib.ChatModel(
    pretrained.Model(None, {}), encoder, chat_template.PLAIN, {}, {}
  )
  before = probes.user_says('Tell me about gold.')
  prompt = plain.prompt([segment.message() for segment in before])
  assert prompt.space == ' '
  # What remains is the space, where no token has it together with the word.
  remains = set()
  for word in ('you', 'zqj'):
    slot = probes.slot(before, word, renderer)
    size = len(prompt.ids_T)
    np.testing.assert_array_equal(prompt.ids_T, slot.prompt_T[:size])
    remains.add(encoder.decode(slot.prompt_T[size:]))
  assert remains == {'', ' '}


def test_what_ends_a_turn_is_learned_from_the_template(chat_model, encoder):
  end = encoder.convert_tokens_to_ids('<|im_end|>')
  # 7 and 0 are the folder's own.
  assert (chat_model.stop_ids, chat_model.stop_texts) == ([0, 7, end], [])
  plain = chat_model_lib.ChatModel(
    pretrained.Model(None, {}), encoder, chat_template.PLAIN, {}, {}
  )
  assert (plain.stop_ids, plain.stop_texts) == ([0], ['\n'])
  bare = chat_model_lib.ChatModel(
    pretrained.Model(None, {}), encoder, '', {}, {}
  )
  assert (bare.stop_ids, bare.stop_texts) == ([0], [])


@pytest.mark.parametrize(
  ('found', 'expected'),
  [
    ({}, {'temperature': 0.0}),
    ({'temperature': 0.7, 'top_k': 20}, {'temperature': 0.0}),
    ({'max_new_tokens': 9}, {'temperature': 0.0, 'max_new_tokens': 9}),
    ({'do_sample': True}, {'temperature': 1.0}),
    ({'do_sample': True, 'temperature': 0}, {'temperature': 0}),
    (
      {'do_sample': True, 'temperature': 0.7, 'top_p': 0},
      {'temperature': 0.0, 'top_p': 1.0},
    ),
    (
      {'do_sample': True, 'temperature': 0.7, 'top_p': 0.8, 'penalty': 2},
      {'temperature': 0.7, 'top_p': 0.8},
    ),
  ],
)
def test_settings_of_a_generation_config(found, expected):
  assert chat_model_lib.settings_from_generation_config(found) == expected


def test_a_template_that_refuses_says_so(encoder):
  plain = chat_model_lib.ChatModel(
    pretrained.Model(None, {}), encoder, chat_template.PLAIN, {}, {}
  )
  with pytest.raises(ValueError, match='refuses the messages: turn 0'):
    plain.prompt(user('two\nlines'))
  bare = chat_model_lib.ChatModel(
    pretrained.Model(None, {}), encoder, '', {}, {}
  )
  with pytest.raises(ValueError, match='no chat template'):
    bare.prompt(user('x'))


def test_a_checkpoint_is_talked_to_as_its_records_were_rendered(
  encoder, tmp_path
):
  records = write_records(
    tmp_path / 'records',
    dialogues()[:16],
    Renderer(encoder, chat_template.PLAIN),
  )
  encoder.save_pretrained(tmp_path / 'tokenizer')
  config = RunConfig(
    records=records,
    tokenizer=str(tmp_path / 'tokenizer'),
    model=MODEL,
  )
  params = random_params()
  state = types.SimpleNamespace(
    params=params, opt_state={'none': params['norm']}
  )
  with Checkpoints(tmp_path / 'run', config) as checkpoints:
    checkpoints.save(1, state, {}, 'fingerprint')
  found = saved.chat_model_from_run(str(tmp_path / 'run'))
  jax.tree.map(np.testing.assert_array_equal, found.model.params, params)
  assert found.template == chat_template.PLAIN
  shutil.rmtree(tmp_path / 'records')
  assert saved.chat_model_from_run(str(tmp_path / 'run')).template == CHATML


# ------------------------------------------------------------- and what replied


def test_a_file_gets_the_same_replies_in_every_batch(
  chat_model, tmp_path, capsys, monkeypatch
):
  # Each state is shown, without waiting for a minute.
  for name in '_SHORT', '_REDRAW', 'LOG':
    monkeypatch.setattr(progress_bar, name, 0.0)
  said = ['Tell me about gold.', 'And Mars?', 'Who?']
  rows = [{'prompt': said[0], 'id': 5}, {'messages': user(said[1])}]
  rows.append({'prompt': said[2]})
  path = tmp_path / 'replies.jsonl'
  chat_loop.answer_file(chat_model, rows, False, str(path), batch_size=2, **NEW)
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  chat_loop.answer_file(chat_model, rows, False, '', batch_size=3, **NEW)
  out, err = capsys.readouterr()
  assert [json.loads(line) for line in out.splitlines()] == lines
  assert '  2/3 prompts  ' in err and '  3/3 prompts  ' in err
  for row, line in zip(rows, lines, strict=True):
    assert line.keys() - row.keys() == {'reply', 'tokens', 'ended_by'}
    assert row.items() <= line.items()


def test_interrupted_replies_go_on_and_are_those_of_one_run(
  chat_model, tmp_path, monkeypatch, capsys
):
  rows = [
    {'prompt': f'Tell me about {name}.'} for name in ('gold', 'Mars', 'x')
  ]
  whole, path = tmp_path / 'whole.jsonl', tmp_path / 'replies.jsonl'
  chat_loop.answer_file(chat_model, rows, False, str(whole), 1, **NEW)
  reply, asked = chat_model.reply, []

  def killed(prompts, rows, **settings):
    asked.extend(rows)
    if asked == [0, 1]:
      raise KeyboardInterrupt
    return reply(prompts, rows=rows, **settings)

  monkeypatch.setattr(chat_model, 'reply', killed)
  with pytest.raises(KeyboardInterrupt):
    chat_loop.answer_file(chat_model, rows, False, str(path), 1, **NEW)
  assert not path.exists()
  (part,) = tmp_path.glob('.replies.jsonl.*.part')
  # A kill may tear the last line.
  with part.open('a') as file:
    file.write('{"prompt": "Tell me about Mars.", "rep')
  chat_loop.answer_file(chat_model, rows, False, str(path), 1, **NEW)
  assert asked == [0, 1, 1, 2]
  assert path.read_bytes() == whole.read_bytes()
  assert 'resumes after 1 of 3 prompts' in capsys.readouterr().err
  assert {*tmp_path.iterdir()} == {whole, path}
  # A file that exists is never replaced.
  with pytest.raises(FileExistsError):
    chat_loop.answer_file(chat_model, rows, False, str(path), 1, **NEW)


def test_replies_of_other_settings_are_not_mixed(
  chat_model, tmp_path, monkeypatch
):
  rows, path = [{'prompt': 'a'}, {'prompt': 'b'}], tmp_path / 'replies.jsonl'
  reply, asked = chat_model.reply, []

  def killed(prompts, rows, **settings):
    asked.extend(rows)
    if len(asked) == 2:
      raise KeyboardInterrupt
    return reply(prompts, rows=rows, **settings)

  monkeypatch.setattr(chat_model, 'reply', killed)
  with pytest.raises(KeyboardInterrupt):
    chat_loop.answer_file(chat_model, rows, False, str(path), 1, **NEW)
  longer = NEW | {'max_new_tokens': 4}
  chat_loop.answer_file(chat_model, rows, False, str(path), 1, **longer)
  assert asked == [0, 1, 0, 1]
  assert len(path.read_text().splitlines()) == 2


def test_ids_that_the_model_does_not_have_are_refused(chat_model, encoder):
  small = {'embedding': chat_model.model.params['embedding'][:300]}
  model = pretrained.Model(None, small)
  plain = chat_template.PLAIN
  chat = chat_model_lib.ChatModel(model, encoder, plain, {}, {})
  with pytest.raises(ValueError, match='but the model has only 300 tokens'):
    chat.prompt('<|im_end|>')
  with pytest.raises(ValueError, match='stops at the id 300, but the model'):
    chat_model_lib.ChatModel(model, encoder, plain, {}, {'eos_token_id': 300})


def test_a_template_that_shows_no_words_is_refused(chat_model, encoder):
  with pytest.raises(ValueError, match='leaves out the words of messages'):
    chat_model_lib.ChatModel(chat_model.model, encoder, 'null', {}, {})


def test_a_chat_goes_on_from_what_was_said(chat_model, monkeypatch, capsys):
  lines = iter(['Tell me about gold.', ' ', 'And Mars?'])
  asked = []

  def prompt(said, before=chat_model.prompt):
    asked.append([(m['role'], m['content']) for m in said])
    return before(said)

  def read(shown):
    assert shown == 'you> '
    try:
      return next(lines)
    except StopIteration:
      raise EOFError from None

  monkeypatch.setattr('builtins.input', read)
  monkeypatch.setattr(chat_model, 'prompt', prompt)
  chat_loop.chat(chat_model, False, **NEW)
  out, err = capsys.readouterr()
  assert 'Ctrl-D leaves' in err
  first = ('user', 'Tell me about gold.')
  reply = ('assistant', asked[1][1][1])
  assert asked == [[first], [first, reply, ('user', 'And Mars?')]]
  assert out.startswith(terminal.safe(reply[1]) + '\n')


def test_ctrl_c_ends_a_reply_and_keeps_what_was_said(
  chat_model, monkeypatch, capsys
):
  handler = signal.getsignal(signal.SIGINT)
  with chat_loop._ctrl_c() as is_pressed:
    assert not is_pressed()
    signal.raise_signal(signal.SIGINT)
    assert is_pressed()
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
  assert signal.getsignal(signal.SIGINT) == handler

  def reply(prompts, show, block):
    assert not show(0, 'Gold')
    signal.raise_signal(signal.SIGINT)
    assert show(0, 'Gold is')

  monkeypatch.setattr(chat_model, 'reply', reply)
  assert chat_loop.answer(chat_model, user('x')) == 'Gold is'
  assert capsys.readouterr().out == 'Gold is [interrupted]\n'


# ----------------------------------------------------------- files and flags


def test_prompts_of_a_file(tmp_path):
  text, rows = tmp_path / 'a.txt', tmp_path / 'a.jsonl'
  text.write_text('one\n\n{"two": 2}\r\n')
  found = [{'prompt': 'one'}, {'prompt': '{"two": 2}'}]
  assert chat_loop.read_prompts(text) == found
  found = [{'prompt': 'one', 'id': 3}, {'messages': user('\u2028')}]
  rows.write_text('\n'.join(json.dumps(r, ensure_ascii=False) for r in found))
  assert chat_loop.read_prompts(rows) == found


@pytest.mark.parametrize(
  ('name', 'text', 'message'),
  [
    ('a.csv', 'x', 'must be .txt or .jsonl'),
    ('a.txt', ' \n', 'has no prompts'),
    ('a.jsonl', '{"prompt": "x"}\n{"prompt"', 'line 2: must be'),
    ('a.jsonl', '[1]', 'line 1: must be'),
    ('a.jsonl', '{"prompt": 3}', 'line 1: must be'),
    ('a.jsonl', '{"messages": [{"content": "x"}]}', 'line 1: must be'),
    ('a.jsonl', '{"messages": [{"role": 1}]}', 'line 1: must be'),
    ('a.jsonl', '{"messages": [{"role": "u", "content": 1}]}', 'line 1: must'),
    ('a.jsonl', '{"prompt": "x", "id": NaN}', 'line 1: must be'),
    ('a.jsonl', '{"prompt": "\\ud800"}', 'line 1: must be'),
    ('a.jsonl', '[' * 99_999, 'line 1: must be'),
    ('a.jsonl', '{"prompt": ' + '9' * 9999 + '}', 'line 1: must be'),
    ('a.txt', '', 'the file is empty'),
    ('a.txt', 'a\nb\0c', 'line 2: a NUL byte; save the file as text'),
    ('a.txt', 'aé'.encode('latin-1'), 'line 1: byte 0xe9 is not UTF-8'),
    ('a.txt', 'a'.encode('utf-16'), 'line 1: a NUL byte'),
  ],
  ids=str,
)
def test_a_file_that_holds_no_prompts_is_named(name, text, message, tmp_path):
  data = text if isinstance(text, bytes) else text.encode()
  (tmp_path / name).write_bytes(data)
  with pytest.raises(ValueError, match=f'{name}.*{message}') as failure:
    chat_loop.read_prompts(tmp_path / name)
  assert str(failure.value).isprintable()


def test_damaged_prompts_are_read_or_refused_in_one_line(tmp_path):
  path, whole = tmp_path / 'a.jsonl', []
  whole.append(json.dumps({'prompt': 'Gold?', 'id': [1, {'a': None}]}))
  whole.append(json.dumps({'messages': user('Mars?')}))
  content, refused = '\n'.join(whole).encode(), 0
  for seed in range(300):
    rng = np.random.default_rng(seed)
    damage = (damaged_json, damaged_text)[seed % 2]
    lines = content.split(b'\n')
    what, lines[seed % 4 // 2] = damage(lines[seed % 4 // 2], rng)
    path.write_bytes(b'\n'.join(lines))
    try:
      rows = chat_loop.read_prompts(path)
    except ValueError as error:
      refused += 1
      line = str(error)
      assert line.startswith(str(path)) and line.isprintable(), what
      assert len(line) < 300, what
    else:
      # What is read can be written again, beside a reply.
      for row in rows:
        json.dumps(row, ensure_ascii=False, allow_nan=False).encode()
        assert isinstance(row.get('prompt', ''), str)
  assert 100 < refused < 290


def test_a_byte_order_mark_is_no_part_of_a_prompt(tmp_path):
  (tmp_path / 'a.txt').write_bytes('Gold?'.encode('utf-8-sig'))
  assert chat_loop.read_prompts(tmp_path / 'a.txt') == [{'prompt': 'Gold?'}]


def test_a_folder_of_prompts_is_named(tmp_path):
  (tmp_path / 'a.txt').mkdir()
  with pytest.raises(ValueError, match=r'a.txt: a folder; name a file'):
    chat_loop.read_prompts(tmp_path / 'a.txt')
  with pytest.raises(ValueError, match=r'b.txt: the file does not'):
    chat_loop.read_prompts(tmp_path / 'b.txt')


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    ([], 'name either --checkpoint=WORKDIR or --model=FOLDER'),
    (['--model=m', '--step=2'], '--step belongs to --checkpoint'),
    (['--checkpoint=r', '--adapter=a'], '--adapter belongs to --model'),
    (['--model=m', '--base=b'], '--base belongs to --checkpoint'),
    (['--model=x', '--prompt=a', '--prompts=b'], '--prompt or --prompts'),
    (['--model=x', '--output=b'], '--output needs --prompts'),
    (['--model=x', '--prompts=b', '--output=.'], 'already exists'),
    (['--batch_size=0'], 'flag --batch_size=0'),
    (['--batch=0'], 'flag --batch_size=0'),  # its old name
    (['--model=m', '--port=8001'], '--port belongs to --serve'),
    (['--model=m', '--transcripts=d'], '--transcripts belongs to --serve'),
    (['--model=m', '--serve', '--prompt=x'], 'remove --prompt'),
    (['--model=m', '--serve', '--raw'], 'remove --raw'),
    (['--serve', '--port=65536'], 'flag --port=65536'),
    (['--serve', '--idle_seconds=-1'], 'flag --idle_seconds=-1'),
    (['--serve', '--max_request_bytes=0'], 'flag --max_request_bytes=0'),
    (['--serve', '--max_context=1'], 'flag --max_context=1'),
    (
      ['--model=m', '--serve', '--port=0', '--host=192.0.2.1'],
      '--host=192.0.2.1 --port=0: Cannot assign requested address',
    ),
  ],
)
def test_bad_flags_are_one_clear_line(flags, message):
  assert message in error_line('generate', *flags)


def test_a_flag_that_takes_the_other_kind_is_named(folder, tmp_path):
  line = error_line('generate', f'--checkpoint={folder}')
  assert f'a model, not the workdir of a run; give it as --model={folder}' in (
    line
  )
  (tmp_path / 'checkpoints').mkdir()
  line = error_line('generate', f'--model={tmp_path}')
  assert 'the workdir of a run, not a model' in line
  assert f'give it as --checkpoint={tmp_path}' in line


def test_one_prompt_through_the_command(folder):
  done = command(
    'generate',
    f'--model={folder}',
    '--prompt=Tell me.',
    '--max_new_tokens=3',
  )
  assert done.returncode == 0, done.stderr
  assert done.stderr == (
    'writes turns of its chat template; temperature 1, top_k 5, top_p 1, '
    "max_new_tokens 3; ends at <|endoftext|> or ' or <|im_end|>\n"
  )
  assert done.stdout.endswith('\n')
