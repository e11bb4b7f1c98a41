"""From records to batches: one batch written out, then laws that all obey."""

import collections
import dataclasses

import numpy as np
import pytest

from isft_jax import losses
from isft_jax.config import RunConfig
from isft_jax.data.batching import pipeline
from isft_jax.data.batching.pipeline import BatchSource
from isft_jax.data.records import dataset
from isft_jax.objectives import weight_table
from isft_jax.types import Batch, Example, Provenance, Verdict

LETTERS = {
  't': Provenance.TEMPLATE,
  'c': Provenance.CONTEXT,
  'u': Provenance.USER,
  'o': Provenance.TOOL,
  'a': Provenance.AGENT,
  'd': Provenance.DEMONSTRATION,
  'h': Provenance.HARNESS,
}
T, U, A = Provenance.TEMPLATE, Provenance.USER, Provenance.AGENT
STRIDE = 1000  # token = STRIDE * (record + 1) + position: it says where it is


def example(record, authors, wrong=(), scored_from=0, stride=STRIDE):
  """A record of one letter a token; `wrong` are positions of wrong tokens."""
  length = len(authors)
  verdict_T = np.zeros(length, np.uint8)
  verdict_T[list(wrong)] = Verdict.WRONG
  return Example(
    id=f'record-{record}',
    tokens_T=(stride * (record + 1) + np.arange(length)).astype(np.int32),
    provenance_T=np.array([LETTERS[a] for a in authors], np.uint8),
    segment_T=np.zeros(length, np.int32),
    verdict_T=verdict_T,
    scored_from=scored_from,
  )


