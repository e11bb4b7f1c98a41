"""Jinja environment for chat templates that keeps the origins of tracked text.

The environment is set up as in transformers. Two changes to the compiler add
the turn to the template's own text: this text gets an origin when it is
emitted or collected in a namespace, and each loop reports its current message.
The header of a turn is thereby assigned to that turn without any knowledge of
its wording.

The work of a template is limited; see `limits`.
"""

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.optimizer import Optimizer
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import generate_lorem_ipsum

from isft_jax.data.rendering import limits as limits_lib
from isft_jax.data.rendering import tracked_str
from isft_jax.data.rendering.limits import (
  CALL,
  CONTAINERS,
  ITEMS_PER_STEP,
  Limits,
)
from isft_jax.data.rendering.tracked_str import LITERAL, Tracked

_DICT_ATTRIBUTES = frozenset(dir(dict))
# Methods that are safe without the sandbox: they only read their string.
# `format` can reach attributes of its arguments.
_STR_METHODS = frozenset(name for name in dir(str) if name[0] != '_') - {
  'format',
  'format_map',
}


_LOOP_ATTRIBUTES = frozenset(
  ('first', 'last', 'index', 'index0', 'revindex', 'revindex0', 'length')
)

# Filters that return a text unchanged, a part of it, or the result of a method
# of str, so that `Tracked` keeps the origins right.
_TRACKED_FILTERS = frozenset(
  (
    *('attr', 'capitalize', 'd', 'default', 'first', 'last', 'lower', 'max'),
    *('min', 'random', 'replace', 'reverse', 'title', 'trim', 'truncate'),
    'upper',
  )
)
# Arguments that compiled templates add to a call in a loop or in a block.
_JINJA_ARGUMENTS = ('_loop_vars', '_block_vars')
# Operators that can make a large value at once, except `+`: see `added`.
_BINOPS: dict[str, Callable[[Any, Any], Any]] = {
  '*': operator.mul,
  '**': operator.pow,
  '%': operator.mod,
}
_LONG = 4096  # characters; shorter texts cost nothing
# Fields of a message: their size is limited before rendering.
_OF_A_ROW = (tracked_str.TrackedDict, tracked_str.TrackedList)
_PER_STEP = 4  # expressions


class Message(dict):
  """A message of a conversation that knows the index of its turn."""

  def __init__(self, turn: int) -> None:
    super().__init__()
    self._turn = turn  # the sandbox refuses names with an underscore


class _Generator(CodeGenerator):
  """Compiles templates to code that calls the tracking functions."""

  # The operator `~`: Jinja's own code would join plain strings.
  def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
    self.write("environment.joined('', (")
    for child in node.nodes:
      self.visit(child, frame)
      self.write(', ')
    self.write('))')

  def visit_Add(self, node: nodes.BinExpr, frame: Frame) -> None:
    self.write('environment.added(')
    self.visit(node.left, frame)
    self.write(', ')
    self.visit(node.right, frame)
    self.write(')')

  # Lists of lists can grow without bound, a doubling at a time.
  def visit_List(self, node: nodes.List, frame: Frame) -> None:
    self.write('environment.built(')
    super().visit_List(node, frame)
    self.write(')')

  def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
    self.write('environment.built(')
    super().visit_Dict(node, frame)
    self.write(')')

  def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
    if node.ctx != 'load':
      super().visit_Tuple(node, frame)
      return
    self.write('environment.built(')
    super().visit_Tuple(node, frame)
    self.write(')')

  def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
    if not isinstance(node.arg, nodes.Slice):
      super().visit_Getitem(node, frame)
      return
    # A slice is a copy.
    self.write('environment.sliced(')
    super().visit_Getitem(node, frame)
    self.write(')')

  def visit_Call(
    self, node: nodes.Call, frame: Frame, forward_caller: bool = False
  ) -> None:
    if not isinstance(node.node, nodes.EnvironmentAttribute):
      super().visit_Call(node, frame, forward_caller=forward_caller)
      return
    # A call that `_mark_turns` inserted. It bypasses the sandbox.
    self.visit(node.node, frame)
    self.write('(')
    for argument in node.args:
      self.visit(argument, frame)
    self.write(')')

  # Constant text is emitted at run time, when its turn is known.
  def _output_const_repr(self, group: Iterable[Any]) -> str:
    return f'environment.finalize({super()._output_const_repr(group)})'


