"""The pages of configuration keys, of the table file and of profiles, from schema, base files and docstrings."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from experiments.config.described import DescribedKey, described
from experiments.config.optimizer_words import with_words_of_optimizers
from experiments.config.schema import CellRule, Spec, SweepSpec
from experiments.rundir.names import identifies
from slurm.profile import Profile

from .markdown import code, table

_ROOT = Path(__file__).resolve().parents[2]
_HEAD = ("key", "allowed", "default", "meaning")

_CONFIGURATION = """# Configuration keys

A configuration is a YAML file. It holds only what differs from the defaults below, which are those of
`configs/base.yaml`:

```yaml
extends: [recipes/fashion_mnist_resnet8]   # other files, read first: names of the package's, or paths
topology: {name: rigl, sparsity: 0.9}      # nested, or
optimizer.lr: 0.2                          # dotted
```

On the command line the same keys follow the file: `ham run base topology.name=rigl optimizer.lr=0.2`. Values are
YAML, so quote mappings and lists for the shell: `'sweep.seeds=[0, 1]'`. A key that does not exist, a wrong type or
a value out of range is refused with its place and what is allowed, before anything starts.

`ham config` says all this in the terminal:

```bash
ham config optimizer.lr            # meaning, range, default, and whether a change trains anew
ham config optimizer               # all keys of a section
ham config quickstart              # what a configuration sets and where, and what each row changes
ham config base topology.name=rigl topology   # the keys of a section, with options of the method
```

- `sweep` describes a table: see [the table file](table_file.md).
- Options of a method are set beside its name: see [methods](methods/index.md).
- Keys marked with ○ are not part of a run's [identity](../explanation/identity.md): changing them trains nothing again.

## extends

`extends` is a list of files that this one adds to: names of the package's configurations without `.yaml`, which
work from any folder, or files, relative to this one. Later files win over earlier ones; mappings merge level by
level, anything else is replaced. It cannot be set on the command line.
"""

_TABLE_FILE = """# The table file

A table is rows × columns × seeds, in the section `sweep` of a configuration. This one is complete; save
it as `first.yaml`:

```yaml
extends: [recipes/fashion_mnist_resnet8]
schedule.epochs: 2
sweep:
  columns: {topology.sparsity: [0.8, 0.9]}
  seeds: [0, 1]
  rows:
    GMP: {topology: {name: gmp, sparsity: 0.9, update_every: 6}}
    GMP + HAM: {topology: {name: gmp, sparsity: 0.9, update_every: 6}, optimizer.ham: {alpha: 5.0}}
  baselines: {GMP + HAM: GMP}
```

```bash
ham sweep first.yaml --dry-run   # lists the runs
ham sweep first.yaml             # trains those that have no result yet
ham table runs/first             # the table
```

A row is a mapping of overrides. A dotted key sets one value; a mapping replaces the whole value at its key, so
`optimizer: {lr: 0.2}` would lose all other keys of `optimizer`, and `optimizer.lr: 0.2` keeps them. Columns
override rows, and rules of `cells` override both. `imports`, `extends`, `label` and `seed` belong to the whole
file. [Your first comparison](../tutorials/first_comparison.md) walks through one.
"""

_CELLS = """
## Rules for some cells

```yaml
cells:
  - when: {row: GMP, topology.sparsity: [0.9, 0.95]}   # a value, or a list of values
    set: {optimizer.lr: 0.1}
```
"""

_PROFILE = """# Profile keys

A profile is a YAML file with the settings of one cluster; [Slurm](../howto/slurm.md) says how to make and name one.
It holds only what differs from the defaults below, which are those of `slurm/profiles/default.yaml`. `resources` of
a configuration overrides the keys of the same names.
"""


def page() -> str:
    """Return the page of configuration keys, by section."""
    keys = described(Spec, _ROOT / "configs/base.yaml")
    parts = [_CONFIGURATION]
    for section, group in groupby(keys, lambda key: key.path.partition(".")[0] if "." in key.path else ""):
        parts += [f"## {section or 'Without a section'}", _rows(map(with_words_of_optimizers, group), _mark)]
    return "\n\n".join(parts)


def table_file() -> str:
    """Return the page of the section ``sweep``."""
    return "\n\n".join([_TABLE_FILE, _rows(described(SweepSpec, above="sweep")), _CELLS, _rows(described(CellRule))])


def profile() -> str:
    """Return the page of profile keys."""
    return "\n\n".join([_PROFILE, _rows(described(Profile, _ROOT / "slurm/profiles/default.yaml"))])


def _rows(keys: Iterable[DescribedKey], mark=lambda key: "") -> str:
    rows = [(code(key.path) + mark(key), key.allowed, code(key.default), key.meaning) for key in keys]
    return table(_HEAD, rows)


def _mark(key: DescribedKey) -> str:
    return "" if identifies(key.path) else " ○"