def random_examples(number=60, seed=0):
  rng = np.random.default_rng(seed)
  for record in range(number):
    length = int(rng.integers(2, 40))
    yield example(
      record,
      ''.join(rng.choice([*'ctuoadh'], length)),
      wrong=np.flatnonzero(rng.random(length) < 0.2),
      scored_from=int(rng.choice([0, 0, 0, length // 2])),
    )


@pytest.fixture(scope='module')
def many(tmp_path_factory):
  folder = tmp_path_factory.mktemp('many')
  return dataset.write(str(folder), random_examples, {})


def config(**changes):
  return dataclasses.replace(
    RunConfig(batch_size=4, seq_len=64, targets_per_row=32, epochs=2), **changes
  )


def scored_positions(data, objective):
  """{(record, position): weight} of all targets, from the definition."""
  table_PV = weight_table(objective)
  weights = {}
  for record in range(len(data)):
    read = data[record]
    for position in range(max(1, read.scored_from), len(read.tokens_T)):
      weight = table_PV[read.provenance_T[position], read.verdict_T[position]]
      if weight:
        weights[record, position] = weight
  return weights


def origins(batch):
  """Every slot in use: [(row, slot, record, position), ...].

  A slot is in use where its target has an author; padding has the author PAD.
  """
  return [
    (b, k, *divmod(int(batch.targets_BK[b, k]) - STRIDE, STRIDE))
    for b, k in np.argwhere(batch.authors_BK != Provenance.PAD).tolist()
  ]


def counted(batches):
  return collections.Counter(
    origin[2:] for batch in batches for origin in origins(batch)
  )


def steps(source, epochs=1):
  return [source[i] for i in range(epochs * source.steps_per_epoch)]


def assert_batches_equal(one: Batch, other: Batch, but=()):
  for name in Batch._fields:
    if name not in but:
      np.testing.assert_array_equal(
        getattr(one, name), getattr(other, name), err_msg=name
      )


# ------------------------------------------------------- one batch, in numbers


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  """Record 0 is tokens 10 to 16, record 1 is 20 to 23, by these authors."""
  made = [
    example(0, 'ctuaata', wrong=[3], stride=10),
    example(1, 'tuat', stride=10),
  ]
  folder = tmp_path_factory.mktemp('two')
  return dataset.write(str(folder), lambda: made, {})


def one_row(**changes):
  """Of 10 tokens and 8 targets; under seed 0, record 0 comes first."""
  return RunConfig(
    batch_size=1, seq_len=10, targets_per_row=8, seed=0, **changes
  )


ROW = {
  # document       0   0   0   0   0  1   1   1
  'tokens_BL': [[10, 11, 12, 13, 14, 20, 21, 22, 0, 0]],
  'positions_BL': [[0, 1, 2, 3, 4, 0, 1, 2, 0, 0]],
  'segment_ids_BL': [[1, 1, 1, 1, 1, 2, 2, 2, 0, 0]],
  # targets at     t   u   t   u   t
  'columns_BK': [[0, 1, 4, 5, 7, 0, 0, 0]],
  'targets_BK': [[11, 12, 15, 21, 23, 0, 0, 0]],
  'weights_BK': [[1, 1, 1, 1, 1, 0, 0, 0]],
  'authors_BK': [[T, U, T, U, T, 0, 0, 0]],
}
# Planned for L_obs, so that the agent's targets have slots: what they weigh is
# the objective's choice. The last token, the agent's, is scored and not read.
SHARED_ROW = {
  # document        0   0   0   0   0   0  1   1   1
  'tokens_BL': [[10, 11, 12, 13, 14, 15, 20, 21, 22, 0]],
  'positions_BL': [[0, 1, 2, 3, 4, 5, 0, 1, 2, 0]],
  'segment_ids_BL': [[1, 1, 1, 1, 1, 1, 2, 2, 2, 0]],
  'columns_BK': [[0, 1, 2, 3, 4, 5, 6, 7, 8, 0]],
  'targets_BK': [[11, 12, 13, 14, 15, 16, 21, 22, 23, 0]],
  'authors_BK': [[T, U, A, A, T, A, U, A, T, 0]],
}
SHARED_WEIGHTS = {
  # target            11 12  13  14 15  16 21  22 23
  'observational': [[1, 1, 1, 1, 1, 1, 1, 1, 1, 0]],
  'interventional': [[1, 1, 0, 0, 1, 0, 1, 0, 1, 0]],
  'agent_only': [[0, 0, 1, 1, 0, 1, 0, 1, 0, 0]],
  'error_masked': [[1, 1, 0, 1, 1, 1, 1, 1, 1, 0]],
}


def test_two_records_in_one_row_under_l_do(two):
  source = BatchSource(two, one_row(objective='interventional'))
  assert source.steps_per_epoch == 1
  batch = source[0]
  assert {name: x.tolist() for name, x in batch._asdict().items()} == ROW
  assert {name: x.dtype.name for name, x in batch._asdict().items()} == {
    name: 'float32' if name == 'weights_BK' else 'int32' for name in ROW
  }


@pytest.mark.parametrize('objective', SHARED_WEIGHTS)
def test_two_records_in_one_row_planned_for_l_obs(two, objective):
  shared = dataclasses.replace(
    one_row(objective=objective, plan_objective='observational'),
    targets_per_row=10,
  )
  batch = BatchSource(two, shared)[0]
  assert {name: x.tolist() for name, x in batch._asdict().items()} == {
    **SHARED_ROW,
    'weights_BK': SHARED_WEIGHTS[objective],
  }


def test_tokens_before_scored_from_are_read_and_not_scored(tmp_path):
  made = [example(0, 'tuuuuu', scored_from=3, stride=10)]
  data = dataset.write(str(tmp_path), lambda: made, {})
  batch = BatchSource(data, one_row())[0]
  assert batch.tokens_BL[0, :6].tolist() == [10, 11, 12, 13, 14, 0]
  assert batch.targets_BK[0, :4].tolist() == [13, 14, 15, 0]
  assert batch.columns_BK[0, :4].tolist() == [2, 3, 4, 0]
  assert batch.weights_BK[0, :4].tolist() == [1, 1, 1, 0]


def test_token_0_is_a_token_like_any_other(tmp_path):
  """Where the id of padding masks, real tokens of that id are lost."""
  made = [dataclasses.replace(example(0, 'tuuu'), tokens_T=np.zeros(4, 'i4'))]
  data = dataset.write(str(tmp_path), lambda: made, {})
  batch = BatchSource(data, one_row())[0]
  assert batch.segment_ids_BL[0, :4].tolist() == [1, 1, 1, 0]
  assert batch.weights_BK[0, :4].tolist() == [1, 1, 1, 0]


# ---------------------------------------- no target from another document: all


@pytest.mark.parametrize('objective', ['observational', 'interventional'])
def test_a_target_is_the_token_after_its_column_in_its_own_document(
  many, objective
):
  """So the first token of a document is no target, and no target is alien."""
  batches = steps(BatchSource(many, config(objective=objective)))
  several = 0
  for batch in batches:
    for b, k, record, position in origins(batch):
      column = batch.columns_BK[b, k]
      read_record, read_position = divmod(
        int(batch.tokens_BL[b, column]) - STRIDE, STRIDE
      )
      assert (read_record, read_position + 1) == (record, position)
      assert batch.positions_BL[b, column] == position - 1
      assert batch.segment_ids_BL[b, column] > 0
    several += (batch.segment_ids_BL.max(axis=1) > 1).sum()
  assert several > 10, 'packing was not tried'


def test_a_document_in_a_row_is_the_start_of_its_record_in_order(many):
  for batch in steps(BatchSource(many, config(objective='interventional'))):
    for b in range(len(batch.tokens_BL)):
      documents = batch.segment_ids_BL[b].max()
      for document in range(1, documents + 1):
        here = batch.segment_ids_BL[b] == document
        length = here.sum()
        assert (np.diff(np.flatnonzero(here)) == 1).all()
        assert batch.positions_BL[b, here].tolist() == [*range(length)]
        record = int(batch.tokens_BL[b, here][0]) // STRIDE - 1
        np.testing.assert_array_equal(
          batch.tokens_BL[b, here], many[record].tokens_T[:length]
        )


def test_what_is_not_in_use_is_zero(many):
  for batch in steps(BatchSource(many, config())):
    padding_BL = batch.segment_ids_BL == 0
    assert not batch.tokens_BL[padding_BL].any()
    assert not batch.positions_BL[padding_BL].any()
    unused_BK = batch.authors_BK == Provenance.PAD
    for name in ('columns_BK', 'targets_BK', 'weights_BK'):
      assert not getattr(batch, name)[unused_BK].any()


# -------------------------------------------------- every target, once an epoch


OBJECTIVES = ['observational', 'interventional', 'agent_only', 'error_masked']


@pytest.mark.parametrize('objective', OBJECTIVES)
@pytest.mark.parametrize('targets_per_row', [32, 5])
def test_an_epoch_scores_every_target_once(many, objective, targets_per_row):
  """With 5 targets a row, most records are split over several rows."""
  source = BatchSource(
    many, config(objective=objective, targets_per_row=targets_per_row)
  )
  expected = scored_positions(many, objective)
  for epoch in range(2):
    start = epoch * source.steps_per_epoch
    batches = [source[start + i] for i in range(source.steps_per_epoch)]
    assert counted(batches) == dict.fromkeys(expected, 1)
    for batch in batches:
      for b, k, *origin in origins(batch):
        assert batch.weights_BK[b, k] == expected[tuple(origin)]
        author = many[origin[0]].provenance_T[origin[1]]
        assert batch.authors_BK[b, k] == author


@pytest.mark.parametrize(
  ('objective', 'neighbours'),
  [('weighted_first(0.5)', [-1]), ('weighted_ends(0.5)', [-1, 1])],
)
def test_only_some_tokens_of_the_agents_turns_have_a_weight(
  many, objective, neighbours
):
  source = BatchSource(many, config(objective=objective))
  expected = scored_positions(many, 'weighted(0.5)')
  for record, position in expected:
    read = many[record]
    author_T, turn_T = read.provenance_T, read.segment_T
    same = [
      0 <= position + step < len(turn_T)
      and author_T[position + step] == Provenance.AGENT
      and turn_T[position + step] == turn_T[position]
      for step in neighbours
    ]
    if author_T[position] == Provenance.AGENT and all(same):
      expected[record, position] = 0
  found = {
    (record, position): batch.weights_BK[b, k]
    for batch in steps(source)
    for b, k, record, position in origins(batch)
  }
  assert found == expected
  assert {*found.values()} == {0, 0.5, 1}


@pytest.mark.parametrize('kind', ['first', 'ends'])
def test_tokens_of_turns_are_not_counted_for_a_trajectory(many, kind):
  settings = config(objective=f'weighted_{kind}(0.5)', normalize='trajectory')
  with pytest.raises(ValueError, match=r'cannot count; use config\.n'):
    BatchSource(many, settings)


def test_a_batch_has_room_for_as_many_targets_as_the_records_say(many):
  source = BatchSource(
    many, config(objective='USER=1,AGENT=1', targets_per_row=0)
  )
  K = source.plan.targets_per_row
  assert 0 < K < source.plan.seq_len == 64
  batches = steps(source)
  assert {batch.targets_BK.shape for batch in batches} == {(4, K)}
  expected = scored_positions(many, 'USER=1,AGENT=1')
  assert counted(batches) == dict.fromkeys(expected, 1)


def test_an_epoch_has_an_order_of_its_own(many):
  source = BatchSource(many, config())
  first, second = (
    [source[epoch * source.steps_per_epoch + i] for i in range(3)]
    for epoch in range(2)
  )
  assert [b.tokens_BL.tolist() for b in first] != [
    b.tokens_BL.tolist() for b in second
  ]


def test_unshuffled_epochs_read_the_records_in_their_own_order(many):
  """One record a step, as long as it needs; two epochs are the same."""
  source = BatchSource(
    many,
    config(
      batch_size=1,
      documents_per_row=1,
      seq_len=0,
      targets_per_row=0,
      shuffle=False,
    ),
  )
  with_targets = {
    record for record, _ in scored_positions(many, 'interventional')
  }
  for epoch in range(2):
    start = epoch * source.steps_per_epoch
    ids = [source.ids(start + i) for i in range(source.steps_per_epoch)]
    assert ids == [[f'record-{record}'] for record in sorted(with_targets)]
  shape_BL = source[0].tokens_BL.shape
  assert shape_BL == (1, 40)  # the longest record has 39 tokens
  assert {source[i].tokens_BL.shape for i in range(len(source))} == {shape_BL}


def test_the_last_batch_of_an_epoch_is_filled_up_with_rows_of_weight_0(many):
  source = BatchSource(many, config(batch_size=7))
  left = len(source.plan) % 7
  assert left, 'the last batch is whole: choose another number of rows'
  assert source.steps_per_epoch == len(source.plan) // 7 + 1
  last = source[source.steps_per_epoch - 1]
  assert last.weights_BK.any(axis=1).tolist() == [True] * left + [False] * (
    7 - left
  )
  for array in last:
    assert len(array) == 7
    assert not array[left:].any()


def test_the_ids_of_a_step_are_those_of_the_records_in_its_rows(many):
  """Row by row, in the order of the documents; a split record each time."""
  source = BatchSource(many, config(objective='agent_only', targets_per_row=5))
  for step in range(source.steps_per_epoch):
    batch = source[step]
    starts = (batch.segment_ids_BL > 0) & (batch.positions_BL == 0)
    first_tokens = batch.tokens_BL[starts]
    assert source.ids(step) == [
      many[token // STRIDE - 1].id for token in first_tokens.tolist()
    ]


# ------------------------------------------------------------------------ hosts


@pytest.mark.parametrize('host_count', [2, 4])
def test_the_rows_of_all_hosts_are_the_rows_of_one(many, host_count):
  whole = BatchSource(many, config())
  hosts = [
    BatchSource(many, config(), index, host_count)
    for index in range(host_count)
  ]
  assert {len(host) for host in hosts} == {len(whole)}
  for step in range(len(whole)):
    parts = [host[step] for host in hosts]
    assert_batches_equal(
      Batch(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True))),
      whole[step],
    )


def test_rows_that_do_not_divide_among_hosts_are_refused(many):
  message = 'config.batch_size=4 does not divide among 3 hosts'
  with pytest.raises(ValueError, match=message):
    BatchSource(many, config(), host_index=0, host_count=3)


# ---------------------------------------------------------- arms share one plan


def arm(objective, **changes):
  return config(objective=objective, plan_objective='observational', **changes)


@pytest.mark.parametrize(
  'objective', ['interventional', 'agent_only', 'weighted(0.3)']
)
def test_arms_that_share_a_plan_differ_in_their_weights_alone(many, objective):
  one = BatchSource(many, arm('observational'))
  other = BatchSource(many, arm(objective))
  assert len(one) == len(other)
  for step in range(len(one)):
    assert_batches_equal(one[step], other[step], but=['weights_BK'])
    assert (one[step].weights_BK != other[step].weights_BK).any()


@pytest.mark.parametrize(
  ('whole', 'one', 'rest'),
  [
    ('observational', 'interventional', 'agent_only'),
    ('error_masked', 'interventional', 'truth_only'),
  ],
)
def test_the_weights_of_two_arms_add_up_to_those_of_a_third(
  many, whole, one, rest
):
  sources = [BatchSource(many, arm(name)) for name in (whole, one, rest)]
  for step in range(len(sources[0])):
    whole_BK, one_BK, rest_BK = (source[step].weights_BK for source in sources)
    np.testing.assert_array_equal(whole_BK, one_BK + rest_BK)
    assert one_BK.any() and rest_BK.any()


@pytest.mark.parametrize(
  ('plan', 'objective'),
  [
    ('interventional', 'observational'),
    ('agent_only', 'interventional'),
    ('error_masked', 'observational'),
    ('USER=1', 'USER=1,TOOL=0.1'),
  ],
)
def test_a_plan_that_leaves_out_what_the_run_scores_is_refused(
  many, plan, objective
):
  message = f"planned for '{plan}', which leaves out tokens that '{objective}'"
  with pytest.raises(ValueError, match=message):
    BatchSource(many, config(objective=objective, plan_objective=plan))


@pytest.mark.parametrize(
  ('objective', 'plan'),
  [('TOOL=1', ''), ('TOOL=1', 'observational'), ('USER=0', 'observational')],
)
def test_a_run_in_which_every_token_weighs_0_is_refused(two, objective, plan):
  message = (
    f"objective '{objective}' gives every token of {two.folder} weight 0"
  )
  with pytest.raises(ValueError, match=message):
    BatchSource(two, one_row(objective=objective, plan_objective=plan))


# --------------------------------------------- each trajectory weighs the same


def trajectory(**changes):
  return config(normalize='trajectory', **changes)


@pytest.mark.parametrize('targets_per_row', [32, 5])
@pytest.mark.parametrize(
  ('objective', 'plan'),
  [
    ('interventional', ''),
    ('interventional', 'observational'),
    ('weighted(0.25)', 'observational'),
  ],
)
def test_the_weights_of_a_trajectory_sum_to_1(
  many, objective, plan, targets_per_row
):
  """Even where it is split over rows, and whatever else shares them."""
  source = BatchSource(
    many,
    trajectory(
      objective=objective, plan_objective=plan, targets_per_row=targets_per_row
    ),
  )
  sums, rows = collections.Counter(), collections.defaultdict(set)
  for step, batch in enumerate(steps(source)):
    for b, k, record, _ in origins(batch):
      sums[record] += float(batch.weights_BK[b, k])
      rows[record].add((step, b))
  scored = {record for record, _ in scored_positions(many, objective)}
  # 40 weights of float32, each rounded by 6e-8 of itself.
  for record in scored:
    assert sums[record] == pytest.approx(1, rel=1e-7)
  assert all(sums[record] == 0 for record in sums.keys() - scored)
  if targets_per_row == 5:
    assert max(len(where) for where in rows.values()) > 1


def test_the_windows_of_a_trajectory_weigh_1_together(tmp_path):
  """A long one weighs no more for being many records."""

  def window(number, record):
    return dataclasses.replace(record, window=number)

  made = [
    example(0, 'tuuau'),  # 3 scored targets
    example(1, 'tuuuu'),  # 4, and with its windows 8
    window(1, example(2, 'uuuuau', scored_from=2)),  # 3
    window(2, example(3, 'auauu', scored_from=4)),  # 1
    example(4, 'tua'),  # 1
  ]
  data = dataset.write(str(tmp_path), lambda: made, {})
  source = BatchSource(data, trajectory(objective='interventional'))
  found = collections.defaultdict(list)
  for batch in steps(source):
    for b, k, record, _ in origins(batch):
      found[record].append(float(batch.weights_BK[b, k]))
  assert found == {
    0: [pytest.approx(1 / 3)] * 3,
    1: [1 / 8] * 4,
    2: [1 / 8] * 3,
    3: [1 / 8],
    4: [1],
  }


def test_a_batch_of_one_dialogue_has_the_loss_of_the_paper(tmp_path):
  """Its code takes one dialogue a step, and the mean over the dialogue's own
  scored tokens. Here a row is one dialogue, and a batch is one row."""
  rng = np.random.default_rng(0)

  def examples():
    for record in range(10):
      yield example(record, 'ct' + ''.join(rng.choice([*'taaau'], 18)) + 't')

  data = dataset.write(str(tmp_path), examples, {})
  scored = scored_positions(data, 'interventional')
  nll = {origin: rng.gamma(2, 2) for origin in scored}
  source = BatchSource(
    data,
    trajectory(
      batch_size=1, seq_len=30, targets_per_row=30, objective='interventional'
    ),
  )
  seen, counts = set(), set()
  for batch in steps(source):
    assert batch.segment_ids_BL.max() == 1
    slots = origins(batch)
    values = [nll[record, position] for *_, record, position in slots]
    nll_BK = np.full(batch.weights_BK.shape, np.nan, np.float32)
    nll_BK[0, [k for _, k, *_ in slots]] = values
    loss = losses.normalize(*losses.weighted_sum(nll_BK, batch.weights_BK))
    # Weight and loss are rounded to float32, and a dozen products added up.
    assert float(loss) == pytest.approx(np.mean(values), rel=1e-6)
    seen.add(slots[0][2])
    counts.add(len(values))
  assert seen == set(range(10))
  assert len(counts) > 1, 'all dialogues have as many targets'


def test_by_default_each_token_weighs_the_same(two):
  """One record has 3 scored targets, the other 2."""
  by_token = BatchSource(two, one_row())[0].weights_BK
  assert by_token[0, :5].tolist() == [1, 1, 1, 1, 1]
  by_trajectory = BatchSource(two, one_row(normalize='trajectory'))[
    0
  ].weights_BK
  np.testing.assert_array_equal(
    by_trajectory[0, :5], np.float32([1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2])
  )


# ---------------------------------------------------------------- the iterator


@pytest.mark.parametrize(
  ('changes', 'expected'),
  [
    ({'epochs': 1}, lambda per_epoch: per_epoch),
    ({'epochs': 3}, lambda per_epoch: 3 * per_epoch),
    ({'epochs': 3, 'steps': 2}, lambda per_epoch: 2),
    ({'epochs': 1, 'steps': 1000}, lambda per_epoch: 1000),
  ],
)
def test_a_run_is_so_many_epochs_long_or_so_many_steps(many, changes, expected):
  source = BatchSource(many, config(**changes))
  assert source.steps_per_epoch > 2
  assert len(source) == expected(source.steps_per_epoch)


def test_steps_beyond_the_epochs_go_on_with_further_epochs(many):
  source = BatchSource(
    many, config(objective='interventional', epochs=1, steps=1000)
  )
  third = range(2 * source.steps_per_epoch, 3 * source.steps_per_epoch)
  expected = scored_positions(many, 'interventional')
  assert counted(source[i] for i in third) == dict.fromkeys(expected, 1)


def test_the_iterator_yields_the_steps_in_order(many):
  source = BatchSource(many, config())
  read = list(pipeline.batches(source))
  assert len(read) == len(source)
  for step, batch in enumerate(read):
    assert_batches_equal(batch, source[step])


def test_the_state_of_the_iterator_is_the_number_of_the_next_step(many):
  batches = pipeline.batches(BatchSource(many, config()))
  states = []
  for _ in range(3):
    states.append(batches.get_state())
    next(batches)
  assert states == [{'next_index': 0}, {'next_index': 1}, {'next_index': 2}]


def test_an_iterator_resumes_in_another_process_as_if_never_stopped(many):
  """A new source, as a new process would make; its end is the same too."""
  first = pipeline.batches(BatchSource(many, config()))
  for _ in range(3):
    next(first)
  state = first.get_state()
  resumed = pipeline.batches(BatchSource(many, config()))
  next(resumed)  # it has been somewhere else
  resumed.set_state(state)
  for one, other in zip(first, resumed, strict=True):
    assert_batches_equal(one, other)


def test_a_run_on_another_number_of_hosts_resumes_at_the_same_step(many):
  state = {'next_index': 3}
  whole = pipeline.batches(BatchSource(many, config()))
  whole.set_state(state)
  parts = []
  for host in range(2):
    half = pipeline.batches(BatchSource(many, config(), host, 2))
    half.set_state(state)
    parts.append(next(half))
  assert_batches_equal(
    Batch(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True))),
    next(whole),
  )