class _Generation(jinja2.ext.Extension):
  """Accepts {% generation %}, which marks masks for other trainers."""

  tags = {'generation'}  # noqa: RUF012 (Jinja wants a set)

  def parse(self, parser: Parser) -> nodes.Scope:
    line = next(parser.stream).lineno
    # The body is rendered as if the tags were not there.
    body = parser.parse_statements(('name:endgeneration',), drop_needle=True)
    return nodes.Scope(body, lineno=line)


class _Folder(Optimizer):
  """Computes the constants of a template as Jinja does, within limits.

  Jinja computes them when it compiles a template, also those that it never
  prints.
  """

  def __init__(self, environment: 'Environment') -> None:
    super().__init__(environment)
    self._context = nodes.EvalContext(environment)
    self._limits = environment.limits
    self._length = 0

  def generic_visit(
    self, node: nodes.Node, *args: Any, **kwargs: Any
  ) -> nodes.Node:
    # Children first, so that they are constants.
    node = super(Optimizer, self).generic_visit(node, *args, **kwargs)
    if not isinstance(node, nodes.Expr) or isinstance(node, nodes.Const):
      return node
    try:
      value = self._value(node)
    except Exception:
      if self._limits.exceeded:
        raise self._limits.exceeded from None
      return node
    self._limits.check_value(value)
    if isinstance(value, str | bytes):
      self._length += len(value)
      self._limits.check_length(self._length)
    return nodes.Const(value, lineno=node.lineno)

  def _value(self, node: nodes.Expr) -> Any:
    """Returns the value of a constant; raises any error for others."""
    if not isinstance(node, nodes.BinExpr) or node.operator not in _BINOPS:
      return node.as_const(self._context)
    left, right = node.left, node.right
    if not isinstance(left, nodes.Const) or not isinstance(right, nodes.Const):
      raise nodes.Impossible
    self._limits.check_binop(node.operator, left.value, right.value)
    return _BINOPS[node.operator](left.value, right.value)


