"""A wrapper around a torch optimizer that schedulers, gradient scalers and checkpoints take for an optimizer.

`OptimizerWrapper` owns neither parameter groups nor state: both are properties that read and write those of the wrapped
optimizer. Two simpler constructions lose checkpoints without an error. Attributes that share the base's list and dict
diverge from them in `load_state_dict`, which binds new objects. Read-only delegation fails because
`Optimizer.__setstate__` writes into the ``__dict__`` that the properties shadow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from textwrap import indent
from typing import Any, overload

from torch.optim import Optimizer


class _Placeholder:
    """Stands in for the base while `Optimizer.__init__` clears groups and state, so that the base keeps both."""

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Ignore the group: the base has it already."""


class OptimizerWrapper(Optimizer):
    """Wrap an optimizer; subclasses add to its step, this class adds nothing.

    Learning rate, momentum and state live in the base; the wrapper's ``param_groups`` and ``state`` read and write
    them. A checkpoint of the wrapper loads into the plain base (which ignores the extra group keys), and one of the
    plain base loads into the wrapper (whose own keys stay as they are). Step hooks and checkpoint hooks of wrapper and
    base are called once each; hooks registered for *all* optimizers are called twice per step, since two optimizers
    step. Attributes of the base are not forwarded, use ``wrapper.base``. This holds above all for
    ``_step_supports_amp_scaling``, with which a `GradScaler` would leave the skipping of a step with infinite gradients
    to the base alone. Only `train` and `eval` are forwarded, since loops call them where an optimizer has them.

    Example:
        >>> import ham, torch
        >>> class Counting(ham.OptimizerWrapper):
        ...     steps = 0
        ...     def step(self, closure=None):
        ...         self.steps += 1
        ...         return self.base.step(closure)
        >>> Counting(torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1)).param_groups[0]["lr"]
        0.1

    Args:
        base: The optimizer to wrap; it may have taken steps already.
        group_defaults: Defaults of the wrapper's own options per parameter group; a group's own value is kept.

    Attributes:
        base: The wrapped optimizer.
        group_defaults: The defaults, as given.

    Raises:
        TypeError: if ``base`` is not a `torch.optim.Optimizer`.
    """

    base: Optimizer
    group_defaults: dict[str, Any]
    # names of a subclass's own attributes, kept in copies and pickles and shown by repr
    _options: tuple[str, ...] = ()

    def __init__(self, base: Optimizer, group_defaults: Mapping[str, Any] | None = None):
        if not isinstance(base, Optimizer):
            raise TypeError(
                f"base: {type(self).__name__} wraps a torch.optim.Optimizer instance, not {_describe(base)}; build "
                "the base first, as torch.optim.SGD(model.parameters(), lr=0.1)"
            )
        self.group_defaults = dict(group_defaults or {})
        self.base = _Placeholder()  # pyright: ignore[reportAttributeAccessIssue]
        # schedulers read from `defaults` whether the base has momentum or betas
        super().__init__(base.param_groups, {**base.defaults, **self.group_defaults})
        self.base = base

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The base's parameter groups."""
        return self.base.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self.base.param_groups = groups

    @property
    def state(self) -> Any:
        """The base's state, by parameter."""
        return self.base.state

    @state.setter
    def state(self, state: Any) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self.base.state = state

    @property
    def needs_closure(self) -> bool:
        """Whether `step` needs a closure, because a wrapped optimizer evaluates the batch more than once (SAM)."""
        return getattr(self.base, "needs_closure", False)

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Check the wrapper's own options of a parameter group; raise an error if one is wrong.

        Args:
            group: The group with all defaults filled in, except that ``params`` may be any iterable.
        """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group to the base, filling in defaults of the wrapper's own options.

        Args:
            param_group: The group, as for `torch.optim.Optimizer.add_param_group`.
        """
        if isinstance(param_group, dict):  # the base raises the error for anything else
            self.check_group({**self.defaults, **param_group})
            for key, value in self.group_defaults.items():
                param_group.setdefault(key, value)
        self.base.add_param_group(param_group)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take the step of the base.

        Args:
            closure: Reevaluates the model and returns the loss; the base decides when to call it.

        Returns:
            The return value of the base: the loss if there is a closure.
        """
        return self.base.step() if closure is None else self.base.step(closure)

    def train(self) -> None:
        """Switch a base that has modes (a schedule-free one) to training mode; leave any other as it is."""
        _set_mode(self.base, "train")

    def eval(self) -> None:
        """Switch a base that has modes (a schedule-free one) to evaluation mode; leave any other as it is."""
        _set_mode(self.base, "eval")

    def state_dict(self) -> dict[str, Any]:
        """Return the base's state and groups, which include the wrapper's own options."""
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        state_dict = self.base.state_dict()
        for after in self._optimizer_state_dict_post_hooks.values():
            changed = after(self, state_dict)
            state_dict = state_dict if changed is None else changed
        return state_dict

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint of such a wrapper, or of the plain base.

        The base loads it by its own `load_state_dict`, which some optimizers of other packages override.

        Args:
            state_dict: The return value of `state_dict`; own options that it lacks keep their present values.
        """
        state_dict = state_dict.copy()
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            changed = before(self, state_dict)
            state_dict = state_dict if changed is None else changed
        own = self._own_options()
        self.base.load_state_dict(state_dict)
        self._restore_missing(own)
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def _own_options(self) -> list[dict[str, Any]]:
        return [{key: group[key] for key in self.group_defaults if key in group} for group in self.param_groups]

    def _restore_missing(self, own: list[dict[str, Any]]) -> None:
        for group, options in zip(self.param_groups, own, strict=True):
            for key, value in options.items():
                group.setdefault(key, value)

    def __getstate__(self) -> dict[str, Any]:
        # hooks are left out, as by every torch optimizer; groups and state are pickled with the base
        names = ("base", "defaults", "group_defaults", *self._options)
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        rest = dict(state)
        routed = {key: rest.pop(key) for key in ("state", "param_groups") if key in rest}
        super().__setstate__(rest)
        if routed:  # torch's own load_state_dict, called on the wrapper, ends in this branch
            own = self._own_options()
            self.base.__setstate__(routed)
            self._restore_missing(own)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._options)
        return f"{type(self).__name__}({options}) around\n{indent(repr(self.base), '    ')}"


def _set_mode(base: Optimizer, mode: str) -> None:
    change = getattr(base, mode, None)
    if callable(change):
        change()


def _describe(value: object) -> str:
    """Name a value that is no optimizer; of tensors and what holds them, the type says more than the numbers."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"{value!r:.60}" if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