# --------------------------------------------------------------------- trimming


def test_a_tail_that_is_never_scored_changes_no_batch(tmp_path):
  """Under L_do, what the agent says last has no reader."""

  def made(tail):
    def examples():
      for record in range(20):
        yield example(record, 'ctuaatu' + tail * (record % 3))

    return dataset.write(str(tmp_path / f'tail{tail}'), examples, {})

  short, long = (
    BatchSource(made(tail), config(objective='interventional'))
    for tail in ('', 'aacaa')
  )
  assert len(short) == len(long)
  for step in range(len(short)):
    assert_batches_equal(short[step], long[step])


# --------------------------------------------- normalisers, to their limits


@pytest.mark.parametrize(
  ('authors', 'weights'),
  [
    # target  t     u     a     a
    ('cuaa', [2 / 3, 1 / 6, 1 / 6]),  # 1 + 1/4 + 1/4
    ('caaa', [1 / 3, 1 / 3, 1 / 3]),  # 3/4: less than one token of the user
    ('caca', [1 / 2, 1 / 2]),
    ('cca', [1]),  # 1/4 in all
  ],
)
def test_a_trajectory_weighs_1_whatever_its_weights_sum_to(
  authors, weights, tmp_path
):
  data = dataset.write(str(tmp_path), lambda: [example(0, authors)], {})
  source = BatchSource(
    data, one_row(objective='weighted(0.25)', normalize='trajectory')
  )
  used_K = source[0].weights_BK[0, : len(weights)]
  np.testing.assert_array_equal(used_K, np.float32(weights))
  assert not source[0].weights_BK[0, len(weights) :].any()