class Environment(ImmutableSandboxedEnvironment):
  """Renders one template at a time and keeps the index of its current turn."""

  code_generator_class = _Generator
  intercepted_binops = frozenset(_BINOPS)

  def __init__(self) -> None:
    # The options of transformers' chat templates.
    super().__init__(
      trim_blocks=True,
      lstrip_blocks=True,
      extensions=[_Generation, jinja2.ext.loopcontrols],
      finalize=self.emit,
    )
    self.limits = Limits()
    filters: dict[str, Callable[..., Any]] = {
      **{
        name: _checked_filter(filter, name in _TRACKED_FILTERS)
        for name, filter in self.filters.items()
      },
      'format': _percent_filter,
      'indent': tracked_str.indent,
      'join': self._join,
      'string': tracked_str.written,
      'safe': tracked_str.safe,
      'tojson': tracked_str.to_json,
    }
    self.filters = {
      name: self._limited(name, filter) for name, filter in filters.items()
    }
    self.globals['raise_exception'] = _raise
    # Index of the current turn, the turns outside of the current loops, and the
    # codes of each turn's literals: printed, or collected in a namespace.
    self._turn = -1
    self._outer: list[int] = []
    # The current item of a loop over indices of messages.
    self._index: int | None = None
    self._literals: Sequence[str] = [LITERAL]
    self._collected: Sequence[str] = [LITERAL]

  def render(
    self,
    template: jinja2.Template,
    context: dict[str, Any],
    literals: Sequence[str],
    collected: Sequence[str],
  ) -> tuple[Tracked, str]:
    """Renders a template.

    Args:
      template: the compiled template.
      context: its variables.
      literals: code of the literals of each turn; the last one is for text
        outside of all turns.
      collected: the same for literals that are collected in a namespace.

    Returns:
      The tracked text, and one code of `literals` per character: the turn that
      the template was processing when it wrote that character.

    Raises:
      OverLimitError: the template exceeds a limit of `limits`.
      Exception: any error that the template raises.
    """
    self._turn, self._outer, self._index = -1, [], None
    self._literals, self._collected = literals, collected
    messages = context.get('messages')
    number = len(messages) if isinstance(messages, Sequence) else 0
    self.limits = Limits(limits_lib.size(context), number)
    pieces: list[Tracked] = []
    homes: list[str] = []
    length = 0
    # The template is a generator: `self._turn` changes between its pieces.
    for piece in template.root_render_func(template.new_context(context)):
      pieces.append(self.emit(piece))
      length += len(piece)
      self.limits.check_whole(length)
      homes.append(literals[self._turn] * len(piece))
    codes = ''.join(piece.origins for piece in pieces)
    self.limits.check_stretches(len(pieces))
    return Tracked(''.join(pieces), codes), ''.join(homes)

  def emit(self, value: object) -> Tracked:
    """Returns a value as text; literals become literals of the current turn."""
    if type(value) is Tracked:
      text: str = value
    else:
      text = tracked_str.written(self.printed(value))
    if len(text) > _LONG:
      self.limits.check_length(len(text))
    literal = self._literals[self._turn]
    if not isinstance(text, Tracked):
      return Tracked(text, literal * len(text))
    codes = text.origins.replace(LITERAL, literal)
    # A block that was captured before the first turn, and is printed in this
    # one, belongs to this one.
    return Tracked(text, codes.replace(self._literals[-1], literal))

  def _parse(
    self, source: str, name: str | None, filename: str | None
  ) -> nodes.Template:
    # Once to compute the constants, whose tree is then thrown away.
    self.limits = Limits()
    _Folder(self).visit(super()._parse(source, name, filename))
    tree = super()._parse(source, name, filename)
    _mark_turns(tree)
    return tree

  # The generated code calls the next methods.
  def concat(self, pieces: Iterable[Any]) -> Tracked:
    """Returns the text of a macro or of a block."""
    return self.joined('', pieces)

  def joined(self, separator: str, values: Iterable[Any]) -> Tracked:
    """Joins values like str.join, with origins."""
    texts: list[str] = []
    length = 0
    for value in values:
      if type(value) is not Tracked:
        value = tracked_str.written(self.printed(value))
      texts.append(value)
      length += len(value) + len(separator)
      self.limits.check_whole(length)
    if length > _LONG:
      self.limits.check_length(length)
    codes = tracked_str.origins(separator).join(map(tracked_str.origins, texts))
    return Tracked(str.join(separator, texts), codes)

  def added(self, left: Any, right: Any) -> Any:
    """Returns left + right, a text or a list of limited length."""
    result = left + right
    if type(result) is Tracked or isinstance(result, str):
      if len(result) > _LONG:
        self.limits.check_length(len(result))
    elif isinstance(result, list | tuple | bytes):
      self.limits.check_items(len(result))
    return result

  def built(self, value: Any) -> Any:
    """Returns a list, an object or any other value, if it is not too large."""
    if isinstance(value, CONTAINERS):
      self.limits.check_value(value)
    return value

  def printed(self, value: Any) -> Any:
    """Returns a value to print, if its text is not too long."""
    if isinstance(value, CONTAINERS) and type(value) not in _OF_A_ROW:
      self.limits.check_printed('string', value)
    return value

  def sliced(self, value: Any) -> Any:
    """Returns a slice of a text or of a list, whose length takes time."""
    if isinstance(value, str):
      if len(value) > _LONG:
        self.limits.check_length(len(value))
    elif isinstance(value, list | tuple):
      self.limits.spend(len(value) // ITEMS_PER_STEP)
    return value

  def compared(self, value: Any) -> Any:
    """Returns the right side of a comparison, whose length takes time."""
    is_long = isinstance(value, str) and len(value) > _LONG
    if is_long or isinstance(value, CONTAINERS):
      self.limits.check_read(value)
    return value

  # `_mark_turns` inserts calls of the next methods into templates.
  def tick(self, steps: int) -> bool:
    """Counts the steps of an iteration or of a macro."""
    limits = self.limits
    limits.steps_left -= steps
    if limits.steps_left < 0:
      limits.spend(0)
    return True

  def push(self) -> None:
    """Begins a loop."""
    self._outer.append(self._turn)

  def enter(self, item: object) -> None:
    """Begins an iteration."""
    # An item that is not a message of ours, such as a tool call or a message
    # that the template makes up, keeps the turn outside of the loop. So does an
    # earlier message: the template looks something up in it, such as the id of
    # the call that a tool answers.
    outer = self._outer[-1]
    turn = item._turn if isinstance(item, Message) else -1
    self._turn = max(turn, outer)
    # {% for i in range(messages | length) %}: `getitem` enters messages[i].
    self._index = item if type(item) is int and outer < 0 else None

  def pop(self) -> None:
    """Ends a loop."""
    self._turn = self._outer.pop()

  def settle(self, value: object) -> object:
    """Returns a value for a namespace; its literals belong to this turn.

    Some templates collect all turns in a namespace, and print it at the end.
    """
    if not isinstance(value, Tracked) or self._turn < 0:
      return value
    codes = value.origins.replace(LITERAL, self._collected[self._turn])
    return Tracked(value, codes)

  def getitem(self, obj: Any, argument: Any) -> Any:
    if isinstance(obj, dict) and type(argument) is str and argument in obj:
      return obj[argument]
    value = super().getitem(obj, argument)
    # In a loop over numbers: the message of this number, or, if the template
    # counts in another variable, the first message that it takes.
    is_turn = argument == self._index or self._turn < 0
    if self._index is not None and is_turn and isinstance(value, Message):
      self._turn = value._turn
    return value

  # Jinja checks every attribute with its sandbox, which takes twice as long as
  # all the rest of rendering. Keys of dicts, methods of text and
  # counters of loops skip it.
  def getattr(self, obj: Any, attribute: str) -> Any:
    if isinstance(obj, dict) and attribute not in _DICT_ATTRIBUTES:
      if attribute in obj:
        return obj[attribute]
      if attribute[0] != '_':
        return self.undefined(obj=obj, name=attribute)
    if type(obj) is Tracked and attribute in _STR_METHODS:
      return getattr(obj, attribute)
    if type(obj) is LoopContext and attribute in _LOOP_ATTRIBUTES:
      return getattr(obj, attribute)
    return super().getattr(obj, attribute)

  def call(
    __self, __context: Context, __callable: Any, *args: Any, **kwargs: Any
  ) -> Any:
    owner = getattr(__callable, '__self__', None)
    # The sandbox wraps str.format.
    format: Any = getattr(__callable, '__wrapped__', None)
    is_format = getattr(format, '__name__', '') in ('format', 'format_map')
    own_kwargs = {k: v for k, v in kwargs.items() if k not in _JINJA_ARGUMENTS}
    limits = __self.limits
    limits.spend(CALL)
    if is_format:
      limits.check_call(format.__self__, format.__name__, args, own_kwargs)
    elif isinstance(owner, str | bytes | int):
      if __callable.__name__ == 'join' and args:
        # The items of a generator are known after it has run.
        is_known = isinstance(args[0], (str, bytes, range, *CONTAINERS))
        args = args if is_known else ([*args[0]],)
      limits.check_call(owner, __callable.__name__, args, own_kwargs)
    elif isinstance(owner, list | tuple):
      limits.spend(len(owner) // ITEMS_PER_STEP)
    elif __callable is generate_lorem_ipsum:
      limits.check_items(1 << 30)  # random words belong to no conversation
    # A method of a literal that takes tracked text, as ', '.join(names).
    joins = getattr(__callable, '__name__', '') == 'join'
    if type(owner) is str and (joins or tracked_str.is_tracked(args)):
      owner = Tracked(owner, tracked_str.origins(owner))
      __callable = getattr(owner, __callable.__name__)
    if type(owner) is Tracked and __callable.__name__ in _STR_METHODS:
      result = __callable(*args, **own_kwargs)
    else:
      result = super().call(__context, __callable, *args, **kwargs)
    if is_format and format.__name__ == 'format':
      text = format.__self__
      return tracked_str.brace_format(text, result, args, own_kwargs)
    # Methods such as get() return an item with the origins that it has.
    if isinstance(owner, dict | list):
      return result
    return _checked(result, owner, *args, *own_kwargs.values())

  def call_binop(
    self, context: Context, operator: str, left: Any, right: Any
  ) -> Any:
    self.limits.check_binop(operator, left, right)
    if operator == '%' and isinstance(left, str):
      return tracked_str.percent_format(left, right)
    result = super().call_binop(context, operator, left, right)
    return _checked(result, left, right) if operator == '%' else result

  def _limited(
    self, name: str, filter: Callable[..., Any]
  ) -> Callable[..., Any]:
    """Wraps a filter so that its work is counted."""
    # Some filters get the environment before the value.
    place = 1 if hasattr(filter, 'jinja_pass_arg') else 0

    @functools.wraps(filter)  # keeps the attributes that Jinja sets on filters
    def limited(*args: Any, **kwargs: Any) -> Any:
      value = args[place]
      others = args[place + 1 :]
      # Most filters have no arguments, and a short text or a field of a message
      # as their value.
      is_small = type(value) in _OF_A_ROW or (
        isinstance(value, str) and len(value) < _LONG
      )
      if others or kwargs or not is_small:
        self.limits.check_filter(name, value, others, kwargs)
      result = filter(*args, **kwargs)
      if isinstance(result, str | list) and len(result) > _LONG:
        self.limits.check_value(result)
      return result

    return limited

  def _join(
    self,
    values: Iterable[Any],
    separator: str = '',
    attribute: str | None = None,
  ) -> Tracked:
    if attribute is not None:
      values = (self.getitem(value, attribute) for value in values)
    return self.joined(separator, values)


def _percent_filter(text: str, *values: Any, **named: Any) -> str:
  """The filter `format`, which is the operator %."""
  return tracked_str.percent_format(text, named or values)


def _mark_turns(node: nodes.Node) -> None:
  """Inserts calls that tell the environment which turn writes what.

  {% for m in messages %} ... {% endfor %}
  -> push(); {% for m in messages %} enter(m) ... {% endfor %}; pop()

  {% set ns.text = ns.text ~ m.content %}
  -> {% set ns.text = settle(ns.text ~ m.content) %}
  """
  if isinstance(node, nodes.Compare):
    _count_comparisons(node)
  # Recurse into single children, and rebuild lists of children.
  for _, children in node.iter_fields():
    if isinstance(children, nodes.Node):
      _mark_turns(children)
    if not isinstance(children, list):
      continue
    marked = []
    for child in children:
      if isinstance(child, nodes.Node):
        _mark_turns(child)
      if isinstance(child, nodes.Assign) and isinstance(
        child.target, nodes.NSRef
      ):
        child.node = _call('settle', [child.node], child.lineno)
      if isinstance(child, nodes.For | nodes.Macro | nodes.CallBlock):
        _count_steps(child)
      if isinstance(child, nodes.For) and isinstance(child.target, nodes.Name):
        item = nodes.Name(child.target.name, 'load')
        child.body.insert(0, _statement('enter', [item], child.lineno))
        marked += [
          _statement('push', [], child.lineno),
          child,
          _statement('pop', [], child.lineno),
        ]
      else:
        marked.append(child)
    children[:] = marked


def _count_steps(block: nodes.For | nodes.Macro | nodes.CallBlock) -> None:
  """Inserts a tick into each iteration, and into the test of each item."""
  line, outputs = block.lineno, block.find_all(nodes.Expr)
  steps = 1 + sum(1 for _ in outputs) // _PER_STEP
  tick = [nodes.Const(steps, lineno=line)]
  if isinstance(block, nodes.For) and block.test is not None:
    block.test = nodes.And(_call('tick', tick, line), block.test)
    block.test.set_lineno(line)
  block.body.insert(0, _statement('tick', list(tick), line))


def _count_comparisons(comparison: nodes.Compare) -> None:
  """Counts comparisons whose sides may both be long."""
  for operand in comparison.ops:
    if not isinstance(operand.expr, nodes.Const | nodes.List | nodes.Tuple):
      line = operand.lineno or comparison.lineno
      operand.expr = _call('compared', [operand.expr], line)


def _call(method: str, arguments: list[Any], line: int) -> nodes.Call:
  """Returns an expression that calls a method of the environment."""
  attribute = nodes.EnvironmentAttribute(method)
  call = nodes.Call(attribute, arguments, [], None, None)
  call.set_lineno(line, override=True)
  return call


def _statement(
  method: str, arguments: list[nodes.Expr], line: int
) -> nodes.Node:
  """Returns a statement that calls a method of the environment."""
  call = _call(method, arguments, line)
  return nodes.ExprStmt(call).set_lineno(line, override=True)


def _checked_filter(
  filter: Callable[..., Any], keeps_origins: bool
) -> Callable[..., Any]:
  """Wraps a filter of Jinja so that its text is UNKNOWN if origins are lost."""

  @functools.wraps(filter)  # keeps the attributes that Jinja sets on filters
  def checked(*args: Any, **kwargs: Any) -> Any:
    result = filter(*args, **kwargs)
    if isinstance(result, Tracked) and not keeps_origins:
      result = str.__str__(result)
    return _checked(result, *args, *kwargs.values())

  return checked


def _checked(result: Any, *sources: object) -> Any:
  """Returns a result; plain text made from tracked sources becomes UNKNOWN."""
  if isinstance(result, Tracked) or not isinstance(result, str | bytes):
    return result
  if not any(map(tracked_str.is_tracked, sources)):
    # str() turns Markup into text: Markup would absorb other text untracked.
    return str(result) if isinstance(result, str) else result
  if isinstance(result, bytes):
    raise jinja2.TemplateError('bytes have no tracked origin')
  return tracked_str.lost(str(result))


def _raise(message: str) -> NoReturn:
  raise jinja2.TemplateError(message)