def test_a_trajectory_that_is_planned_and_not_scored_weighs_0(tmp_path):
  """Its weights sum to 0, and 0 / 0 would be nan in the loss of the others."""
  made = [example(0, 'caa'), example(1, 'cuu')]
  data = dataset.write(str(tmp_path), lambda: made, {})
  source = BatchSource(
    data,
    one_row(
      objective='interventional',
      plan_objective='observational',
      normalize='trajectory',
    ),
  )
  batch = source[0]
  assert {
    int(target): float(weight)
    for target, weight in zip(
      batch.targets_BK[0], batch.weights_BK[0], strict=True
    )
    if target
  } == {1001: 0, 1002: 0, 2001: 0.5, 2002: 0.5}


# ----------------------------------------------------------- refusals, in full


REFUSALS = {
  "objective 'TOOL=1' gives every token of FOLDER weight 0: there is nothing "
  'to learn from': {'objective': 'TOOL=1'},
  "rows are planned for 'USER=1', which leaves out tokens that 'observational' "
  'scores; plan for the latter': {
    'objective': 'observational',
    'plan_objective': 'USER=1',
  },
}


@pytest.mark.parametrize('message', REFUSALS)
def test_a_run_that_cannot_learn_is_told_why(two, message):
  with pytest.raises(ValueError) as error:
    BatchSource(two, one_row(**REFUSALS[message]))
  assert str(error.value) == message.replace('FOLDER', two.folder)


def test_a_batch_needs_as_many_records_as_the_mixture_has_components(two):
  """Or the records of one would be read under the weights of another."""
  with pytest.raises(ValueError, match='zip'):
    BatchSource([two, two], one_row())
